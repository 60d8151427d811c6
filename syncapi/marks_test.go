package syncapi_test

import (
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/teahouse-chat/teahouse/internal/config"
	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/internal/testrig"
)

// pair is two users in a room.
func pair(s *testrig.Server) (alice, bob *testrig.Client, room matrix.RoomID) {
	alice, bob = s.Register("alice"), s.Register("bob")
	room = alice.CreateRoom(object{"preset": "public_chat"})
	bob.Join(room)
	return alice, bob, room
}

func receipt(c *testrig.Client, room matrix.RoomID, typ string, id matrix.EventID, body any) {
	c.Must("POST", "/v3/rooms"+testrig.Path(room, "receipt", typ, id), body)
}

// ephemeral finds the content of the room's ephemeral events of a type.
func ephemeral(a object, room matrix.RoomID, typ string) []any {
	var found []any
	for _, ev := range events(a, "rooms", "join", room, "ephemeral") {
		if at(ev, "type") == typ {
			found = append(found, at(ev, "content"))
		}
	}
	return found
}

func TestReceiptsReachThoseWhoMaySeeThem(t *testing.T) {
	testrig.Each(t, func(t *testing.T, s *testrig.Server) {
		alice, bob, room := pair(s)
		first, second := alice.Say(room, "1", "one"), alice.Say(room, "2", "two")
		since := map[*testrig.Client]string{alice: next(ask(t, alice, "")), bob: next(ask(t, bob, ""))}
		open := poll(t, alice, since[alice])
		receipt(bob, room, "m.read", first, object{})
		woken := within(t, open)
		if got := ephemeral(woken, room, "m.receipt"); len(got) != 1 || at(got[0], first, "m.read", bob.User, "ts") == nil {
			t.Errorf("the receipt is %v", got)
		}
		receipt(bob, room, "m.read.private", second, object{})
		receipt(bob, room, "m.read", first, nil) // again, without a body
		if a := ask(t, alice, next(woken)); at(a, "rooms", "join", room) != nil {
			t.Errorf("alice is told of a private receipt or one that did not move: %v", a)
		}
		mine := ephemeral(ask(t, bob, since[bob]), room, "m.receipt")
		if len(mine) != 1 || at(mine[0], second, "m.read.private", bob.User) == nil || at(mine[0], first, "m.read", bob.User) == nil {
			t.Errorf("bob's own receipts are %v", mine)
		}
		fresh := ephemeral(ask(t, alice, ""), room, "m.receipt")
		if len(fresh) != 1 || at(fresh[0], second) != nil || at(fresh[0], first, "m.read", bob.User) == nil {
			t.Errorf("a fresh start shows alice %v", fresh)
		}
		// A receipt and a threaded one of the same user for the same event.
		receipt(bob, room, "m.read", second, object{"thread_id": "main"})
		receipt(bob, room, "m.read", second, object{})
		if got := ephemeral(ask(t, alice, next(woken)), room, "m.receipt"); len(got) != 2 ||
			at(got[0], second, "m.read", bob.User, "thread_id") != nil || at(got[1], second, "m.read", bob.User, "thread_id") != "main" {
			t.Errorf("both receipts are %v", got)
		}
		for _, bad := range []struct {
			typ  string
			body any
		}{
			{"m.read", object{"thread_id": ""}}, {"m.read", object{"thread_id": 7}}, {"m.read", object{"thread_id": nil}},
			{"m.read", object{"thread_id": first}}, {"m.read", object{"thread_id": "nothing"}},
			{"m.fully_read", object{"thread_id": "main"}}, {"m.other", object{}},
		} {
			bob.Fails(400, matrix.CodeInvalidParam, "POST", "/v3/rooms"+testrig.Path(room, "receipt", bad.typ, second), bad.body)
		}
		s.Register("carol").Fails(403, matrix.CodeForbidden, "POST", "/v3/rooms"+testrig.Path(room, "receipt", "m.read", second), object{})
		bob.Fails(404, matrix.CodeNotFound, "POST", "/v3/rooms"+testrig.Path(room, "receipt", "m.read", "$nothing"), object{})
	})
}

func TestReadMarkersMoveTogether(t *testing.T) {
	testrig.Each(t, func(t *testing.T, s *testrig.Server) {
		alice, bob, room := pair(s)
		id := alice.Say(room, "1", "one")
		since := next(ask(t, bob, ""))
		open := poll(t, bob, since)
		bob.Must("POST", "/v3/rooms"+testrig.Path(room, "read_markers"), object{"m.fully_read": id, "m.read": id, "m.read.private": id})
		join := at(within(t, open), "rooms", "join", room)
		data := events(join, "account_data")
		if len(data) != 1 || at(data[0], "type") != "m.fully_read" || at(data[0], "content", "event_id") != string(id) {
			t.Errorf("the marker is %v", data)
		}
		if at(join, "unread_notifications", "notification_count") != 0.0 {
			t.Errorf("unread: %v", at(join, "unread_notifications"))
		}
		bob.Fails(404, matrix.CodeNotFound, "POST", "/v3/rooms"+testrig.Path(room, "read_markers"), object{"m.fully_read": "$nothing"})
	})
}

// unread gives counts as "notifications/highlights", the threads behind it.
func unread(a object, room matrix.RoomID, roots ...matrix.EventID) string {
	show := func(v any) string {
		return fmt.Sprint(at(v, "notification_count"), "/", at(v, "highlight_count"))
	}
	got := show(at(a, "rooms", "join", room, "unread_notifications"))
	for _, root := range roots {
		got += " " + show(at(a, "rooms", "join", room, "unread_thread_notifications", root))
	}
	return got
}

const threadsFilter = `{"room":{"timeline":{"unread_thread_notifications":true}}}`

func reply(c *testrig.Client, room matrix.RoomID, root matrix.EventID, txn string, more object) matrix.EventID {
	content := object{"msgtype": "m.text", "body": txn, "m.relates_to": object{"rel_type": "m.thread", "event_id": root}}
	for k, v := range more {
		content[k] = v
	}
	answer := c.Must("PUT", "/v3/rooms"+testrig.Path(room, "send", "m.room.message", txn), content)
	return matrix.EventID(answer["event_id"].(string))
}

func TestUnreadCountsByThread(t *testing.T) {
	testrig.Each(t, func(t *testing.T, s *testrig.Server) {
		alice, bob, room := pair(s)
		check := func(when, want, wantThreaded string, roots ...matrix.EventID) {
			t.Helper()
			if got := unread(ask(t, bob, ""), room); got != want {
				t.Errorf("%s: %s, not %s", when, got, want)
			}
			if got := unread(ask(t, bob, "", "filter", threadsFilter), room, roots...); got != wantThreaded {
				t.Errorf("%s, by thread: %s, not %s", when, got, wantThreaded)
			}
		}
		check("at first", "0/0", "0/0")
		root := alice.Say(room, "1", "root")
		last := alice.Say(room, "2", "two")
		check("two messages", "2/0", "2/0 <nil>/<nil>", root)
		inThread := reply(alice, room, root, "3", nil)
		reply(alice, room, root, "4", object{"m.mentions": object{"user_ids": []matrix.UserID{bob.User}}})
		check("two in a thread, one a mention", "4/1", "2/0 2/1", root)
		receipt(bob, room, "m.read", last, object{"thread_id": "main"})
		check("the main timeline is read", "2/1", "0/0 2/1", root)
		receipt(bob, room, "m.read.private", inThread, object{"thread_id": root})
		check("half of the thread is read", "1/1", "0/0 1/1", root)
		five := alice.Say(room, "5", "five")
		check("one more", "2/1", "1/0 1/1", root)
		receipt(bob, room, "m.read", five, object{})
		check("all is read", "0/0", "0/0 <nil>/<nil>", root)
		alice.Must("PUT", "/v3/rooms"+testrig.Path(room, "send", "m.room.message", "6"),
			object{"msgtype": "m.text", "body": "all", "m.mentions": object{"room": true}})
		check("the room is called", "1/1", "1/1 <nil>/<nil>", root)
		bob.Say(room, "7", "here")
		check("having answered", "0/0", "0/0 <nil>/<nil>", root)
		if got := unread(ask(t, alice, ""), room); got != "1/0" {
			t.Errorf("the one who called has %s", got)
		}
		bob.Must("PUT", "/v3/rooms"+testrig.Path(room, "send", "m.room.message", "8"),
			object{"msgtype": "m.text", "body": "all", "m.mentions": object{"room": true}})
		if got := unread(ask(t, alice, ""), room); got != "2/0" {
			t.Errorf("without the power to call everybody: %s", got)
		}
		// Far beyond what is in memory, and after a restart.
		for i := range 150 {
			alice.Say(room, fmt.Sprint("many", i), "many")
		}
		reply(alice, room, root, "9", object{"m.mentions": object{"user_ids": []matrix.UserID{bob.User}}})
		for i := range 140 {
			alice.Say(room, fmt.Sprint("more", i), "more")
		}
		check("many", "291/1", "290/0 1/1", root)
		s.Restart()
		check("many, after a restart", "291/1", "290/0 1/1", root)
	})
}

func typing(c *testrig.Client, room matrix.RoomID, body object) {
	c.Must("PUT", "/v3/rooms"+testrig.Path(room, "typing", c.User), body)
}

func TestTyping(t *testing.T) {
	s := testrig.Start(t, testrig.Options{})
	alice, bob, room := pair(s)
	open := poll(t, alice, next(ask(t, alice, "")))
	typing(bob, room, object{"typing": true, "timeout": 400})
	woken := within(t, open)
	if got := fmt.Sprint(ephemeral(woken, room, "m.typing")); got != "[map[user_ids:[@bob:test]]]" {
		t.Errorf("typing: %s", got)
	}
	if got := fmt.Sprint(ephemeral(ask(t, alice, ""), room, "m.typing")); got != "[map[user_ids:[@bob:test]]]" {
		t.Errorf("typing, afresh: %s", got)
	}
	stopped := within(t, poll(t, alice, next(woken))) // by the clock
	if got := fmt.Sprint(ephemeral(stopped, room, "m.typing")); got != "[map[user_ids:[]]]" {
		t.Errorf("stopped: %s", got)
	}
	typing(bob, room, object{"typing": true})
	begun := ask(t, alice, next(stopped))
	typing(bob, room, object{"typing": true}) // no news
	if a := ask(t, alice, next(begun)); at(a, "rooms", "join", room) != nil {
		t.Errorf("typing on is news: %v", a)
	}
	typing(bob, room, object{"typing": false})
	if got := fmt.Sprint(ephemeral(ask(t, alice, next(begun)), room, "m.typing")); got != "[map[user_ids:[]]]" {
		t.Errorf("stopped: %s", got)
	}
	alice.Fails(403, matrix.CodeForbidden, "PUT", "/v3/rooms"+testrig.Path(room, "typing", bob.User), object{"typing": true})
	s.Register("carol").Fails(403, matrix.CodeForbidden, "PUT", "/v3/rooms"+testrig.Path(room, "typing", "@carol:test"), object{"typing": true})
	alice.Fails(400, matrix.CodeMissingParam, "PUT", "/v3/rooms"+testrig.Path(room, "typing", alice.User), object{})

	// What was kept in memory is gone after a restart; a token must cope.
	token := next(ask(t, alice, ""))
	s.Restart()
	if a := ask(t, alice, token); at(a, "rooms", "join", room) != nil {
		t.Errorf("after a restart: %v", a)
	}
	open = poll(t, alice, token)
	typing(bob, room, object{"typing": true})
	if got := fmt.Sprint(ephemeral(within(t, open), room, "m.typing")); got != "[map[user_ids:[@bob:test]]]" {
		t.Errorf("typing, after a restart: %s", got)
	}
}

func TestPresence(t *testing.T) {
	s := testrig.Start(t, testrig.Options{Change: func(c *config.Config) { c.Presence.Enabled = true }})
	alice, bob, _ := pair(s)
	carol := s.Register("carol")
	// of finds somebody's last presence in answers until the wanted state is there.
	wait := func(c *testrig.Client, since string, of matrix.UserID, state string) (object, string) {
		t.Helper()
		for end := time.Now().Add(10 * time.Second); time.Now().Before(end); {
			a := ask(t, c, since, "timeout", "1000")
			since = next(a)
			for _, ev := range events(a, "presence") {
				if at(ev, "sender") == string(of) && at(ev, "content", "presence") == state {
					return at(ev, "content").(object), since
				}
			}
		}
		t.Fatalf("%s is not seen to be %s", of, state)
		return nil, ""
	}
	since := next(ask(t, alice, ""))
	bob.Must("PUT", "/v3/presence"+testrig.Path(bob.User, "status"), object{"presence": "unavailable", "status_msg": "<tea>"})
	content, since := wait(alice, since, bob.User, "unavailable")
	if content["status_msg"] != "<tea>" || content["last_active_ago"] == nil {
		t.Errorf("bob is %v", content)
	}
	bob.Sync("", 0) // a client that listens is online
	content, since = wait(alice, since, bob.User, "online")
	if content["currently_active"] != true {
		t.Errorf("bob is %v", content)
	}
	if got := alice.Must("GET", "/v3/presence"+testrig.Path(bob.User, "status"), nil); got["presence"] != "online" || got["status_msg"] != "<tea>" {
		t.Errorf("bob's status is %v", got)
	}
	found := false
	for _, ev := range events(ask(t, alice, ""), "presence") {
		found = found || at(ev, "sender") == string(bob.User)
	}
	if !found {
		t.Error("a fresh start does not show bob")
	}
	if got := events(ask(t, carol, ""), "presence"); len(got) != 0 {
		t.Errorf("carol, who shares no room, sees %v", got)
	}
	carol.Fails(403, matrix.CodeForbidden, "GET", "/v3/presence"+testrig.Path(bob.User, "status"), nil)
	carol.Fails(403, matrix.CodeForbidden, "PUT", "/v3/presence"+testrig.Path(bob.User, "status"), object{"presence": "online"})
	bob.Fails(400, matrix.CodeInvalidParam, "PUT", "/v3/presence"+testrig.Path(bob.User, "status"), object{"presence": "asleep"})
	s.Clock.Advance(time.Minute)
	wait(alice, since, bob.User, "offline")
}

func TestPresenceOfThoseWhoArrive(t *testing.T) {
	s := testrig.Start(t, testrig.Options{Change: func(c *config.Config) { c.Presence.Enabled = true }})
	alice, bob := s.Register("alice"), s.Register("bob")
	room := alice.CreateRoom(object{"preset": "public_chat"})
	bob.Sync("", 0) // online, and known to nobody
	time.Sleep(300 * time.Millisecond)
	since := next(ask(t, alice, ""))
	bob.Join(room)
	a := ask(t, alice, since)
	if got := events(a, "presence"); len(got) != 1 || at(got[0], "sender") != string(bob.User) {
		t.Errorf("when bob arrives alice sees %v", got)
	}
	if got := events(ask(t, alice, next(a)), "presence"); len(got) != 0 {
		t.Errorf("and again: %v", got)
	}
}

func TestAccountDataComesWithTheRoomsOrWithout(t *testing.T) {
	testrig.Each(t, func(t *testing.T, s *testrig.Server) {
		alice := s.Register("alice")
		room := alice.CreateRoom(object{})
		since := next(ask(t, alice, ""))
		open := poll(t, alice, since)
		alice.Must("PUT", "/v3/user"+testrig.Path(alice.User, "account_data", "org.example"), object{"a": 1})
		woken := within(t, open)
		if got := events(woken, "account_data"); len(got) != 1 || at(got[0], "content", "a") != 1.0 {
			t.Errorf("global: %v", got)
		}
		alice.Must("PUT", "/v3/user"+testrig.Path(alice.User, "rooms", room, "tags", "m.favourite"), object{"order": 0.5})
		a := ask(t, alice, next(woken))
		if got := events(a, "rooms", "join", room, "account_data"); len(got) != 1 || at(got[0], "type") != "m.tag" {
			t.Errorf("of the room: %v", got)
		}
		if len(events(a, "account_data")) != 0 {
			t.Errorf("global again: %v", a)
		}
		fresh := ask(t, alice, "")
		if !strings.Contains(briefly(events(fresh, "account_data")), "org.example") || briefly(events(fresh, "rooms", "join", room, "account_data")) != "m.tag" {
			t.Errorf("afresh: %v", fresh)
		}
	})
}

func TestIgnoredUsersAreNotHeard(t *testing.T) {
	s := testrig.Start(t, testrig.Options{})
	alice, bob, room := pair(s)
	since := next(ask(t, alice, ""))
	alice.Must("PUT", "/v3/user"+testrig.Path(alice.User, "account_data", "m.ignored_user_list"),
		object{"ignored_users": object{string(bob.User): object{}}})
	bob.Say(room, "1", "psst")
	bob.Must("PUT", "/v3/rooms"+testrig.Path(room, "state", "m.room.member", bob.User), object{"membership": "join", "displayname": "Bobby"})
	other := bob.CreateRoom(object{"invite": []matrix.UserID{alice.User}})
	a := ask(t, alice, since)
	if got := briefly(events(a, "rooms", "join", room, "timeline")); got != "join @bob:test" {
		t.Errorf("heard: %s", got)
	}
	if at(a, "rooms", "invite", other) != nil {
		t.Error("the invite of an ignored user is shown")
	}
}

func TestPeekingIntoAnOpenRoom(t *testing.T) {
	testrig.Each(t, func(t *testing.T, s *testrig.Server) {
		alice, bob := s.Register("alice"), s.Register("bob")
		open := alice.CreateRoom(object{"preset": "public_chat", "initial_state": []object{
			{"type": "m.room.history_visibility", "content": object{"history_visibility": "world_readable"}},
		}})
		closed := alice.CreateRoom(object{"preset": "public_chat"})
		alice.Say(open, "1", "seen by all")
		info := bob.Must("GET", "/v3/rooms"+testrig.Path(open, "initialSync"), nil)
		chunk, _ := at(info, "messages", "chunk").([]any)
		if got := briefly(chunk); !strings.HasSuffix(got, "seen by all") || info["membership"] != nil || at(info, "state", 0, "room_id") != string(open) {
			t.Errorf("the room is %v", info)
		}
		bob.Fails(403, matrix.CodeForbidden, "GET", "/v3/rooms"+testrig.Path(closed, "initialSync"), nil)
		bob.Fails(403, matrix.CodeForbidden, "GET", "/v3/events?room_id="+url.QueryEscape(string(closed)), nil)
		bob.Fails(403, matrix.CodeForbidden, "GET", "/v3/events?room_id=!nothing:test", nil)
		answers := make(chan object, 1)
		listen := "/v3/events?timeout=20000&room_id=" + url.QueryEscape(string(open)) + "&from=" + at(info, "messages", "end").(string)
		go func() {
			_, a, _ := bob.Do(t.Context(), "GET", listen, nil)
			answers <- a
		}()
		time.Sleep(100 * time.Millisecond)
		alice.Say(open, "2", "live")
		a := within(t, answers)
		if got := briefly(a["chunk"].([]any)); got != "live" {
			t.Errorf("live: %v", a)
		}
		// Once it is closed, nothing more comes.
		alice.Must("PUT", "/v3/rooms"+testrig.Path(open, "state", "m.room.history_visibility", ""), object{"history_visibility": "joined"})
		alice.Say(open, "3", "not for all")
		bob.Fails(403, matrix.CodeForbidden, "GET", listen, nil)
	})
}

func TestTheWaysBeforeSync(t *testing.T) {
	s := testrig.Start(t, testrig.Options{})
	alice, bob, room := pair(s)
	invited := bob.CreateRoom(object{"invite": []matrix.UserID{alice.User}})
	a := alice.Must("GET", "/v3/initialSync", nil)
	if at(a, "rooms", 0, "room_id") != string(room) || at(a, "rooms", 0, "membership") != "join" ||
		at(a, "rooms", 1, "room_id") != string(invited) || at(a, "rooms", 1, "invite", "type") != "m.room.member" {
		t.Errorf("initialSync: %v", a)
	}
	bob.Say(room, "1", "one")
	bob.Say(room, "2", "two")
	got := alice.Must("GET", "/r0/events?timeout=1000&from="+a["end"].(string), nil)
	if briefly(got["chunk"].([]any)) != "one, two" || at(got, "chunk", 0, "room_id") != string(room) {
		t.Errorf("events: %v", got)
	}
	if got := alice.Must("GET", "/v3/events?timeout=0&from="+got["end"].(string), nil); len(got["chunk"].([]any)) != 0 {
		t.Errorf("then: %v", got)
	}
}

func TestARoomThatIsJoinedShowsWhoTypesAndWhatWasRead(t *testing.T) {
	s := testrig.Start(t, testrig.Options{})
	alice, bob, room := pair(s)
	carol := s.Register("carol")
	since := next(ask(t, carol, ""))
	receipt(bob, room, "m.read", alice.Say(room, "1", "one"), object{})
	typing(bob, room, object{"typing": true})
	carol.Join(room)
	a := ask(t, carol, since)
	if got := ephemeral(a, room, "m.typing"); len(got) != 1 {
		t.Errorf("typing: %v", got)
	}
	if got := ephemeral(a, room, "m.receipt"); len(got) != 1 {
		t.Errorf("receipts: %v", got)
	}
	// Who asks for no receipts still learns that the counts changed.
	quiet := `{"room":{"ephemeral":{"types":[]}}}`
	since = next(ask(t, carol, next(a)))
	id := alice.Say(room, "2", "two")
	since = next(ask(t, carol, since))
	receipt(carol, room, "m.read.private", id, object{})
	if got := unread(ask(t, carol, since, "filter", quiet), room); got != "0/0" {
		t.Errorf("having read: %s", got)
	}
}
