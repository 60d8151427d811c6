package syncapi_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/internal/testrig"
)

type object = testrig.JSON

// at walks into an answer; nil where the way ends.
func at(v any, path ...any) any {
	for _, p := range path {
		switch step := p.(type) {
		case int:
			list, _ := v.([]any)
			if step < 0 || step >= len(list) {
				return nil
			}
			v = list[step]
		default:
			m, _ := v.(object)
			v = m[fmt.Sprint(step)]
		}
	}
	return v
}

func events(v any, path ...any) []any {
	list, _ := at(v, append(path, "events")...).([]any)
	return list
}

// briefly names events: a message by its body, a member event by membership and
// user, anything else by its type.
func briefly(list []any) string {
	var names []string
	for _, ev := range list {
		switch at(ev, "type") {
		case "m.room.message":
			names = append(names, fmt.Sprint(at(ev, "content", "body")))
		case "m.room.member":
			names = append(names, fmt.Sprint(at(ev, "content", "membership"), " ", at(ev, "state_key")))
		default:
			names = append(names, fmt.Sprint(at(ev, "type")))
		}
	}
	return strings.Join(names, ", ")
}

func next(answer object) string { return answer["next_batch"].(string) }

// ask is Sync with further parameters, which stand in pairs.
func ask(t *testing.T, c *testrig.Client, since string, params ...string) object {
	t.Helper()
	q := url.Values{"timeout": {"0"}, "set_presence": {"offline"}}
	if since != "" {
		q.Set("since", since)
	}
	for i := 0; i < len(params); i += 2 {
		q.Set(params[i], params[i+1])
	}
	return c.Must("GET", "/v3/sync?"+q.Encode(), nil)
}

// poll asks in the background and waits until the request has gone to sleep.
func poll(t *testing.T, c *testrig.Client, since string) <-chan object {
	t.Helper()
	answers := make(chan object, 1)
	go func() {
		_, answer, err := c.Do(context.WithoutCancel(t.Context()), "GET", "/v3/sync?set_presence=offline&timeout=20000&since="+since, nil)
		if err != nil {
			answer = object{"error": err.Error()}
		}
		answers <- answer
	}()
	time.Sleep(100 * time.Millisecond)
	return answers
}

func within(t *testing.T, answers <-chan object) object {
	t.Helper()
	select {
	case a := <-answers:
		return a
	case <-time.After(10 * time.Second):
		t.Fatal("the open request was not answered")
		return nil
	}
}

func TestARoomComesWholeAndThenInPieces(t *testing.T) {
	testrig.Each(t, func(t *testing.T, s *testrig.Server) {
		alice := s.Register("alice")
		room := alice.CreateRoom(object{"name": "Tea", "preset": "public_chat"})
		first := alice.Sync("", 0)
		join := at(first, "rooms", "join", room)
		if join == nil {
			t.Fatalf("the room is not there: %v", first)
		}
		got := briefly(append(events(join, "state"), events(join, "timeline")...))
		for _, want := range []string{"m.room.create", "join @alice:test", "m.room.power_levels", "m.room.name"} {
			if strings.Count(got, want) != 1 {
				t.Errorf("%q is not there once: %s", want, got)
			}
		}
		if n := at(join, "summary", "m.joined_member_count"); n != 1.0 {
			t.Errorf("joined members: %v", n)
		}
		id := alice.Say(room, "1", "hello")
		second := alice.Sync(next(first), 0)
		join = at(second, "rooms", "join", room)
		if got := briefly(events(join, "timeline")); got != "hello" {
			t.Errorf("then: %s", got)
		}
		if at(join, "timeline", "events", 0, "event_id") != string(id) || at(join, "timeline", "limited") != false {
			t.Errorf("the timeline is %v", at(join, "timeline"))
		}
		if at(join, "timeline", "events", 0, "unsigned", "transaction_id") != "1" {
			t.Errorf("the sender's device does not get its transaction id: %v", at(join, "timeline", "events", 0))
		}
		if len(events(join, "state")) != 0 {
			t.Errorf("state without a gap: %v", events(join, "state"))
		}
		third := alice.Sync(next(second), 0)
		if at(third, "rooms", "join", room) != nil || next(third) != next(second) {
			t.Errorf("nothing new is %v", third)
		}
		for _, member := range []string{"account_data", "presence", "to_device", "device_lists", "device_one_time_keys_count", "device_unused_fallback_key_types"} {
			if third[member] == nil {
				t.Errorf("%s is missing", member)
			}
		}
	})
}

func TestAGapIsLimitedAndBridgedByState(t *testing.T) {
	for _, name := range []string{"state", "state_after", "org.matrix.msc4222.state_after"} {
		t.Run(name, func(t *testing.T) {
			s := testrig.Start(t, testrig.Options{})
			alice := s.Register("alice")
			room := alice.CreateRoom(object{"preset": "public_chat"})
			since := next(alice.Sync("", 0))
			alice.Must("PUT", "/v3/rooms"+testrig.Path(room, "state", "m.room.topic", ""), object{"topic": "early"})
			for i := range 30 {
				alice.Say(room, fmt.Sprint("a", i), fmt.Sprint(i))
			}
			alice.Must("PUT", "/v3/rooms"+testrig.Path(room, "state", "m.room.name", ""), object{"name": "late"})
			var params []string
			if name != "state" {
				params = []string{strings.Replace(name, "state_after", "use_state_after", 1), "true"}
			}
			join := at(ask(t, alice, since, params...), "rooms", "join", room)
			if at(join, "timeline", "limited") != true || len(events(join, "timeline")) != 10 {
				t.Errorf("the timeline is %v", at(join, "timeline"))
			}
			want := map[string]string{"state": "m.room.topic"}[name]
			if want == "" {
				want = "m.room.topic, m.room.name"
			}
			if got := briefly(events(join, name)); got != want {
				t.Errorf("the state is %s, not %s", got, want)
			}
			if name != "state" && at(join, "state") != nil {
				t.Error("state is there beside " + name)
			}
		})
	}
}

func TestAMessageWakesAnOpenRequest(t *testing.T) {
	testrig.Each(t, func(t *testing.T, s *testrig.Server) {
		alice, bob := s.Register("alice"), s.Register("bob")
		room := alice.CreateRoom(object{"preset": "public_chat"})
		bob.Join(room)
		open := poll(t, bob, next(ask(t, bob, "")))
		alice.Say(room, "1", "wake up")
		if got := briefly(events(within(t, open), "rooms", "join", room, "timeline")); got != "wake up" {
			t.Errorf("woken by %s", got)
		}
	})
}

// THREATS A4: a poll that is open while its user is put out of the room.
func TestWhoIsPutOutSeesTheirLeaveAndNothingAfter(t *testing.T) {
	testrig.Each(t, func(t *testing.T, s *testrig.Server) {
		for _, how := range []string{"kick", "ban"} {
			t.Run(how, func(t *testing.T) {
				alice, bob := s.Register("alice-"+how), s.Register("bob-"+how)
				room := alice.CreateRoom(object{"preset": "public_chat"})
				bob.Join(room)
				since := next(ask(t, bob, ""))
				open := poll(t, bob, since)
				alice.Must("POST", "/v3/rooms"+testrig.Path(room, how), object{"user_id": bob.User})
				alice.Say(room, "secret", "he is gone")
				alice.Must("PUT", "/v3/rooms"+testrig.Path(room, "state", "m.room.topic", ""), object{"topic": "secret topic"})
				woken := within(t, open)
				later := ask(t, bob, next(woken))
				again := ask(t, bob, since)
				fresh := ask(t, bob, "", "filter", `{"room":{"include_leave":true}}`)
				for name, a := range map[string]object{"woken": woken, "later": later, "again": again, "fresh": fresh} {
					raw, _ := json.Marshal(a)
					if strings.Contains(string(raw), "he is gone") || strings.Contains(string(raw), "secret topic") {
						t.Errorf("%s leaks: %s", name, raw)
					}
					if at(a, "rooms", "join", room) != nil {
						t.Errorf("%s has the room as joined", name)
					}
					left := at(a, "rooms", "leave", room)
					if (left != nil) == (name == "later") {
						t.Errorf("%s: left is %v", name, left)
						continue
					}
					want := map[string]string{"kick": "leave ", "ban": "ban "}[how] + string(bob.User)
					if got := briefly(events(left, "timeline")); left != nil && !strings.HasSuffix(got, want) {
						t.Errorf("%s ends with %s", name, got)
					}
				}
			})
		}
	})
}

func TestInvitesCarryStrippedState(t *testing.T) {
	testrig.Each(t, func(t *testing.T, s *testrig.Server) {
		alice, bob := s.Register("alice"), s.Register("bob")
		room := alice.CreateRoom(object{"name": "Private", "preset": "private_chat"})
		alice.Say(room, "1", "before")
		start := next(ask(t, bob, ""))
		open := poll(t, bob, start)
		alice.Must("POST", "/v3/rooms"+testrig.Path(room, "invite"), object{"user_id": bob.User})
		woken := within(t, open)
		got := briefly(events(woken, "rooms", "invite", room, "invite_state"))
		for _, want := range []string{"m.room.create", "m.room.name", "invite @bob:test"} {
			if !strings.Contains(got, want) {
				t.Errorf("%q is not in %s", want, got)
			}
		}
		if a := ask(t, bob, next(woken)); at(a, "rooms", "invite", room) != nil {
			t.Error("the invite comes twice")
		}
		alice.Must("POST", "/v3/rooms"+testrig.Path(room, "leave"), object{})
		bob.Must("POST", "/v3/rooms"+testrig.Path(room, "leave"), object{})
		left := at(ask(t, bob, next(woken)), "rooms", "leave", room)
		if got := briefly(events(left, "timeline")); got != "leave @bob:test" || len(events(left, "state")) != 0 {
			t.Errorf("the refused invite shows %v", left)
		}
	})
}

func TestANewlyJoinedRoomIsShownWhole(t *testing.T) {
	testrig.Each(t, func(t *testing.T, s *testrig.Server) {
		alice, bob := s.Register("alice"), s.Register("bob")
		room := alice.CreateRoom(object{"preset": "public_chat", "topic": "Leaves"})
		for i := range 15 {
			alice.Say(room, fmt.Sprint(i), fmt.Sprint("m", i))
		}
		since := next(ask(t, bob, ""))
		bob.Join(room)
		a := ask(t, bob, since)
		join := at(a, "rooms", "join", room)
		if got := briefly(events(join, "timeline")); !strings.HasSuffix(got, "m13, m14, join @bob:test") || at(join, "timeline", "limited") != true {
			t.Errorf("the timeline is %s", got)
		}
		got := briefly(events(join, "state"))
		for _, want := range []string{"m.room.create", "m.room.topic", "join @alice:test"} {
			if !strings.Contains(got, want) {
				t.Errorf("%q is not in %s", want, got)
			}
		}
		bob.Must("POST", "/v3/rooms"+testrig.Path(room, "leave"), object{})
		alice.Say(room, "unseen", "unseen")
		alice.Must("PUT", "/v3/rooms"+testrig.Path(room, "state", "m.room.topic", ""), object{"topic": "Buds"})
		left := ask(t, bob, next(a))
		if got := briefly(events(left, "rooms", "leave", room, "timeline")); got != "leave @bob:test" {
			t.Errorf("left with %s", got)
		}
		bob.Join(room)
		back := at(ask(t, bob, next(left)), "rooms", "join", room)
		if got := briefly(events(back, "state")); !strings.Contains(got, "m.room.create") {
			t.Errorf("back with %s", got)
		}
	})
}

// A restored backup leaves clients with tokens of a future that never was.
func TestATokenOfTheFutureStartsAfresh(t *testing.T) {
	s := testrig.Start(t, testrig.Options{})
	alice := s.Register("alice")
	room := alice.CreateRoom(object{"preset": "public_chat"})
	a := ask(t, alice, "s1_999999_abc_7_999999")
	if !strings.Contains(briefly(append(events(a, "rooms", "join", room, "timeline"), events(a, "rooms", "join", room, "state")...)), "m.room.create") {
		t.Errorf("not whole: %v", a)
	}
	alice.Say(room, "1", "then")
	if got := briefly(events(ask(t, alice, next(a)), "rooms", "join", room, "timeline")); got != "then" {
		t.Errorf("then %s", got)
	}
	for _, bad := range []string{"nonsense", "s1_1", "t1_4", "s1_-1_1_1_1"} {
		alice.Fails(400, matrix.CodeInvalidParam, "GET", "/v3/sync?since="+bad, nil)
	}
}

// THREATS A3: logging out ends the device's open requests, and only those.
func TestLogoutEndsOpenRequests(t *testing.T) {
	s := testrig.Start(t, testrig.Options{})
	alice := s.Register("alice")
	other := s.Login("alice")
	room := alice.CreateRoom(object{"preset": "public_chat"})
	mine := poll(t, alice, next(ask(t, alice, "")))
	others := poll(t, other, next(ask(t, other, "")))
	alice.Must("POST", "/v3/logout", object{})
	if a := within(t, mine); a["errcode"] != "M_UNKNOWN_TOKEN" {
		t.Errorf("the request of the device that logged out got %v", a)
	}
	other.Say(room, "1", "still here")
	if got := briefly(events(within(t, others), "rooms", "join", room, "timeline")); got != "still here" {
		t.Errorf("the other device got %s", got)
	}
}
