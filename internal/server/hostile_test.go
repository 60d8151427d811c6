package server_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/internal/testrig"
	"github.com/teahouse-chat/teahouse/rooms/event"
)

// TestHostileServer is a server that signs properly and then misbehaves in every way
// that it can think of, in a room with an honest one. Whatever it does, what the
// honest server says arrives meanwhile, nobody is shown what was not signed, and
// nothing that it has caused is left when it falls silent.
func TestHostileServer(t *testing.T) {
	kinds := []string{"sqlite"}
	if os.Getenv("TEAHOUSE_LONG") != "" { // most of its time it waits for retries
		kinds = append(kinds, "postgres")
	}
	for _, kind := range kinds {
		t.Run(kind, func(t *testing.T) {
			h := newHostility(t, kind)
			h.honest("at first")
			before := settled()
			for _, act := range []struct {
				name string
				do   func(*hostility)
			}{
				{"forks", (*hostility).forks},
				{"missing events", (*hostility).missing},
				{"wrong hashes", (*hostility).hashes},
				{"a gap of 10,000 events", (*hostility).gap},
				{"huge answers", (*hostility).huge},
				{"slow answers", (*hostility).slow},
				{"connections dropped half-way", (*hostility).dropped},
				{"a flood of garbage", (*hostility).garbage},
			} {
				t.Run(act.name, func(t *testing.T) {
					h.t = t
					act.do(h)
					h.honest("during " + act.name)
				})
			}
			h.t = t
			h.answer.Store(nil)
			h.release()
			if after := settled(); after > before+200 {
				t.Errorf("%d goroutines are left of %d", after, before)
			}
			h.honest("in the end")
		})
	}
}

// hostility is a server with a room that an honest peer and a hostile one are in.
type hostility struct {
	t         *testing.T
	alice     *testrig.Client
	room      matrix.RoomID
	good, bad *testrig.Peer
	theirs    *testrig.PeerRoom // as the honest peer has it
	its       *testrig.PeerRoom // as the hostile one has it
	answer    atomic.Pointer[http.HandlerFunc]
	asked     atomic.Int32  // since the answer was set
	held      chan struct{} // closed when those who are kept waiting may go
	sent      int
}

func newHostility(t *testing.T, kind string) *hostility {
	s := testrig.StartMany(t, kind, "here")[0]
	h := &hostility{t: t, alice: s.Register("alice"), held: make(chan struct{})}
	t.Cleanup(h.release)
	h.good, h.bad = testrig.NewPeer(t, s.Network, "good"), testrig.NewPeer(t, s.Network, "bad")
	h.room = h.alice.CreateRoom(object{"preset": "public_chat", "room_version": "11"})
	h.theirs = h.good.Join("here", h.room, h.good.User("grace"))
	h.its = h.bad.Join("here", h.room, h.bad.User("mallory"))
	h.good.Answers("PUT /_matrix/federation/v1/send/{txn}", object{"pdus": object{}})
	h.bad.Handle("/_matrix/federation/", func(w http.ResponseWriter, r *http.Request) {
		if f := h.answer.Load(); f != nil {
			(*f)(w, r)
			return
		}
		testrig.WriteJSON(w, http.StatusNotFound, object{"errcode": "M_NOT_FOUND", "error": "no"})
	})
	return h
}

// release lets go those who are kept waiting.
func (h *hostility) release() {
	select {
	case <-h.held:
	default:
		close(h.held)
	}
}

// answers sets how the hostile server answers whatever it is asked.
func (h *hostility) answers(f http.HandlerFunc) {
	h.asked.Store(0)
	counted := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h.asked.Add(1)
		f(w, r)
	})
	h.answer.Store(&counted)
}

// wasAsked waits until somebody has got such an answer.
func (h *hostility) wasAsked() {
	h.t.Helper()
	for deadline := time.Now().Add(time.Minute); h.asked.Load() == 0; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			h.t.Fatal("the hostile server is not asked for anything")
		}
	}
}

// send sends events of the hostile server's.
func (h *hostility) send(events ...*event.Event) {
	h.t.Helper()
	h.sent++
	if status, answer := h.bad.Send("here", fmt.Sprint("bad", h.sent), events...); status != 200 {
		h.t.Fatalf("%d %v", status, answer)
	}
}

// honest has the honest server say something, which alice must come to see.
func (h *hostility) honest(text string) {
	h.t.Helper()
	ev := h.theirs.Say(h.good.User("grace"), text)
	h.sent++
	if status, answer := h.good.Send("here", fmt.Sprint("good", h.sent), ev); status != 200 {
		h.t.Fatalf("%d %v", status, answer)
	}
	h.sees(ev.ID)
}

// sees waits until alice is shown an event.
func (h *hostility) sees(id matrix.EventID) object {
	h.t.Helper()
	for since, deadline := "", time.Now().Add(time.Minute); ; {
		status, answer, err := h.alice.Do(h.t.Context(), "GET", "/v3/rooms"+testrig.Path(h.room, "event", id), nil)
		if err != nil {
			h.t.Fatal(err)
		}
		if status == 200 {
			return answer
		}
		if time.Now().After(deadline) {
			h.t.Fatalf("alice never sees %s", id)
		}
		since = h.alice.Sync(since, 200)["next_batch"].(string)
	}
}

// hidden tells that alice is not shown an event.
func (h *hostility) hidden(id matrix.EventID) {
	h.t.Helper()
	h.alice.Fails(404, matrix.CodeNotFound, "GET", "/v3/rooms"+testrig.Path(h.room, "event", id), nil)
}

// settled is how many goroutines there are once they have become no fewer for a
// while.
func settled() int {
	n := runtime.NumGoroutine()
	for quiet := 0; quiet < 10; quiet++ {
		time.Sleep(50 * time.Millisecond)
		if now := runtime.NumGoroutine(); now < n {
			n, quiet = now, 0
		}
	}
	return n
}

func (h *hostility) mallory() matrix.UserID { return h.bad.User("mallory") }

// forks are 100 events that all build on the same one.
func (h *hostility) forks() {
	var all []*event.Event
	for i := range 100 {
		all = append(all, h.its.Fork().Say(h.mallory(), fmt.Sprint("fork ", i)))
	}
	for i := 0; i < len(all); i += 50 {
		h.send(all[i : i+50]...)
	}
	for _, ev := range all {
		h.sees(ev.ID)
	}
}

// missing builds on an event that nobody has.
func (h *hostility) missing() {
	r := h.its.Fork()
	r.Say(h.mallory(), "this is never shown to anybody")
	ev := r.Say(h.mallory(), "what came before this?")
	h.send(ev)
	h.honest("while something is missing")
	h.hidden(ev.ID)
}

// hashes are events whose content is another one than was signed: of them nothing
// is shown but that they are there.
func (h *hostility) hashes() {
	ev := h.its.Fork().Say(h.mallory(), "what was signed")
	forged := json.RawMessage(strings.Replace(string(ev.JSON), "what was signed", "what was forged", 1))
	h.sent++
	body := object{"origin": "bad", "origin_server_ts": time.Now().UnixMilli(), "pdus": []any{forged}}
	if status, answer := h.bad.Transact("here", fmt.Sprint("bad", h.sent), body); status != 200 {
		h.t.Fatalf("%d %v", status, answer)
	}
	if shown := h.sees(ev.ID); len(shown["content"].(object)) > 0 {
		h.t.Errorf("alice sees %v", shown)
	}
}

// gap is a chain of 10,000 events of which only the last one is sent. The others
// are told as slowly as the protocol allows: it must neither be followed for ever,
// nor be asked for while others wait.
func (h *hostility) gap() {
	r := h.its.Fork()
	chain := []*event.Event{}
	at := map[matrix.EventID]int{}
	for i := range 10_000 {
		ev := r.Say(h.mallory(), fmt.Sprint("link ", i))
		at[ev.ID] = i
		chain = append(chain, ev)
	}
	h.answers(func(w http.ResponseWriter, req *http.Request) {
		var q struct {
			Latest []matrix.EventID `json:"latest_events"`
			Limit  int              `json:"limit"`
		}
		if !strings.Contains(req.URL.Path, "get_missing_events") || json.NewDecoder(req.Body).Decode(&q) != nil || len(q.Latest) == 0 {
			testrig.WriteJSON(w, http.StatusNotFound, object{"errcode": "M_NOT_FOUND", "error": "no"})
			return
		}
		end := at[q.Latest[0]]
		var list []json.RawMessage
		for _, ev := range chain[max(end-min(q.Limit, 10), 0):end] {
			list = append(list, ev.JSON)
		}
		testrig.WriteJSON(w, http.StatusOK, object{"events": list})
	})
	h.send(chain[len(chain)-1])
	for i := range 5 {
		h.honest(fmt.Sprint("while a gap is filled ", i))
	}
	h.wasAsked()
	if n := h.asked.Load(); n > 1000 {
		h.t.Errorf("the hostile server was asked %d times", n)
	}
	h.answer.Store(nil)
}

// ask has the server ask for what comes before an event.
func (h *hostility) ask() {
	r := h.its.Fork()
	r.Say(h.mallory(), fmt.Sprint("missing ", h.sent))
	h.send(r.Say(h.mallory(), fmt.Sprint("after what is missing ", h.sent)))
}

// huge answers whatever is asked with JSON that does not end.
func (h *hostility) huge() {
	var written atomic.Int64
	h.answers(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write([]byte(`{"events": [`))
		chunk := []byte(strings.Repeat(`"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",`, 2000))
		for written.Load() < 1<<30 {
			n, err := w.Write(chunk)
			if written.Add(int64(n)); err != nil {
				return
			}
		}
	})
	h.ask()
	h.wasAsked()
	h.honest("while an endless answer is read")
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	if m.HeapAlloc > 1<<30 {
		h.t.Errorf("%d MB are in use", m.HeapAlloc>>20)
	}
}

// slow begins to answer and does not go on.
func (h *hostility) slow() {
	h.answers(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write([]byte(`{"events": [`))
		w.(http.Flusher).Flush()
		select {
		case <-h.held:
		case <-r.Context().Done():
		}
	})
	for range 20 {
		h.ask()
	}
	h.wasAsked()
	h.honest("while many answers are waited for")
}

// dropped hangs up in the middle of each answer.
func (h *hostility) dropped() {
	h.answers(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Content-Length", "1000")
		_, _ = w.Write([]byte(`{"events": [{"type": "m.room.message", `))
		panic(http.ErrAbortHandler)
	})
	for range 20 {
		h.ask()
	}
	h.wasAsked()
	h.honest("while connections are dropped")
}

// garbage are transactions full of what is no event.
func (h *hostility) garbage() {
	h.answer.Store(nil)
	garbage := []any{
		nil, 7, "x", []any{}, object{}, object{"room_id": h.room}, object{"room_id": h.room, "type": 7, "sender": []any{}},
		object{"room_id": strings.Repeat("!", 70000)}, object{"room_id": h.room, "type": "m.room.message", "sender": "@eve:good", "content": object{"body": "forged"}},
		object{"room_id": h.room, "type": "m.room.member", "state_key": "@mallory:bad", "sender": "@mallory:bad", "depth": -1, "prev_events": 7, "auth_events": nil},
	}
	for range 20 {
		h.sent++
		body := object{"origin": "bad", "origin_server_ts": 1, "pdus": garbage, "edus": garbage}
		if status, answer := h.bad.Transact("here", fmt.Sprint("garbage", h.sent), body); status >= 500 {
			h.t.Fatalf("%d %v", status, answer)
		}
	}
}
