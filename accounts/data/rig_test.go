package data

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/teahouse-chat/teahouse/internal/db"
	"github.com/teahouse-chat/teahouse/internal/db/dbtest"
	"github.com/teahouse-chat/teahouse/internal/httpx"
	"github.com/teahouse-chat/teahouse/internal/matrix"
)

// rig is the feature behind an edge; a token is the localpart of its user,
// "guest" is a guest.
type rig struct {
	*testing.T
	*Data
	db      *db.DB
	clock   time.Time
	http    http.Handler
	mu      sync.Mutex
	changes []Changed
}

type tokens struct{}

func (tokens) Authenticate(_ context.Context, _ *http.Request, token string) (*httpx.Caller, error) {
	return &httpx.Caller{User: matrix.NewUserID(token, "x"), Guest: token == "guest"}, nil
}

func rulesOf(u matrix.UserID) json.RawMessage {
	return json.RawMessage(`{"global":{"of":"` + string(u) + `"}}`)
}

func each(t *testing.T, f func(g *rig)) {
	dbtest.Each(t, func(t *testing.T, d *db.DB) {
		g := &rig{T: t, db: d, clock: time.UnixMilli(1_700_000_000_000)}
		var err error
		g.Data, err = New(Deps{
			DB: d, ServerName: "x", Now: func() time.Time { return g.clock },
			Defaults: map[string]func(matrix.UserID) json.RawMessage{TypePushRules: rulesOf},
		})
		if err != nil {
			t.Fatal(err)
		}
		d.Subscribe(func(b db.Batch) {
			g.mu.Lock()
			defer g.mu.Unlock()
			for _, c := range b.Changes {
				if c, ok := c.(Changed); ok {
					g.changes = append(g.changes, c)
				}
			}
		})
		edge := httpx.New(httpx.Options{Auth: tokens{}})
		edge.Add("client", g.Routes()...)
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
