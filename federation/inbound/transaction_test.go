package inbound_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/teahouse-chat/teahouse/federation/inbound"
	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/internal/testrig"
	"github.com/teahouse-chat/teahouse/rooms"
	"github.com/teahouse-chat/teahouse/rooms/event"
)

// transact sends a transaction with raw events and returns what the answer says
// of each.
func (m *remote) transact(txn string, pdus ...string) testrig.JSON {
	m.g.Helper()
	raw := make([]json.RawMessage, len(pdus))
	for i, p := range pdus {
		raw[i] = json.RawMessage(p)
	}
	status, answer := m.Transact("here", txn, testrig.JSON{"origin": m.Name, "origin_server_ts": 1, "pdus": raw})
	results, ok := answer["pdus"].(testrig.JSON)
	if status != http.StatusOK || !ok {
		m.g.Fatalf("%d %v", status, answer)
	}
	return results
}

// F10, F12: whatever stands beside good events in a transaction, these land.
func TestBadEventsAmongGood(t *testing.T) {
	for _, version := range []string{"1", "5", "12"} {
		g := newRig(t, "sqlite")
		r := g.found(version)
		elsewhere := g.there.Create(version, alice)
		good := r.say(2)
		text := string(good[1].JSON)
		replace := func(old, with string) string {
			if !strings.Contains(text, old) {
				t.Fatalf("%s is not in %s", old, text)
			}
			return strings.Replace(text, old, with, 1)
		}
		depth := fmt.Sprintf(`"depth":%d`, good[1].Depth)
		bad := map[string]string{
			"null":                   `null`,
			"a number":               `7`,
			"a text":                 `"x"`,
			"a list":                 `[]`,
			"nothing in it":          `{}`,
			"no room":                replace(`"room_id"`, `"room"`),
			"the room is a number":   replace(`"room_id":"`+string(r.ID)+`"`, `"room_id":7`),
			"the room is none":       replace(string(r.ID), "x"),
			"an unknown room":        string(elsewhere.Say(alice, "x").JSON),
			"depth is a text":        replace(depth, `"depth":"1"`),
			"depth is below 0":       replace(depth, `"depth":-1`),
			"depth is a fraction":    replace(depth, `"depth":1.5`),
			"depth is out of range":  replace(depth, `"depth":99999999999999999999`),
			"no content":             replace(`"content":{`, `"contents":{`),
			"no sender":              replace(`"sender"`, `"sent_by"`),
			"the sender is nobody":   replace(string(alice), "alice"),
			"a signature of nobody":  replace(`"signatures":{"there":{"`, `"signatures":{"there":{"x`),
			"signed by another":      replace(`"signatures":{"there"`, `"signatures":{"other"`),
			"changed":                replace(depth, `"depth":77`),
			"too many previous":      replace(`"prev_events":[`, `"prev_events":[`+strings.Repeat(reference(r, good[0])+",", 20)),
			"too many auth events":   replace(`"auth_events":[`, `"auth_events":[`+strings.Repeat(reference(r, good[0])+",", 10)),
			"too large":              replace("of about", strings.Repeat("x", 70_000)),
			"an id that is too long": replace(string(alice), "@"+strings.Repeat("a", 255)+":there"),
		}
		if r.Version.StrictJSON {
			bad["a fraction"] = replace(`"content":{`, `"content":{"x":1.5,`)
			bad["a large number"] = replace(`"content":{`, `"content":{"x":9007199254740993,`)
		}
		var pdus []string
		for _, name := range slices.Sorted(mapsKeys(bad)) {
			pdus = append(pdus, bad[name])
		}
		// Some have the same id; of what a server sends by one id, the first counts.
		pdus = slices.Insert(pdus, 0, text)
		pdus = append(pdus, string(good[0].JSON))
		results := g.there.transact("mixed", pdus...)
		for _, ev := range good {
			if got, _ := results[string(ev.ID)].(testrig.JSON); got == nil || len(got) > 0 {
				t.Errorf("version %s: %v of a good event", version, results[string(ev.ID)])
			}
		}
		g.settle()
		if got := g.lastIDs(r.ID, 2); !slices.Equal(got, idsOf(good)) || len(g.timeline(r.ID)) != 3 {
			t.Errorf("version %s: the timeline is %v", version, g.timeline(r.ID))
		}
		// Each by itself does nothing.
		for name, pdu := range bad {
			g.there.transact("alone "+name, pdu)
			g.settle()
			if n := len(g.timeline(r.ID)); n != 3 {
				t.Fatalf("version %s: after %s there are %d events", version, name, n)
			}
		}
	}
}

func reference(r *world, ev *event.Event) string {
	if r.Version.EventIDs == event.IDText {
		return `["` + string(ev.ID) + `",{}]`
	}
	return `"` + string(ev.ID) + `"`
}

func mapsKeys(m map[string]string) func(func(string) bool) {
	return func(yield func(string) bool) {
		for k := range m {
			if !yield(k) {
				return
			}
		}
	}
}

// F3 at the door of /send: signatures are checked before the engine sees an event,
// and by keys that count (F17).
func TestSignatures(t *testing.T) {
	for _, version := range []string{"1", "4", "5", "12"} {
		g := newRig(t, "sqlite")
		r := g.found(version)
		other := g.peer("other")
		r.enter(other, "@carol:other")
		draft := r.Draft("@carol:other", matrix.TypeMessage, nil, testrig.JSON{"body": "x"})
		build := func(key event.SigningKey, change func(*event.Draft)) *event.Event {
			d := draft
			d.Content = json.RawMessage(fmt.Sprintf(`{"body":"%d"}`, said.Add(1)))
			if change != nil {
				change(&d)
			}
			ev, err := event.Build(r.Version, d, "other", key)
			if err != nil {
				t.Fatal(err)
			}
			return ev
		}
		old := time.Now().Add(-30 * 24 * time.Hour).UnixMilli()
		good := build(other.Key, nil)
		forged := build(event.SigningKey{ID: other.Key.ID, Private: g.there.Key.Private}, nil)
		unknown := build(g.there.Key, nil)
		past := build(other.Key, func(d *event.Draft) { d.OriginServerTS = old })
		future := build(other.Key, func(d *event.Draft) { d.OriginServerTS = time.Now().Add(30 * 24 * time.Hour).UnixMilli() })
		g.there.deliver(forged, past, future, good)
		g.settle()
		// The key may be new, so this one waits.
		g.there.deliver(unknown)
		g.until("the event waits", func() bool { return g.in.Waiting() == 1 })
		if g.known(forged.ID) != nil || g.known(unknown.ID) != nil {
			t.Errorf("version %s: a forged event is there", version)
		}
		for name, ev := range map[string]*event.Event{"good": good, "old": past} {
			if g.known(ev.ID) == nil || g.flags(ev.ID) != 0 {
				t.Errorf("version %s: the %s event is not there", version, name)
			}
		}
		if there := g.known(future.ID) != nil; there == r.Version.KeyValidity {
			t.Errorf("version %s: an event of the future is there: %v", version, there)
		}
	}
}

// A copy of an event with spoiled signatures, from somebody who is faster, does
// not keep the event out.
func TestSpoiledCopy(t *testing.T) {
	g := newRig(t, "sqlite")
	r := g.found("12")
	other := g.peer("other")
	r.enter(other, "@carol:other")
	ev := r.by(other, "@carol:other", matrix.TypeMessage, nil, testrig.JSON{"body": "x"})
	spoiled := strings.Replace(string(ev.JSON), `"signatures":{"other":{"ed25519:`, `"signatures":{"other":{"ed25519:x`, 1)
	if parsed, err := event.Parse(r.Version, []byte(spoiled)); err != nil || parsed.ID != ev.ID {
		t.Fatalf("%v, %v", parsed, err)
	}
	for range 3 {
		g.there.transact(g.there.nextTxn(), spoiled)
	}
	other.deliver(ev)
	g.there.transact(g.there.nextTxn(), spoiled)
	g.settle()
	if !g.shown(r.ID, ev.ID) {
		t.Error("the event is not there")
	}
}

// F5: a rejected event never shows, and what rests on it is rejected, too; after a
// restart nothing has changed.
func TestRejected(t *testing.T) {
	each(t, func(t *testing.T, kind string) {
		g := newRig(t, kind)
		r := g.found("12")
		other := g.peer("other")
		r.enter(other, "@carol:other")
		topic := r.by(other, "@carol:other", matrix.TypeTopic, new(string), testrig.JSON{"topic": "bad"})
		join := r.by(other, "@dave:other", matrix.TypeMember, text("@eve:other"), testrig.JSON{"membership": "join"})
		aside := r.fork()
		aside.State[authKey(join)] = join
		words := aside.by(other, "@eve:other", matrix.TypeMessage, nil, testrig.JSON{"body": "of nobody"})
		after := r.fork()
		after.Tips = []*event.Event{topic}
		next := after.by(other, "@carol:other", matrix.TypeMessage, nil, testrig.JSON{"body": "after"})
		good := r.say(1)
		other.deliver(topic, join, words, next)
		g.there.deliver(good...)
		g.settle()
		check := func() {
			t.Helper()
			for _, ev := range []*event.Event{topic, join, words} {
				if g.flags(ev.ID) != rooms.Rejected || g.shown(r.ID, ev.ID) {
					t.Errorf("%s: %v", ev.Type, g.flags(ev.ID))
				}
			}
			if g.topic(r.ID) != "" || !g.shown(r.ID, good[0].ID) || !g.shown(r.ID, next.ID) {
				t.Errorf("%q", g.topic(r.ID))
			}
		}
		check()
		g.restart()
		other.deliver(topic, join, words)
		g.settle()
		check()
	})
}

func text(s string) *string { return &s }

// Events that come twice, in every way, are there once, and cost no answer.
func TestDuplicates(t *testing.T) {
	each(t, func(t *testing.T, kind string) {
		g := newRig(t, kind)
		r := g.found("12")
		other := g.peer("other")
		r.enter(other, "@carol:other")
		events := r.say(30)
		var all sync.WaitGroup
		for _, m := range []*remote{g.there, other} {
			for range 3 {
				all.Go(func() {
					for status := 0; status != http.StatusOK; {
						status, _ = m.Send("here", m.nextTxn(), append(slices.Clone(events[:20]), events...)...)
					}
				})
			}
		}
		all.Wait()
		g.there.deliver(events...)
		g.settle()
		g.there.deliver(events...)
		g.settle()
		if got := g.lastIDs(r.ID, 30); !slices.Equal(got, idsOf(events)) || len(g.timeline(r.ID)) != 32 {
			t.Errorf("%d events", len(g.timeline(r.ID)))
		}
	})
}

// The same transaction is answered alike, and its EDUs count once, also when it
// comes twice at the same time and after a restart; from another server it is
// another.
func TestRepeatedTransaction(t *testing.T) {
	each(t, func(t *testing.T, kind string) {
		var counter counted
		g := newRig(t, kind, func(d *inbound.Deps) { d.EDUs = map[string]inbound.EDUHandler{"m.typing": counter.handle} })
		r := g.found("12")
		other := g.peer("other")
		outsider := g.there.Create("12", alice).Say(alice, "x")
		_ = outsider
		events := r.say(1)
		body := testrig.JSON{"pdus": raws(events), "edus": []testrig.JSON{{"edu_type": "m.typing", "content": testrig.JSON{"n": 1}}}}
		ask := func(m *remote) string {
			t.Helper()
			status, answer := m.Transact("here", "the same", body)
			text, _ := json.Marshal(answer)
			if status != http.StatusOK {
				t.Fatalf("%d %s", status, text)
			}
			return string(text)
		}
		first := ask(g.there)
		if want := fmt.Sprintf(`{"pdus":{%q:{}}}`, events[0].ID); first != want {
			t.Errorf("%s, not %s", first, want)
		}
		var all sync.WaitGroup
		for range 4 {
			all.Go(func() {
				if got := ask(g.there); got != first {
					t.Errorf("%s, not %s", got, first)
				}
			})
		}
		all.Wait()
		g.settle()
		g.restart()
		if got := ask(g.there); got != first || counter.times() != 1 {
			t.Errorf("%s, not %s; the EDU came %d times", got, first, counter.times())
		}
		if ask(other); counter.times() != 2 {
			t.Error("another server's transaction was taken for the same")
		}
	})
}

type counted struct {
	mu   sync.Mutex
	came []string
	fail error
}

func (c *counted) handle(_ context.Context, origin matrix.ServerName, content json.RawMessage) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.came = append(c.came, string(origin)+string(content))
	return c.fail
}

func (c *counted) times() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.came)
}

// F11: EDUs are taken one by one; what is wrong with one is no other's matter. A
// fault of ours makes the origin send again.
func TestEDUs(t *testing.T) {
	var good, failing counted
	failing.fail = errors.New("the disk is full")
	g := newRig(t, "sqlite", func(d *inbound.Deps) {
		d.EDUs = map[string]inbound.EDUHandler{
			"m.good": good.handle, "m.failing": failing.handle,
			"m.panic": func(context.Context, matrix.ServerName, json.RawMessage) error { panic("a bug") },
		}
	})
	r := g.found("12")
	edu := func(typ, content string) json.RawMessage {
		return json.RawMessage(fmt.Sprintf(`{"edu_type":%q,"content":%s}`, typ, content))
	}
	list := []json.RawMessage{
		[]byte(`null`), []byte(`7`), []byte(`{}`), edu("m.good", `{"a":1}`), edu("m.unknown", `{}`), edu("m.panic", `{}`),
		edu("m.good", `[]`), edu("m.good", `null`), []byte(`{"edu_type":7,"content":{}}`), edu("m.good", `{"x":"`+strings.Repeat("x", 2<<20)+`"}`),
		edu("m.good", `{"a":2}`),
	}
	events := r.say(1)
	status, answer := g.there.Transact("here", "t1", testrig.JSON{"pdus": raws(events), "edus": list})
	if status != http.StatusOK || !slices.Equal(good.came, []string{`there{"a":1}`, `there{"a":2}`}) {
		t.Errorf("%d %v: %v", status, answer, good.came)
	}
	again := testrig.JSON{"pdus": raws(r.say(1)), "edus": []json.RawMessage{edu("m.failing", `{}`), edu("m.good", `{"a":3}`)}}
	for i := range 2 {
		if status, answer := g.there.Transact("here", "t2", again); status != http.StatusInternalServerError || good.times() != 3+i {
			t.Errorf("%d %v: %v", status, answer, good.came)
		}
	}
	failing.mu.Lock()
	failing.fail = nil
	failing.mu.Unlock()
	if status, answer := g.there.Transact("here", "t2", again); status != http.StatusOK {
		t.Errorf("%d %v", status, answer)
	}
	g.settle()
	if n := len(g.timeline(r.ID)); n != 3 {
		t.Errorf("%d events", n)
	}
}

// F8, F11: there are limits to a transaction.
func TestLimits(t *testing.T) {
	g := newRig(t, "sqlite")
	r := g.found("12")
	events := raws(r.say(51))
	edus := make([]testrig.JSON, 101)
	for i := range edus {
		edus[i] = testrig.JSON{"edu_type": "m.x", "content": testrig.JSON{}}
	}
	for name, c := range map[string]struct {
		txn    string
		body   any
		status int
		code   string
	}{
		"51 PDUs":            {"a", testrig.JSON{"pdus": events}, 400, "M_BAD_JSON"},
		"101 EDUs":           {"a", testrig.JSON{"pdus": []any{}, "edus": edus}, 400, "M_BAD_JSON"},
		"no list of PDUs":    {"a", testrig.JSON{"pdus": testrig.JSON{}}, 400, "M_BAD_JSON"},
		"no list of EDUs":    {"a", testrig.JSON{"pdus": []any{}, "edus": "x"}, 400, "M_BAD_JSON"},
		"long id":            {strings.Repeat("x", 300), testrig.JSON{"pdus": []any{}}, 400, "M_INVALID_PARAM"},
		"large":              {"a", testrig.JSON{"pdus": []any{}, "x": strings.Repeat("x", 17<<20)}, 413, "M_TOO_LARGE"},
		"nothing":            {"b", testrig.JSON{}, 200, ""},
		"50 PDUs, 100 EDUs":  {"c", testrig.JSON{"pdus": events[:50], "edus": edus[:100]}, 200, ""},
		"somebody's origin":  {"d", testrig.JSON{"origin": "other", "pdus": events[50:]}, 200, ""},
		"a strange id":       {"ä/ö?", testrig.JSON{"pdus": []any{}}, 200, ""},
		"lists that are not": {"e", testrig.JSON{"pdus": nil, "edus": nil}, 200, ""},
	} {
		status, answer := g.there.Transact("here", c.txn, c.body)
		if code, _ := answer["errcode"].(string); status != c.status || code != c.code {
			t.Errorf("%s: %d %v", name, status, answer)
		}
	}
	g.settle()
	if n := len(g.timeline(r.ID)); n != 52 {
		t.Errorf("%d events", n)
	}
}

// Who does not sign requests sends nothing.
func TestUnsigned(t *testing.T) {
	g := newRig(t, "sqlite")
	g.there.Client.Close()
	other := testrig.NewPeer(t, g.network, "liar")
	other.Key = g.there.Key // its published key is another
	liar := g.peer("stranger")
	liar.Name = "there"
	r := g.found("12")
	if status, answer := liar.Ask(t.Context(), "here", "PUT", "/_matrix/federation/v1/send/x", testrig.JSON{"pdus": raws(r.say(1))}); status != http.StatusOK {
		t.Errorf("%d %v", status, answer) // it is the stranger who signs, whatever its body says
	}
	rq, err := http.NewRequestWithContext(t.Context(), "PUT", "/_matrix/federation/v1/send/x", strings.NewReader(`{"pdus":[]}`))
	if err != nil {
		t.Fatal(err)
	}
	w := httptest.NewRecorder()
	g.handler.ServeHTTP(w, rq)
	if w.Code != http.StatusUnauthorized {
		t.Errorf("without a signature: %d", w.Code)
	}
}

// F15: a server that the room bans is not heard in it; an event of a room that we
// are not in is not taken.
func TestWhoIsHeard(t *testing.T) {
	g := newRig(t, "sqlite")
	r := g.found("12")
	other := g.peer("other")
	r.enter(other, "@carol:other")
	g.there.deliver(r.set(matrix.TypeServerACL, "", testrig.JSON{"allow": []string{"*"}, "deny": []string{"OTHER"}}))
	g.settle()
	ev := r.by(other, "@carol:other", matrix.TypeMessage, nil, testrig.JSON{"body": "x"})
	results := other.transact("t", string(ev.JSON))
	if got, _ := results[string(ev.ID)].(testrig.JSON); got == nil || got["error"] == nil {
		t.Errorf("%v", results)
	}
	left := g.found("12")
	if _, err := g.engine.Send(t.Context(), left.ID, us, rooms.Proto{Type: matrix.TypeMember, StateKey: text(string(us)), Content: []byte(`{"membership":"leave"}`)}, nil); err != nil {
		t.Fatal(err)
	}
	late := left.say(1)
	results = g.there.transact("t", string(late[0].JSON))
	if got, _ := results[string(late[0].ID)].(testrig.JSON); got == nil || got["error"] == nil {
		t.Errorf("%v", results)
	}
	if g.in.Staged() != 0 || g.known(ev.ID) != nil || g.known(late[0].ID) != nil {
		t.Error("an event was staged")
	}
}

// Events of a room that a user of ours is just joining wait for the join.
func TestEventsDuringJoin(t *testing.T) {
	var g *rig
	var r *world
	waited := make(chan matrix.RoomID, 10)
	g = newRig(t, "sqlite", func(d *inbound.Deps) {
		d.Joining = func(_ context.Context, room matrix.RoomID) {
			waited <- room
			if r != nil && room == r.ID {
				g.join(r)
			}
		}
	})
	r = &world{g.there.Create("12", alice), g.there}
	for i, ev := range r.Events {
		g.there.learn(ev, slices.Clone(r.Events[:i]))
	}
	before := r.say(1)
	g.there.deliver(before...)
	g.settle()
	if room := <-waited; room != r.ID {
		t.Errorf("%s", room)
	}
}

// A server that sends many transactions at the same time is told to wait; others
// are not.
func TestManyAtOnce(t *testing.T) {
	release, began := make(chan struct{}), make(chan struct{}, 100)
	g := newRig(t, "sqlite", func(d *inbound.Deps) {
		d.EDUs = map[string]inbound.EDUHandler{"m.slow": func(_ context.Context, origin matrix.ServerName, _ json.RawMessage) error {
			if origin == "there" {
				began <- struct{}{}
				<-release
			}
			return nil
		}}
	})
	other := g.peer("other")
	slow := testrig.JSON{"edu_type": "m.slow", "content": testrig.JSON{}}
	var all sync.WaitGroup
	for i := range 4 {
		all.Go(func() {
			if status, answer := g.there.SendEDUs("here", fmt.Sprint(i), slow); status != http.StatusOK {
				t.Errorf("%d %v", status, answer)
			}
		})
		<-began
	}
	if status, answer := g.there.SendEDUs("here", "one more", slow); status != http.StatusTooManyRequests || answer["retry_after_ms"] == nil {
		t.Errorf("%d %v", status, answer)
	}
	if status, answer := other.SendEDUs("here", "another's", slow); status != http.StatusOK {
		t.Errorf("%d %v", status, answer)
	}
	close(release)
	all.Wait()
	if status, answer := g.there.SendEDUs("here", "one more", slow); status != http.StatusOK {
		t.Errorf("%d %v", status, answer)
	}
}

// What comes in is counted, and nothing is labelled by room or server.
func TestMetrics(t *testing.T) {
	reg := prometheus.NewRegistry()
	g := newRig(t, "sqlite", func(d *inbound.Deps) { d.Metrics = reg })
	r := g.found("12")
	r.say(3)
	g.there.deliver(r.say(2)...)
	g.there.transact("x", `{}`)
	g.settle()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	counted := map[string]float64{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			name := f.GetName()
			for _, l := range m.GetLabel() {
				name += " " + l.GetValue()
			}
			counted[name] = m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
		}
	}
	want := map[string]float64{
		"teahouse_federation_received_pdus_total accepted": 5, "teahouse_federation_received_pdus_total refused": 1,
		"teahouse_federation_gaps_total filled": 1, "teahouse_federation_staged_events": 0, "teahouse_federation_inbound_lag_seconds": 5,
	}
	if !maps.Equal(counted, want) {
		t.Errorf("%v", counted)
	}
}
