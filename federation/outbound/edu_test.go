package outbound_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/teahouse-chat/teahouse/federation/outbound"
	"github.com/teahouse-chat/teahouse/internal/matrix"
)

// typed lists the contents of what a server got of a type.
func (w *world) typed(server matrix.ServerName, typ string) []string {
	p := w.net.peer(server)
	w.net.mu.Lock()
	defer w.net.mu.Unlock()
	var list []string
	for _, e := range p.edus {
		if e.Type == typ {
			list = append(list, string(e.Content))
		}
	}
	return list
}

func (w *world) offer(typ, key string, keep bool, content string, to ...matrix.ServerName) {
	w.queues.Offer(to, key, keep, outbound.EDU{Type: typ, Content: []byte(content)})
}

func TestStoredEDUs(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		w.down("b")
		for i := range 250 {
			w.store(outbound.EDU{Type: "m.direct_to_device", Content: fmt.Appendf(nil, `{"message_id":"%d"}`, i)}, "a", "b", "a", us)
		}
		pass(time.Minute)
		w.crash()
		w.up("b")
		pass(time.Hour)
		for _, s := range []matrix.ServerName{"a", "b"} {
			got := w.messages(s)
			if len(got) != 250 || !slices.IsSortedFunc(got, func(a, b string) int { return len(a) - len(b) }) {
				t.Errorf("%s got %d: %v", s, len(got), got)
			}
			if p := w.net.peer(s); p.largest.edus > 100 || s == "b" && p.largest.edus != 100 {
				t.Errorf("%s got up to %d at a time", s, p.largest.edus)
			}
		}
		if w.asked(us) > 0 {
			t.Error("we send to ourselves")
		}
		list, err := w.queues.Destinations(t.Context())
		if err != nil || slices.ContainsFunc(list, func(d outbound.Destination) bool { return d.EDUs > 0 }) {
			t.Errorf("%+v, %v", list, err)
		}
	})
}

// What is stored while something is on its way is sent, too.
func TestAnEDUThatIsStoredDuringATransaction(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		w.net.change("a", func(p *peer) { p.took = time.Second })
		for i := range 3 {
			w.store(outbound.EDU{Type: "m.direct_to_device", Content: fmt.Appendf(nil, `{"message_id":"%d"}`, i)}, "a")
			pass(500 * time.Millisecond)
		}
		pass(time.Minute)
		if got := w.messages("a"); len(got) != 3 {
			t.Errorf("it got %v", got)
		}
	})
}

// Of the changes of a user's devices a server that was down gets the last; to-device
// messages are bounded, and dropped only beyond thousands.
func TestDeviceListsForServersThatAreDown(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		w.down("a")
		for i := range 200 {
			w.store(outbound.EDU{Type: "m.device_list_update", Content: fmt.Appendf(nil, `{"user_id":"@u%d:us","stream_id":%d}`, i%3, i)}, "a", "b")
		}
		w.store(outbound.EDU{Type: "m.signing_key_update", Content: []byte(`{"user_id":"@u0:us"}`)}, "a", "b")
		w.store(outbound.EDU{Type: "m.direct_to_device", Content: []byte(`{"message_id":"1"}`)}, "a", "b")
		pass(time.Hour)
		w.up("a")
		pass(2 * time.Hour)
		want := []string{`{"user_id":"@u0:us","stream_id":198}`, `{"user_id":"@u1:us","stream_id":199}`, `{"user_id":"@u2:us","stream_id":197}`}
		got := w.typed("a", "m.device_list_update")
		if slices.Sort(got); !slices.Equal(got, want) {
			t.Errorf("it got %v", got)
		}
		if len(w.typed("a", "m.signing_key_update")) != 1 || len(w.messages("a")) != 1 {
			t.Error("something is missing")
		}
		if got := w.typed("b", "m.device_list_update"); len(got) != 200 {
			t.Errorf("a server that is well got %d", len(got))
		}
	})
}

func TestOffers(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		w.offer("m.typing", "t1", false, `{"typing":true}`, "a", us)
		w.offer("m.typing", "t1", false, `{"typing":false}`, "a")
		w.offer("m.typing", "t2", false, `{"typing":2}`, "a")
		pass(time.Second)
		if got := w.typed("a", "m.typing"); !slices.Equal(got, []string{`{"typing":false}`, `{"typing":2}`}) || w.asked("a") != 1 {
			t.Errorf("it got %v in %d transactions", got, w.asked("a"))
		}
		// They go along with events at once.
		w.offer("m.typing", "t1", false, `{"typing":3}`, "a")
		w.say("!1", 1, "a")
		synctest.Wait()
		pass(time.Second)
		if w.asked("a") != 2 || len(w.typed("a", "m.typing")) != 3 {
			t.Errorf("%d transactions", w.asked("a"))
		}
		// What is offered to many waits longer.
		var many []matrix.ServerName
		for i := range 1000 {
			many = append(many, matrix.ServerName(fmt.Sprint("m", i)))
		}
		w.offer("m.typing", "t1", false, `{"typing":4}`, many...)
		pass(time.Second)
		if w.asked("m1") != 0 {
			t.Error("a thousand servers are told at once")
		}
		pass(time.Minute)
		if len(w.typed("m999", "m.typing")) != 1 {
			t.Error("nobody is told")
		}
	})
}

// A server that fails gets receipts when it is back, each user's newest, but no
// typing.
func TestOffersToServersThatAreDown(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		receipt := func(user, event string) {
			w.offer("m.receipt", "r"+user, true, fmt.Sprintf(`{"!1":{"m.read":{%q:{"data":{"ts":1},"event_ids":[%q]}}}}`, user, event), "a")
		}
		w.down("a")
		w.offer("m.typing", "t", false, `{"typing":1}`, "a")
		receipt("@1:us", "$1")
		pass(10 * time.Second)
		w.offer("m.typing", "t", false, `{"typing":2}`, "a")
		receipt("@1:us", "$2")
		receipt("@2:us", "$3")
		pass(time.Hour)
		w.up("a")
		pass(2 * time.Hour)
		want := []string{`{"!1":{"m.read":{"@1:us":{"data":{"ts":1},"event_ids":["$2"]},"@2:us":{"data":{"ts":1},"event_ids":["$3"]}}}}`}
		if got := w.typed("a", "m.receipt"); !slices.Equal(got, want) || len(w.typed("a", "m.typing")) > 0 {
			t.Errorf("it got %v and %v", got, w.typed("a", "m.typing"))
		}
		// What is kept is bounded; typing makes way for receipts.
		w.net.change("a", func(p *peer) { p.hang = true })
		w.say("!1", 1, "a")
		pass(time.Second)
		for i := range 90 {
			receipt(fmt.Sprintf("@x%d:us", i), "$4")
			w.offer("m.typing", fmt.Sprint("t", i), false, `{"typing":3}`, "a")
		}
		for i := range 40 {
			receipt(fmt.Sprintf("@y%d:us", i), "$4")
		}
		w.down("a")
		pass(2 * time.Minute)
		w.up("a")
		pass(2 * time.Hour)
		got := w.typed("a", "m.receipt")
		if n := strings.Count(strings.Join(got, ""), "$4"); n != 100 || len(w.typed("a", "m.typing")) > 0 {
			t.Errorf("%d receipts, %d typing", n, len(w.typed("a", "m.typing")))
		}
		w.complete("a")
	})
}

// Receipts and presence of one transaction are put together as their formats
// allow.
func TestSimilarEDUsAreMerged(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		for i, r := range []struct{ room, user, thread string }{
			{"!1", "@1:us", ""}, {"!1", "@2:us", ""}, {"!2", "@1:us", ""}, {"!1", "@1:us", "$t"}, {"!1", "@1:us", "main"}, {"!1", "@2:us", "main"},
		} {
			w.offer("m.receipt", fmt.Sprint(i), true, fmt.Sprintf(`{%q:{"m.read":{%q:{"data":{"ts":1,"thread_id":%q},"event_ids":["$1"]}}}}`, r.room, r.user, r.thread), "a")
			w.offer("m.presence", r.user, false, fmt.Sprintf(`{"push":[{"user_id":%q}]}`, r.user), "a")
		}
		w.offer("m.receipt", "odd", true, `{"!1":7}`, "a")
		pass(time.Second)
		got := w.typed("a", "m.receipt")
		slices.SortFunc(got, func(a, b string) int { return len(b) - len(a) })
		if len(got) != 4 || got[3] != `{"!1":7}` {
			t.Fatalf("it got %v", got)
		}
		seen := map[string]int{}
		for _, content := range got[:3] {
			var c map[string]map[string]map[string]struct {
				Data struct {
					Thread string `json:"thread_id"`
				}
			}
			if err := json.Unmarshal([]byte(content), &c); err != nil {
				t.Error(err)
			}
			for room, types := range c {
				for user, r := range types["m.read"] {
					seen[room+user+r.Data.Thread]++
				}
			}
		}
		if len(seen) != 6 {
			t.Errorf("receipts: %v", seen)
		}
		if got := w.typed("a", "m.presence"); !slices.Equal(got, []string{`{"push":[{"user_id":"@2:us"},{"user_id":"@1:us"}]}`}) && !slices.Equal(got, []string{`{"push":[{"user_id":"@1:us"},{"user_id":"@2:us"}]}`}) {
			t.Errorf("presence: %v", got)
		}
	})
}
