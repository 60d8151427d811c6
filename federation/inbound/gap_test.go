package inbound_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/internal/testrig"
	"github.com/teahouse-chat/teahouse/rooms"
	"github.com/teahouse-chat/teahouse/rooms/auth"
	"github.com/teahouse-chat/teahouse/rooms/event"
)

func authKey(ev *event.Event) auth.Key { return auth.Key{Type: ev.Type, StateKey: ev.StateKey()} }

// lastIDs are the last n events of a room as our timeline has them.
func (g *rig) lastIDs(id matrix.RoomID, n int) []matrix.EventID {
	g.Helper()
	all := g.timeline(id)
	return all[max(len(all)-n, 0):]
}

func each(t *testing.T, f func(t *testing.T, kind string)) {
	for _, kind := range []string{"sqlite", "postgres"} {
		t.Run(kind, func(t *testing.T) { f(t, kind) })
	}
}

// refuse answers as a server does that will not tell.
func refuse(w http.ResponseWriter) {
	testrig.WriteJSON(w, http.StatusForbidden, testrig.JSON{"errcode": "M_FORBIDDEN", "error": "no"})
}

// Gaps of all lengths are filled, in order, before what is newer shows.
func TestGaps(t *testing.T) {
	each(t, func(t *testing.T, kind string) {
		for _, n := range []int{0, 1, 20, 300, 10_000} {
			if n == 10_000 && kind == "postgres" {
				continue // the same statements, a hundred times
			}
			t.Run(fmt.Sprint(n), func(t *testing.T) {
				g := newRig(t, kind)
				r := g.found("12")
				missed := r.say(n)
				newest := r.say(3)
				g.there.deliver(newest...)
				g.settle()
				want := idsOf(append(missed, newest...))
				if got := g.lastIDs(r.ID, len(want)); !slices.Equal(got, want) {
					t.Errorf("%d events, not the %d that there are", len(got), len(want))
				}
				if got := g.tips(r.ID); !slices.Equal(got, want[len(want)-1:]) {
					t.Errorf("%v", got)
				}
				if asked := g.there.times("backfill"); asked > n/50+1 {
					t.Errorf("%d pages were asked for", asked)
				}
			})
		}
	})
}

// A gap with branches in it: long and short ones, which merge again.
func TestForkedGap(t *testing.T) {
	for _, version := range []string{"1", "2", "12"} {
		g := newRig(t, "sqlite")
		r := g.found(version)
		r.say(5)
		long, short := r.fork(), r.fork()
		long.say(70)
		long.set(matrix.TypeTopic, "", testrig.JSON{"topic": "long"})
		short.set("m.room.name", "", testrig.JSON{"name": "short"})
		short.say(3)
		r.Tips = append(slices.Clone(long.Tips), short.Tips...)
		r.State[auth.Key{Type: matrix.TypeTopic}] = long.State[auth.Key{Type: matrix.TypeTopic}]
		r.State[auth.Key{Type: "m.room.name"}] = short.State[auth.Key{Type: "m.room.name"}]
		r.say(40)
		newest := r.say(1)
		g.there.deliver(newest...)
		g.settle()
		if got := g.timeline(r.ID); len(got) != len(r.Events)+75-4 {
			t.Errorf("version %s: %d events, not %d", version, len(got), len(r.Events)+75-4)
		}
		if got := g.tips(r.ID); !slices.Equal(got, idsOf(newest)) || g.topic(r.ID) != "long" {
			t.Errorf("version %s: %v, %q", version, got, g.topic(r.ID))
		}
	}
}

// An event that builds on one that we have and on one that is missing.
func TestHalfKnownPrevs(t *testing.T) {
	g := newRig(t, "sqlite")
	r := g.found("12")
	ours, theirs := r.fork(), r.fork()
	known := ours.say(2)
	g.there.deliver(known...)
	missing := theirs.say(30)
	r.Tips = append(slices.Clone(ours.Tips), theirs.Tips...)
	merge := r.say(1)
	g.there.deliver(merge...)
	g.settle()
	for _, ev := range append(missing, merge...) {
		if !g.shown(r.ID, ev.ID) {
			t.Fatalf("%s is not there", ev.ID)
		}
	}
	if got := g.tips(r.ID); !slices.Equal(got, idsOf(merge)) {
		t.Errorf("%v", got)
	}
}

// Where history cannot be had, the state behind the gap is taken from another
// server, and the rest of the gap can be paged into later.
func TestBridge(t *testing.T) {
	each(t, func(t *testing.T, kind string) {
		for _, version := range []string{"1", "6", "12"} {
			g := newRig(t, kind)
			r := g.found(version)
			r.say(10)
			r.set(matrix.TypeTopic, "", testrig.JSON{"topic": "missed"})
			r.set(matrix.TypePowerLevels, "", testrig.JSON{"users": levels(r, 100), "state_default": 40})
			hidden := r.say(10)
			newest := r.say(3)
			g.there.misbehaves(func(what string, w http.ResponseWriter, _ *http.Request) bool {
				if what == "backfill" || what == "get_missing_events" {
					refuse(w)
					return true
				}
				return false
			})
			g.there.deliver(newest[2])
			g.settle()
			if got := g.lastIDs(r.ID, 2); !slices.Equal(got, idsOf(newest[1:])) {
				t.Errorf("version %s: the timeline ends with %v", version, got)
			}
			if got := g.topic(r.ID); got != "missed" {
				t.Errorf("version %s: the topic is %q", version, got)
			}
			gaps, err := g.engine.Backward(t.Context(), g.room(r.ID))
			if err != nil || !slices.ContainsFunc(gaps, func(gap rooms.Gap) bool { return gap.Missing == newest[0].ID }) {
				t.Errorf("version %s: %v, %v", version, gaps, err)
			}
			if g.known(hidden[3].ID) != nil {
				t.Errorf("version %s: what nobody told is known", version)
			}
			// What we say next joins both ends.
			st, err := g.engine.Send(t.Context(), r.ID, us, rooms.Proto{Type: matrix.TypeMessage, Content: []byte(`{"body":"x"}`)}, nil)
			if err != nil || len(st.PrevEvents) != 2 {
				t.Errorf("version %s: %v, %v", version, st, err)
			}
		}
	})
}

func levels(r *world, level int) testrig.JSON {
	if r.Version.CreatorPower {
		return testrig.JSON{}
	}
	return testrig.JSON{string(alice): level}
}

// An event that nobody has any more, or only with a wrong signature, is bridged
// by the one that builds on it.
func TestHole(t *testing.T) {
	g := newRig(t, "sqlite")
	r := g.found("12")
	old := r.say(30)
	lost := r.set(matrix.TypeTopic, "", testrig.JSON{"topic": "lost"})
	after := r.say(20)
	newest := r.say(1)
	g.there.forget(lost.ID)
	g.there.deliver(newest...)
	g.settle()
	for _, ev := range append(after, newest...) {
		if !g.shown(r.ID, ev.ID) {
			t.Fatalf("%s is not there", ev.ID)
		}
	}
	if g.known(lost.ID) != nil {
		t.Error("the lost event is there")
	}
	if g.shown(r.ID, old[0].ID) {
		t.Error("what is behind the hole shows as new")
	}
}

// A state with many events that are missing is fetched whole.
func TestBulkState(t *testing.T) {
	g := newRig(t, "sqlite")
	r := g.found("12")
	for i := range 150 {
		r.set("m.custom", fmt.Sprint(i), testrig.JSON{"i": i})
	}
	newest := r.say(2)
	g.there.misbehaves(func(what string, w http.ResponseWriter, _ *http.Request) bool {
		if what == "backfill" || what == "get_missing_events" {
			refuse(w)
			return true
		}
		return false
	})
	g.there.deliver(newest[1])
	g.settle()
	if g.there.times("state") != 1 || g.there.times("event") > 2 {
		t.Errorf("asked %d times for the state and %d times for events", g.there.times("state"), g.there.times("event"))
	}
	if n := g.room(r.ID).View().State.Len(); n != len(r.State) {
		t.Errorf("the state has %d entries, not %d", n, len(r.State))
	}
}

// Auth events that are missing are fetched: those of an event whose previous
// event is here, but not what was between.
func TestMissingAuthEvents(t *testing.T) {
	for _, way := range []string{"event", "event_auth"} {
		g := newRig(t, "sqlite")
		r := g.found("12")
		aside := r.fork()
		aside.set(matrix.TypePowerLevels, "", testrig.JSON{"events_default": 0, "state_default": 1})
		// It builds on what we have, with an auth event of another branch.
		d := r.Draft(alice, matrix.TypeMessage, nil, testrig.JSON{"body": "x"})
		d.AuthEvents = nil
		for _, k := range []auth.Key{{Type: matrix.TypePowerLevels}, {Type: matrix.TypeMember, StateKey: string(alice)}} {
			d.AuthEvents = append(d.AuthEvents, aside.State[k].Ref())
		}
		ev := r.keep(r.Build(d))
		g.there.misbehaves(func(what string, w http.ResponseWriter, _ *http.Request) bool {
			if what == "event" && way != "event" {
				notFound(w)
				return true
			}
			return false
		})
		g.there.deliver(ev)
		g.settle()
		if got := g.flags(ev.ID); got != 0 {
			t.Errorf("%s: %d", way, got)
		}
		if g.there.times(way) == 0 {
			t.Errorf("%s was not asked for", way)
		}
	}
}

// If the origin does not answer, others in the room are asked.
func TestOtherServers(t *testing.T) {
	g := newRig(t, "sqlite")
	r := g.found("12")
	other := g.peer("other")
	r.enter(other, "@carol:other")
	missed := r.say(40)
	newest := r.say(1)
	r.teach(other)
	g.there.misbehaves(func(_ string, w http.ResponseWriter, _ *http.Request) bool {
		panic(http.ErrAbortHandler)
	})
	g.there.deliver(newest...)
	g.settle()
	want := idsOf(append(missed, newest...))
	if got := g.lastIDs(r.ID, len(want)); !slices.Equal(got, want) {
		t.Errorf("%v", got)
	}
	if other.times("get_missing_events")+other.times("backfill") == 0 {
		t.Error("nobody else was asked")
	}
}

// What a server gives without being asked for, and what is no answer at all, is
// not taken; what came before the connection broke is.
func TestUselessAnswers(t *testing.T) {
	g := newRig(t, "sqlite")
	r := g.found("12")
	aside := r.fork()
	unrelated := aside.say(5)
	missed := r.say(100)
	newest := r.say(1)
	calls := 0
	g.there.misbehaves(func(what string, w http.ResponseWriter, _ *http.Request) bool {
		if what != "backfill" && what != "get_missing_events" {
			return false
		}
		list := map[string]string{"backfill": "pdus", "get_missing_events": "events"}[what]
		switch calls++; calls {
		case 1:
			testrig.WriteJSON(w, http.StatusOK, testrig.JSON{list: raws(unrelated)})
		case 2: // broken off after two events that are of use
			text := fmt.Sprintf(`{"pdus":[%s,%s,%s`, missed[99].JSON, missed[98].JSON, missed[97].JSON[:50])
			w.Header().Set("Content-Length", fmt.Sprint(len(text)+1000))
			_, _ = w.Write([]byte(text))
			_ = http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		case 3: // of other events, and wrong ones, only one is of use
			bad := strings.Replace(string(missed[96].JSON), "there", "tHere", 1)
			testrig.WriteJSON(w, http.StatusOK, testrig.JSON{list: append([]json.RawMessage{[]byte(bad), []byte(`7`), []byte(`{}`), missed[97].JSON}, raws(unrelated)...)})
		default:
			return false
		}
		return true
	})
	g.there.deliver(newest...)
	g.settle()
	want := idsOf(append(missed, newest...))
	if got := g.lastIDs(r.ID, len(want)); !slices.Equal(got, want) {
		t.Errorf("%d events, not %d", len(got), len(want))
	}
	for _, ev := range unrelated {
		if g.known(ev.ID) != nil {
			t.Errorf("%s was taken", ev.ID)
		}
	}
}

// An event that builds on what no server can accept is not waited for, if nobody
// tells the state either; nor does it hold up what comes after it, which is asked
// for anew.
func TestMalformedPast(t *testing.T) {
	each(t, func(t *testing.T, kind string) {
		g := newRig(t, kind)
		r := g.found("12")
		missed := r.say(1)
		bad := strings.Replace(string(missed[0].JSON), `"content":{`, `"content":{"bad":1.5,`, 1)
		builders := r.say(2)
		var latest []string
		g.there.misbehaves(func(what string, w http.ResponseWriter, q *http.Request) bool {
			if what != "get_missing_events" {
				refuse(w)
				return true
			}
			var body struct {
				Latest []string `json:"latest_events"`
			}
			if err := json.NewDecoder(q.Body).Decode(&body); err != nil {
				t.Error(err)
			}
			latest = append(latest, body.Latest...)
			testrig.WriteJSON(w, http.StatusOK, testrig.JSON{"events": []json.RawMessage{[]byte(bad)}})
			return true
		})
		for _, ev := range builders {
			g.there.deliver(ev)
			g.settle()
		}
		if want := []string{string(builders[0].ID), string(builders[1].ID)}; !slices.Equal(latest, want) {
			t.Errorf("asked for what is before %v, not %v", latest, want)
		}
		g.there.misbehaves(nil)
		newest := r.say(1)
		g.there.deliver(newest...)
		g.settle()
		want := idsOf(slices.Concat(missed, builders, newest))
		if got := g.lastIDs(r.ID, len(want)); !slices.Equal(got, want) {
			t.Errorf("in the end the room has %v, not %v", got, want)
		}
	})
}

// F9: a past without end ends where the budget does, and the room goes on.
func TestEndlessPast(t *testing.T) {
	g := newRig(t, "sqlite")
	r := g.found("12")
	quiet := g.found("12")
	// Every event that is asked for has another before it, which is made then.
	made := r.fork()
	g.there.misbehaves(func(what string, w http.ResponseWriter, q *http.Request) bool {
		if what != "backfill" && what != "get_missing_events" {
			return false
		}
		list := map[string]string{"backfill": "pdus", "get_missing_events": "events"}[what]
		testrig.WriteJSON(w, http.StatusOK, testrig.JSON{list: raws(made.past())})
		return true
	})
	newest := made.unfold(r, 1000)
	g.there.deliver(newest)
	g.settle()
	if n := g.there.times("backfill") + g.there.times("get_missing_events"); n > 400 {
		t.Errorf("%d requests for one gap", n)
	}
	said := quiet.say(1)
	g.there.deliver(said...)
	g.settle()
	if !g.shown(quiet.ID, said[0].ID) || !g.shown(r.ID, newest.ID) {
		t.Error("an event is not there")
	}
}

// unfold makes a chain of events whose beginning is not to be had, and returns
// the last. past gives one of them at a time, from the end.
func (r *world) unfold(from *world, n int) *event.Event {
	chain := r.say(n)
	r.Events = chain[:n-1]
	return chain[n-1]
}

func (r *world) past() []*event.Event {
	if len(r.Events) == 0 {
		return nil
	}
	last := r.Events[len(r.Events)-1]
	r.Events = r.Events[:len(r.Events)-1]
	return []*event.Event{last}
}

// F9: events of the first room versions can refer to each other in a circle.
func TestCycle(t *testing.T) {
	g := newRig(t, "sqlite")
	r := g.found("1")
	good := r.say(1)
	// The ids of such events are texts that their server chooses.
	text := func(id, prev string) *event.Event {
		ev := r.Build(r.Draft(alice, matrix.TypeMessage, nil, testrig.JSON{"body": id}))
		raw := strings.Replace(string(ev.JSON), string(ev.ID), id, 1)
		raw = strings.Replace(raw, string(good[0].ID), prev, 1)
		parsed, err := event.Parse(r.Version, []byte(raw))
		if err != nil {
			t.Fatal(err)
		}
		signed, err := parsed.Sign("there", g.there.Key)
		if err != nil {
			t.Fatal(err)
		}
		return r.m.knows(signed)
	}
	one, two, self := text("$one:there", "$two:there"), text("$two:there", "$one:there"), text("$self:there", "$self:there")
	g.there.deliver(good...)
	g.there.deliver(one, two, self)
	g.settle()
	for _, ev := range []*event.Event{one, two, self} {
		if g.known(ev.ID) != nil {
			t.Errorf("%s was brought in", ev.ID)
		}
	}
	// Half of a circle comes by itself; the rest is fetched.
	three, four := text("$three:there", "$four:there"), text("$four:there", "$three:there")
	next := r.say(1)
	g.there.deliver(three)
	g.there.deliver(next...)
	g.settle()
	if g.known(three.ID) != nil || g.known(four.ID) != nil || !g.shown(r.ID, next[0].ID) {
		t.Errorf("%v, %v", g.known(three.ID), g.known(four.ID))
	}
}

// knows adds an event to those that the remote gives.
func (m *remote) knows(ev *event.Event) *event.Event {
	m.learn(ev, nil)
	return ev
}

// An event whose content does not match its hash comes in redacted, from a gap,
// too.
func TestWrongHashes(t *testing.T) {
	for _, fetched := range []bool{false, true} {
		g := newRig(t, "sqlite")
		r := g.found("12")
		ev := r.say(1)[0]
		spoiled, err := event.Parse(r.Version, []byte(strings.Replace(string(ev.JSON), "usual length", "other length", 1)))
		if err != nil || spoiled.ID != ev.ID {
			t.Fatalf("%v, %v", spoiled, err)
		}
		newest := r.say(1)
		r.m.knows(spoiled)
		if fetched {
			g.there.deliver(newest...)
		} else {
			g.there.deliver(spoiled, newest[0])
		}
		g.settle()
		st := g.known(ev.ID)
		if st == nil || st.Flags != 0 || strings.Contains(string(st.JSON), "length") {
			t.Errorf("fetched %v: %v", fetched, st)
		}
	}
}

// A server that answers slowly, or much, delays nobody but itself.
func TestSlowServer(t *testing.T) {
	g := newRig(t, "sqlite")
	slow := g.found("12")
	other := g.peer("other")
	room := g.found("12").enter(other, "@carol:other")
	slow.say(5)
	waiting := slow.say(1)
	release := make(chan struct{})
	g.there.misbehaves(func(what string, w http.ResponseWriter, r *http.Request) bool {
		if what != "get_missing_events" {
			return false
		}
		select {
		case <-release:
		case <-r.Context().Done():
		}
		return false
	})
	g.there.deliver(waiting...)
	g.until("the slow server is asked", func() bool { return g.there.times("get_missing_events") > 0 })
	begun := time.Now()
	for i := range 20 {
		ev := room.by(other, "@carol:other", matrix.TypeMessage, nil, testrig.JSON{"body": i})
		room.keep(ev)
		other.deliver(ev)
		g.until("it is there", func() bool { return g.known(ev.ID) != nil })
	}
	// The slow server itself has other rooms.
	ev := g.found("12").say(1)
	g.there.deliver(ev...)
	g.until("it is there", func() bool { return g.known(ev[0].ID) != nil })
	if took := time.Since(begun); took > 25*time.Second {
		t.Errorf("others waited: %v", took)
	}
	if g.known(waiting[0].ID) != nil {
		t.Error("the event is there without those before it")
	}
	close(release)
	g.settle()
	if !g.shown(slow.ID, waiting[0].ID) {
		t.Error("the event is not there in the end")
	}
}

// endless writes spaces for ever.
func endless(w http.ResponseWriter) {
	for {
		if _, err := w.Write([]byte(strings.Repeat(" ", 1<<16))); err != nil {
			return
		}
	}
}

// An answer without end is given up.
func TestHugeAnswer(t *testing.T) {
	g := newRig(t, "sqlite")
	r := g.found("12")
	r.say(3)
	newest := r.say(1)
	g.there.misbehaves(func(what string, w http.ResponseWriter, _ *http.Request) bool {
		if what == "get_missing_events" || what == "backfill" {
			_, _ = w.Write([]byte(`{"events":[`))
			endless(w)
			return true
		}
		return false
	})
	g.there.deliver(newest...)
	g.settle()
	if !g.shown(r.ID, newest[0].ID) {
		t.Error("the event is not there")
	}
}

// An event that refers to what nobody has does not let us ask others again and
// again.
func TestBogusReferences(t *testing.T) {
	g := newRig(t, "sqlite")
	r := g.found("12")
	other := g.peer("other")
	r.enter(other, "@carol:other")
	aside := r.fork()
	for i := range 40 {
		d := r.Draft(alice, matrix.TypeMessage, nil, testrig.JSON{"body": i})
		d.PrevEvents = nil
		for n := range 10 {
			d.PrevEvents = append(d.PrevEvents, event.Ref{ID: matrix.EventID(fmt.Sprintf("$%043d", 10*i+n))})
		}
		g.there.deliver(r.Build(d))
	}
	good := aside.say(1)
	g.there.deliver(good...)
	g.until("the good event is there", func() bool { return g.known(good[0].ID) != nil })
	g.until("the bad ones wait", func() bool { return g.in.Waiting() > 0 })
	g.in.Wake()
	other.mu.Lock()
	defer other.mu.Unlock()
	asked := 0
	for _, n := range other.asked {
		asked += n
	}
	if asked > 30 {
		t.Errorf("another server was asked %d times: %v", asked, other.asked)
	}
}

// Whoever tells but a few events of a gap has told all that they have between its
// ends; they are not asked so again, but for what is behind.
func TestShortPage(t *testing.T) {
	g := newRig(t, "sqlite")
	r := g.found("12")
	gap := r.say(30)
	newest := r.say(1)
	g.there.misbehaves(func(what string, w http.ResponseWriter, _ *http.Request) bool {
		if what == "get_missing_events" {
			testrig.WriteJSON(w, http.StatusOK, testrig.JSON{"events": raws(gap[29:])})
		}
		return what == "get_missing_events"
	})
	g.there.deliver(newest...)
	g.settle()
	if got := g.lastIDs(r.ID, 31); !slices.Equal(got, idsOf(append(gap, newest...))) {
		t.Errorf("the timeline ends with %v", got)
	}
	if n := g.there.times("get_missing_events"); n != 1 {
		t.Errorf("it was asked for what is missing %d times", n)
	}
}
