// Package roomstest sets up rooms for the tests of features that read them: an
// engine on a database of the test's, and an edge with the feature's routes.
//
// A user's access token is their localpart; the users whose localpart begins
// with "guest" are guests, "admin" is a server administrator. The clock moves
// on by a second whenever it is looked at.
package roomstest

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/teahouse-chat/teahouse/internal/db"
	"github.com/teahouse-chat/teahouse/internal/httpx"
	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms"
	"github.com/teahouse-chat/teahouse/rooms/event"
)

// Server is the name of the rig's server.
const Server matrix.ServerName = "test"

// Rig is an engine, and a feature's routes behind an edge.
type Rig struct {
	testing.TB
	DB     *db.DB
	Engine *rooms.Engine
	url    string
	routes func(*Rig) []httpx.Route
	http   http.Handler
	clock  atomic.Int64
}

// New makes a rig on the database of an URL, with the routes of a feature.
func New(t testing.TB, url string, routes func(*Rig) []httpx.Route) *Rig {
	t.Helper()
	g := &Rig{TB: t, url: url, routes: routes}
	g.open()
	t.Cleanup(g.close)
	return g
}

// Reload starts everything anew, knowing nothing but the database.
func (g *Rig) Reload() {
	g.Helper()
	g.close()
	g.open()
}

func (g *Rig) close() {
	if err := g.DB.Close(); err != nil {
		g.Error(err)
	}
}

func (g *Rig) open() {
	g.Helper()
	d, err := db.Open(context.WithoutCancel(g.Context()), g.url, db.Options{})
	if err != nil {
		g.Fatal(err)
	}
	g.DB = d
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		g.Fatal(err)
	}
	if g.Engine, err = rooms.New(rooms.Deps{
		DB: g.DB, ServerName: Server, Key: event.SigningKey{ID: "ed25519:1", Private: private}, Now: g.now, Rand: rand.Reader,
		Log: slog.New(slog.DiscardHandler), Counts: func(ev *event.Event, _ func(string) bool) bool { return ev.Type == matrix.TypeMessage },
	}); err != nil {
		g.Fatal(err)
	}
	edge := httpx.New(httpx.Options{Auth: tokens{}, Log: slog.New(slog.DiscardHandler)})
	edge.Add("client", g.routes(g)...)
	g.http = edge.Handler("client")
}

func (g *Rig) now() time.Time { return time.UnixMilli(1_600_000_000_000 + 1000*g.clock.Add(1)) }

// tokens authenticates by localparts.
type tokens struct{}

func (tokens) Authenticate(_ context.Context, _ *http.Request, token string) (*httpx.Caller, error) {
	return &httpx.Caller{
		User: User(token), Device: matrix.DeviceID("D" + token), Guest: strings.HasPrefix(token, "guest"), Admin: token == "admin",
	}, nil
}

// User is the user with a localpart.
func User(localpart string) matrix.UserID { return matrix.NewUserID(localpart, Server) }

// Message is an event that says something.
func Message(text string) rooms.Proto {
	return rooms.Proto{Type: matrix.TypeMessage, Content: fmt.Appendf(nil, `{"msgtype":"m.text","body":%q}`, text)}
}

// State is a state event.
func State(typ, key, content string) rooms.Proto {
	return rooms.Proto{Type: typ, StateKey: &key, Content: []byte(content)}
}

// Relation is a message that relates to an event.
func Relation(relType string, target matrix.EventID, more string) rooms.Proto {
	return rooms.Proto{Type: matrix.TypeMessage, Content: fmt.Appendf(nil,
		`{"msgtype":"m.text","body":"x","m.relates_to":{"rel_type":%q,"event_id":%q}%s}`, relType, target, more)}
}

// Room makes a public room of version 12 with further events of its creator. A
// create event among them takes the place of the plain one.
func (g *Rig) Room(creator string, more ...rooms.Proto) *rooms.Room {
	g.Helper()
	create := State(matrix.TypeCreate, "", `{"room_version":"12"}`)
	if len(more) > 0 && more[0].Type == matrix.TypeCreate {
		create, more = more[0], more[1:]
	}
	protos := append([]rooms.Proto{
		create,
		State(matrix.TypeMember, string(User(creator)), `{"membership":"join"}`),
		State(matrix.TypePowerLevels, "", `{}`),
		State(matrix.TypeJoinRules, "", `{"join_rule":"public"}`),
	}, more...)
	v, _ := event.Lookup("12")
	r, err := g.Engine.Create(g.Context(), v, User(creator), func(b *rooms.Builder) error {
		for _, p := range protos {
			if _, err := b.Append(p); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		g.Fatal(err)
	}
	return r
}

// Send sends an event.
func (g *Rig) Send(r *rooms.Room, user string, p rooms.Proto) *rooms.Stored {
	g.Helper()
	st, err := g.Engine.Send(g.Context(), r.ID, User(user), p, nil)
	if err != nil {
		g.Fatalf("%s by %s: %v", p.Type, user, err)
	}
	return st
}

// Say sends a message.
func (g *Rig) Say(r *rooms.Room, user, text string) matrix.EventID {
	g.Helper()
	return g.Send(r, user, Message(text)).ID
}

// Member makes by give user a membership.
func (g *Rig) Member(r *rooms.Room, by, user, membership string) *rooms.Stored {
	g.Helper()
	return g.Send(r, by, State(matrix.TypeMember, string(User(user)), `{"membership":"`+membership+`"}`))
}

// Join makes users join.
func (g *Rig) Join(r *rooms.Room, users ...string) {
	g.Helper()
	for _, u := range users {
		g.Member(r, u, u, matrix.MembershipJoin)
	}
}

// Do sends a request as a user, "" for nobody, and gives the answer as it is.
func (g *Rig) Do(user, method, path, body string) (int, string) {
	g.Helper()
	r := httptest.NewRequest(method, "/_matrix/client"+path, strings.NewReader(body))
	if user != "" {
		r.Header.Set("Authorization", "Bearer "+user)
	}
	w := httptest.NewRecorder()
	g.http.ServeHTTP(w, r)
	return w.Code, w.Body.String()
}

// Get asks for something that must be there and reads the answer.
func Get[T any](g *Rig, user, path string) T {
	g.Helper()
	return Want[T](g, user, "GET", path, "")
}

// Want sends a request that must succeed and reads the answer.
func Want[T any](g *Rig, user, method, path, body string) (answer T) {
	g.Helper()
	code, text := g.Do(user, method, path, body)
	if code != http.StatusOK {
		g.Fatalf("%s: %s %s: %d %.300s", user, method, path, code, text)
	}
	if err := json.Unmarshal([]byte(text), &answer); err != nil {
		g.Fatalf("%s: %s %s: %v in %.300s", user, method, path, err, text)
	}
	return answer
}

// Refused sends a request that must fail.
func (g *Rig) Refused(user, method, path, body string, status int, errcode matrix.Code) {
	g.Helper()
	code, text := g.Do(user, method, path, body)
	var answer struct {
		Code matrix.Code `json:"errcode"`
	}
	if err := json.Unmarshal([]byte(text), &answer); err != nil || code != status || answer.Code != errcode {
		g.Errorf("%s: %s %s %s: %d %.300s; want %d %s", user, method, path, body, code, text, status, errcode)
	}
}
