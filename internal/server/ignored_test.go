package server_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/internal/testrig"
)

// What an ignored user says and whereto they invite is shown nowhere; what they
// make of a room is, since others build on it.
// spec: client-server#ignoring-users
func TestIgnoredUsersAreNowhere(t *testing.T) {
	testrig.Each(t, func(t *testing.T, s *testrig.Server) {
		alice, bob, carol := s.Register("alice"), s.Register("bob"), s.Register("carol")
		room := alice.CreateRoom(object{"preset": "public_chat", "power_level_content_override": object{"events": object{"m.room.topic": 0}}})
		bob.Join(room)
		carol.Join(room)
		path := "/v3/rooms" + testrig.Path(room)
		say := func(c *testrig.Client, txn string, content object) matrix.EventID {
			content["msgtype"] = "m.text"
			return matrix.EventID(c.Must("PUT", path+"/send/m.room.message"+testrig.Path(txn), content)["event_id"].(string))
		}
		since := alice.Sync("", 0)["next_batch"].(string)
		alice.Must("PUT", "/v3/user"+testrig.Path(alice.User, "account_data", "m.ignored_user_list"),
			object{"ignored_users": object{string(bob.User): object{}}})
		first := say(carol, "1", object{"body": "needle from carol"})
		relate := func(typ string) object {
			return object{"body": "needle psst", "m.relates_to": object{"rel_type": typ, "event_id": first, "key": "x"}}
		}
		loud := relate("m.thread")
		loud["m.mentions"] = object{"user_ids": []any{alice.User}}
		secret := say(bob, "2", object{"body": "needle psst", "m.mentions": object{"user_ids": []any{alice.User}}})
		say(bob, "3", loud)
		say(bob, "4", relate("m.reference"))
		bob.Must("PUT", path+"/state/m.room.topic/", object{"topic": "set by bob"})
		other := bob.CreateRoom(object{"invite": []matrix.UserID{alice.User}, "name": "psst"})
		asked := func(method, where string, body any) object {
			t.Helper()
			answer := alice.Must(method, where, body)
			raw, err := json.Marshal(answer)
			if err != nil {
				t.Fatal(err)
			}
			if strings.Contains(string(raw), "psst") || strings.Contains(string(raw), string(other)) {
				t.Errorf("%s %s tells of bob: %s", method, where, raw)
			}
			return answer
		}
		byThread := `&filter={"room":{"timeline":{"unread_thread_notifications":true}}}`
		for _, where := range []string{"/v3/sync?since=" + since, "/v3/sync?timeout=0", "/v3/sync?timeout=0" + byThread} {
			joined := at(asked("GET", where, nil), "rooms", "join", room)
			if fmt.Sprint(at(joined, "unread_notifications")) != "map[highlight_count:0 notification_count:1]" || at(joined, "unread_thread_notifications") != nil {
				t.Errorf("%s: unread is %v, %v", where, at(joined, "unread_notifications"), at(joined, "unread_thread_notifications"))
			}
			if raw, _ := json.Marshal(joined); !strings.Contains(string(raw), "set by bob") {
				t.Errorf("%s hides state", where)
			}
		}
		asked("GET", path+"/messages?dir=b&limit=100", nil)
		asked("GET", path+"/messages?dir=f&limit=100", nil)
		asked("GET", path+"/context"+testrig.Path(first), nil)
		asked("GET", path+"/event"+testrig.Path(first), nil)
		asked("GET", "/v1/rooms"+testrig.Path(room, "relations", first), nil)
		asked("GET", "/v1/rooms"+testrig.Path(room, "threads"), nil)
		asked("GET", "/v3/initialSync", nil)
		asked("GET", path+"/initialSync", nil)
		asked("GET", "/v3/notifications", nil)
		asked("GET", "/v3/notifications?only=highlight", nil)
		found := asked("POST", "/v3/search", object{"search_categories": object{"room_events": object{"search_term": "needle", "event_context": object{}}}})
		if n := at(found, "search_categories", "room_events", "count"); n != 1.0 {
			t.Errorf("the search finds %v events", n)
		}
		alice.Fails(404, matrix.CodeNotFound, "GET", path+"/event"+testrig.Path(secret), nil)
		alice.Fails(404, matrix.CodeNotFound, "GET", path+"/context"+testrig.Path(secret), nil)
	})
}

// What somebody wrote before they were ignored is not unread any more: there is nothing
// that one could read it by.
func TestIgnoringReads(t *testing.T) {
	testrig.Each(t, func(t *testing.T, s *testrig.Server) {
		alice, bob, carol := s.Register("alice"), s.Register("bob"), s.Register("carol")
		room := alice.CreateRoom(object{"preset": "public_chat"})
		bob.Join(room)
		carol.Join(room)
		path := "/v3/rooms" + testrig.Path(room)
		say := func(c *testrig.Client, txn string, content object) string {
			content["msgtype"], content["body"] = "m.text", txn
			return c.Must("PUT", path+"/send/m.room.message"+testrig.Path(txn), content)["event_id"].(string)
		}
		mention := object{"user_ids": []any{alice.User}}
		read := say(carol, "1", object{})
		say(bob, "2", object{})
		say(bob, "3", object{"m.mentions": mention})
		gone := say(bob, "4", object{"m.mentions": mention})
		bob.Must("PUT", path+"/redact"+testrig.Path(gone, "5"), object{})
		say(bob, "6", object{"m.mentions": mention, "m.relates_to": object{"rel_type": "m.thread", "event_id": read}})
		unread := func(want string) {
			t.Helper()
			joined := at(alice.Must("GET", `/v3/sync?timeout=0&filter={"room":{"timeline":{"unread_thread_notifications":true}}}`, nil), "rooms", "join", room)
			if got := fmt.Sprint(at(joined, "unread_notifications"), at(joined, "unread_thread_notifications")); got != want {
				t.Errorf("unread is %s, want %s", got, want)
			}
		}
		unread("map[highlight_count:1 notification_count:3] map[" + read + ":map[highlight_count:1 notification_count:1]]")
		alice.Must("PUT", "/v3/user"+testrig.Path(alice.User, "account_data", "m.ignored_user_list"),
			object{"ignored_users": object{string(bob.User): object{}}})
		unread("map[highlight_count:0 notification_count:1] <nil>")
		say(bob, "7", object{"m.mentions": mention})
		unread("map[highlight_count:0 notification_count:1] <nil>")
		alice.Must("POST", path+"/receipt/m.read"+testrig.Path(read), object{})
		unread("map[highlight_count:0 notification_count:0] <nil>")
	})
}

// at looks into JSON objects.
func at(v any, path ...any) any {
	for _, name := range path {
		m, _ := v.(object)
		v = m[fmt.Sprint(name)]
	}
	return v
}
