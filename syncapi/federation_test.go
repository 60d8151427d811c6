package syncapi_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/teahouse-chat/teahouse/internal/db/dbtest"
	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/internal/testrig"
	"github.com/teahouse-chat/teahouse/rooms/event"
)

// abroad is a server of ours, with alice in a room, and another that the test
// plays, whose user bob is in the room.
type abroad struct {
	*testrig.Server
	t     *testing.T
	peer  *testrig.Peer
	alice *testrig.Client
	bob   matrix.UserID
	room  matrix.RoomID
	seen  *testrig.PeerRoom
	told  chan object // EDUs that the peer gets
	txn   int
}

func eachAbroad(t *testing.T, f func(t *testing.T, a *abroad)) {
	t.Helper()
	for _, kind := range []string{"sqlite", "postgres"} {
		t.Run(kind, func(t *testing.T) { f(t, newAbroad(t, kind)) })
	}
}

func newAbroad(t *testing.T, kind string) *abroad {
	t.Helper()
	n := testrig.NewNetwork()
	a := &abroad{t: t, told: make(chan object, 1000)}
	a.Server = testrig.Start(t, testrig.Options{Name: "here", Network: n, Database: dbtest.URL(t, kind), Federate: true})
	a.peer = testrig.NewPeer(t, n, "there")
	a.peer.Handle("PUT /_matrix/federation/v1/send/{txnId}", func(w http.ResponseWriter, r *http.Request) {
		var body struct {
			EDUs []object `json:"edus"`
		}
		if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
			t.Error(err)
		}
		for _, e := range body.EDUs {
			a.told <- e
		}
		testrig.WriteJSON(w, http.StatusOK, object{"pdus": object{}})
	})
	a.alice, a.bob = a.Register("alice"), a.peer.User("bob")
	a.room = a.alice.CreateRoom(object{"preset": "public_chat"})
	a.seen = a.peer.Join("here", a.room, a.bob)
	return a
}

// hear sends an EDU of the peer's.
func (a *abroad) hear(typ string, content any) {
	a.t.Helper()
	a.txn++
	if status, answer := a.peer.SendEDUs("here", fmt.Sprint("t", a.txn), object{"edu_type": typ, "content": content}); status != http.StatusOK {
		a.t.Fatalf("%s: %d %v", typ, status, answer)
	}
}

// awaits waits for the peer to be told of something, among other things.
func (a *abroad) awaits(typ, what string) object {
	a.t.Helper()
	timeout := time.After(time.Minute)
	for {
		select {
		case e := <-a.told:
			text, _ := json.Marshal(e["content"])
			if e["edu_type"] == typ && strings.Contains(string(text), what) {
				return e["content"].(object)
			}
		case <-timeout:
			a.t.Fatalf("the other server is not told of %s", what)
		}
	}
}

// shows asks until a client is shown ephemeral events that the condition holds for.
func (a *abroad) shows(since, typ string, ok func(content any) bool) string {
	a.t.Helper()
	for began := time.Now(); time.Since(began) < time.Minute; {
		answer := a.alice.Sync(since, 500)
		since = next(answer)
		for _, content := range ephemeral(answer, a.room, typ) {
			if ok(content) {
				return since
			}
		}
	}
	a.t.Fatalf("no such %s is shown", typ)
	return ""
}

func typists(want ...matrix.UserID) func(any) bool {
	return func(content any) bool {
		return fmt.Sprint(at(content, "user_ids")) == fmt.Sprint(want)
	}
}

func reads(id matrix.EventID, user matrix.UserID, thread any) func(any) bool {
	return func(content any) bool {
		r := at(content, id, "m.read", user)
		return r != nil && at(r, "thread_id") == thread
	}
}

func receiptOf(room matrix.RoomID, user any, id any, data object) object {
	return object{string(room): object{"m.read": object{fmt.Sprint(user): object{"event_ids": []any{id}, "data": data}}}}
}

func TestTypingAcrossServers(t *testing.T) {
	eachAbroad(t, func(t *testing.T, a *abroad) {
		since := next(ask(t, a.alice, ""))
		typing := func(user matrix.UserID, on any) object {
			return object{"room_id": a.room, "user_id": user, "typing": on}
		}
		a.hear("m.typing", typing(a.bob, true))
		since = a.shows(since, "m.typing", typists(a.bob))
		a.hear("m.typing", typing(a.bob, false))
		since = a.shows(since, "m.typing", typists())
		a.hear("m.typing", typing(a.bob, true))
		since = a.shows(since, "m.typing", typists(a.bob))
		a.alice.Must("PUT", "/v3/rooms"+testrig.Path(a.room, "typing", a.alice.User), object{"typing": true, "timeout": 1500})
		c := a.awaits("m.typing", string(a.alice.User))
		if c["room_id"] != string(a.room) || c["typing"] != true || len(c) != 3 {
			t.Errorf("%v", c)
		}
		a.awaits("m.typing", `"typing":false`) // the time runs out
		since = a.shows(since, "m.typing", typists(a.bob))
		// Whoever is put out types no more.
		a.alice.Must("POST", "/v3/rooms"+testrig.Path(a.room, "kick"), object{"user_id": a.bob})
		a.shows(since, "m.typing", typists())
	})
}

func TestReceiptsAcrossServers(t *testing.T) {
	eachAbroad(t, func(t *testing.T, a *abroad) {
		first := a.alice.Say(a.room, "1", "one")
		second := a.alice.Say(a.room, "2", "two")
		since := next(ask(t, a.alice, ""))
		a.hear("m.receipt", receiptOf(a.room, a.bob, second, object{"ts": 7}))
		since = a.shows(since, "m.receipt", reads(second, a.bob, nil))
		// None goes back; threads have their own.
		a.hear("m.receipt", receiptOf(a.room, a.bob, first, object{"ts": 8}))
		a.hear("m.receipt", receiptOf(a.room, a.bob, first, object{"ts": 8, "thread_id": "main"}))
		a.shows(since, "m.receipt", func(content any) bool {
			if reads(first, a.bob, nil)(content) {
				t.Error("a receipt went back")
			}
			return reads(first, a.bob, "main")(content)
		})
		// Ours go out, but for those that are private or do not move.
		receipt(a.alice, a.room, "m.read.private", first, object{})
		receipt(a.alice, a.room, "m.read", first, object{"thread_id": "main"})
		receipt(a.alice, a.room, "m.read", second, object{})
		receipt(a.alice, a.room, "m.read", first, object{})
		got := map[string]bool{}
		for len(got) < 2 {
			c := a.awaits("m.receipt", string(a.alice.User))
			if text, _ := json.Marshal(c); strings.Contains(string(text), "private") {
				t.Errorf("a private receipt is told: %s", text)
			}
			r := at(c, a.room, "m.read", a.alice.User)
			if at(r, "data", "ts") == nil || at(r, "event_ids", 1) != nil {
				t.Errorf("%v", c)
			}
			got[fmt.Sprint(at(r, "event_ids", 0), at(r, "data", "thread_id"))] = true
		}
		if !got[string(first)+"main"] || !got[fmt.Sprint(second, nil)] {
			t.Errorf("the receipts that go out are %v", got)
		}
		// After a restart they are still there.
		a.Server = a.Restart()
		a.alice = a.Login("alice")
		a.shows("", "m.receipt", reads(second, a.bob, nil))
	})
}

// A receipt may overtake the event that it is for.
func TestAReceiptBeforeItsEvent(t *testing.T) {
	eachAbroad(t, func(t *testing.T, a *abroad) {
		since := next(ask(t, a.alice, ""))
		r := a.peer.Join("here", a.room, a.peer.User("carol"))
		ev := r.Say(a.peer.User("carol"), "late")
		a.hear("m.receipt", receiptOf(a.room, a.bob, ev.ID, object{"ts": 7}))
		if status, answer := a.peer.Send("here", "late", ev); status != http.StatusOK {
			t.Fatal(answer)
		}
		a.shows(since, "m.receipt", reads(ev.ID, a.bob, nil))
	})
}

func TestPresenceAcrossServers(t *testing.T) {
	eachAbroad(t, func(t *testing.T, a *abroad) {
		push := func(user matrix.UserID, state string, more object) object {
			p := object{"user_id": user, "presence": state, "last_active_ago": 1000}
			for k, v := range more {
				p[k] = v
			}
			return object{"push": []any{p}}
		}
		see := func(since, state string) (object, string) {
			t.Helper()
			for began := time.Now(); time.Since(began) < time.Minute; {
				answer := a.alice.Sync(since, 500)
				since = next(answer)
				for _, ev := range events(answer, "presence") {
					if at(ev, "sender") == string(a.bob) && at(ev, "content", "presence") == state {
						return at(ev, "content").(object), since
					}
				}
			}
			t.Fatalf("bob is not seen %s", state)
			return nil, ""
		}
		since := next(ask(t, a.alice, ""))
		a.hear("m.presence", push(a.bob, "online", object{"status_msg": "tea", "currently_active": true}))
		c, since := see(since, "online")
		if c["status_msg"] != "tea" || c["currently_active"] != true || c["last_active_ago"].(float64) < 1000 {
			t.Errorf("%v", c)
		}
		if got := a.alice.Must("GET", "/v3/presence"+testrig.Path(a.bob, "status"), nil); got["presence"] != "online" || got["status_msg"] != "tea" {
			t.Errorf("%v", got)
		}
		// Whoever comes later sees them, whoever is in no room with them does not.
		dave := a.Register("dave")
		list := events(dave.Sync("", 0), "presence")
		dave.Fails(403, matrix.CodeForbidden, "GET", "/v3/presence"+testrig.Path(a.bob, "status"), nil)
		before := next(dave.Sync("", 0))
		dave.Join(a.room)
		if text, _ := json.Marshal(list); strings.Contains(string(text), string(a.bob)) {
			t.Errorf("a stranger sees %s", text)
		}
		if text, _ := json.Marshal(dave.Sync(before, 0)["presence"]); !strings.Contains(string(text), string(a.bob)) {
			t.Errorf("a newcomer sees %s", text)
		}
		if text, _ := json.Marshal(dave.Sync("", 0)["presence"]); !strings.Contains(string(text), string(a.bob)) {
			t.Errorf("at the start he sees %s", text)
		}
		a.hear("m.presence", push(a.bob, "unavailable", nil))
		c, since = see(since, "unavailable")
		if c["status_msg"] != nil || c["currently_active"] != false {
			t.Errorf("%v", c)
		}
		// A server that is heard of no more leaves nobody there.
		a.Clock.Advance(40 * time.Minute)
		see(since, "offline")
		// Ours are told of.
		a.alice.Must("PUT", "/v3/presence"+testrig.Path(a.alice.User, "status"), object{"presence": "unavailable", "status_msg": "<away>"})
		c = a.awaits("m.presence", "away")
		p := at(c, "push", 0)
		if at(p, "user_id") != string(a.alice.User) || at(p, "presence") != "unavailable" || at(p, "status_msg") != "<away>" || at(p, "last_active_ago") == nil {
			t.Errorf("%v", c)
		}
	})
}

// THREATS F16, F13: EDUs about other servers' users, or users who are not in the
// room, or malformed ones, have no effect and fail nothing.
func TestEDUsThatDoNotCount(t *testing.T) {
	eachAbroad(t, func(t *testing.T, a *abroad) {
		id := a.alice.Say(a.room, "1", "one")
		other := a.alice.CreateRoom(object{"preset": "public_chat"})
		otherID := a.alice.Say(other, "1", "one")
		root := a.alice.Say(a.room, "2", "two")
		carol, mallory := a.peer.User("carol"), matrix.UserID("@mallory:elsewhere")
		since := next(ask(t, a.alice, ""))
		for _, c := range []any{
			object{"room_id": a.room, "user_id": a.alice.User, "typing": true},
			object{"room_id": a.room, "user_id": mallory, "typing": true},
			object{"room_id": a.room, "user_id": carol, "typing": true},
			object{"room_id": other, "user_id": a.bob, "typing": true},
			object{"room_id": "!nowhere:here", "user_id": a.bob, "typing": true},
			object{"room_id": "nonsense", "user_id": a.bob, "typing": true},
			object{"room_id": a.room, "user_id": string(a.bob) + "\x00", "typing": true},
			object{"room_id": string(a.room) + "\x00", "user_id": a.bob, "typing": true},
			object{"room_id": a.room, "user_id": a.bob, "typing": "yes"}, object{"room_id": a.room, "user_id": a.bob},
			object{"room_id": 7, "user_id": a.bob, "typing": true}, object{}, nil, []any{}, "x", 7,
		} {
			a.hear("m.typing", c)
		}
		for _, c := range []any{
			receiptOf(a.room, a.alice.User, id, object{"ts": 1}), receiptOf(a.room, mallory, id, object{"ts": 1}), receiptOf(a.room, carol, id, object{"ts": 1}),
			receiptOf(other, a.bob, otherID, object{"ts": 1}), receiptOf(a.room, a.bob, otherID, object{"ts": 1}), receiptOf("!nowhere:here", a.bob, id, object{"ts": 1}),
			receiptOf(a.room, a.bob, id, object{"ts": 1, "thread_id": "\x00"}), receiptOf(a.room, a.bob, id, object{"ts": 1, "thread_id": 7}),
			receiptOf(a.room, a.bob, id, object{"ts": 1, "thread_id": root}), receiptOf(a.room, a.bob, id, object{"ts": 1, "thread_id": nil}),
			receiptOf(a.room, a.bob, "$\x00", object{"ts": 1}), receiptOf(a.room, a.bob, 7, object{"ts": 1}), receiptOf(a.room, a.bob, id, object{"ts": "x"}),
			receiptOf(a.room, string(a.bob)+"\x00", id, object{"ts": 1}),
			object{string(a.room): object{"m.read.private": object{string(a.bob): object{"event_ids": []any{id}, "data": object{"ts": 1}}}}},
			object{string(a.room): object{"m.read": 7}}, object{string(a.room): 7}, object{string(a.room): object{"m.read": object{string(a.bob): 7}}},
			object{string(a.room): object{"m.read": object{string(a.bob): object{"event_ids": []any{}}}}}, nil, []any{}, 7,
		} {
			a.hear("m.receipt", c)
		}
		for _, p := range []any{
			object{"user_id": a.alice.User, "presence": "unavailable"}, object{"user_id": mallory, "presence": "online"}, object{"user_id": carol, "presence": "online"},
			object{"user_id": a.bob, "presence": "asleep"}, object{"user_id": a.bob}, object{"user_id": a.bob, "presence": "online", "status_msg": 7},
			object{"user_id": a.bob, "presence": "online", "status_msg": strings.Repeat("x", 5000)}, object{"user_id": "\x00", "presence": "online"}, 7, nil,
		} {
			a.hear("m.presence", object{"push": []any{p}})
		}
		for _, c := range []any{object{"push": 7}, object{}, nil, 7} {
			a.hear("m.presence", c)
		}
		// What is well among what is not counts, with odd text.
		a.hear("m.presence", object{"push": []any{7, object{"user_id": a.bob, "presence": "online", "status_msg": "\x00\n", "last_active_ago": -1}}})
		last := a.alice.Say(a.room, "3", "three")
		mixed := receiptOf(a.room, a.bob, last, object{"ts": -1})
		mixed["!nowhere:here"] = 7
		a.hear("m.receipt", mixed)
		answers := []object{}
		for began := time.Now(); ; {
			answer := a.alice.Sync(since, 500)
			answers, since = append(answers, answer), next(answer)
			text, _ := json.Marshal(answers)
			if strings.Contains(string(text), "online") && strings.Contains(string(text), `"m.read"`) {
				for _, bad := range []string{"mallory", string(carol), string(id) + `":{"m.read`, string(otherID) + `":{"m.read`, "m.read.private", `["@`, "asleep", "xxx", `sender":"@alice:here","content":{"presence":"unavailable`} {
					if strings.Contains(string(text), bad) {
						t.Errorf("%s has an effect: %s", bad, text)
					}
				}
				break
			}
			if time.Since(began) > time.Minute {
				t.Fatalf("what is well does not come: %.2000s", text)
			}
		}
		if got := a.alice.Must("GET", "/v3/presence"+testrig.Path(a.bob, "status"), nil); got["status_msg"] != "\x00\n" {
			t.Errorf("%v", got)
		}
	})
}

// THREATS F15: a server that a room's ACL shuts out has no say there.
func TestEDUsOfAServerThatIsShutOut(t *testing.T) {
	eachAbroad(t, func(t *testing.T, a *abroad) {
		open := a.alice.CreateRoom(object{"preset": "public_chat"})
		a.peer.Join("here", open, a.bob)
		id, openID := a.alice.Say(a.room, "1", "one"), a.alice.Say(open, "1", "one")
		a.alice.Must("PUT", "/v3/rooms"+testrig.Path(a.room, "state", "m.room.server_acl", ""), object{"allow": []any{"*"}, "deny": []any{"There"}})
		since := next(ask(t, a.alice, ""))
		for _, r := range []matrix.RoomID{a.room, open} {
			a.hear("m.typing", object{"room_id": r, "user_id": a.bob, "typing": true})
		}
		a.hear("m.receipt", receiptOf(a.room, a.bob, id, object{"ts": 1}))
		a.hear("m.receipt", receiptOf(open, a.bob, openID, object{"ts": 1}))
		for done := false; !done; {
			answer := a.alice.Sync(since, 20_000)
			since = next(answer)
			if got := at(answer, "rooms", "join", a.room, "ephemeral"); len(events(at(answer, "rooms", "join", a.room), "ephemeral")) > 0 {
				t.Errorf("it has a say: %v", got)
			}
			done = len(ephemeral(answer, open, "m.receipt")) > 0
		}
	})
}

// TestGapsAreTold loses messages that no server gives: whoever follows the room is
// told that something is missing before what comes next, and may ask for it later.
func TestGapsAreTold(t *testing.T) {
	eachAbroad(t, func(t *testing.T, a *abroad) {
		since := next(ask(t, a.alice, ""))
		a.alice.Say(a.room, "1", "before")
		missed := []*event.Event{a.seen.Say(a.bob, "missed 1"), a.seen.Say(a.bob, "missed 2")}
		newest := a.seen.Say(a.bob, "newest")
		var ids []matrix.EventID
		for _, ev := range a.seen.State {
			ids = append(ids, ev.ID)
		}
		a.peer.Answers("POST /_matrix/federation/v1/get_missing_events/{room}", object{"events": []any{}})
		a.peer.Answers("GET /_matrix/federation/v1/state_ids/{room}", object{"pdu_ids": ids, "auth_chain_ids": ids})
		has := []json.RawMessage{}
		a.peer.Handle("GET /_matrix/federation/v1/backfill/{room}", func(w http.ResponseWriter, _ *http.Request) {
			testrig.WriteJSON(w, http.StatusOK, object{"pdus": has})
		})
		if status, answer := a.peer.Send("here", "t", newest); status != http.StatusOK {
			t.Fatalf("%d %v", status, answer)
		}
		shown := ""
		for token, began := since, time.Now(); !strings.HasSuffix(shown, "newest") && time.Since(began) < time.Minute; {
			answer := a.alice.Sync(token, 500)
			shown, token = briefly(events(at(answer, "rooms", "join", a.room), "timeline")), next(answer)
		}
		for range 2 {
			join := at(ask(t, a.alice, since), "rooms", "join", a.room)
			if got := briefly(events(join, "timeline")); got != "newest" || at(join, "timeline", "limited") != true {
				t.Errorf("the timeline is %s, limited %v", got, at(join, "timeline", "limited"))
			}
			a.Server = a.Restart()
		}
		has = append(has, json.RawMessage(missed[1].JSON), json.RawMessage(missed[0].JSON))
		from := at(ask(t, a.alice, since), "rooms", "join", a.room, "timeline", "prev_batch").(string)
		page := a.alice.Must("GET", "/v3/rooms"+testrig.Path(a.room, "messages")+"?dir=b&limit=50&from="+from, nil)
		if got := briefly(page["chunk"].([]any)); !strings.HasPrefix(got, "before, ") || !strings.Contains(got, "missed 2, missed 1") {
			t.Errorf("the page before it is %s", got)
		}
	})
}
