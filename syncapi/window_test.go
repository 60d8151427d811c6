package syncapi_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/internal/testrig"
)

func setState(c *testrig.Client, room matrix.RoomID, typ, key string, content object) {
	c.Must("PUT", "/v3/rooms"+testrig.Path(room, "state", typ, key), content)
}

func send(c *testrig.Client, room matrix.RoomID, typ, txn string, content object) matrix.EventID {
	return matrix.EventID(c.Must("PUT", "/v3/rooms"+testrig.Path(room, "send", typ, txn), content)["event_id"].(string))
}

func TestFilters(t *testing.T) {
	s := testrig.Start(t, testrig.Options{})
	alice, bob, room := pair(s)
	since := next(ask(t, alice, ""))
	one := bob.Say(room, "1", "one")
	send(alice, room, "org.example.a", "2", object{"url": "mxc://test/a"})
	send(alice, room, "m.reaction", "3", object{"m.relates_to": object{"rel_type": "m.annotation", "event_id": one, "key": "+1"}})
	setState(alice, room, "m.room.topic", "", object{"topic": "x"})
	bob.Say(room, "4", "four")
	for _, c := range []struct{ filter, timeline, limited string }{
		{`{}`, "one, org.example.a, m.reaction, m.room.topic, four", "false"},
		{`{"room":{"timeline":{"limit":2}}}`, "m.room.topic, four", "true"},
		{`{"room":{"timeline":{"limit":0}}}`, "", "true"},
		{`{"room":{"timeline":{"types":["m.room.*"]}}}`, "one, m.room.topic, four", "false"},
		{`{"room":{"timeline":{"types":["m.room.message"],"limit":1}}}`, "four", "true"},
		{`{"room":{"timeline":{"not_types":["m.*"]}}}`, "org.example.a", "false"},
		{`{"room":{"timeline":{"senders":["@bob:test"]}}}`, "one, four", "false"},
		{`{"room":{"timeline":{"not_senders":["@bob:test"],"types":["m.r*"]}}}`, "m.reaction, m.room.topic", "false"},
		{`{"room":{"timeline":{"contains_url":true}}}`, "org.example.a", "false"},
		{`{"room":{"timeline":{"related_by_rel_types":["m.annotation"]}}}`, "one", "false"},
		{`{"room":{"timeline":{"related_by_senders":["@bob:test"]}}}`, "none", ""},
		{`{"room":{"timeline":{"types":[]}}}`, "", "false"}, // the topic is in state then
		{`{"room":{"timeline":{"types":["m.none"]},"state":{"types":[]}}}`, "none", ""},
		{`{"room":{"rooms":["!other:test"]}}`, "none", ""},
		{fmt.Sprintf(`{"room":{"not_rooms":[%q]}}`, room), "none", ""},
		{fmt.Sprintf(`{"room":{"rooms":[%q],"timeline":{"rooms":[%q]}}}`, room, room), "one, org.example.a, m.reaction, m.room.topic, four", "false"},
	} {
		join := at(ask(t, alice, since, "filter", c.filter), "rooms", "join", room)
		if c.timeline == "none" {
			if len(events(join, "timeline")) != 0 || strings.Contains(c.filter, `"room":{"rooms"`) && join != nil {
				t.Errorf("%s: %v", c.filter, join)
			}
			continue
		}
		if got := briefly(events(join, "timeline")); got != c.timeline || fmt.Sprint(at(join, "timeline", "limited")) != c.limited {
			t.Errorf("%s: %s, limited %v", c.filter, got, at(join, "timeline", "limited"))
		}
	}

	// State events that the timeline's filter leaves out are state.
	join := at(ask(t, alice, since, "filter", `{"room":{"timeline":{"types":["m.room.message"]}}}`), "rooms", "join", room)
	if got := briefly(events(join, "state")); got != "m.room.topic" {
		t.Errorf("what the timeline leaves out is %s", got)
	}

	// The form of events.
	join = at(ask(t, alice, since, "filter", `{"event_fields":["type","content.body"]}`), "rooms", "join", room)
	if got, _ := json.Marshal(at(join, "timeline", "events", 0)); string(got) != `{"content":{"body":"one"},"type":"m.room.message"}` {
		t.Errorf("chosen fields: %s", got)
	}
	join = at(ask(t, alice, since, "filter", `{"event_format":"federation"}`), "rooms", "join", room)
	if at(join, "timeline", "events", 0, "auth_events") == nil {
		t.Errorf("as servers see it: %v", at(join, "timeline", "events", 0))
	}

	// By id.
	id := alice.Must("POST", "/v3/user"+testrig.Path(alice.User, "filter"), object{"room": object{"timeline": object{"limit": 1}}})["filter_id"].(string)
	if got := briefly(events(ask(t, alice, since, "filter", id), "rooms", "join", room, "timeline")); got != "four" {
		t.Errorf("by id: %s", got)
	}
	alice.Fails(400, matrix.CodeInvalidParam, "GET", "/v3/sync?filter=nothing", nil)
	alice.Fails(400, matrix.CodeNotJSON, "GET", "/v3/sync?filter=%7B", nil)
	alice.Fails(400, matrix.CodeInvalidParam, "GET", "/v3/sync?set_presence=asleep", nil)
	alice.Fails(400, matrix.CodeInvalidParam, "GET", "/v3/sync?timeout=-1", nil)
}

const lazy = `{"room":{"state":{"lazy_load_members":true}}}`

func memberState(join any) string {
	var members []string
	for _, ev := range events(join, "state") {
		if at(ev, "type") == "m.room.member" {
			members = append(members, at(ev, "state_key").(string))
		}
	}
	return strings.Join(members, " ")
}

func TestLazyMembers(t *testing.T) {
	testrig.Each(t, func(t *testing.T, s *testrig.Server) {
		alice := s.Register("alice")
		room := alice.CreateRoom(object{"preset": "public_chat", "name": "Named"})
		var others []*testrig.Client
		for i := range 4 {
			c := s.Register(fmt.Sprint("u", i))
			c.Join(room)
			others = append(others, c)
		}
		for i := range 10 {
			others[0].Say(room, fmt.Sprint(i), "talk")
		}
		first := ask(t, alice, "", "filter", lazy)
		if got := memberState(at(first, "rooms", "join", room)); got != "@alice:test @u0:test" {
			t.Errorf("at first: %s", got)
		}
		others[1].Say(room, "b1", "new here")
		others[0].Say(room, "b2", "hi")
		second := ask(t, alice, next(first), "filter", lazy)
		if got := memberState(at(second, "rooms", "join", room)); got != "@u1:test" {
			t.Errorf("then: %s", got)
		}
		if got := memberState(at(ask(t, alice, next(first), "filter", lazy), "rooms", "join", room)); got != "@u1:test" {
			t.Errorf("then, asked once more: %s", got)
		}
		others[1].Say(room, "c1", "again")
		if got := memberState(at(ask(t, alice, next(second), "filter", lazy), "rooms", "join", room)); got != "" {
			t.Errorf("redundant: %s", got)
		}
		redundant := strings.Replace(lazy, "true", `true,"include_redundant_members":true`, 1)
		if got := memberState(at(ask(t, alice, next(second), "filter", redundant), "rooms", "join", room)); got != "@u1:test" {
			t.Errorf("asked for redundant: %s", got)
		}
		// Whoever changes in a gap is told of, whether or not they speak.
		setState(others[2], room, "m.room.member", string(others[2].User), object{"membership": "join", "displayname": "Two"})
		others[3].Must("POST", "/v3/rooms"+testrig.Path(room, "leave"), object{})
		for i := range 15 {
			others[0].Say(room, fmt.Sprint("d", i), "talk")
		}
		gap := at(ask(t, alice, next(second), "filter", lazy), "rooms", "join", room)
		if got := memberState(gap); got != "@u2:test @u3:test" {
			t.Errorf("in the gap: %s", got)
		}
		if at(gap, "summary", "m.joined_member_count") != 4.0 {
			t.Errorf("the summary is %v", at(gap, "summary"))
		}
		full := at(ask(t, alice, next(second), "filter", lazy, "full_state", "true", "use_state_after", "true"), "rooms", "join", room)
		if got := briefly(events(full, "state_after")); !strings.Contains(got, "m.room.create") || !strings.Contains(got, "join @alice:test") {
			t.Errorf("full state: %s", got)
		}
	})
}

func TestHeroesStandForANamelessRoom(t *testing.T) {
	s := testrig.Start(t, testrig.Options{})
	alice := s.Register("alice")
	room := alice.CreateRoom(object{"preset": "public_chat"})
	heroes := func() string {
		return fmt.Sprint(at(ask(t, alice, "", "filter", lazy), "rooms", "join", room, "summary", "m.heroes"))
	}
	if got := heroes(); got != "[]" {
		t.Errorf("alone: %s", got)
	}
	for i := range 7 {
		s.Register(fmt.Sprint("u", i)).Join(room)
	}
	if got := heroes(); got != "[@u0:test @u1:test @u2:test @u3:test @u4:test]" {
		t.Errorf("with seven: %s", got)
	}
	if got := memberState(at(ask(t, alice, "", "filter", `{"room":{"timeline":{"limit":0},"state":{"lazy_load_members":true}}}`), "rooms", "join", room)); strings.Count(got, "@") != 6 {
		t.Errorf("the heroes' members: %s", got)
	}
	setState(alice, room, "m.room.name", "", object{"name": "Named"})
	if got := heroes(); got != "<nil>" {
		t.Errorf("named: %s", got)
	}
	setState(alice, room, "m.room.name", "", object{"name": ""})
	if got := heroes(); got == "<nil>" {
		t.Error("with an empty name: none")
	}
}

// THREATS F21: whatever state an inviting room has, the invited user can sync.
func TestAMaliciousInviteBreaksNothing(t *testing.T) {
	testrig.Each(t, func(t *testing.T, s *testrig.Server) {
		mallory, bob := s.Register("mallory"), s.Register("bob")
		room := mallory.CreateRoom(object{"preset": "private_chat"})
		long := strings.Repeat("x", 60_000)
		for _, typ := range []string{"m.room.name", "m.room.topic", "m.room.avatar", "m.room.encryption", "m.room.canonical_alias"} {
			content := object{"name": object{"a": []int{1}}, "topic": 7, "url": nil, "algorithm": []any{}, "weird\u0000": "\u0000", "long": long}
			if typ == "m.room.canonical_alias" {
				content = object{"long": long}
			}
			setState(mallory, room, typ, "", content)
		}
		since := next(ask(t, bob, ""))
		mallory.Must("POST", "/v3/rooms"+testrig.Path(room, "invite"), object{"user_id": bob.User})
		for name, a := range map[string]object{"then": ask(t, bob, since), "afresh": ask(t, bob, "")} {
			got := events(a, "rooms", "invite", room, "invite_state")
			if !strings.HasSuffix(briefly(got), "invite @bob:test") {
				t.Errorf("%s: %.300v", name, got)
			}
			if raw, _ := json.Marshal(got); len(raw) > 256<<10 {
				t.Errorf("%s: %d bytes", name, len(raw))
			}
		}
		// The same as a member, whose summary reads the name.
		bob.Join(room)
		if join := at(ask(t, bob, ""), "rooms", "join", room); at(join, "summary", "m.heroes") == nil {
			t.Errorf("joined: %.300v", join)
		}
	})
}

// THREATS F18: hidden events neither end a timeline's history nor leak.
func TestHiddenHistoryStaysHidden(t *testing.T) {
	s := testrig.Start(t, testrig.Options{})
	alice, bob := s.Register("alice"), s.Register("bob")
	room := alice.CreateRoom(object{"preset": "public_chat", "initial_state": []object{
		{"type": "m.room.history_visibility", "content": object{"history_visibility": "joined"}},
	}})
	for i := range 400 {
		alice.Say(room, fmt.Sprint(i), "hidden")
	}
	bob.Join(room)
	a := ask(t, bob, "")
	join := at(a, "rooms", "join", room)
	if got := briefly(events(join, "timeline")); got != "join @bob:test" || at(join, "timeline", "prev_batch") == nil {
		t.Errorf("the timeline is %s, %v", got, at(join, "timeline"))
	}
	if got := briefly(events(join, "state")); !strings.Contains(got, "m.room.create") {
		t.Errorf("the state is %s", got)
	}
}
