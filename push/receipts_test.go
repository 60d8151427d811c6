package push_test

import (
	"fmt"
	"testing"

	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/internal/testrig"
)

// unreadByThread gives a user's counts of the main timeline and of a thread, such
// as "3/1 2/1", notifications before highlights.
func unreadByThread(c *testrig.Client, room matrix.RoomID, root matrix.EventID) string {
	told := at(c.Must("GET", byThread, nil), "rooms", "join", room)
	show := func(counts any) string {
		if counts == nil {
			return "0/0"
		}
		return fmt.Sprint(at(counts, "notification_count"), "/", at(counts, "highlight_count"))
	}
	return show(at(told, "unread_notifications")) + " " + show(at(told, "unread_thread_notifications", root))
}

// Events, what people with different rules have read of them, and what that
// leaves unread, in the main timeline and in the thread.
func TestCountsByReceipts(t *testing.T) {
	const main = "main"
	type receipt struct {
		typ    string // "": a message of one's own
		event  int
		thread string
	}
	inThread := "thread" // stands for the id of its root
	cases := []struct {
		name     string
		receipts []receipt
		// With the predefined rules; with a keyword; in a room with its own rule.
		plain, keyword, calm string
	}{
		{"nothing", nil, "3/1 2/1", "3/2 2/2", "1/1 1/1"},
		{"the first event", []receipt{{"m.read", 0, ""}}, "2/1 2/1", "2/2 2/2", "1/1 1/1"},
		{"up to the middle", []receipt{{"m.read", 2, ""}}, "1/0 1/0", "1/1 1/1", "0/0 0/0"},
		{"privately, up to an event of the thread", []receipt{{"m.read.private", 3, ""}}, "1/0 0/0", "1/1 0/0", "0/0 0/0"},
		{"all", []receipt{{"m.read", 4, ""}}, "0/0 0/0", "0/0 0/0", "0/0 0/0"},
		{"the main timeline in part", []receipt{{"m.read", 2, main}}, "1/0 2/1", "1/1 2/2", "0/0 1/1"},
		{"the main timeline, privately", []receipt{{"m.read.private", 4, main}}, "0/0 2/1", "0/0 2/2", "0/0 1/1"},
		{"the thread in part", []receipt{{"m.read", 1, inThread}}, "3/1 1/0", "3/2 1/1", "1/1 0/0"},
		{"the thread, privately", []receipt{{"m.read.private", 3, inThread}}, "3/1 0/0", "3/2 0/0", "1/1 0/0"},
		{"the thread's root as its beginning", []receipt{{"m.read", 0, inThread}}, "3/1 2/1", "3/2 2/2", "1/1 1/1"},
		{"both", []receipt{{"m.read", 3, inThread}, {"m.read", 4, main}}, "0/0 0/0", "0/0 0/0", "0/0 0/0"},
		{"publicly less than privately", []receipt{{"m.read.private", 2, ""}, {"m.read", 0, ""}}, "1/0 1/0", "1/1 1/1", "0/0 0/0"},
		{"all, and then only the first", []receipt{{"m.read", 4, ""}, {"m.read", 0, ""}}, "0/0 0/0", "0/0 0/0", "0/0 0/0"},
		{"everything before their own message", []receipt{{}}, "0/0 2/1", "0/0 2/2", "0/0 1/1"},
		{"everything before their own message in the thread", []receipt{{thread: inThread}}, "3/1 0/0", "3/2 0/0", "1/1 0/0"},
	}
	each(t, func(t *testing.T, s *testrig.Server) {
		alice := s.Register("alice")
		plain, keyword, calm := s.Register("plain"), s.Register("keyword"), s.Register("calm")
		putRule(keyword, "content/tea", object{"pattern": "tea", "actions": []any{"notify", object{"set_tweak": "highlight"}}})
		for _, c := range cases {
			room := alice.CreateRoom(object{"preset": "public_chat"})
			putRule(calm, "room"+testrig.Path(room), silent)
			readers := []*testrig.Client{plain, keyword, calm}
			var everybody []any
			for _, r := range readers {
				r.Join(room)
				everybody = append(everybody, r.User)
			}
			mention := object{"user_ids": everybody}
			var ids []matrix.EventID
			say := func(content object) {
				content["msgtype"] = "m.text"
				ids = append(ids, send(alice, room, "m.room.message", fmt.Sprint(len(ids)), content))
			}
			in := func(content object) object {
				content["m.relates_to"] = object{"rel_type": "m.thread", "event_id": ids[0]}
				return content
			}
			say(object{"body": "hello"})
			say(in(object{"body": "you", "m.mentions": mention}))
			say(object{"body": "you", "m.mentions": mention})
			say(in(object{"body": "tea"}))
			say(object{"body": "tea"})
			for i, want := range []string{c.plain, c.keyword, c.calm} {
				for j, r := range c.receipts {
					body := object{}
					switch r.thread {
					case main:
						body["thread_id"] = main
					case inThread:
						body["thread_id"] = ids[0]
					}
					own := fmt.Sprint("own", j) // a reaction, which notifies nobody else
					switch {
					case r.typ != "":
						readers[i].Must("POST", "/v3/rooms"+testrig.Path(room, "receipt", r.typ, ids[r.event]), body)
					case r.thread == inThread:
						send(readers[i], room, "m.reaction", own, in(object{}))
					default:
						send(readers[i], room, "m.reaction", own, object{})
					}
				}
				if got := unreadByThread(readers[i], room, ids[0]); got != want {
					t.Errorf("%s, by %s: %s, not %s", c.name, readers[i].User, got, want)
				}
			}
		}
	})
}
