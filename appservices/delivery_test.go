package appservices_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/internal/testrig"
)

// sent is what is needed of the answer to a request that sends an event.
func sent(answer testrig.JSON) matrix.EventID { return matrix.EventID(answer["event_id"].(string)) }

// TestEventsReachTheirServices: a service gets what happens in rooms that one of its
// users is in, from the invitation on and up to the end of their stay, and nothing
// else.
func TestEventsReachTheirServices(t *testing.T) {
	testrig.Each(t, func(t *testing.T, s *testrig.Server) {
		irc, other := newBridge(t, s.Network, "irc"), newBridge(t, s.Network, "other")
		register(t, s, irc.registration(irc.mine()))
		register(t, s, other.registration(other.mine()))
		bot := irc.client(s)
		bot.Must("POST", "/v3/register", testrig.JSON{"type": "m.login.application_service", "username": "_irc_bob", "inhibit_login": true})
		alice := s.Register("alice")
		room := alice.CreateRoom(testrig.JSON{"preset": "public_chat"})
		alice.Say(room, "1", "nobody of irc hears this")
		alice.Must("POST", "/v3/rooms"+testrig.Path(room, "invite"), testrig.JSON{"user_id": "@_irc_bob:test"})
		irc.until("the invitation arrives", func() bool { return len(irc.ids) == 1 })
		invite := matrix.EventID(irc.ids[0])
		alice.Say(room, "2", "nor this: bob is only invited")
		bot.Must("POST", "/v3/rooms"+testrig.Path(room, "join")+"?user_id=@_irc_bob:test", testrig.JSON{})
		irc.until("the join arrives", func() bool { return len(irc.ids) == 2 })
		join := matrix.EventID(irc.ids[1])
		heard := alice.Say(room, "3", "hello bob")
		own := sent(bot.Must("PUT", "/v3/rooms"+testrig.Path(room, "send", "m.room.message", "t")+"?user_id=@_irc_bob:test&ts=1000",
			testrig.JSON{"msgtype": "m.text", "body": "hello alice"}))
		topic := sent(alice.Must("PUT", "/v3/rooms"+testrig.Path(room, "state", "m.room.topic")+"/", testrig.JSON{"topic": "x"}))
		bot.Must("POST", "/v3/rooms"+testrig.Path(room, "leave")+"?user_id=@_irc_bob:test", testrig.JSON{})
		alice.Say(room, "4", "bob is gone")
		bot.Must("PUT", "/v3/profile/@_irc_bob:test/displayname?user_id=@_irc_bob:test", testrig.JSON{"displayname": "Bob"})
		room2 := alice.CreateRoom(testrig.JSON{"room_version": "10"})
		alice.Must("POST", "/v3/rooms"+testrig.Path(room2, "invite"), testrig.JSON{"user_id": "@_irc:test"}) // the service's own
		irc.until("what comes in between arrives", func() bool { return len(irc.ids) == 7 })
		irc.gets(invite, join, heard, own, topic, matrix.EventID(irc.ids[5]), matrix.EventID(irc.ids[6]))
		leave, invited := irc.events[5], irc.events[6]
		if leave["type"] != "m.room.member" || leave["content"].(testrig.JSON)["membership"] != "leave" || leave["room_id"] != string(room) {
			t.Errorf("after the topic comes %v", leave)
		}
		if prev, _ := leave["unsigned"].(testrig.JSON)["prev_content"].(testrig.JSON); prev["membership"] != "join" {
			t.Errorf("the leave does not tell what was before: %v", leave)
		}
		if invited["state_key"] != "@_irc:test" || invited["room_id"] != string(room2) {
			t.Errorf("last comes %v", invited)
		}
		if ts := irc.events[3]["origin_server_ts"]; ts != float64(1000) {
			t.Errorf("the message of the service was sent at %v", ts)
		}
		if len(other.ids) > 0 {
			t.Errorf("the other service got %v", other.events)
		}
	})
}

// TestRoomsAndAliasesAreClaimed: a service gets all of the rooms that it claims, by
// their ids or by aliases, also when an alias comes later or goes.
func TestRoomsAndAliasesAreClaimed(t *testing.T) {
	s := testrig.Start(t, testrig.Options{})
	irc := newBridge(t, s.Network, "irc")
	alice := s.Register("alice")
	byID := alice.CreateRoom(testrig.JSON{})
	byAlias := alice.CreateRoom(testrig.JSON{})
	register(t, s, irc.registration(`{rooms: [{regex: '\`+string(byID)+`', exclusive: false}], aliases: [{regex: '#_irc_.*', exclusive: false}]}`))
	first := alice.Say(byID, "1", "claimed by its id")
	alice.Say(byAlias, "1", "not claimed")
	irc.gets(first)
	alice.Must("PUT", "/v3/directory/room"+testrig.Path("#_irc_here:test"), testrig.JSON{"room_id": byAlias})
	second := alice.Say(byAlias, "2", "claimed by its alias")
	irc.gets(first, second)
	alice.Must("DELETE", "/v3/directory/room"+testrig.Path("#_irc_here:test"), nil)
	alice.Say(byAlias, "3", "not claimed any more")
	third := alice.Say(byID, "2", "still claimed")
	irc.gets(first, second, third)
}

// curious is a service that claims all rooms and has got the one that alice made.
func curious(t *testing.T, s *testrig.Server) (*bridge, *testrig.Client, matrix.RoomID) {
	t.Helper()
	irc := newBridge(t, s.Network, "irc")
	register(t, s, irc.registration(`{rooms: [{regex: '.*', exclusive: false}]}`))
	alice := s.Register("alice")
	room := alice.CreateRoom(testrig.JSON{})
	made := len(alice.Must("GET", "/v3/rooms"+testrig.Path(room, "messages")+"?dir=f&limit=100", nil)["chunk"].([]any))
	irc.until("the room arrives", func() bool { return len(irc.ids) == made })
	return irc, alice, room
}

// TestServiceThatIsDown gets everything once it is back, also if the server was
// restarted meanwhile, each event once and under the id of the first try.
func TestServiceThatIsDown(t *testing.T) {
	testrig.Each(t, func(t *testing.T, s *testrig.Server) {
		irc, alice, room := curious(t, s)
		irc.mu.Lock()
		made := len(irc.ids)
		irc.mu.Unlock()
		for i, way := range []int{nothingSaid, answerLost, 503, 502, 429, 401} {
			irc.answers(status(way))
			alice.Say(room, string(rune('a'+i)), "while the service is not well")
			irc.mu.Lock()
			asked := len(irc.asked)
			irc.mu.Unlock()
			irc.until("the service is asked", func() bool { return len(irc.asked) > asked })
			if i == 3 {
				token := alice.Token
				s = s.Restart()
				alice = s.Anonymous()
				alice.Token = token
			}
			irc.answers(nil)
			if err := s.Appservices.Retry(t.Context(), "irc"); err != nil {
				t.Fatal(err)
			}
			irc.until("the message arrives", func() bool { return len(irc.ids) == made+i+1 })
		}
	})
}

// TestPoison: an event that a service refuses for ever is put aside, what is before
// and behind it arrives in its order, and an operator can have it sent again.
func TestPoison(t *testing.T) {
	testrig.Each(t, func(t *testing.T, s *testrig.Server) {
		irc, alice, room := curious(t, s)
		if err := s.Appservices.Pause(t.Context(), "irc", true); err != nil {
			t.Fatal(err)
		}
		irc.mu.Lock()
		want := make([]matrix.EventID, 0, len(irc.ids)+9)
		for _, id := range irc.ids {
			want = append(want, matrix.EventID(id))
		}
		irc.mu.Unlock()
		var poison matrix.EventID
		for i := range 9 {
			if i == 5 {
				poison = alice.Say(room, "poison", "poison")
				continue
			}
			want = append(want, alice.Say(room, string(rune('a'+i)), "harmless"))
		}
		irc.answers(func(_ *http.Request, body string) (int, string) {
			if strings.Contains(body, "poison") {
				return 500, "cannot"
			}
			return 200, "{}"
		})
		if err := s.Appservices.Pause(t.Context(), "irc", false); err != nil {
			t.Fatal(err)
		}
		for done := false; !done; {
			s.Clock.Advance(10 * time.Minute) // past every rest
			if err := s.Appservices.Retry(t.Context(), "irc"); err != nil {
				t.Fatal(err)
			}
			letters, err := s.Appservices.DeadLetters(t.Context(), "irc", 0, 10)
			if err != nil {
				t.Fatal(err)
			}
			if done = len(letters) > 0; done && (len(letters) != 1 || !strings.Contains(string(letters[0].Event), string(poison))) {
				t.Fatalf("put aside are %+v", letters)
			}
			time.Sleep(time.Millisecond)
		}
		irc.gets(want...)
		irc.answers(nil)
		if n, err := s.Appservices.Replay(t.Context(), "irc", 0); err != nil || n != 1 {
			t.Fatal(n, err)
		}
		irc.gets(append(want, poison)...)
		letters, err := s.Appservices.DeadLetters(t.Context(), "irc", 0, 10)
		if err != nil || len(letters) > 0 {
			t.Fatal(letters, err)
		}
	})
}

// TestServiceThatRefusesEverything keeps all its events: none of them is to blame.
func TestServiceThatRefusesEverything(t *testing.T) {
	s := testrig.Start(t, testrig.Options{})
	irc := newBridge(t, s.Network, "irc")
	irc.answers(status(500))
	register(t, s, irc.registration(`{rooms: [{regex: '.*', exclusive: false}]}`))
	alice := s.Register("alice")
	room := alice.CreateRoom(testrig.JSON{})
	last := alice.Say(room, "1", "hello")
	for range 10 {
		irc.mu.Lock()
		asked := len(irc.asked)
		irc.mu.Unlock()
		if err := s.Appservices.Retry(t.Context(), "irc"); err != nil {
			t.Fatal(err)
		}
		irc.until("the service is asked again", func() bool { return len(irc.asked) > asked })
	}
	if letters, err := s.Appservices.DeadLetters(t.Context(), "irc", 0, 10); err != nil || len(letters) > 0 {
		t.Fatal(letters, err)
	}
	irc.answers(nil)
	if err := s.Appservices.Retry(t.Context(), "irc"); err != nil {
		t.Fatal(err)
	}
	irc.until("everything arrives", func() bool { return irc.seen[string(last)] })
}

// TestLag counts from the first event that a service has not taken, be it in a
// transaction that is refused again and again, in a part of one, or in none yet.
func TestLag(t *testing.T) {
	testrig.Each(t, func(t *testing.T, s *testrig.Server) {
		irc, alice, room := curious(t, s)
		lag := func() time.Duration {
			t.Helper()
			list, err := s.Appservices.List(t.Context())
			if err != nil || len(list) != 1 {
				t.Fatal(list, err)
			}
			if list[0].Oldest.IsZero() {
				return 0
			}
			return s.Clock.Now().Sub(list[0].Oldest)
		}
		eventually(t, "nothing waits", func() bool { return lag() == 0 })
		irc.answers(func(_ *http.Request, body string) (int, string) {
			if strings.Contains(body, "poison") {
				return 500, "cannot"
			}
			return 200, "{}"
		})
		alice.Say(room, "1", "poison")
		irc.until("it is refused", func() bool { return strings.Contains(fmt.Sprint(irc.bodies), "poison") })
		s.Clock.Advance(time.Hour)
		alice.Say(room, "2", "behind it")
		if got := lag(); got < time.Hour || got > 2*time.Hour {
			t.Errorf("the lag is %s and not an hour", got)
		}
		irc.answers(nil)
		if err := s.Appservices.Retry(t.Context(), "irc"); err != nil {
			t.Fatal(err)
		}
		eventually(t, "everything is taken", func() bool { return lag() == 0 })
	})
}

// TestTimestampZero: a service may say that something happened at the beginning of
// 1970; that is not the same as to say nothing.
func TestTimestampZero(t *testing.T) {
	s := testrig.Start(t, testrig.Options{})
	irc := newBridge(t, s.Network, "irc")
	register(t, s, irc.registration("{}"))
	bot := irc.client(s)
	room := matrix.RoomID(bot.Must("POST", "/v3/createRoom", testrig.JSON{})["room_id"].(string))
	for query, early := range map[string]bool{"": false, "?ts=0": true} {
		for _, path := range []string{testrig.Path(room, "send", "m.room.message", "t"+query), testrig.Path(room, "state", "m.room.topic", "t")} {
			id := sent(bot.Must("PUT", "/v3/rooms"+path+query, testrig.JSON{"topic": query, "body": query}))
			ev := bot.Must("GET", "/v3/rooms"+testrig.Path(room, "event", id), nil)
			if at := ev["origin_server_ts"].(float64); (at == 0) != early {
				t.Errorf("%s%s is from %v", path, query, at)
			}
		}
	}
}
