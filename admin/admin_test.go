package admin

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/teahouse-chat/teahouse/internal/db"
	"github.com/teahouse-chat/teahouse/internal/db/dbtest"
	"github.com/teahouse-chat/teahouse/internal/httpx"
	"github.com/teahouse-chat/teahouse/internal/matrix"
)

type tokens struct{}

func (tokens) Authenticate(_ context.Context, _ *http.Request, token string) (*httpx.Caller, error) {
	return &httpx.Caller{User: matrix.NewUserID(token, "x"), Admin: token == "root"}, nil
}

// world knows the room !r:x with the event $e, of which @alice is a member, and
// has accounts for all but @nobody.
type world struct{}

func (world) MayReport(_ context.Context, user matrix.UserID, room matrix.RoomID, event matrix.EventID) error {
	switch {
	case room == "!broken:x":
		return errors.New("the room is broken")
	case room != "!r:x":
		return matrix.NotFound("no such room")
	case event == "":
		return nil
	case user != "@alice:x":
		return matrix.Forbidden("not joined")
	case event != "$e":
		return matrix.NotFound("no such event")
	}
	return nil
}

func (world) Exists(_ context.Context, u matrix.UserID) (bool, error) { return u != "@nobody:x", nil }

func (world) Sessions(_ context.Context, u matrix.UserID) ([]Session, error) {
	return []Session{{Device: "PHONE", Addr: "192.0.2.1", LastSeen: 5, UserAgent: "Tea/1"}, {Device: "NEW"}}, nil
}

type rig struct {
	*testing.T
	*Admin
	http http.Handler
}

func each(t *testing.T, f func(g *rig)) {
	dbtest.Each(t, func(t *testing.T, d *db.DB) {
		a, err := New(Deps{DB: d, ServerName: "x", Now: func() time.Time { return time.UnixMilli(1234) }, Rooms: world{}, Users: world{}})
		if err != nil {
			t.Fatal(err)
		}
		edge := httpx.New(httpx.Options{Auth: tokens{}})
		edge.Add("client", a.Routes()...)
		f(&rig{t, a, edge.Handler("client")})
	})
}

func (g *rig) ask(token, method, path, body string) (int, string) {
	g.Helper()
	r := httptest.NewRequest(method, "/_matrix/client/v3/"+path, strings.NewReader(body))
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	w := httptest.NewRecorder()
	g.http.ServeHTTP(w, r)
	return w.Code, strings.TrimSpace(w.Body.String())
}

func TestReports(t *testing.T) {
	each(t, func(g *rig) {
		const sad = `{"reason":"sad"}`
		stored := 0
		for _, c := range []struct {
			token, path, body string
			code              int
			has               string
			stores            int
		}{
			{"alice", "rooms/!r:x/report/$e", `{"reason":"spam","score":-100}`, 200, `{}`, 1},
			{"alice", "rooms/!r:x/report/$e", `{}`, 200, `{}`, 1},
			{"alice", "rooms/!r:x/report/$other", sad, 404, "M_NOT_FOUND", 0},
			{"bob", "rooms/!r:x/report/$e", sad, 404, "M_NOT_FOUND", 0},
			{"alice", "rooms/!no:x/report/$e", sad, 404, "M_NOT_FOUND", 0},
			{"alice", "rooms/!broken:x/report/$e", sad, 500, "M_UNKNOWN", 0},
			{"alice", "rooms/!r:x/report/e", sad, 400, "M_INVALID_PARAM", 0},
			{"bob", "rooms/!r:x/report", sad, 200, `{}`, 1},
			{"bob", "rooms/!r:x/report", `{"reason":""}`, 200, `{}`, 1},
			{"bob", "rooms/!no:x/report", sad, 200, `{}`, 0},
			{"bob", "rooms/!broken:x/report", sad, 500, "M_UNKNOWN", 0},
			{"bob", "rooms/!r:x/report", `{}`, 400, "M_MISSING_PARAM", 0},
			{"bob", "rooms/!r:x/report", `{"reason":7}`, 400, "M_BAD_JSON", 0},
			{"bob", "rooms/!r:x/report", `{"reason":"\u0000"}`, 400, "M_BAD_JSON", 0},
			{"bob", "rooms/!r:x/report", `{"reason":"` + strings.Repeat("x", MaxReasonBytes+1) + `"}`, 400, "M_INVALID_PARAM", 0},
			{"bob", "rooms/!r:x/report", ``, 400, "M_NOT_JSON", 0},
			{"", "rooms/!r:x/report", sad, 401, "M_MISSING_TOKEN", 0},
			{"bob", "users/@alice:x/report", sad, 200, `{}`, 1},
			{"bob", "users/@nobody:x/report", sad, 200, `{}`, 0},
			{"bob", "users/@eve:elsewhere/report", sad, 200, `{}`, 1},
			{"bob", "users/@alice:x/report", `{}`, 400, "M_MISSING_PARAM", 0},
			{"bob", "users/alice/report", sad, 400, "M_INVALID_PARAM", 0},
		} {
			code, body := g.ask(c.token, "POST", c.path, c.body)
			if code != c.code || !strings.Contains(body, c.has) {
				t.Errorf("%s POST %s %.60s: %d %s", c.token, c.path, c.body, code, body)
			}
			stored += c.stores
			if all, err := g.Reports(g.Context(), 0, 100); err != nil || len(all) != stored {
				t.Fatalf("%s POST %s %.60s: %d are stored, want %d; %v", c.token, c.path, c.body, len(all), stored, err)
			}
		}
		// Whether an event is not there or may not be seen, the answer is the same.
		_, absent := g.ask("alice", "POST", "rooms/!r:x/report/$other", sad)
		_, unseen := g.ask("bob", "POST", "rooms/!r:x/report/$e", sad)
		if absent != unseen {
			t.Errorf("%s differs from %s", absent, unseen)
		}
		g.checkList(t)
	})
}

// checkList pages through what TestReports has stored.
func (g *rig) checkList(t *testing.T) {
	var all []Report
	for before := int64(0); ; {
		page, err := g.Reports(g.Context(), before, 2)
		if err != nil {
			t.Fatal(err)
		}
		if len(page) == 0 {
			break
		}
		all = append(all, page...)
		before = page[len(page)-1].ID
	}
	if len(all) != 6 {
		t.Fatalf("%d reports in pages", len(all))
	}
	newest, oldest := all[0], all[5]
	newest.ID, oldest.ID = 0, 0
	if newest != (Report{Reporter: "@bob:x", User: "@eve:elsewhere", Reason: "sad", TS: 1234}) {
		t.Errorf("newest: %+v", newest)
	}
	if oldest != (Report{Reporter: "@alice:x", Room: "!r:x", Event: "$e", Reason: "spam", TS: 1234}) {
		t.Errorf("oldest: %+v", oldest)
	}
	for range 2 {
		if err := g.DeleteReport(g.Context(), all[3].ID); err != nil {
			t.Fatal(err)
		}
	}
	if left, err := g.Reports(g.Context(), 0, 100); err != nil || len(left) != 5 {
		t.Errorf("%d are left, %v", len(left), err)
	}
}

func TestWhois(t *testing.T) {
	each(t, func(g *rig) {
		const known = `{"user_id":"@alice:x","devices":{"NEW":{"sessions":[{"connections":[{}]}]},` +
			`"PHONE":{"sessions":[{"connections":[{"ip":"192.0.2.1","last_seen":5,"user_agent":"Tea/1"}]}]}}}`
		for _, c := range []struct {
			token, user string
			code        int
			has         string
		}{
			{"alice", "@alice:x", 200, known},
			{"root", "@alice:x", 200, known},
			{"bob", "@alice:x", 403, "M_FORBIDDEN"},
			{"bob", "@nobody:x", 403, "M_FORBIDDEN"},
			{"root", "@nobody:x", 404, "M_NOT_FOUND"},
			{"root", "@alice:elsewhere", 400, "M_INVALID_PARAM"},
			{"", "@alice:x", 401, "M_MISSING_TOKEN"},
		} {
			code, body := g.ask(c.token, "GET", "admin/whois/"+c.user, "")
			if code != c.code || !strings.Contains(body, c.has) {
				t.Errorf("%s asks for %s: %d %s", c.token, c.user, code, body)
			}
		}
	})
}
