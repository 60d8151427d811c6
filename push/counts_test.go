package push_test

import (
	"fmt"
	"testing"

	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/internal/testrig"
)

// unread gives a user's counts of a room as "notifications/highlights".
func unread(c *testrig.Client, room matrix.RoomID) string {
	counts := at(c.Sync("", 0), "rooms", "join", room, "unread_notifications")
	return fmt.Sprint(at(counts, "notification_count"), "/", at(counts, "highlight_count"))
}

func putRule(c *testrig.Client, path string, body object) {
	c.Must("PUT", "/v3/pushrules/global/"+path, body)
}

func enable(c *testrig.Client, path string, on bool) {
	putRule(c, path+"/enabled", object{"enabled": on})
}

var silent = object{"actions": []any{}}

// Events, the rules of bob and what that makes of bob's counts. Alice made the
// room, carol has no power in it.
func TestCountsByRules(t *testing.T) {
	text := func(more object) object {
		content := object{"msgtype": "m.text", "body": "time for Tea"}
		for k, v := range more {
			content[k] = v
		}
		return content
	}
	bob := object{"m.mentions": object{"user_ids": []string{"@bob:test"}}}
	all := object{"m.mentions": object{"room": true}}
	loud := object{"actions": []any{"notify", object{"set_tweak": "highlight"}}}
	cases := []struct {
		name    string
		prepare func(c *testrig.Client, room matrix.RoomID)
		typ     string
		content object
		want    string // of three events, one of them carol's
	}{
		{"messages", nil, "m.room.message", text(nil), "3/0"},
		{"encrypted ones", nil, "m.room.encrypted", object{}, "3/0"},
		{"notices", nil, "m.room.message", text(object{"msgtype": "m.notice"}), "0/0"},
		{"notices that mention", nil, "m.room.message", object{"msgtype": "m.notice", "m.mentions": bob["m.mentions"]}, "0/0"},
		{"mentions", nil, "m.room.message", text(bob), "3/3"},
		{"mentions in unknown types", nil, "org.example", bob, "3/3"},
		{"mentions of the room, two of them by who may", nil, "m.room.message", text(all), "3/2"},
		{"mentions of the room in unknown types", nil, "org.example", all, "2/2"},
		{"edits", nil, "m.room.message", text(object{"m.relates_to": object{"rel_type": "m.replace", "event_id": "$x"}}), "0/0"},
		{"calls", nil, "m.call.invite", object{}, "3/0"},
		{"stickers", nil, "m.sticker", object{}, "0/0"},
		{"a muted room", func(c *testrig.Client, room matrix.RoomID) {
			putRule(c, "override/mute", object{"actions": []any{}, "conditions": []any{
				object{"kind": "event_match", "key": "room_id", "pattern": string(room)}}})
		}, "m.room.message", text(bob), "0/0"},
		{"a room rule", func(c *testrig.Client, room matrix.RoomID) {
			putRule(c, "room/"+string(testrig.Path(room)[1:]), silent)
		}, "m.room.message", text(nil), "0/0"},
		{"a room rule and mentions", func(c *testrig.Client, room matrix.RoomID) {
			putRule(c, "room/"+string(testrig.Path(room)[1:]), silent)
		}, "m.room.message", text(bob), "3/3"},
		{"a sender rule", func(c *testrig.Client, _ matrix.RoomID) { putRule(c, "sender/@carol:test", silent) },
			"m.room.message", text(nil), "2/0"},
		{"a keyword", func(c *testrig.Client, _ matrix.RoomID) {
			putRule(c, "content/k", object{"pattern": "tea", "actions": loud["actions"]})
		}, "m.room.message", text(nil), "3/3"},
		{"a keyword in other words", func(c *testrig.Client, _ matrix.RoomID) {
			putRule(c, "content/k", object{"pattern": "te", "actions": loud["actions"]})
		}, "m.room.message", text(nil), "3/0"},
		{"the master rule", func(c *testrig.Client, _ matrix.RoomID) { enable(c, "override/.m.rule.master", true) },
			"m.room.message", text(bob), "0/0"},
		{"no room mentions", func(c *testrig.Client, _ matrix.RoomID) { enable(c, "override/.m.rule.is_room_mention", false) },
			"m.room.message", text(all), "3/0"},
		{"mentions alone", func(c *testrig.Client, _ matrix.RoomID) { putRule(c, "underride/.m.rule.message/actions", silent) },
			"m.room.message", text(nil), "0/0"},
		{"everything", func(c *testrig.Client, _ matrix.RoomID) {
			putRule(c, "underride/all", object{"actions": loud["actions"], "conditions": []any{object{"kind": "event_match", "key": "type", "pattern": "org.*"}}})
		},
			"org.example", object{}, "3/3"},
		{"an ignored user", func(c *testrig.Client, _ matrix.RoomID) {
			c.Must("PUT", "/v3/user"+testrig.Path(c.User, "account_data", "m.ignored_user_list"), object{"ignored_users": object{"@carol:test": object{}}})
		}, "m.room.message", text(bob), "2/2"},
	}
	each(t, func(t *testing.T, s *testrig.Server) {
		alice, carol := s.Register("alice"), s.Register("carol")
		for i, c := range cases {
			bob := s.Register(fmt.Sprint("bob", i))
			if c.content != nil {
				c.content = rename(c.content, string(bob.User)).(object)
			}
			room := alice.CreateRoom(object{"preset": "public_chat"})
			bob.Join(room)
			carol.Join(room)
			if c.prepare != nil {
				c.prepare(bob, room)
			}
			var ids []matrix.EventID
			for j, who := range []*testrig.Client{alice, carol, alice} {
				ids = append(ids, send(who, room, c.typ, fmt.Sprint(j), c.content))
			}
			if got := unread(bob, room); got != c.want {
				t.Errorf("%s: %s, not %s", c.name, got, c.want)
			}
			// Redacted events count for nobody.
			for j, id := range ids {
				alice.Must("PUT", "/v3/rooms"+testrig.Path(room, "redact", id, fmt.Sprint("r", j)), object{})
			}
			if got := unread(bob, room); got != "0/0" {
				t.Errorf("%s, redacted: %s", c.name, got)
			}
			last := send(carol, room, c.typ, "last", c.content)
			read(bob, room, last)
			if got := unread(bob, room); got != "0/0" {
				t.Errorf("%s, read: %s", c.name, got)
			}
		}
	})
}

// rename puts a user's id in the place of bob's.
func rename(v any, to string) any {
	switch v := v.(type) {
	case object:
		out := object{}
		for k, x := range v {
			out[k] = rename(x, to)
		}
		return out
	case []string:
		return []string{to}
	}
	return v
}

func TestNotificationsAreListed(t *testing.T) {
	each(t, func(t *testing.T, s *testrig.Server) {
		alice, bob, room := pair(s)
		other := alice.CreateRoom(object{"preset": "public_chat"})
		bob.Join(other)
		var ids []matrix.EventID
		for i := range 5 {
			ids = append(ids, alice.Say(room, fmt.Sprint("a", i), "one"), alice.Say(other, fmt.Sprint("b", i), "two"))
		}
		mention := send(alice, other, "m.room.message", "m", object{"body": "x", "m.mentions": object{"user_ids": []string{"@bob:test"}}})
		called := send(alice, room, "m.room.message", "c", object{"body": "x", "m.mentions": object{"room": true}})
		gone := alice.Say(room, "gone", "gone")
		alice.Must("PUT", "/v3/rooms"+testrig.Path(room, "redact", gone, "r"), object{})
		bob.Say(room, "own", "own")
		read(bob, other, ids[1])
		invited := alice.CreateRoom(object{"invite": []matrix.UserID{bob.User}})
		var seen []string
		from := ""
		for pages := 0; ; pages++ {
			a := bob.Must("GET", "/v3/notifications?limit=3&from="+from, nil)
			for _, n := range a["notifications"].([]any) {
				id := fmt.Sprint(at(n, "event", "event_id"))
				seen = append(seen, id)
				if wantRead := at(n, "room_id") == string(room) || id == string(ids[1]); at(n, "read") != wantRead {
					t.Errorf("read is %v of %v", at(n, "read"), n)
				}
				if at(n, "ts") == nil || at(n, "actions", 0) != "notify" || at(n, "event", "room_id") != nil {
					t.Errorf("a notification is %v", n)
				}
			}
			next, more := a["next_token"].(string)
			if !more || pages > 10 {
				break
			}
			from = next
		}
		want := []string{string(called), string(mention)}
		for i := len(ids) - 1; i >= 0; i-- {
			want = append(want, string(ids[i]))
		}
		if len(seen) != len(want)+1 || fmt.Sprint(seen[1:]) != fmt.Sprint(want) {
			t.Errorf("listed are %v after the invite, not %v", seen, want)
		}
		if a := bob.Must("GET", "/v3/notifications?limit=1", nil); at(a, "notifications", 0, "room_id") != string(invited) {
			t.Errorf("the first one is %v", a)
		}
		a := bob.Must("GET", "/v3/notifications?only=highlight", nil)
		if got := a["notifications"].([]any); len(got) != 2 || at(got, 0, "event", "event_id") != string(called) || at(got, 1, "event", "event_id") != string(mention) || a["next_token"] != nil {
			t.Errorf("highlights are %v", a)
		}
		a = bob.Must("GET", "/v3/notifications?only=highlight&limit=1", nil)
		a = bob.Must("GET", "/v3/notifications?only=highlight&limit=1&from="+a["next_token"].(string), nil)
		if at(a, "notifications", 0, "event", "event_id") != string(mention) {
			t.Errorf("the second highlight is %v", a)
		}
		bob.Fails(400, matrix.CodeInvalidParam, "GET", "/v3/notifications?from=x", nil)
		bob.Fails(400, matrix.CodeInvalidParam, "GET", "/v3/notifications?limit=0", nil)
	})
}

func TestRulesAreShownAsAccountData(t *testing.T) {
	each(t, func(t *testing.T, s *testrig.Server) {
		bob := s.Register("bob")
		since := bob.Sync("", 0)["next_batch"].(string)
		enable(bob, "override/.m.rule.master", true)
		a := bob.Sync(since, 0)
		data, _ := at(a, "account_data", "events").([]any)
		if len(data) != 1 || at(data[0], "type") != "m.push_rules" || at(data[0], "content", "global", "override", 0, "enabled") != true {
			t.Errorf("/sync says %v", a)
		}
		path := "/v3/user" + testrig.Path(bob.User, "account_data", "m.push_rules")
		if got := bob.Must("GET", path, nil); at(got, "global", "override", 0, "enabled") != true {
			t.Errorf("account data: %v", got)
		}
		bob.Fails(405, matrix.CodeBadJSON, "PUT", path, object{})
	})
}

func TestBlockedInvites(t *testing.T) {
	each(t, func(t *testing.T, s *testrig.Server) {
		alice, bob, room := pair(s)
		g := newGateway(t, s.Network, "push.example")
		other := alice.CreateRoom(object{"invite": []matrix.UserID{bob.User}})
		path := "/v3/user" + testrig.Path(bob.User, "account_data", "m.invite_permission_config")
		bob.Must("PUT", path, object{"default_action": "block"})
		setPusher(bob, g.pusher("key", nil))
		third := alice.CreateRoom(object{})
		alice.Fails(403, matrix.CodeInviteBlocked, "POST", "/v3/rooms"+testrig.Path(third, "invite"), object{"user_id": bob.User})
		alice.Fails(403, matrix.CodeInviteBlocked, "POST", "/v3/createRoom", object{"invite": []matrix.UserID{bob.User}})
		alice.Fails(403, matrix.CodeInviteBlocked, "PUT", "/v3/rooms"+testrig.Path(third, "state", "m.room.member", bob.User), object{"membership": "invite"})
		if got := at(bob.Sync("", 0), "rooms", "invite", other); got != nil {
			t.Errorf("an invite of before is shown: %v", got)
		}
		if n := at(bob.Must("GET", "/v3/notifications", nil), "notifications").([]any); len(n) != 0 {
			t.Errorf("notified of %v", n)
		}
		bob.Must("PUT", path, object{"default_action": 5})
		if at(bob.Sync("", 0), "rooms", "invite", other) == nil {
			t.Error("the invite is not shown again")
		}
		alice.Must("POST", "/v3/rooms"+testrig.Path(third, "invite"), object{"user_id": bob.User})
		if n := g.next(); n["room_id"] != string(third) {
			t.Errorf("notified of %v", n)
		}
		_ = room
	})
}
