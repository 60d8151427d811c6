package profiles

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/teahouse-chat/teahouse/internal/db"
	"github.com/teahouse-chat/teahouse/internal/db/dbtest"
	"github.com/teahouse-chat/teahouse/internal/httpx"
	"github.com/teahouse-chat/teahouse/internal/matrix"
)

// rig is the feature behind an edge; a token is the localpart of its user,
// "guest" is a guest.
type rig struct {
	*testing.T
	*Profiles
	db    *db.DB
	rooms *rooms
	http  http.Handler
}

type tokens struct{}

func (tokens) Authenticate(_ context.Context, _ *http.Request, token string) (*httpx.Caller, error) {
	return &httpx.Caller{User: matrix.NewUserID(token, "x"), Guest: token == "guest"}, nil
}

// everyone has an account, but for @nobody.
type everyone struct{}

func (everyone) Exists(_ context.Context, u matrix.UserID) (bool, error) {
	return u.Localpart() != "nobody", nil
}

// rooms notes the profile with which each user was announced.
type rooms struct {
	mu       sync.Mutex
	profiles *Profiles
	told     []string
	down     bool
}

func (r *rooms) ProfileChanged(ctx context.Context, u matrix.UserID) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.down {
		return errors.New("rooms are down")
	}
	got, err := r.profiles.Get(ctx, []matrix.UserID{u})
	r.told = append(r.told, string(u)+" "+got[u].DisplayName()+" "+got[u].AvatarURL())
	return err
}

func each(t *testing.T, f func(g *rig)) {
	dbtest.Each(t, func(t *testing.T, d *db.DB) {
		g := &rig{T: t, db: d, rooms: &rooms{}}
		p, err := New(Deps{DB: d, ServerName: "x", Users: everyone{}, Rooms: g.rooms, Log: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		g.Profiles, g.rooms.profiles = p, p
		edge := httpx.New(httpx.Options{Auth: tokens{}})
		edge.Add("client", p.Routes()...)
		g.http = edge.Handler("client")
		f(g)
	})
}

// ask sends a request as the user whose localpart is token, "" for nobody.
func (g *rig) ask(token, method, path, body string) (int, string) {
	g.Helper()
	r := httptest.NewRequest(method, "/_matrix/client"+path, strings.NewReader(body))
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	w := httptest.NewRecorder()
	g.http.ServeHTTP(w, r)
	return w.Code, strings.TrimSpace(w.Body.String())
}

// want asks and compares; of an error, want is the code.
func (g *rig) want(token, method, path, body string, code int, want string) {
	g.Helper()
	gotCode, got := g.ask(token, method, path, body)
	same := got == want
	if code >= 400 {
		same = strings.Contains(got, `"`+want+`"`)
	}
	if gotCode != code || !same {
		g.Errorf("%s %s %s %.80s: %d %.200s, want %d %s", token, method, path, body, gotCode, got, code, want)
	}
}
