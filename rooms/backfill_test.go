package rooms_test

import (
	"fmt"
	"math/rand"
	"slices"
	"testing"

	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms"
	"github.com/teahouse-chat/teahouse/rooms/event"
)

// newcomer is a server that joined late and fetches what was before.
type newcomer struct {
	*server
	t      *testing.T
	oracle *oracle
	random *rand.Rand
	todo   []*event.Event // newest first
}

// newcomer lets a server join a room that was played, and finds out what it has
// yet to get: all that its join builds on.
func (p *play) newcomer(host *server, kind string) *newcomer {
	p.t.Helper()
	p.spread(host.send(stateProto(matrix.TypeJoinRules, "", `{"join_rule":"public","n":1}`)), host)
	d := &newcomer{server: newServer(p.t, "d", kind), t: p.t, oracle: p.oracle, random: p.random}
	join := d.joinVia(host)
	p.spread(join, host)
	past := map[matrix.EventID]bool{}
	for queue := join.PrevEvents; len(queue) > 0; queue = queue[1:] {
		if id := queue[0]; !past[id] {
			past[id] = true
			queue = append(queue, p.oracle.room.Events[id].PrevEvents...)
		}
	}
	for _, id := range slices.Backward(p.oracle.order) {
		if past[id] {
			d.todo = append(d.todo, p.oracle.room.Events[id])
		}
	}
	return d
}

// outliersFor makes events known that others refer to.
func (d *newcomer) outliersFor(ids []matrix.EventID) {
	d.t.Helper()
	seen := map[matrix.EventID]bool{}
	var events []*event.Event
	for queue := slices.Clone(ids); len(queue) > 0; queue = queue[1:] {
		if ev := d.oracle.room.Events[queue[0]]; !seen[ev.ID] {
			seen[ev.ID] = true
			events = append(events, wire(d.t, ev))
			queue = append(queue, ev.AuthEvents...)
		}
	}
	if _, err := d.StoreOutliers(d.t.Context(), d.room, events); err != nil {
		d.t.Fatal(err)
	}
}

// older backfills the next n events, in any order.
func (d *newcomer) older(n int) {
	d.t.Helper()
	batch := d.todo[:min(n, len(d.todo))]
	d.todo = d.todo[len(batch):]
	for i, o := range d.backfill(batch) {
		if o.Event == nil || o.Known || len(o.Missing) > 0 {
			d.t.Fatalf("event %d of %d became %+v", i, len(batch), o)
		}
		if rejected := o.Event.Flags&rooms.Rejected != 0; rejected != d.oracle.room.Rejected[o.Event.ID] || o.Why != nil && !rejected {
			d.t.Errorf("%s, a %s, has the flags %d (%v); rejected should be %v", o.Event.ID, o.Event.Type, o.Event.Flags, o.Why, !rejected)
		}
	}
}

// backfill hands events over in any order, with the states that it takes.
func (d *newcomer) backfill(batch []*event.Event) []rooms.Outcome {
	d.t.Helper()
	in := map[matrix.EventID]bool{}
	for _, ev := range batch {
		in[ev.ID] = true
	}
	var incoming []rooms.Incoming
	for _, ev := range batch {
		inc := rooms.Incoming{Event: wire(d.t, ev)}
		refers := slices.Clone(ev.AuthEvents)
		if slices.ContainsFunc(ev.PrevEvents, func(id matrix.EventID) bool { return !in[id] }) {
			inc.State = []matrix.EventID{}
			for _, id := range d.oracle.before[ev.ID] {
				inc.State = append(inc.State, id)
			}
			refers = append(refers, inc.State...)
		}
		d.outliersFor(refers)
		incoming = append(incoming, inc)
	}
	d.random.Shuffle(len(incoming), func(i, j int) { incoming[i], incoming[j] = incoming[j], incoming[i] })
	out, err := d.Backfill(d.t.Context(), d.room, incoming)
	if err != nil {
		d.t.Fatal(err)
	}
	return out
}

// checkPast compares what the newcomer has in the end with the whole room.
func (d *newcomer) checkPast(all []*event.Event) {
	d.t.Helper()
	var ids []matrix.EventID
	for _, ev := range all {
		ids = append(ids, ev.ID)
	}
	stored, err := d.Known(d.t.Context(), ids)
	if err != nil {
		d.t.Fatal(err)
	}
	for _, ev := range all {
		st := stored[ev.ID]
		m, err := d.Snapshot(d.t.Context(), st.Snapshot)
		if err != nil {
			d.t.Fatal(err)
		}
		events, err := d.StateEvents(d.t.Context(), m, nil)
		if err != nil {
			d.t.Fatal(err)
		}
		if diff := describe(d.named(m.Len(), events), d.oracle.after[ev.ID]); diff != "" {
			d.t.Errorf("the state after %s (%s, flags %d) is not right:%s", st.ID, st.Type, st.Flags, diff)
		}
	}
	d.checkOrder(d.random, stored, true)
	gaps, err := d.Backward(d.t.Context(), d.theRoom())
	if err != nil || len(gaps) > 0 {
		d.t.Errorf("there are gaps left: %v, %v", gaps, err)
	}
}

// checkOrder pages back through the timeline: everything that may be shown is
// there once, and, if it is to be in order, after what builds on it.
func (s *server) checkOrder(random *rand.Rand, want map[matrix.EventID]*rooms.Stored, inOrder bool) {
	s.t.Helper()
	shown := map[matrix.EventID]bool{}
	for from := int64(1 << 60); ; {
		events, err := s.Timeline(s.t.Context(), rooms.TimelineQuery{Room: s.theRoom(), From: from, Backwards: true, Limit: 1 + random.Intn(20)})
		if err != nil {
			s.t.Fatal(err)
		}
		if len(events) == 0 {
			break
		}
		for _, st := range events {
			if shown[st.ID] || st.Position >= from {
				s.t.Errorf("%s is shown twice, or out of turn", st.ID)
			}
			for _, id := range st.PrevEvents {
				if shown[id] && inOrder {
					s.t.Errorf("%s (position %d) is shown after %s, which it builds on", st.ID, st.Position, id)
				}
			}
			shown[st.ID], from = true, st.Position
		}
	}
	for id, st := range want {
		if shown[id] != st.Served() {
			s.t.Errorf("%s, a %s with the flags %d: shown is %v", id, st.Type, st.Flags, shown[id])
		}
	}
}

// TestBackfill plays rooms in all versions, lets a server join late, and fetch in
// chunks what was before: in the end it has it all, with the states that every
// event had where it was sent, and its present is as it was.
func TestBackfill(t *testing.T) {
	seeds := 2
	if testing.Short() {
		seeds = 1
	}
	for i, v := range event.Versions() {
		for seed := range seeds {
			t.Run(fmt.Sprintf("v%s-%d", v.ID, seed), func(t *testing.T) { playBackfill(t, v, int64(10*i+seed), 100, "sqlite") })
		}
	}
}

func TestBackfillOnPostgres(t *testing.T) {
	for _, id := range []string{"1", "6", "12"} {
		t.Run("v"+id, func(t *testing.T) { playBackfill(t, lookup(t, id), 3, 40, "postgres") })
	}
}

func playBackfill(t *testing.T, v *event.Version, seed int64, steps int, kind string) {
	a, b, c := three(t, v, "sqlite")
	p := newPlay(t, v, seed, a, b, c)
	p.run(steps)
	d := p.newcomer(a, kind)
	all := d.todo
	view, ends, members := d.theRoom().View(), d.extremities(), d.theRoom().LocalMembers()
	for len(d.todo) > 0 {
		d.older(1 + d.random.Intn(15))
		switch d.random.Intn(4) {
		case 0:
			d.restart()
		case 1:
			d.ForgetBranches()
		}
		if err := d.CheckConsistency(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 {
		d.checkPast(all)
		now := d.theRoom().View()
		if now.Position != view.Position || now.Snapshot != view.Snapshot || now.Joined != view.Joined || now.Invited != view.Invited ||
			!slices.Equal(ends, d.extremities()) || !slices.Equal(members, d.theRoom().LocalMembers()) {
			t.Errorf("the room is %+v, it was %+v", now, view)
		}
		d.restart()
	}
	d.accept(a.say("you are up to date"))
	a.accept(d.say("thanks"))
	if err := d.CheckConsistency(t.Context()); err != nil {
		t.Error(err)
	}
	t.Logf("%d events, %d rejected", len(all), len(p.oracle.room.Rejected))
}

// fill backfills events that s got from elsewhere.
func (s *server) fill(in ...rooms.Incoming) []rooms.Outcome {
	s.t.Helper()
	out, err := s.Backfill(s.t.Context(), s.room, in)
	if err != nil {
		s.t.Fatal(err)
	}
	return out
}

// stateIDs names the state before an event, and makes it known at s.
func (s *server) stateIDs(host *server, id matrix.EventID) []matrix.EventID {
	s.t.Helper()
	known, err := host.Known(s.t.Context(), []matrix.EventID{id})
	if err != nil {
		s.t.Fatal(err)
	}
	m, err := host.StateBefore(s.t.Context(), known[id])
	if err != nil {
		s.t.Fatal(err)
	}
	before, err := host.StateEvents(s.t.Context(), m, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	st, chain := host.stateAndChain(before)
	if _, err := s.StoreOutliers(s.t.Context(), s.room, append(st, chain...)); err != nil {
		s.t.Fatal(err)
	}
	ids := []matrix.EventID{}
	for _, ev := range st {
		ids = append(ids, ev.ID)
	}
	return ids
}

// TestBackfillMissing hands over events whose past or authorisation is not here.
func TestBackfillMissing(t *testing.T) {
	a := newServer(t, "a", "sqlite")
	a.found(lookup(t, "12"))
	said := []*event.Event{a.say("1"), a.say("2"), a.say("3")}
	b := newServer(t, "b", "sqlite")
	b.joinVia(a)
	in := func(ev *event.Event) rooms.Incoming { return rooms.Incoming{Event: wire(t, ev)} }
	if out := b.fill(in(said[2])); out[0].Event != nil || !slices.Equal(out[0].Missing, []matrix.EventID{said[1].ID}) {
		t.Errorf("without the state: %+v", out)
	}
	with := in(said[2])
	with.State = []matrix.EventID{"$unknown"}
	if out := b.fill(with); out[0].Event != nil || !slices.Equal(out[0].Missing, []matrix.EventID{"$unknown"}) {
		t.Errorf("with a state that is not known: %+v", out)
	}
	with.State = b.stateIDs(a, said[2].ID)
	if out := b.fill(in(said[0]), with); out[0].Event != nil || out[1].Event == nil || out[1].Event.Position >= 0 {
		t.Errorf("with the state: %+v", out)
	}
	if out := b.fill(with); !out[0].Known {
		t.Errorf("again: %+v", out)
	}
	gaps, err := b.Backward(t.Context(), b.theRoom())
	if err != nil || len(gaps) != 1 || gaps[0].Missing != said[1].ID || gaps[0].By.ID != said[2].ID {
		t.Errorf("gaps %+v, %v", gaps, err)
	}
	if err := b.CheckConsistency(t.Context()); err != nil {
		t.Error(err)
	}
}

// TestBackfillMadeUp has a server whose user was banned make up a past: what no
// accepted event builds on is judged by the present, too.
func TestBackfillMadeUp(t *testing.T) {
	a, evil := newServer(t, "a", "sqlite"), newServer(t, "evil", "sqlite")
	a.found(lookup(t, "12"))
	a.member(evil, evil.user, "join")
	old, tip := current(a.events()), a.extremities()
	first := a.say("first")
	a.send(stateProto(matrix.TypeMember, string(evil.user), `{"membership":"ban"}`))
	b := newServer(t, "b", "sqlite")
	b.joinVia(a)
	madeUp := evil.forge(draft{sender: evil.user, typ: matrix.TypeMessage, content: `{"body":"I always said so"}`, prev: tip, from: old, depth: 11})
	late := a.forge(draft{sender: a.user, typ: matrix.TypeMessage, content: `{"body":"of a member"}`, prev: tip, from: old, depth: 11})
	state := b.stateIDs(a, first.ID)
	out := b.fill(rooms.Incoming{Event: madeUp, State: state}, rooms.Incoming{Event: late, State: state})
	if out[0].Event != nil || out[0].Why == nil {
		t.Errorf("what was made up: %+v", out[0])
	}
	if out[1].Event == nil || out[1].Event.Flags != 0 {
		t.Errorf("what a member says late: %+v", out[1])
	}
	if err := b.CheckConsistency(t.Context()); err != nil {
		t.Error(err)
	}
}

// TestBackfillForeign hands over events of another room and of another version,
// and a state that is made of them.
func TestBackfillForeign(t *testing.T) {
	for _, id := range []string{"1", "12"} {
		a, b := two(t, lookup(t, id))
		home := b.room
		a.found(lookup(t, id))
		elsewhere := a.say("in another room")
		events, err := a.StateEvents(t.Context(), a.theRoom().View().State, nil)
		if err != nil {
			t.Fatal(err)
		}
		b.room = a.room
		b.joinVia(a)
		b.room = home
		if out := b.fill(rooms.Incoming{Event: wire(t, elsewhere), State: idsOf(events)}); out[0].Event != nil || out[0].Why == nil {
			t.Errorf("version %s: an event of another room: %+v", id, out[0])
		}
		gaps, err := b.Backward(t.Context(), b.theRoom())
		if err != nil || len(gaps) == 0 {
			t.Fatal(gaps, err)
		}
		a.room = home
		known, err := a.Known(t.Context(), []matrix.EventID{gaps[0].Missing})
		if err != nil {
			t.Fatal(err)
		}
		before := b.state()
		out := b.fill(rooms.Incoming{Event: wire(t, known[gaps[0].Missing].Event), State: idsOf(events)})
		if out[0].Event != nil || out[0].Why == nil {
			t.Errorf("version %s: an event of the state, with the state of another room: %+v", id, out[0])
		}
		said := a.say("said late")
		b.give(said)
		with := rooms.Incoming{Event: wire(t, a.say("after that")), State: idsOf(events)}
		if out, err := b.Receive(t.Context(), b.room, []rooms.Incoming{with}); err != nil || out[0].Event == nil || out[0].Event.Flags != rooms.Rejected {
			t.Errorf("version %s: an event with the state of another room: %+v, %v", id, out, err)
		}
		if diff := describe(b.state(), before); diff != "" {
			t.Errorf("version %s: the state has changed:%s", id, diff)
		}
		if err := b.CheckConsistency(t.Context()); err != nil {
			t.Error(err)
		}
	}
}

// TestBackfillIslands jumps to places in the past, as clients do that look for a
// date, and fetches what lies between later: in the end all is there once, and in
// order where the events follow each other. In a tangle it may not be: what is
// fetched first does not tell how it hangs together with what comes later.
func TestBackfillIslands(t *testing.T) {
	for seed := range 12 {
		random := rand.New(rand.NewSource(int64(seed)))
		a, b, c := newServer(t, "a", "sqlite"), newServer(t, "b", "sqlite"), newServer(t, "c", kinds[seed%2])
		a.found(lookup(t, "12"))
		b.joinVia(a)
		past := a.web(b, 120, 2*(seed%3/2), random)
		a.accept(past...)
		state := idsOf(a.events())
		c.joinVia(a)
		slices.Reverse(past)
		fill := func(events []*event.Event) {
			t.Helper()
			var in []rooms.Incoming
			for _, ev := range events {
				in = append(in, rooms.Incoming{Event: wire(t, ev), State: state})
			}
			for i, out := range c.fill(in...) {
				if out.Event == nil || out.Why != nil {
					t.Fatalf("event %d became %+v", i, out)
				}
			}
		}
		for at := 0; at < len(past); {
			if random.Intn(2) == 0 {
				from := at + random.Intn(len(past)-at)
				fill(past[from:min(from+1+random.Intn(3), len(past))])
			}
			n := min(1+random.Intn(20), len(past)-at)
			fill(past[at : at+n])
			at += n
			if random.Intn(4) == 0 {
				c.restart()
			}
			if err := c.CheckConsistency(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		ids := make([]matrix.EventID, len(past))
		for i, ev := range past {
			ids[i] = ev.ID
		}
		stored, err := c.Known(t.Context(), ids)
		if err != nil {
			t.Fatal(err)
		}
		c.checkOrder(random, stored, seed%3 < 2)
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
}

// TestBackfillGap fills what was missed while the server was away, after it has
// fetched all that was before it came: what was missed is the newest of the past.
func TestBackfillGap(t *testing.T) {
	a, b := newServer(t, "a", "sqlite"), newServer(t, "b", "sqlite")
	a.found(lookup(t, "12"))
	before := []*event.Event{a.say("1"), a.say("2"), a.say("3")}
	b.joinVia(a)
	b.pastOf(a, before, 2)
	missed := []*event.Event{a.say("4"), a.say("5"), a.say("6"), a.say("7")}
	after := a.say("8")
	if out, err := b.Receive(t.Context(), b.room, []rooms.Incoming{{Event: wire(t, after), State: b.stateIDs(a, after.ID)}}); err != nil || out[0].Event == nil {
		t.Fatal(out, err)
	}
	b.pastOf(a, missed, 2)
	var last int64 = -1 << 62
	for i, ev := range slices.Concat(before, missed, []*event.Event{after}) {
		if st := b.one(ev.ID); st.Position <= last {
			t.Errorf("event %d is at %d, the one before it at %d", i+1, st.Position, last)
		} else {
			last = st.Position
		}
	}
}
