package outbound_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/teahouse-chat/teahouse/federation/outbound"
	"github.com/teahouse-chat/teahouse/federation/transport"
	"github.com/teahouse-chat/teahouse/internal/db"
	"github.com/teahouse-chat/teahouse/internal/httpx"
	"github.com/teahouse-chat/teahouse/internal/matrix"
)

func TestEventsReachTheirDestinations(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		w.say("!1", 1, "a", "b")
		w.say("!2", 130, "b", "c")
		pass(time.Second)
		w.say("!1", 1, "a")
		pass(10 * time.Second)
		w.complete("a", "b", "c", "d")
		w.once("a", "b", "c")
		if p := w.net.peer("b"); p.largest.pdus != 50 {
			t.Errorf("a transaction has %d events", p.largest.pdus)
		}
		// A proper end leaves nothing to do.
		asked := w.asked("b")
		w.restart()
		pass(time.Hour)
		if w.asked("b") != asked {
			t.Error("something is sent after a restart")
		}
	})
}

// A write that fails sends nothing.
func TestNothingUncommittedIsSent(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		_ = w.db.Write(context.Background(), func(tx *db.Tx) error {
			if err := w.queues.Store(tx, []matrix.ServerName{"a"}, outbound.EDU{Type: "x", Content: []byte(`{}`)}); err != nil {
				return err
			}
			return errors.New("no")
		})
		pass(time.Minute)
		if w.asked("a") != 0 {
			t.Error("something was sent")
		}
	})
}

// The queue in memory is bounded; what is beyond comes from the database.
func TestASlowServerGetsEverythingInOrder(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		w.net.change("a", func(p *peer) { p.took = 3 * time.Second })
		for range 100 {
			w.say("!1", 13, "a", "b")
			pass(100 * time.Millisecond)
		}
		w.complete("b")
		if got, _ := w.got("a"); len(got) > 500 {
			t.Errorf("a is not slow: %d", len(got))
		}
		pass(5 * time.Minute)
		w.complete("a")
		w.once("a", "b")
		if head, last := w.queues.Head(), w.db.Position(); head != last {
			t.Errorf("the head is %d, not %d", head, last)
		}
	})
}

// Whoever is slow or fails holds the head back for a short time only: after a
// crash the others get little again.
func TestTheHeadMovesOnWithoutTheSlow(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		w.down("dead")
		w.net.change("hung", func(p *peer) { p.hang = true })
		for range 30 {
			w.say("!1", 10, "a", "dead", "hung")
			pass(time.Second)
		}
		pass(2 * time.Second)
		w.crash()
		w.up("dead", "hung")
		pass(time.Hour)
		w.complete("a", "dead", "hung")
		if _, again := w.got("a"); again > 0 {
			t.Errorf("%d events came again", again)
		}
	})
}

// Whatever a crash interrupts, nothing is lost.
func TestACrashAtEveryPoint(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		sum := 0
		for point := range 12 {
			a, b := matrix.ServerName(fmt.Sprint("a", point)), matrix.ServerName(fmt.Sprint("b", point))
			w.down(b)
			crashed := make(chan struct{})
			asked := 0
			w.net.change(a, func(p *peer) {
				p.took = time.Duration(point%4) * 400 * time.Millisecond
				p.lose = point%3 == 2
				p.onAsk = func() {
					if asked++; asked == point/2 {
						go func() { close(crashed) }()
					}
				}
			})
			for i := range 40 {
				w.say("!1", 1+i%7, a, b)
				if i%5 == 0 {
					w.store(outbound.EDU{Type: "m.direct_to_device", Content: fmt.Appendf(nil, `{"message_id":"%d"}`, i)}, a, b)
				}
				select {
				case <-crashed:
					w.crash()
					crashed = nil
				default:
				}
				pass(time.Duration(50+37*point) * time.Millisecond)
			}
			w.crash()
			w.up(a, b)
			pass(2 * time.Hour)
			w.complete(a, b)
			for _, s := range []matrix.ServerName{a, b} {
				if got := w.messages(s); !slices.Equal(got, []string{"0", "5", "10", "15", "20", "25", "30", "35"}) {
					t.Errorf("%s got %v", s, got)
				}
				got, _ := w.got(s)
				sum += len(got)
			}
		}
		if sum == 0 {
			t.Error("nothing was tested")
		}
	})
}

// messages lists the ids of to-device messages at their first coming.
func (w *world) messages(server matrix.ServerName) []string {
	p := w.net.peer(server)
	w.net.mu.Lock()
	defer w.net.mu.Unlock()
	var ids []string
	for _, e := range p.edus {
		var c struct {
			ID string `json:"message_id"`
		}
		if e.Type == "m.direct_to_device" && json.Unmarshal(e.Content, &c) == nil && !slices.Contains(ids, c.ID) {
			ids = append(ids, c.ID)
		}
	}
	return ids
}

// A server that is down for a week is asked ever more rarely, across restarts,
// and gets everything when it is back.
func TestAWeekOfOutage(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		w.down("a")
		for day := range 7 {
			w.say("!1", 60, "a", "b")
			pass(12 * time.Hour)
			if day%2 == 0 {
				w.crash()
			} else {
				w.restart()
			}
			w.say("!2", 1, "a")
			pass(12 * time.Hour)
		}
		p := w.net.peer("a")
		if n := len(p.asked); n < 7*20 || n > 7*24*3/2+20 {
			t.Errorf("it was asked %d times", n)
		}
		for i := 1; i < len(p.asked); i++ {
			if d := p.asked[i].Sub(p.asked[i-1]); i < 10 && d > time.Hour || i > 20 && d < 45*time.Minute || d > 75*time.Minute+10*time.Second {
				t.Errorf("it was asked %v after the %dth time", d, i)
			}
		}
		w.up("a")
		w.queues.Wake("a")
		began := time.Now()
		for got, _ := w.got("a"); len(got) < 7*61; got, _ = w.got("a") {
			if pass(time.Second); time.Since(began) > time.Minute {
				t.Fatalf("it got %d", len(got))
			}
		}
		w.complete("a", "b")
		w.once("a", "b")
		list, err := w.queues.Destinations(t.Context())
		if err != nil || len(list) != 2 || list[0].Failures != 0 || list[0].Events != 0 || list[0].LastSuccess.IsZero() || list[0].LastFailure.IsZero() {
			t.Errorf("%+v, %v", list, err)
		}
	})
}

// Signs of life end a rest, but those of a server that cannot be reached do not
// have it asked all the time.
func TestSignsOfLife(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		w.queues.Wake("a") // of whom nothing is known
		w.down("a")
		w.say("!1", 1, "a")
		pass(24 * time.Hour)
		asked := w.asked("a")
		for range 24 * 360 {
			w.queues.Wake("a")
			pass(10 * time.Second)
		}
		if n := w.asked("a") - asked; n < 24 || n > 24*7+20 {
			t.Errorf("it was asked %d times in a day", n)
		}
		w.up("a")
		for range 70 {
			w.queues.Wake("a")
			pass(10 * time.Second)
		}
		w.complete("a")
		w.down("a")
		w.say("!1", 1, "a")
		pass(30 * time.Minute)
		w.up("a")
		w.queues.Wake("a")
		synctest.Wait()
		pass(time.Second)
		w.complete("a")
		w.queues.Wake("a")
		w.down("a")
		w.say("!1", 1, "a")
		pass(5 * time.Hour)
		w.up("a")
		w.queues.Retry("a")
		w.queues.Retry("nobody")
		pass(time.Second)
		w.complete("a")
	})
}

// What keeps a whole server from taking anything is no poison.
func TestRefusalsOfTheWholeServer(t *testing.T) {
	for name, answer := range map[string]error{
		"forbidden": remote("a", 403, matrix.CodeForbidden), "unauthorized": remote("a", 401, matrix.CodeUnauthorized),
		"no such route": remote("a", 404, matrix.CodeUnrecognized), "a proxy without server": remote("a", 502, ""),
		"bad request": remote("a", 400, matrix.CodeUnknown), "too large": remote("a", 413, ""), "broken": remote("a", 500, matrix.CodeUnknown),
	} {
		t.Run(name, func(t *testing.T) {
			each(t, func(t *testing.T, w *world) {
				w.net.change("a", func(p *peer) { p.answer = answer })
				w.say("!1", 120, "a")
				w.store(outbound.EDU{Type: "m.direct_to_device", Content: []byte(`{"message_id":"1"}`)}, "a")
				pass(12 * time.Hour)
				if n := w.asked("a"); n > 60 {
					t.Errorf("it was asked %d times", n)
				}
				w.up("a")
				pass(2 * time.Hour)
				w.complete("a")
				if got := w.messages("a"); !slices.Equal(got, []string{"1"}) {
					t.Errorf("it got %v", got)
				}
			})
		})
	}
}

// A server that tells when to come back is left alone until then.
func TestRetryAfter(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		w.net.change("a", func(p *peer) {
			p.answer = &transport.RemoteError{Server: "a", Status: 429, Code: matrix.CodeLimitExceeded, RetryAfter: 5 * time.Minute}
		})
		w.say("!1", 1, "a")
		for range 8 {
			pass(30 * time.Second)
			w.queues.Wake("a")
		}
		if n := w.asked("a"); n != 1 {
			t.Errorf("it was asked %d times", n)
		}
		w.up("a")
		pass(2 * time.Minute)
		w.complete("a")
	})
}

// THREATS F10, F11: what a server refuses for ever is set aside, the rest flows.
func TestPoison(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		for _, status := range []int{400, 413, 422, 500} {
			a := matrix.ServerName(fmt.Sprint("a", status))
			w.net.change(a, func(p *peer) {
				p.judge = func(pdus []json.RawMessage, edus []taken) error {
					bad := slices.ContainsFunc(pdus, func(p json.RawMessage) bool { return strings.Contains(string(p), "poison") })
					if bad || slices.ContainsFunc(edus, func(e taken) bool { return e.Type == "poison" }) {
						return remote(a, status, matrix.CodeUnknown)
					}
					return nil
				}
			})
			w.say("!good", 70, a, "b")
			for i := range 130 {
				typ := "m.direct_to_device"
				if i == 45 {
					typ = "poison"
				}
				w.store(outbound.EDU{Type: typ, Content: fmt.Appendf(nil, `{"message_id":"%d"}`, i)}, a, "b")
			}
			w.say("!poison", 2, a, "b")
			w.say("!good", 70, a, "b")
			w.queues.Offer([]matrix.ServerName{a, "b"}, "p", true, outbound.EDU{Type: "poison", Content: []byte(`{}`)})
			if status == 500 {
				pass(36 * time.Hour)
			} else {
				pass(time.Minute)
			}
			got, again := w.got(a)
			want := slices.DeleteFunc(w.meant(a), func(pdu string) bool { return strings.Contains(pdu, "poison") })
			if !slices.Equal(got, want) || again > 0 {
				t.Errorf("%d: %d of %d events, %d again", status, len(got), len(want), again)
			}
			if n := len(w.messages(a)); n != 129 {
				t.Errorf("%d: %d EDUs", status, n)
			}
			if n := w.asked(a); n > 150 {
				t.Errorf("%d: asked %d times", status, n)
			}
		}
		w.complete("b")
	})
}

// EDUs that cannot even be signed do not jam the queue.
func TestWhatCannotBeSigned(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		w.net.change("a", func(p *peer) {
			p.judge = func(_ []json.RawMessage, edus []taken) error {
				if slices.ContainsFunc(edus, func(e taken) bool { return strings.Contains(string(e.Content), "twice") }) {
					return signing("a")
				}
				return nil
			}
		})
		w.store(outbound.EDU{Type: "x", Content: []byte(`{"twice":1,"twice":2}`)}, "a")
		w.say("!1", 60, "a")
		w.store(outbound.EDU{Type: "m.direct_to_device", Content: []byte(`{"message_id":"1"}`)}, "a")
		pass(time.Minute)
		w.complete("a")
		if got := w.messages("a"); !slices.Equal(got, []string{"1"}) {
			t.Errorf("it got %v", got)
		}
		for _, bad := range []string{``, `[]`, `"x"`, `{"a":`, `null`} {
			if err := w.db.Write(context.Background(), func(tx *db.Tx) error {
				return w.queues.Store(tx, []matrix.ServerName{"a"}, outbound.EDU{Type: "x", Content: []byte(bad)})
			}); err == nil {
				t.Errorf("%q is stored", bad)
			}
			w.queues.Offer([]matrix.ServerName{"a"}, "x", true, outbound.EDU{Type: "x", Content: []byte(bad)})
		}
	})
}

// Large events and EDUs do not come together in one huge request.
func TestTransactionsAreBoundedInBytes(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		text := fmt.Sprintf(`{"message_id":%%q,"text":%q}`, strings.Repeat("x", 60_000))
		for i := range 60 {
			w.store(outbound.EDU{Type: "m.direct_to_device", Content: fmt.Appendf(nil, text, fmt.Sprint(i))}, "a")
		}
		w.store(outbound.EDU{Type: "m.direct_to_device", Content: fmt.Appendf(nil, `{"message_id":"big","text":%q}`, strings.Repeat("x", 2_000_000))}, "a")
		w.say("!1", 100, "a")
		pass(time.Minute)
		w.complete("a")
		if n := len(w.messages("a")); n != 61 {
			t.Errorf("it got %d", n)
		}
		if p := w.net.peer("a"); p.largest.bytes > 2_010_000 || p.largest.edus > 15 {
			t.Errorf("the largest is %+v", p.largest)
		}
	})
}

func TestServersThatWeDoNotFederateWith(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		w.net.change("a", func(p *peer) { p.answer = fmt.Errorf("%w: a", transport.ErrNotAllowed) })
		w.say("!1", 10, "a", "b", us)
		w.store(outbound.EDU{Type: "m.direct_to_device", Content: []byte(`{"message_id":"1"}`)}, "a", "b", us)
		w.queues.Offer([]matrix.ServerName{"a", us}, "x", true, outbound.EDU{Type: "m.typing", Content: []byte(`{}`)})
		pass(time.Hour)
		if n := w.asked("a"); n > 5 {
			t.Errorf("it was asked %d times", n)
		}
		w.up("a")
		w.crash()
		pass(time.Hour)
		if got, _ := w.got("a"); len(got) > 0 || len(w.messages("a")) > 0 {
			t.Errorf("it got %d events", len(got))
		}
		w.complete("b")
		list, err := w.queues.Destinations(t.Context())
		if err != nil || slices.ContainsFunc(list, func(d outbound.Destination) bool { return d.Server == "a" }) {
			t.Errorf("%+v, %v", list, err)
		}
	})
}

// A server that missed too much gets the newest event of each room.
func TestTooMuchToCatchUp(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		w.change = func(d *outbound.Deps) { d.MaxCatchUp = 1000 }
		w.restart()
		w.down("a")
		for i := range 100 {
			w.say(matrix.RoomID(fmt.Sprint("!", i%70)), 12, "a")
		}
		pass(time.Hour)
		w.crash()
		w.up("a")
		w.net.change("a", func(p *peer) { p.took = 3 * time.Second })
		w.queues.Retry("a")
		pass(5 * time.Second)
		w.say("!0", 3, "a") // while it catches up
		pass(10 * time.Minute)
		got, again := w.got("a")
		all := w.meant("a")
		newest := map[string]int{}
		for i, pdu := range all[:1200] {
			var c struct{ Room string }
			_ = json.Unmarshal([]byte(pdu), &c)
			newest[c.Room] = i
		}
		var want []string
		for i, pdu := range all {
			var c struct{ Room string }
			_ = json.Unmarshal([]byte(pdu), &c)
			if newest[c.Room] == i || i >= 1200 {
				want = append(want, pdu)
			}
		}
		if !slices.Equal(got, want) || again > 1 {
			t.Errorf("%d events, not %d; %d again", len(got), len(want), again)
		}
		w.say("!1", 5, "a")
		pass(time.Minute)
		if more, _ := w.got("a"); len(more) != len(got)+5 {
			t.Errorf("then %d events came", len(more)-len(got))
		}
	})
}

// If the database fails us, the other server is not to blame.
func TestOurOwnFailure(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		w.history.mu.Lock()
		w.history.fail = errors.New("disk")
		w.history.mu.Unlock()
		w.say("!1", 3, "a")
		pass(time.Minute)
		w.history.mu.Lock()
		w.history.fail = nil
		w.history.mu.Unlock()
		pass(10 * time.Second)
		w.complete("a")
		if list, err := w.queues.Destinations(t.Context()); err != nil || len(list) != 1 || !list[0].LastFailure.IsZero() {
			t.Errorf("%+v, %v", list, err)
		}
	})
}

// The first attempt after a failure is the same transaction, so that a server
// whose answer was lost does nothing twice.
func TestTheSameTransactionComesAgain(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		w.net.change("a", func(p *peer) { p.lose = true })
		w.say("!1", 3, "a")
		w.store(outbound.EDU{Type: "m.direct_to_device", Content: []byte(`{"message_id":"1"}`)}, "a")
		pass(time.Second)
		w.say("!1", 3, "a")
		w.store(outbound.EDU{Type: "m.direct_to_device", Content: []byte(`{"message_id":"2"}`)}, "a")
		w.up("a")
		pass(time.Minute)
		w.complete("a")
		w.once("a")
		p := w.net.peer("a")
		if len(p.edus) != 2 || len(p.ids) < 3 || p.ids[0] != p.ids[1] && p.ids[1] != p.ids[2] {
			t.Errorf("%d EDUs by the transactions %v", len(p.edus), p.ids)
		}
		// But what happens again is told again.
		for range 3 {
			w.queues.Offer([]matrix.ServerName{"a"}, "t", false, outbound.EDU{Type: "m.typing", Content: []byte(`{"typing":true}`)})
			pass(time.Minute)
		}
		w.store(outbound.EDU{Type: "m.signing_key_update", Content: []byte(`{}`)}, "a")
		pass(time.Minute)
		w.store(outbound.EDU{Type: "m.signing_key_update", Content: []byte(`{}`)}, "a")
		pass(time.Minute)
		if len(p.edus) != 7 {
			t.Errorf("%d EDUs came", len(p.edus))
		}
	})
}

func TestDestinationsForOperators(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		w.net.change("a", func(p *peer) {
			p.answer = &transport.UnreachableError{Server: "a", Err: errors.New("bad \x00 luck \xff" + strings.Repeat("…", 1000))}
		})
		w.say("!1", 300, "a", "b")
		w.store(outbound.EDU{Type: "x", Content: []byte(`{}`)}, "a")
		pass(time.Hour)
		check := func(when string) {
			t.Helper()
			list, err := w.queues.Destinations(t.Context())
			if err != nil || len(list) == 0 {
				t.Fatalf("%s: %v", when, err)
			}
			a := list[0]
			if a.Server != "a" || a.Failures < 8 || a.Events != 300 || a.EDUs != 1 || !a.LastSuccess.IsZero() || a.LastFailure.IsZero() ||
				a.NextTry.Before(time.Now()) || !strings.Contains(a.Error, "bad  luck") || len(a.Error) > 310 {
				t.Errorf("%s: %+v", when, a)
			}
		}
		check("in memory")
		w.crash()
		check("after a crash")
		w.say("!1", 1, "b")
		pass(time.Second)
		began := time.Now()
		pass(30 * time.Hour) // its record is dropped meanwhile
		w.say("!1", 1, "c")
		pass(2 * time.Second)
		list, err := w.queues.Destinations(t.Context())
		at := slices.IndexFunc(list, func(d outbound.Destination) bool { return d.Server == "b" })
		if err != nil || at < 0 || list[at].LastSuccess.Before(began.Add(-2*time.Second)) || list[at].Events != 0 {
			t.Errorf("%+v, %v", list, err)
		}
		if w.queues.Remembers("b") {
			t.Error("the record of an idle server stays in memory")
		}
	})
}

// Operators, and nobody else, see how it stands, and have a server tried.
func TestTheAdminAPI(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		for _, s := range crowd("s", 120) {
			w.say("!1", 1, s)
		}
		w.down("a")
		w.say("!1", 2, "a")
		pass(2 * time.Hour)
		ask := func(admin bool, method, path string) (int, string) {
			edge := httpx.New(httpx.Options{Auth: operator(admin), Log: slog.New(slog.DiscardHandler)})
			edge.Add("admin", w.queues.AdminRoutes()...)
			r := httptest.NewRequest(method, "/_synapse/admin/v1/federation/destinations"+path, nil)
			r.Header.Set("Authorization", "Bearer x")
			answer := httptest.NewRecorder()
			edge.Handler("admin").ServeHTTP(answer, r)
			return answer.Code, answer.Body.String()
		}
		status, text := ask(true, "GET", "")
		if status != 200 || !strings.HasPrefix(text, `{"destinations":[{"destination":"a","failures":`) || !strings.Contains(text, `"waiting_events":2`) ||
			!strings.Contains(text, `"total":121,"next_token":100`) || strings.Count(text, "last_success_ts") != 100 {
			t.Errorf("%d %.500s", status, text)
		}
		if status, text := ask(true, "GET", "?from=100"); status != 200 || strings.Count(text, "last_success_ts") != 21 || strings.Contains(text, "next_token") {
			t.Errorf("%d %.500s", status, text)
		}
		if status, text := ask(true, "GET", "?from=1000&limit=7"); status != 200 || !strings.Contains(text, `"destinations":[]`) {
			t.Errorf("%d %.500s", status, text)
		}
		if status, _ := ask(true, "GET", "?from=-1"); status != 400 {
			t.Errorf("%d", status)
		}
		for method, path := range map[string]string{"GET": "", "POST": "/a/reset_connection"} {
			if status, _ := ask(false, method, path); status != 403 {
				t.Errorf("%s: %d", path, status)
			}
		}
		w.up("a")
		if status, text := ask(true, "POST", "/a/reset_connection"); status != 200 {
			t.Errorf("%d %s", status, text)
		}
		pass(time.Second)
		w.complete("a")
	})
}

type operator bool

func (o operator) Authenticate(context.Context, *http.Request, string) (*httpx.Caller, error) {
	return &httpx.Caller{User: "@admin:us", Admin: bool(o)}, nil
}
