package history_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms"
	. "github.com/teahouse-chat/teahouse/rooms/roomstest"
)

type searchAnswer struct {
	Categories struct {
		Events struct {
			Count      int      `json:"count"`
			Highlights []string `json:"highlights"`
			Results    []struct {
				Result  clientEvent `json:"result"`
				Context struct {
					Before   []clientEvent             `json:"events_before"`
					After    []clientEvent             `json:"events_after"`
					Profiles map[string]map[string]any `json:"profile_info"`
				} `json:"context"`
			} `json:"results"`
			State  map[string][]clientEvent `json:"state"`
			Groups map[string]map[string]struct {
				Results []matrix.EventID `json:"results"`
			} `json:"groups"`
			NextBatch string `json:"next_batch"`
		} `json:"room_events"`
	} `json:"search_categories"`
}

// searchAll searches page by page and gives the ids of what is found.
func searchAll(g *Rig, user, criteria string) []matrix.EventID {
	g.Helper()
	ids, from := []matrix.EventID{}, ""
	for range 1000 {
		page := search(g, user, criteria, from).Categories.Events
		for _, r := range page.Results {
			ids = append(ids, r.Result.ID)
		}
		if page.NextBatch == "" {
			return ids
		}
		from = "?next_batch=" + page.NextBatch
	}
	g.Fatalf("the search for %s does not end", criteria)
	return nil
}

func search(g *Rig, user, criteria, query string) searchAnswer {
	g.Helper()
	return Want[searchAnswer](g, user, "POST", "/v3/search"+query, `{"search_categories":{"room_events":{`+criteria+`}}}`)
}

// TestSearch finds, newest first and over all rooms, what the reader may see
// and nothing else, in pages of any size.
func TestSearch(t *testing.T) {
	each(t, func(g *Rig) {
		hidden := State(matrix.TypeHistoryVisibility, "", `{"history_visibility":"joined"}`)
		list := []*rooms.Room{g.Room("alice", hidden), g.Room("alice"), g.Room("alice", hidden)}
		other := g.Room("alice") // bob is never there
		var bobs, alices []matrix.EventID
		for i := range 400 {
			r := list[i%3]
			switch i {
			case 100:
				g.Join(list[0], "bob")
				g.Join(list[1], "bob")
			case 200:
				g.Join(list[2], "bob")
			case 300:
				g.Member(list[2], "bob", "bob", "leave")
			}
			if i%7 != 0 {
				g.Say(r, "alice", "chaff")
				continue
			}
			id := g.Say(r, "alice", fmt.Sprint("Green TEA, number ", i))
			alices = append(alices, id)
			if r == list[1] || r == list[0] && i >= 100 || r == list[2] && i >= 200 && i < 300 {
				bobs = append(bobs, id)
			}
		}
		alices = append(alices, g.Say(other, "alice", "green tea"))
		slices.Reverse(bobs)
		slices.Reverse(alices)
		for _, limit := range []int{1, 7, 50} {
			criteria := fmt.Sprintf(`"search_term":"tea  green","filter":{"limit":%d}`, limit)
			first := search(g, "alice", criteria, "").Categories.Events
			second := search(g, "alice", criteria, "?next_batch="+first.NextBatch).Categories.Events
			if first.Count != len(alices) || second.Count != len(alices) {
				t.Errorf("the count of %d is %d, then %d", len(alices), first.Count, second.Count)
			}
			if got := searchAll(g, "bob", criteria); !slices.Equal(got, bobs) {
				t.Errorf("bob finds %d, not %d", len(got), len(bobs))
			}
			if got := searchAll(g, "alice", criteria); !slices.Equal(got, alices) {
				t.Errorf("alice finds %d, not %d", len(got), len(alices))
			}
		}
		if got := searchAll(g, "carol", `"search_term":"tea"`); len(got) != 0 {
			t.Errorf("who is in no room finds %d", len(got))
		}
		if got := searchAll(g, "alice", `"search_term":"tea","filter":{"rooms":["`+string(other.ID)+`"]}`); !slices.Equal(got, alices[:1]) {
			t.Errorf("in one room: %v", got)
		}
		next := g.Room("alice", State(matrix.TypeCreate, "", `{"room_version":"12","predecessor":{"room_id":"`+string(other.ID)+`"}}`))
		after := g.Say(next, "alice", "tea goes on")
		got := searchAll(g, "alice", `"search_term":"tea","filter":{"rooms":["`+string(next.ID)+`"]}`)
		if !slices.Equal(got, []matrix.EventID{after, alices[0]}) {
			t.Errorf("in an upgraded room: %v", got)
		}
		if got := searchAll(g, "bob", `"search_term":"number 399"`); len(got) != 1 {
			t.Errorf("one message: %v", got)
		}
	})
}

// TestSearchExtras gives context, profiles, state and groups, and refuses what
// is no search.
func TestSearchExtras(t *testing.T) {
	each(t, func(g *Rig) {
		r := g.Room("alice", State(matrix.TypeTopic, "", `{"topic":"needles in haystacks"}`))
		g.Send(r, "bob", State(matrix.TypeMember, "@bob:test", `{"membership":"join","displayname":"Bob"}`))
		before := g.Say(r, "alice", "hay")
		needle := g.Say(r, "bob", "a needle")
		after := g.Say(r, "alice", "more hay")
		found := search(g, "alice", `"search_term":"needle","keys":["content.body"],"order_by":"recent","include_state":true,
			"event_context":{"before_limit":1,"after_limit":1,"include_profile":true},"groupings":{"group_by":[{"key":"sender"},{"key":"room_id"}]}`, "").Categories.Events
		if found.Count != 1 || !slices.Equal(found.Highlights, []string{"needle"}) || found.Results[0].Result.ID != needle {
			t.Fatalf("found %+v", found)
		}
		c := found.Results[0].Context
		if len(c.Before) != 1 || c.Before[0].ID != before || len(c.After) != 1 || c.After[0].ID != after || c.Profiles["@bob:test"]["displayname"] != "Bob" {
			t.Errorf("the context: %+v", c)
		}
		if len(found.State[string(r.ID)]) != 6 || found.Groups["sender"]["@bob:test"].Results[0] != needle || len(found.Groups["room_id"]) != 1 {
			t.Errorf("state and groups: %+v %+v", found.State, found.Groups)
		}
		if got := searchAll(g, "alice", `"search_term":"needle","keys":["content.topic"]`); len(got) != 1 || got[0] == needle {
			t.Errorf("topics: %v", got)
		}
		if got := searchAll(g, "alice", `"search_term":"needle"`); len(got) != 2 {
			t.Errorf("all keys: %v", got)
		}
		redaction := rooms.Proto{Type: matrix.TypeRedaction, Content: fmt.Appendf(nil, `{"redacts":%q}`, needle), Redacts: needle}
		g.Send(r, "bob", redaction)
		if got := searchAll(g, "alice", `"search_term":"a needle"`); len(got) != 1 || got[0] == needle {
			t.Errorf("after a redaction: %v", got)
		}
		for criteria, code := range map[string]matrix.Code{
			``: matrix.CodeInvalidParam, `"search_term":"  "`: matrix.CodeInvalidParam, `"search_term":1`: matrix.CodeBadJSON,
			`"search_term":"` + strings.Repeat("a", 600) + `"`: matrix.CodeInvalidParam, `"search_term":"a","keys":["x"]`: matrix.CodeInvalidParam,
			`"search_term":"a","order_by":"x"`: matrix.CodeInvalidParam, `"search_term":"a","filter":{"limit":0}`: matrix.CodeInvalidParam,
			`"search_term":"a","filter":[]`: matrix.CodeBadJSON, `"search_term":"a","groupings":{"group_by":[{"key":"x"}]}`: matrix.CodeInvalidParam,
		} {
			g.Refused("alice", "POST", "/v3/search", `{"search_categories":{"room_events":{`+criteria+`}}}`, 400, code)
		}
		g.Refused("alice", "POST", "/v3/search?next_batch=x", `{"search_categories":{"room_events":{"search_term":"a"}}}`, 400, matrix.CodeInvalidParam)
		g.Refused("alice", "POST", "/v3/search", `{}`, 400, matrix.CodeMissingParam)
		if code, body := g.Do("alice", "POST", "/v3/search", `{"search_categories":{}}`); code != 200 || body != `{"search_categories":{}}` {
			t.Errorf("no category: %d %s", code, body)
		}
	})
}
