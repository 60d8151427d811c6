package spaces_test

import (
	"context"
	"crypto/ed25519"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/teahouse-chat/teahouse/internal/db/dbtest"
	"github.com/teahouse-chat/teahouse/internal/httpx"
	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms"
	"github.com/teahouse-chat/teahouse/rooms/event"
	. "github.com/teahouse-chat/teahouse/rooms/roomstest"
	"github.com/teahouse-chat/teahouse/rooms/spaces"
)

// world is all other servers: it makes up what they answer and notes what they
// were asked.
type world struct {
	mu     sync.Mutex
	asked  []string // "server room"
	answer func(server matrix.ServerName, room matrix.RoomID) *spaces.Answer
}

func (w *world) Hierarchy(_ context.Context, server matrix.ServerName, room matrix.RoomID, _ bool) (*spaces.Answer, error) {
	w.mu.Lock()
	w.asked = append(w.asked, fmt.Sprint(server, " ", room))
	w.mu.Unlock()
	if a := w.answer(server, room); a != nil {
		return a, nil
	}
	return nil, matrix.NotFound("unknown there")
}

// abroad makes a rig whose server asks others.
func abroad(t *testing.T, f func(g *Rig, w *world, api *spaces.API)) {
	for _, kind := range []string{"sqlite", "postgres"} {
		t.Run(kind, func(t *testing.T) {
			w, names := &world{answer: func(matrix.ServerName, matrix.RoomID) *spaces.Answer { return nil }}, aliases{}
			var api *spaces.API
			g := New(t, dbtest.URL(t, kind), func(g *Rig) []httpx.Route {
				api = spaces.New(spaces.Deps{DB: g.DB, Engine: g.Engine, Aliases: names, Remote: w})
				return api.Routes()
			})
			names["#far:x.org"] = "!far:x.org"
			f(g, w, api)
		})
	}
}

// remote is what a server tells of a public room, a space if it has children.
func remote(id matrix.RoomID, children ...string) *spaces.Answer {
	a := &spaces.Answer{}
	a.Room.RoomID, a.Room.Name, a.Room.JoinRule = id, name(id), "public"
	for i, c := range children {
		a.Room.RoomType = "m.space"
		a.Room.Children = append(a.Room.Children, json.RawMessage(fmt.Sprintf(
			`{"type":"m.space.child","state_key":%q,"sender":"@a:x.org","content":{"via":["x.org"]},"origin_server_ts":%d,"more":1}`, c, i)))
	}
	return a
}

func name(id matrix.RoomID) string {
	name, _, _ := strings.Cut(string(id[1:]), ":")
	return name
}

func summary(id matrix.RoomID, joinRule, roomType string) rooms.Summary {
	s := rooms.Summary{}
	s.RoomID, s.Name, s.JoinRule, s.RoomType = id, name(id), joinRule, roomType
	return s
}

// TestFarRooms walks from a space of this server into rooms of others.
func TestFarRooms(t *testing.T) {
	abroad(t, func(g *Rig, w *world, _ *spaces.API) {
		known := map[string]*spaces.Answer{
			"x.org !far:x.org":     remote("!far:x.org"),
			"y.org !sfar:x.org":    remote("!sfar:x.org", "!one:x.org", "!two:x.org", "!sdeep:x.org", "!hidden:x.org", "no room", "!sfar:x.org"),
			"x.org !sdeep:x.org":   remote("!sdeep:x.org", "!deepest:x.org"),
			"x.org !two:x.org":     remote("!two:x.org"),
			"x.org !deepest:x.org": remote("!deepest:x.org"),
		}
		far := known["y.org !sfar:x.org"]
		far.Children = []rooms.Summary{summary("!one:x.org", "public", ""), summary("!sdeep:x.org", "public", "m.space"), summary("!unlisted:x.org", "public", "")}
		far.Inaccessible = []matrix.RoomID{"!hidden:x.org"}
		w.answer = func(s matrix.ServerName, r matrix.RoomID) *spaces.Answer { return known[fmt.Sprint(s, " ", r)] }
		root, near := named(g, "sroot", public), named(g, "near", public)
		list(g, root, "!far:x.org", `{"via":["x.org"],"order":"1"}`)
		list(g, root, "!sfar:x.org", `{"via":["test","down.org","y.org"],"order":"2"}`)
		list(g, root, near.ID, `{"via":["x.org"],"order":"3"}`)
		list(g, root, "!nobody:x.org", `{"via":["a.org","b.org","c.org","d.org"],"order":"4"}`)
		const want = "sroot far sfar one two sdeep deepest near"
		if got := hierarchy(g, "bob", root, "").names(); got != want {
			t.Errorf("the tree is %q", got)
		}
		for _, s := range w.asked {
			if strings.HasSuffix(s, string(near.ID)) || strings.HasPrefix(s, "test ") || strings.HasSuffix(s, "!one:x.org") || strings.HasSuffix(s, "!hidden:x.org") || strings.HasPrefix(s, "d.org") {
				t.Errorf("asked %s", s)
			}
		}
		var got []string
		from := ""
		for range 10 {
			page := hierarchy(g, "bob", root, "limit=3&from="+from)
			got = append(got, page.names())
			if from = page.NextBatch; from == "" {
				break
			}
		}
		if all := strings.Join(got, " "); all != want {
			t.Errorf("in pages: %q", all)
		}
		tree := hierarchy(g, "bob", root, "max_depth=1")
		child := tree.Rooms[2].Children
		if len(tree.Rooms) != 4 || len(child) != 5 || child[0]["sender"] != "@a:x.org" || child[0]["more"] != nil {
			t.Errorf("of the far space there is %+v", tree)
		}
	})
}

// TestWhoSeesFarRooms lets those see far rooms who could join them, whatever the
// other server says of it: it does not know who asks.
func TestWhoSeesFarRooms(t *testing.T) {
	abroad(t, func(g *Rig, w *world, _ *spaces.API) {
		club := named(g, "club", private)
		g.Member(club, "alice", "member", "invite")
		g.Join(club, "member")
		for rule, who := range map[string]string{
			"public": "anyone member", "": "anyone member", "knock": "anyone member", "invite": "", "private": "", "restricted": "member",
			"knock_restricted": "anyone member", "strange": "",
		} {
			a := remote("!far:x.org")
			a.Room.JoinRule, a.Room.AllowedRooms = rule, []matrix.RoomID{"!unknown:x.org", club.ID}
			w.answer = func(matrix.ServerName, matrix.RoomID) *spaces.Answer { return a }
			for _, user := range []string{"anyone", "member", ""} {
				path := "/v1/room_summary/!far:x.org?via=x.org"
				if !strings.Contains(who, user) || user == "" {
					g.Refused(user, "GET", path, "", 404, matrix.CodeNotFound)
				} else if s := Get[map[string]any](g, user, path); s["name"] != "far" || s["membership"] != nil {
					t.Errorf("%s, %s: %v", rule, user, s)
				}
			}
			a.Room.WorldReadable = true
			Get[any](g, "anyone", "/v1/room_summary/!far:x.org")
		}
		old := remote("!far:x.org")
		old.Room.JoinRule, old.Room.Version = "knock", "6"
		w.answer = func(matrix.ServerName, matrix.RoomID) *spaces.Answer { return old }
		g.Refused("anyone", "GET", "/v1/room_summary/!far:x.org", "", 404, matrix.CodeNotFound)
	})
}

// TestFarSummary asks those who may know: named ones, those of the alias, and the
// room's own server, but not many.
func TestFarSummary(t *testing.T) {
	abroad(t, func(g *Rig, w *world, _ *spaces.API) {
		a := remote("!far:x.org")
		w.answer = func(s matrix.ServerName, _ matrix.RoomID) *spaces.Answer {
			if s == "x.org" {
				return a
			}
			return nil
		}
		for path, asked := range map[string]string{
			"!far:x.org": "x.org", "!far:x.org?via=y.org&via=test&via=y.org": "y.org x.org", "%23far:x.org": "x.org",
			"!far:x.org?via=x.org&via=y.org": "x.org",
		} {
			w.asked = nil
			if s := Get[map[string]any](g, "bob", "/v1/room_summary/"+path); s["room_id"] != "!far:x.org" {
				t.Errorf("%v", s)
			}
			if got := strings.ReplaceAll(strings.Join(w.asked, " "), " !far:x.org", ""); got != asked {
				t.Errorf("%s: asked %s", path, got)
			}
		}
		w.asked = nil
		g.Refused("bob", "GET", "/v1/room_summary/!far:x.org?via=a.org&via=b.org&via=c.org&via=d.org", "", 404, matrix.CodeNotFound)
		if len(w.asked) != 3 {
			t.Errorf("asked %v", w.asked)
		}
		w.asked = nil
		g.Refused("", "GET", "/v1/room_summary/!far:x.org", "", 404, matrix.CodeNotFound)
		g.Refused("bob", "GET", "/v1/room_summary/!hash", "", 404, matrix.CodeNotFound)
		g.Refused("bob", "GET", "/v1/rooms/!hash/hierarchy", "", 403, matrix.CodeForbidden)
		if len(w.asked) != 0 {
			t.Errorf("asked %v", w.asked)
		}
	})
}

// TestLeftRooms shows a room that this server has left as others see it now.
func TestLeftRooms(t *testing.T) {
	abroad(t, func(g *Rig, w *world, _ *spaces.API) {
		r := named(g, "then", public)
		g.Enter(r, "@u:x.org")
		g.Member(r, "alice", "alice", "leave")
		path := "/v1/room_summary/" + string(r.ID) + "?via=x.org"
		if s := Get[map[string]any](g, "bob", path); s["name"] != "then" {
			t.Errorf("nobody answers: %v", s)
		}
		now := remote(r.ID)
		now.Room.Name = "now"
		w.answer = func(matrix.ServerName, matrix.RoomID) *spaces.Answer { return now }
		if s := Get[map[string]any](g, "bob", path); s["name"] != "now" {
			t.Errorf("%v", s)
		}
		if s := Get[map[string]any](g, "alice", path); s["membership"] != "leave" {
			t.Errorf("%v", s)
		}
	})
}

// TestInvitedFromAfar asks the server of whoever invited the user, and shows the
// room whatever its join rule is.
func TestInvitedFromAfar(t *testing.T) {
	abroad(t, func(g *Rig, w *world, _ *spaces.API) {
		v, _ := event.Lookup("10")
		bob := string(User("bob"))
		invite, err := event.Build(v, event.Draft{
			RoomID: "!far:gone.org", Type: matrix.TypeMember, StateKey: &bob, Sender: "@a:x.org", Content: []byte(`{"membership":"invite"}`), Depth: 5,
		}, "x.org", event.SigningKey{ID: "ed25519:1", Private: ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := g.Engine.StoreOutside(t.Context(), v, invite, nil); err != nil {
			t.Fatal(err)
		}
		a := remote("!far:gone.org", "!child:x.org")
		a.Room.JoinRule = "invite"
		w.answer = func(s matrix.ServerName, r matrix.RoomID) *spaces.Answer {
			if s == "x.org" && r == "!far:gone.org" {
				return a
			}
			return nil
		}
		if s := Get[map[string]any](g, "bob", "/v1/room_summary/!far:gone.org"); s["membership"] != "invite" || s["name"] != "far" {
			t.Errorf("%v", s)
		}
		if got := Get[hierarchyAnswer](g, "bob", "/v1/rooms/!far:gone.org/hierarchy"); got.names() != "far" {
			t.Errorf("%v", got)
		}
		g.Refused("carol", "GET", "/v1/room_summary/!far:gone.org?via=x.org", "", 404, matrix.CodeNotFound)
		w.answer = func(matrix.ServerName, matrix.RoomID) *spaces.Answer { return nil }
		g.Refused("bob", "GET", "/v1/room_summary/!far:gone.org", "", 404, matrix.CodeNotFound)
	})
}

// TestEndlessTrees meets spaces that lead to ever new ones, or in circles: a
// request ends, and asks a bounded number of questions (F9).
func TestEndlessTrees(t *testing.T) {
	abroad(t, func(g *Rig, w *world, _ *spaces.API) {
		root := named(g, "sroot", public)
		list(g, root, "!s0:x.org", `{"via":["x.org"]}`)
		for name, answer := range map[string]func(matrix.ServerName, matrix.RoomID) *spaces.Answer{
			"deep": func(_ matrix.ServerName, r matrix.RoomID) *spaces.Answer { return remote(r, "!"+name(r)+"0:x.org") },
			"circle": func(_ matrix.ServerName, r matrix.RoomID) *spaces.Answer {
				return remote(r, string(r), "!s0:x.org", string(root.ID))
			},
			"wide": func(_ matrix.ServerName, r matrix.RoomID) *spaces.Answer {
				var all []string
				for i := range 2000 {
					all = append(all, fmt.Sprintf("!%s-%d:x.org", name(r), i))
				}
				return remote(r, all...)
			},
		} {
			w.asked, w.answer = nil, answer
			page := hierarchy(g, "bob", root, "limit=100")
			if len(w.asked) > 40 || len(page.Rooms) > 42 || len(page.Rooms) < 2 {
				t.Errorf("%s: asked %d times, for %d rooms", name, len(w.asked), len(page.Rooms))
			}
			for range 10 {
				if page.NextBatch == "" {
					break
				}
				page = hierarchy(g, "bob", root, "limit=100&from="+page.NextBatch)
			}
		}
	})
}

// TestForServer tells another server of what it could join, and names what it
// could not.
func TestForServer(t *testing.T) {
	abroad(t, func(g *Rig, _ *world, api *spaces.API) {
		space, open, closed, left := named(g, "space", public), named(g, "open", public), named(g, "closed", private), named(g, "left", public)
		g.Enter(left, "@u:x.org")
		g.Member(left, "alice", "alice", "leave")
		for i, id := range []matrix.RoomID{open.ID, closed.ID, left.ID, "!unknown:x.org"} {
			list(g, space, id, fmt.Sprintf(`{"via":["test"],"order":"%d","suggested":%t}`, i, i == 0))
		}
		may := func(_ context.Context, r *rooms.Room, s *rooms.Summary) (bool, error) {
			return g.Engine.FindableBy(t.Context(), r, s, "x.org")
		}
		a, err := api.ForServer(t.Context(), space.ID, false, may)
		if err != nil || len(a.Room.Children) != 4 || len(a.Children) != 1 || a.Children[0].RoomID != open.ID ||
			len(a.Inaccessible) != 1 || a.Inaccessible[0] != closed.ID {
			t.Errorf("%+v, %v", a, err)
		}
		a, err = api.ForServer(t.Context(), space.ID, true, may)
		if err != nil || len(a.Room.Children) != 1 || len(a.Inaccessible) != 0 {
			t.Errorf("%+v, %v", a, err)
		}
		for _, id := range []matrix.RoomID{closed.ID, left.ID, "!unknown:x.org"} {
			if _, err := api.ForServer(t.Context(), id, false, may); !matrix.HasCode(err, matrix.CodeNotFound) {
				t.Errorf("%s: %v", id, err)
			}
		}
	})
}
