package directory_test

import (
	"fmt"
	"net/url"
	"strings"
	"testing"

	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms"
	. "github.com/teahouse-chat/teahouse/rooms/roomstest"
)

type publicAnswer struct {
	Chunk []struct {
		RoomID  matrix.RoomID `json:"room_id"`
		Name    string        `json:"name"`
		Members int           `json:"num_joined_members"`
		World   bool          `json:"world_readable"`
	} `json:"chunk"`
	NextBatch string `json:"next_batch"`
	PrevBatch string `json:"prev_batch"`
	Total     int    `json:"total_room_count_estimate"`
}

func (a publicAnswer) names() string {
	var names []string
	for _, r := range a.Chunk {
		names = append(names, r.Name)
	}
	return strings.Join(names, " ")
}

// publish makes a published room with a name, members, and more.
func publish(g *rig, name string, members int, more ...rooms.Proto) *rooms.Room {
	g.Helper()
	name2 := State(matrix.TypeName, "", fmt.Sprintf(`{"name":%q}`, name))
	if len(more) > 0 {
		more = append([]rooms.Proto{more[0], name2}, more[1:]...)
	} else {
		more = []rooms.Proto{name2}
	}
	r := g.Room("alice", more...)
	for i := 1; i < members; i++ {
		g.Join(r, fmt.Sprint("member", i))
	}
	Want[any](g.Rig, "alice", "PUT", "/v3/directory/list/room/"+string(r.ID), `{"visibility":"public"}`)
	return r
}

// TestPublicRooms lists published rooms, the largest first, in pages that can be
// turned both ways.
func TestPublicRooms(t *testing.T) {
	each(t, func(g *rig) {
		for name, members := range map[string]int{"a": 6, "b": 5, "c": 4, "d": 3, "e": 2} {
			publish(g, name, members)
		}
		gone := publish(g, "gone", 1)
		g.Member(gone, "alice", "alice", "leave")
		hidden := publish(g, "hidden", 9)
		Want[any](g.Rig, "alice", "PUT", "/v3/directory/list/room/"+string(hidden.ID), `{"visibility":"private"}`)
		for limit := 1; limit < 7; limit++ {
			var on []string
			page, since := publicAnswer{}, ""
			for range 10 {
				page = Want[publicAnswer](g.Rig, "", "GET", fmt.Sprintf("/v3/publicRooms?limit=%d&since=%s", limit, since), "")
				if len(page.Chunk) > limit || page.Total != 5 {
					t.Fatalf("a page of %d: %+v", limit, page)
				}
				on = append(on, page.names())
				if since = page.NextBatch; since == "" {
					break
				}
			}
			if got := strings.Join(on, " "); got != "a b c d e" {
				t.Errorf("by %d: %s", limit, got)
			}
			back := []string{page.names()}
			for page.PrevBatch != "" {
				page = Want[publicAnswer](g.Rig, "", "GET", fmt.Sprintf("/v3/publicRooms?limit=%d&since=%s", limit, page.PrevBatch), "")
				back = append([]string{page.names()}, back...)
			}
			if got := strings.Join(back, " "); got != "a b c d e" {
				t.Errorf("back by %d: %s", limit, got)
			}
		}
		for _, query := range []string{"since=x", "since=p1_-1_f", "limit=-1", "limit=x"} {
			g.Refused("", "GET", "/v3/publicRooms?"+query, "", 400, matrix.CodeInvalidParam)
		}
		g.Refused("", "GET", "/v3/publicRooms?server=elsewhere", "", 404, matrix.CodeNotFound)
		if got := Want[publicAnswer](g.Rig, "", "GET", "/v3/publicRooms?server="+url.QueryEscape("test"), ""); len(got.Chunk) != 5 {
			t.Errorf("asked for this server's: %+v", got)
		}
	})
}

// TestSearchPublicRooms picks by text and type.
func TestSearchPublicRooms(t *testing.T) {
	each(t, func(g *rig) {
		publish(g, "space", 4, State(matrix.TypeCreate, "", `{"room_version":"12","type":"m.space"}`))
		publish(g, "Green Tea", 3, State(matrix.TypeTopic, "", `{"topic":"100% leaves_"}`))
		publish(g, "coffee", 2, State(matrix.TypeCanonicalAlias, "", `{"alias":"#beans:test"}`))
		for filter, want := range map[string]string{
			`{}`: "space Green Tea coffee", `{"generic_search_term":""}`: "space Green Tea coffee",
			`{"generic_search_term":"TEA"}`: "Green Tea", `{"generic_search_term":"%"}`: "Green Tea", `{"generic_search_term":"Beans"}`: "coffee",
			`{"generic_search_term":"milk"}`: "", `{"room_types":["m.space"]}`: "space", `{"room_types":[null]}`: "Green Tea coffee",
			`{"room_types":[null,"m.space"]}`: "space Green Tea coffee", `{"room_types":[]}`: "", `{"room_types":["m.other",""]}`: "",
			`{"generic_search_term":"e","room_types":[null]}`: "Green Tea coffee",
		} {
			got := Want[publicAnswer](g.Rig, "bob", "POST", "/v3/publicRooms", `{"filter":`+filter+`}`)
			if got.names() != want || got.Chunk == nil {
				t.Errorf("%s: %q, not %q", filter, got.names(), want)
			}
		}
		if got := Want[publicAnswer](g.Rig, "guest1", "POST", "/v3/publicRooms", ""); len(got.Chunk) != 3 {
			t.Errorf("without a body: %+v", got)
		}
		if got := Want[publicAnswer](g.Rig, "bob", "POST", "/v3/publicRooms", `{"third_party_instance_id":"irc"}`); len(got.Chunk) != 0 {
			t.Errorf("of another network: %+v", got)
		}
		g.Refused("bob", "POST", "/v3/publicRooms", `{"limit":"x"}`, 400, matrix.CodeBadJSON)
	})
}

// TestPublishing lets those publish a room who may.
func TestPublishing(t *testing.T) {
	each(t, func(g *rig) {
		r := g.Room("alice")
		g.Join(r, "bob")
		path := "/v3/directory/list/room/" + string(r.ID)
		for _, user := range []string{"bob", "carol"} {
			g.Refused(user, "PUT", path, `{"visibility":"public"}`, 403, matrix.CodeForbidden)
		}
		g.Refused("alice", "PUT", path, `{"visibility":"some"}`, 400, matrix.CodeInvalidParam)
		g.Refused("alice", "PUT", "/v3/directory/list/room/!nowhere:test", `{}`, 404, matrix.CodeNotFound)
		g.Refused("", "GET", "/v3/directory/list/room/!nowhere:test", "", 404, matrix.CodeNotFound)
		for _, c := range []struct{ user, body, want string }{
			{"alice", `{"visibility":"private"}`, "private"}, {"alice", ``, "public"}, {"alice", `{"visibility":"public"}`, "public"},
			{"admin", `{"visibility":"private"}`, "private"},
		} {
			Want[any](g.Rig, c.user, "PUT", path, c.body)
			if got := Want[map[string]string](g.Rig, "", "GET", path, ""); got["visibility"] != c.want {
				t.Errorf("after %s: %v", c.body, got)
			}
		}
	})
}
