package history_test

import (
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/teahouse-chat/teahouse/internal/matrix"
	. "github.com/teahouse-chat/teahouse/rooms/roomstest"
	"github.com/teahouse-chat/teahouse/syncapi/token"
)

// TestStateEvent gives contents and events, and 404 for what is not set.
func TestStateEvent(t *testing.T) {
	each(t, func(g *Rig) {
		r := g.Room("alice", State(matrix.TypeTopic, "", `{"topic":"old"}`))
		topic := g.Send(r, "alice", State(matrix.TypeTopic, "", `{"topic":"tea"}`))
		g.Send(r, "alice", State("org.example", "a/b", `{"x":1}`))
		path := roomPath(r, "state/m.room.topic")
		if c := Get[map[string]any](g, "alice", path+"?format=content"); c["topic"] != "tea" {
			t.Errorf("content: %v", c)
		}
		e := Get[clientEvent](g, "alice", path+"?format=event")
		if e.ID != topic.ID || e.RoomID != r.ID || e.Content["topic"] != "tea" || e.StateKey == nil {
			t.Errorf("event: %+v", e)
		}
		if c := Get[map[string]any](g, "alice", roomPath(r, "state/org.example/a%2Fb")); c["x"] != 1.0 {
			t.Errorf("under a key with a slash: %v", c)
		}
		member := Get[map[string]any](g, "alice", roomPath(r, "state/m.room.member/@alice:test"))
		if member["membership"] != "join" {
			t.Errorf("member: %v", member)
		}
		g.Refused("alice", "GET", roomPath(r, "state/m.room.name"), "", 404, matrix.CodeNotFound)
		g.Refused("alice", "GET", roomPath(r, "state/m.room.member/@bob:test"), "", 404, matrix.CodeNotFound)
		g.Refused("alice", "GET", path+"?format=pdu", "", 400, matrix.CodeInvalidParam)
		g.Refused("alice", "GET", "/v3/rooms/!nowhere:test/state", "", 403, matrix.CodeForbidden)
		g.Refused("alice", "GET", "/v3/rooms/!nowhere:test/event/$a", "", 404, matrix.CodeNotFound)
		if got := Get[[]clientEvent](g, "alice", roomPath(r, "state/")); len(got) != 6 {
			t.Errorf("the state has %d events", len(got))
		}
	})
}

type chunkAnswer struct {
	Chunk []clientEvent `json:"chunk"`
}

// membersOf lists who is in an answer, by localpart.
func membersOf(events []clientEvent) string {
	var users []string
	for _, e := range events {
		users = append(users, matrix.UserID(*e.StateKey).Localpart())
	}
	slices.Sort(users)
	return strings.Join(users, " ")
}

// TestMembers picks members by membership and at points in time.
func TestMembers(t *testing.T) {
	each(t, func(g *Rig) {
		r := g.Room("alice", State(matrix.TypeHistoryVisibility, "", `{"history_visibility":"joined"}`))
		g.Join(r, "bob")
		early := g.Send(r, "alice", Message("bob is here"))
		g.Join(r, "carol")
		g.Member(r, "alice", "dave", "invite")
		g.Member(r, "alice", "erin", "ban")
		g.Member(r, "bob", "bob", "leave")
		for _, reload := range []bool{false, true} {
			if reload {
				g.Reload()
			}
			for query, want := range map[string]string{
				"":                                      "alice bob carol dave erin",
				"?membership=join":                      "alice carol",
				"?not_membership=leave":                 "alice carol dave erin",
				"?membership=ban&not_membership=join":   "bob dave erin",
				"?membership=invite&not_membership=ban": "alice bob carol dave",
				"?at=" + token.Point(early.Position):    "alice bob",
				"?membership=join&at=" + token.Sync{Position: early.Position + 1}.String(): "alice bob carol",
				"?at=" + token.Point(1<<60): "alice bob carol dave erin",
				"?at=" + token.Point(0):     "alice",
			} {
				if got := membersOf(Get[chunkAnswer](g, "alice", roomPath(r, "members"+query)).Chunk); got != want {
					t.Errorf("members%s: %s, not %s", query, got, want)
				}
			}
			// Who left sees the members of then, whatever they ask for.
			for _, query := range []string{"", "?at=" + token.Point(1<<60)} {
				if got := membersOf(Get[chunkAnswer](g, "bob", roomPath(r, "members"+query)).Chunk); got != "alice bob carol dave erin" {
					t.Errorf("members%s for who left: %s", query, got)
				}
			}
			// Who was not there yet does not see who was.
			g.Refused("carol", "GET", roomPath(r, "members?at="+token.Point(early.Position)), "", 403, matrix.CodeForbidden)
		}
		g.Refused("alice", "GET", roomPath(r, "members?membership=some"), "", 400, matrix.CodeInvalidParam)
		g.Send(r, "alice", State(matrix.TypeHistoryVisibility, "", `{"history_visibility":"shared"}`))
		if got := membersOf(Get[chunkAnswer](g, "alice", roomPath(r, "members?at="+token.Point(0))).Chunk); got != "alice" {
			t.Errorf("before anything happened: %s, not the creator", got)
		}
		g.Refused("bob", "GET", roomPath(r, "messages"), "", 400, matrix.CodeMissingParam)
		g.Refused("frank", "GET", roomPath(r, "messages"), "", 403, matrix.CodeForbidden)
		g.Refused("alice", "GET", roomPath(r, "members?at=some"), "", 400, matrix.CodeInvalidParam)
	})
}

// TestJoined lists joined members, to those alone who are in the room, and
// joined rooms.
func TestJoined(t *testing.T) {
	each(t, func(g *Rig) {
		r := g.Room("alice", State(matrix.TypeHistoryVisibility, "", `{"history_visibility":"world_readable"}`))
		g.Send(r, "bob", State(matrix.TypeMember, "@bob:test", `{"membership":"join","displayname":"Bob","avatar_url":null}`))
		g.Member(r, "alice", "dave", "invite")
		type answer struct {
			Joined map[string]map[string]any `json:"joined"`
		}
		joined := Get[answer](g, "alice", roomPath(r, "joined_members")).Joined
		if len(joined) != 2 || len(joined["@bob:test"]) != 1 || joined["@bob:test"]["display_name"] != "Bob" {
			t.Errorf("joined members: %v", joined)
		}
		g.Member(r, "bob", "bob", "leave")
		for _, user := range []string{"bob", "dave", "frank"} {
			g.Refused(user, "GET", roomPath(r, "joined_members"), "", 403, matrix.CodeForbidden)
		}
		other := g.Room("bob")
		for user, want := range map[string][]matrix.RoomID{"alice": {r.ID}, "bob": {other.ID}, "dave": {}} {
			if got := Get[map[string][]matrix.RoomID](g, user, "/v3/joined_rooms")["joined_rooms"]; !slices.Equal(got, want) || got == nil {
				t.Errorf("joined rooms of %s: %v", user, got)
			}
		}
	})
}

type contextAnswer struct {
	Event  clientEvent   `json:"event"`
	Before []clientEvent `json:"events_before"`
	After  []clientEvent `json:"events_after"`
	State  []clientEvent `json:"state"`
	Start  string        `json:"start"`
	End    string        `json:"end"`
}

// TestContext gives what is around an event, whose tokens lead on without gap
// or overlap, and the state at the end of it.
func TestContext(t *testing.T) {
	each(t, func(g *Rig) {
		r := g.Room("alice")
		g.Join(r, "bob", "carol", "dave")
		var ids []matrix.EventID
		for i := range 20 {
			g.Send(r, "alice", State(matrix.TypeTopic, "", fmt.Sprintf(`{"topic":"%d"}`, i)))
			ids = append(ids, g.Say(r, []string{"bob", "carol"}[i%2], fmt.Sprint(i)))
		}
		filter := url.QueryEscape(`{"lazy_load_members":true,"not_types":["m.room.topic","org.none"],"types":["m.room.message","m.room.member"]}`)
		for limit := range 8 {
			c := Get[contextAnswer](g, "alice", roomPath(r, fmt.Sprintf("context/%s?limit=%d&filter=%s", ids[10], limit, filter)))
			if c.Event.ID != ids[10] || len(c.Before) != limit/2 || len(c.After) != limit-limit/2 {
				t.Fatalf("around an event, at most %d: %d before, %d after", limit, len(c.Before), len(c.After))
			}
			all := slices.Concat(idsOf(c.Before), []matrix.EventID{c.Event.ID}, idsOf(c.After))
			slices.Reverse(all[:len(c.Before)])
			if want := ids[10-limit/2 : 10+limit-limit/2+1]; !slices.Equal(all, want) {
				t.Errorf("around an event: %v, not %v", all, want)
			}
			for dir, from := range map[string]string{"b": c.Start, "f": c.End} {
				page := Get[messagesAnswer](g, "alice", roomPath(r, "messages?limit=1&dir="+dir+"&from="+from+"&filter="+filter))
				want := ids[10-limit/2-1]
				if dir == "f" {
					want = ids[10+limit-limit/2+1]
				}
				if len(page.Chunk) != 1 || page.Chunk[0].ID != want {
					t.Errorf("%s from the context: %+v, not %s", dir, page.Chunk, want)
				}
			}
			want := "bob"
			if limit > 0 {
				want = "bob carol"
			}
			if got := membersOf(c.State); got != want {
				t.Errorf("members with a context of %d: %q, not %q", limit, got, want)
			}
		}
		full := Get[contextAnswer](g, "alice", roomPath(r, "context/"+string(ids[10])+"?limit=2"))
		topic := ""
		for _, e := range full.State {
			if e.Type == matrix.TypeTopic {
				topic, _ = e.Content["topic"].(string)
			}
		}
		if topic != "11" || len(full.State) != 8 {
			t.Errorf("the state at the end of the context has %d events and the topic %q", len(full.State), topic)
		}
		g.Refused("alice", "GET", roomPath(r, "context/$nothing"), "", 404, matrix.CodeNotFound)
	})
}

// TestTimestamp finds the nearest visible event on either side, also among
// events of the same time.
func TestTimestamp(t *testing.T) {
	each(t, func(g *Rig) {
		r := g.Room("alice", State(matrix.TypeHistoryVisibility, "", `{"history_visibility":"joined"}`))
		at := func(user, text string, ts int64) matrix.EventID {
			p := Message(text)
			p.Timestamp = &ts
			return g.Send(r, user, p).ID
		}
		const year = 1_700_000_000_000
		first := at("alice", "1", year)
		at("alice", "hidden from bob", year+1000)
		g.Join(r, "bob") // at the time of the rig's clock, long before
		second := at("alice", "2", year+2000)
		third := at("alice", "3", year+2000)
		for _, c := range []struct {
			user, dir string
			ts        int64
			want      matrix.EventID
		}{
			{"alice", "f", year, first}, {"alice", "b", year, first}, {"alice", "f", year + 1001, second},
			{"alice", "f", year + 2000, second}, {"alice", "b", year + 2000, third}, {"alice", "b", year + 9000, third},
			{"bob", "f", year, second}, {"bob", "f", 0, ""}, {"bob", "b", year + 9000, third},
		} {
			path := room1Path(r, fmt.Sprintf("timestamp_to_event?dir=%s&ts=%d", c.dir, c.ts))
			type answer struct {
				ID matrix.EventID `json:"event_id"`
				TS int64          `json:"origin_server_ts"`
			}
			got := Get[answer](g, c.user, path)
			if c.want != "" && got.ID != c.want || got.TS == 0 {
				t.Errorf("%s of %s from %d: %v", c.dir, c.user, c.ts-year, got)
			}
		}
		g.Refused("alice", "GET", room1Path(r, fmt.Sprint("timestamp_to_event?dir=f&ts=", year+3000)), "", 404, matrix.CodeNotFound)
		g.Refused("alice", "GET", room1Path(r, "timestamp_to_event?dir=b&ts=0"), "", 404, matrix.CodeNotFound)
		g.Refused("alice", "GET", room1Path(r, "timestamp_to_event?dir=b"), "", 400, matrix.CodeMissingParam)
		g.Refused("alice", "GET", room1Path(r, "timestamp_to_event?ts=1"), "", 400, matrix.CodeMissingParam)
		g.Refused("alice", "GET", room1Path(r, "timestamp_to_event?ts=x&dir=f"), "", 400, matrix.CodeInvalidParam)
	})
}

// TestUnsigned keeps what was before out of an answer about a state.
func TestUnsigned(t *testing.T) {
	each(t, func(g *Rig) {
		r := g.Room("alice", State(matrix.TypeTopic, "", `{"topic":"secret"}`))
		changed := g.Send(r, "alice", State(matrix.TypeTopic, "", `{"topic":"tea"}`)).ID
		one := Get[clientEvent](g, "alice", roomPath(r, "event/"+string(changed)))
		if one.Unsigned["prev_content"] == nil || one.Unsigned["membership"] != "join" || one.Unsigned["age"] == nil {
			t.Errorf("an event of the timeline has unsigned %v", one.Unsigned)
		}
		for _, e := range Get[[]clientEvent](g, "alice", roomPath(r, "state")) {
			if keys := slices.Collect(maps.Keys(e.Unsigned)); !slices.Equal(keys, []string{"age"}) {
				t.Errorf("an event of the state has unsigned %v", e.Unsigned)
			}
		}
	})
}
