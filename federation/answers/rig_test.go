package answers_test

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/teahouse-chat/teahouse/accounts/data"
	"github.com/teahouse-chat/teahouse/accounts/profiles"
	"github.com/teahouse-chat/teahouse/directory"
	"github.com/teahouse-chat/teahouse/federation/answers"
	"github.com/teahouse-chat/teahouse/federation/keys"
	"github.com/teahouse-chat/teahouse/federation/transport"
	"github.com/teahouse-chat/teahouse/internal/db"
	"github.com/teahouse-chat/teahouse/internal/db/dbtest"
	"github.com/teahouse-chat/teahouse/internal/httpx"
	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms"
	"github.com/teahouse-chat/teahouse/rooms/event"
	. "github.com/teahouse-chat/teahouse/rooms/roomstest"
	"github.com/teahouse-chat/teahouse/rooms/spaces"
)

// rig is an engine behind the doors that other servers knock at. Every signature
// counts.
type rig struct {
	*Rig
	people *profiles.Profiles
	data   *data.Data
	dir    *directory.Directory
	http   http.Handler
}

type trusting struct{}

func (trusting) Verify(_ context.Context, checks []keys.Check) []error {
	return make([]error, len(checks))
}

type everyone struct{}

func (everyone) Exists(_ context.Context, u matrix.UserID) (bool, error) {
	return u.Localpart() != "nobody", nil
}

type profileSource struct{ *profiles.Profiles }

func (p profileSource) Profile(ctx context.Context, user matrix.UserID, key string) (map[string]json.RawMessage, error) {
	return p.Lookup(ctx, user, key)
}

func newRig(t testing.TB, kind string) *rig {
	t.Helper()
	g := &rig{}
	g.Rig = New(t, dbtest.URL(t, kind), func(inner *Rig) []httpx.Route { return g.open(inner) })
	return g
}

func (g *rig) open(inner *Rig) []httpx.Route {
	var err error
	if g.people, err = profiles.New(profiles.Deps{DB: inner.DB, ServerName: Server, Users: everyone{}, Log: slog.New(slog.DiscardHandler)}); err != nil {
		inner.Fatal(err)
	}
	if g.data, err = data.New(data.Deps{DB: inner.DB, ServerName: Server, Now: time.Now}); err != nil {
		inner.Fatal(err)
	}
	g.dir = directory.New(directory.Deps{DB: inner.DB, Engine: inner.Engine})
	tree := spaces.New(spaces.Deps{DB: inner.DB, Engine: inner.Engine, Aliases: g.dir})
	a := answers.New(answers.Deps{
		Engine: inner.Engine, Directory: g.dir, Profiles: profileSource{g.people}, OpenID: g.data, Spaces: tree, Now: time.Now,
		Auth: transport.NewAuthenticator(transport.AuthOptions{Server: Server, Keys: trusting{}, Now: time.Now}),
	})
	edge := httpx.New(httpx.Options{Log: slog.New(slog.DiscardHandler)})
	edge.Add("federation", a.Routes()...)
	g.http = edge.Handler("federation")
	return g.dir.Routes()
}

func each(t *testing.T, f func(t *testing.T, g *rig)) {
	for _, kind := range []string{"sqlite", "postgres"} {
		t.Run(kind, func(t *testing.T) { f(t, newRig(t, kind)) })
	}
}

// ask sends a request as a server, "" for nobody; path is what follows v1.
func (g *rig) ask(origin matrix.ServerName, method, path, body string) (int, string) {
	g.Helper()
	r := httptest.NewRequest(method, "/_matrix/federation/v1"+path, strings.NewReader(body))
	if origin != "" {
		r.Header.Set("Authorization", transport.Header{Origin: origin, Destination: Server, Key: "ed25519:1", Signature: "c2ln"}.String())
	}
	w := httptest.NewRecorder()
	g.http.ServeHTTP(w, r)
	return w.Code, w.Body.String()
}

// get asks for something that must be there.
func get[T any](g *rig, origin matrix.ServerName, path string) (answer T) {
	g.Helper()
	return want[T](g, origin, "GET", path, "")
}

func want[T any](g *rig, origin matrix.ServerName, method, path, body string) (answer T) {
	g.Helper()
	code, text := g.ask(origin, method, path, body)
	if code != http.StatusOK {
		g.Fatalf("%s: %s %s: %d %.300s", origin, method, path, code, text)
	}
	if err := json.Unmarshal([]byte(text), &answer); err != nil {
		g.Fatalf("%s: %s %s: %v in %.300s", origin, method, path, err, text)
	}
	return answer
}

// refused asks for something that must not be given.
func (g *rig) refused(origin matrix.ServerName, method, path, body string, status int, errcode matrix.Code) {
	g.Helper()
	code, text := g.ask(origin, method, path, body)
	var answer struct {
		Code matrix.Code `json:"errcode"`
	}
	if err := json.Unmarshal([]byte(text), &answer); err != nil || code != status || answer.Code != errcode {
		g.Errorf("%s: %s %s %s: %d %.300s; want %d %s", origin, method, path, body, code, text, status, errcode)
	}
}

// pdus is an answer with events in it, by whatever name.
type pdus struct {
	Origin matrix.ServerName `json:"origin"`
	TS     int64             `json:"origin_server_ts"`
	PDUs   []json.RawMessage `json:"pdus"`
	Chain  []json.RawMessage `json:"auth_chain"`
	Events []json.RawMessage `json:"events"`
}

// texts are the bodies of the events, "-" where there is none, and the types of
// those that are no messages.
func texts(t testing.TB, r *rooms.Room, list []json.RawMessage) []string {
	t.Helper()
	var all []string
	for _, raw := range list {
		ev, err := event.Parse(r.Version, raw)
		if err != nil {
			t.Fatalf("%v in %s", err, raw)
		}
		if ev.Type != matrix.TypeMessage {
			all = append(all, ev.Type)
			continue
		}
		var c struct{ Body string }
		if err := json.Unmarshal(ev.Content, &c); err != nil {
			t.Fatal(err)
		}
		if c.Body == "" {
			c.Body = "-"
		}
		all = append(all, c.Body)
	}
	return all
}

// publish lists a room in the public directory.
func (g *rig) publish(id matrix.RoomID) error {
	return g.DB.Write(g.Context(), func(tx *db.Tx) error { return g.dir.Publish(tx, id) })
}
