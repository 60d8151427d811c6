package spaces_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms"
	. "github.com/teahouse-chat/teahouse/rooms/roomstest"
)

type hierarchyAnswer struct {
	Rooms []struct {
		RoomID   matrix.RoomID    `json:"room_id"`
		Name     string           `json:"name"`
		Type     string           `json:"room_type"`
		JoinRule string           `json:"join_rule"`
		Allowed  []matrix.RoomID  `json:"allowed_room_ids"`
		Children []map[string]any `json:"children_state"`
	} `json:"rooms"`
	NextBatch string `json:"next_batch"`
}

func (a hierarchyAnswer) names() string {
	var names []string
	for _, r := range a.Rooms {
		names = append(names, r.Name)
	}
	return strings.Join(names, " ")
}

// named makes a room of alice's with a name, a join rule and more.
func named(g *Rig, name, joinRule string, more ...rooms.Proto) *rooms.Room {
	g.Helper()
	create := State(matrix.TypeCreate, "", `{"room_version":"12"}`)
	if strings.HasPrefix(name, "s") {
		create = State(matrix.TypeCreate, "", `{"room_version":"12","type":"m.space"}`)
	}
	return g.Room("alice", append([]rooms.Proto{
		create, State(matrix.TypeName, "", fmt.Sprintf(`{"name":%q}`, name)), State(matrix.TypeJoinRules, "", joinRule),
	}, more...)...)
}

const public, private = `{"join_rule":"public"}`, `{"join_rule":"invite"}`

// list puts rooms into a space.
func list(g *Rig, space *rooms.Room, child matrix.RoomID, content string) {
	g.Helper()
	g.Send(space, "alice", State(matrix.TypeSpaceChild, string(child), content))
}

const via = `"via":["test"]`

func hierarchy(g *Rig, user string, r *rooms.Room, query string) hierarchyAnswer {
	g.Helper()
	return Get[hierarchyAnswer](g, user, "/v1/rooms/"+string(r.ID)+"/hierarchy?"+query)
}

// TestHierarchy walks a tree with a circle depth first, in order and in pages.
func TestHierarchy(t *testing.T) {
	each(t, func(g *Rig, _ aliases) {
		root, sub := named(g, "sroot", public), named(g, "ssub", public)
		a, b, c, d := named(g, "a", public), named(g, "b", public), named(g, "c", public), named(g, "d", public)
		list(g, root, c.ID, `{`+via+`}`)
		list(g, root, b.ID, `{`+via+`,"order":"2","suggested":true}`)
		list(g, root, sub.ID, `{`+via+`,"order":"1","suggested":true}`)
		list(g, root, "!unknown:test", `{`+via+`,"order":"0"}`)
		list(g, root, d.ID, `{"via":[]}`)
		list(g, root, "no room", `{`+via+`}`)
		list(g, sub, a.ID, `{`+via+`,"order":"`+strings.Repeat("x", 51)+`"}`)
		list(g, sub, root.ID, `{`+via+`}`)
		list(g, sub, sub.ID, `{`+via+`}`)
		list(g, a, d.ID, `{`+via+`}`) // is no space
		for query, want := range map[string]string{
			"": "sroot ssub a b c", "max_depth=0": "sroot", "max_depth=1": "sroot ssub b c", "suggested_only=true": "sroot ssub b",
			"max_depth=1&suggested_only=true": "sroot ssub b", "max_depth=100000": "sroot ssub a b c",
		} {
			for limit := 1; limit < 7; limit++ {
				var got []string
				from := ""
				for range 10 {
					page := hierarchy(g, "bob", root, fmt.Sprintf("%s&limit=%d&from=%s", query, limit, from))
					if len(page.Rooms) > limit {
						t.Fatalf("a page of %d has %d rooms", limit, len(page.Rooms))
					}
					got = append(got, page.names())
					if from = page.NextBatch; from == "" {
						break
					}
				}
				if all := strings.Join(got, " "); all != want {
					t.Errorf("%s by %d: %q, not %q", query, limit, all, want)
				}
			}
		}
		first := hierarchy(g, "bob", root, "limit=1").Rooms[0]
		if len(first.Children) != 4 || first.Type != "m.space" || first.Children[1]["state_key"] != string(sub.ID) ||
			first.Children[0]["origin_server_ts"] == nil || first.Children[0]["sender"] != "@alice:test" {
			t.Errorf("the root shows %+v", first)
		}
		next := hierarchy(g, "bob", root, "limit=1&max_depth=3").NextBatch
		path := "/v1/rooms/" + string(root.ID) + "/hierarchy?"
		for _, query := range []string{"max_depth=2&from=" + next, "max_depth=3&suggested_only=true&from=" + next, "from=x", "limit=0", "max_depth=-1"} {
			g.Refused("bob", "GET", path+query, "", 400, matrix.CodeInvalidParam)
		}
	})
}

// TestWhoSees shows rooms to those who are in them, could come in, or may read
// them: in a tree and one by one.
func TestWhoSees(t *testing.T) {
	each(t, func(g *Rig, _ aliases) {
		club := named(g, "club", private)
		g.Member(club, "alice", "member", "invite")
		g.Join(club, "member")
		restricted := `{"join_rule":"restricted","allow":[{"type":"m.room_membership","room_id":"` + string(club.ID) + `"}]}`
		world := State(matrix.TypeHistoryVisibility, "", `{"history_visibility":"world_readable"}`)
		space := named(g, "space", public)
		for _, c := range []struct {
			name, rule string
			more       []rooms.Proto
			who        string // of alice, in the room; invited; banned; member of the club; anyone; nobody logged in
		}{
			{"public", public, nil, "alice invited member anyone -"},
			{"private", private, nil, "alice invited"},
			{"knock", `{"join_rule":"knock"}`, nil, "alice invited member anyone -"},
			{"restricted", restricted, nil, "alice invited member"},
			{"knockres", strings.Replace(restricted, "restricted", "knock_restricted", 1), nil, "alice invited member anyone -"},
			{"world", private, []rooms.Proto{world}, "alice invited banned member anyone -"},
		} {
			r := named(g, c.name, c.rule, c.more...)
			list(g, space, r.ID, `{`+via+`}`)
			g.Member(r, "alice", "invited", "invite")
			g.Member(r, "alice", "banned", "ban")
			for _, user := range []string{"alice", "invited", "banned", "member", "anyone", "-"} {
				sees := slices.Contains(strings.Fields(c.who), user)
				path := "/v1/room_summary/" + string(r.ID)
				if user == "-" {
					user = ""
				} else if got := strings.Contains(hierarchy(g, user, space, "").names()+" ", " "+c.name+" "); got != sees {
					t.Errorf("%s in the tree for %s: %v", c.name, user, got)
				}
				if !sees {
					g.Refused(user, "GET", path, "", 404, matrix.CodeNotFound)
					continue
				}
				s := Get[map[string]any](g, user, path)
				membership := map[string]any{"alice": "join", "invited": "invite", "banned": "ban"}[user]
				if s["name"] != c.name || s["membership"] != membership || s["num_joined_members"] != 1.0 || s["room_version"] != "12" {
					t.Errorf("summary of %s for %q: %v", c.name, user, s)
				}
			}
		}
		hidden := named(g, "shidden", private)
		g.Refused("anyone", "GET", "/v1/rooms/"+string(hidden.ID)+"/hierarchy", "", 403, matrix.CodeForbidden)
		g.Refused("anyone", "GET", "/v1/rooms/!nowhere:test/hierarchy", "", 403, matrix.CodeForbidden)
	})
}

// TestSummary has everything that a summary can have, by all paths.
func TestSummary(t *testing.T) {
	each(t, func(g *Rig, known aliases) {
		r := named(g, "salon", `{"join_rule":"knock_restricted","allow":[{"type":"m.room_membership","room_id":"!a:test"},{"type":"x"}]}`,
			State(matrix.TypeTopic, "", `{"topic":"tea"}`), State(matrix.TypeAvatar, "", `{"url":"mxc://test/a"}`),
			State(matrix.TypeCanonicalAlias, "", `{"alias":"#salon:test"}`), State(matrix.TypeGuestAccess, "", `{"guest_access":"can_join"}`),
			State(matrix.TypeEncryption, "", `{"algorithm":"m.megolm.v1.aes-sha2"}`),
			State(matrix.TypeHistoryVisibility, "", `{"history_visibility":"world_readable"}`))
		known["#salon:test"] = r.ID
		want := map[string]any{
			"room_id": string(r.ID), "name": "salon", "topic": "tea", "avatar_url": "mxc://test/a", "canonical_alias": "#salon:test",
			"guest_can_join": true, "world_readable": true, "join_rule": "knock_restricted", "room_type": "m.space",
			"num_joined_members": 1.0, "encryption": "m.megolm.v1.aes-sha2", "room_version": "12", "membership": "join",
			"allowed_room_ids": []any{"!a:test"},
		}
		alias := "%23salon:test"
		for _, path := range []string{
			"/v1/room_summary/" + string(r.ID), "/v1/room_summary/" + alias, "/unstable/im.nheko.summary/rooms/" + alias + "/summary",
			"/unstable/im.nheko.summary/summary/" + string(r.ID),
		} {
			got := Get[map[string]any](g, "alice", path)
			for name, value := range want {
				if fmt.Sprint(got[name]) != fmt.Sprint(value) {
					t.Errorf("%s: %s is %v", path, name, got[name])
				}
			}
		}
		g.Refused("alice", "GET", "/v1/room_summary/%23none:test", "", 404, matrix.CodeNotFound)
		g.Refused("alice", "GET", "/v1/room_summary/none", "", 400, matrix.CodeInvalidParam)
		// State that is not as it should be makes a poorer summary, not a failure.
		odd := named(g, "odd", public, State(matrix.TypeTopic, "", `{"topic":{}}`), State(matrix.TypeAvatar, "", `{"url":1}`),
			State(matrix.TypeEncryption, "", `{"algorithm":[]}`), State(matrix.TypeCanonicalAlias, "", `{"alias":null}`))
		if got := Get[map[string]any](g, "bob", "/v1/room_summary/"+string(odd.ID)); got["name"] != "odd" || got["topic"] != nil {
			t.Errorf("an odd room: %v", got)
		}
	})
}

// TestMutualRooms lists what two users share, in pages.
func TestMutualRooms(t *testing.T) {
	each(t, func(g *Rig, _ aliases) {
		var want []matrix.RoomID
		for i := range 3 {
			r := g.Room("alice")
			g.Join(r, "bob")
			if i == 0 {
				g.Member(r, "bob", "bob", "leave")
				continue
			}
			want = append(want, r.ID)
		}
		g.Room("bob")
		slices.Sort(want)
		type answer struct {
			Joined []matrix.RoomID `json:"joined"`
			Count  int             `json:"count"`
		}
		for _, path := range []string{
			"/v1/mutual_rooms?user_id=@alice:test", "/unstable/uk.half-shot.msc2666/user/mutual_rooms?user_id=@alice:test",
			"/unstable/uk.half-shot.msc2666/user/mutual_rooms/@alice:test",
		} {
			if got := Get[answer](g, "bob", path); !slices.Equal(got.Joined, want) || got.Count != 2 {
				t.Errorf("%s: %v", path, got)
			}
		}
		after := Get[answer](g, "bob", "/v1/mutual_rooms?user_id=@alice:test&from=m1_"+string(want[0]))
		if !slices.Equal(after.Joined, want[1:]) || after.Count != 2 {
			t.Errorf("the next page: %v", after)
		}
		if got := Get[answer](g, "bob", "/v1/mutual_rooms?user_id=@nobody:test"); got.Joined == nil || len(got.Joined) != 0 {
			t.Errorf("with nobody: %v", got)
		}
		for _, query := range []string{"", "user_id=bob", "user_id=@bob:test", "user_id=@alice:test&from=x"} {
			g.Refused("bob", "GET", "/v1/mutual_rooms?"+query, "", 400, matrix.CodeInvalidParam)
		}
	})
}
