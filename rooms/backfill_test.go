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

// tangle makes n events in so many branches, which now and then meet, and a last
// one in which all end. They tell their depth, or anything.
func (s *server) tangle(by *server, n, branches int, lies bool, random *rand.Rand) []*event.Event {
	s.t.Helper()
	by.room, by.v = s.room, s.v
	from, root := current(s.events()), s.say("root")
	events, depths := []*event.Event{root}, map[matrix.EventID]int64{root.ID: root.Depth}
	say := func(prev ...*event.Event) *event.Event {
		d := draft{sender: by.user, typ: matrix.TypeMessage, content: fmt.Sprintf(`{"body":"%d"}`, len(events)), from: from,
			ts: int64(1_600_000_000_000 + 1000*len(events))}
		for _, ev := range prev {
			if ref := ev.Ref(); !slices.Contains(d.prev, ref) {
				d.prev, d.depth = append(d.prev, ref), max(d.depth, depths[ev.ID]+1)
			}
		}
		if lies {
			d.depth = random.Int63n(200)
		}
		ev := by.forge(d)
		events, depths[ev.ID] = append(events, ev), d.depth
		return ev
	}
	tips := slices.Repeat([]*event.Event{root}, branches)
	for range n {
		i, j := random.Intn(branches), random.Intn(branches)
		if random.Intn(4) > 0 {
			j = i
		}
		tips[i] = say(tips[i], tips[j])
	}
	say(tips...)
	return events[1:]
}

// TestBackfillIslands fetches a tangle of branches in random chunks: jumping to
// places in the past, as clients do that look for a date, and taking what lies
// between later, with what comes together picked at random from a stretch. In the
// end all is there once, and in order as long as servers tell the truth about
// depths.
func TestBackfillIslands(t *testing.T) {
	seeds := 24
	if testing.Short() {
		seeds = 8
	}
	for seed := range seeds {
		random := rand.New(rand.NewSource(int64(seed)))
		lies := seed%4 == 3
		a, b, c := newServer(t, "a", "sqlite"), newServer(t, "b", "sqlite"), newServer(t, "c", kinds[seed%2])
		a.found(lookup(t, "12"))
		b.joinVia(a)
		past := a.tangle(b, 120, 1+seed%4, lies, random)
		a.accept(past...)
		state := idsOf(a.events())
		c.joinVia(a)
		for todo := reversed(past); len(todo) > 0; {
			from := 0
			if random.Intn(2) == 0 {
				from = random.Intn(len(todo))
			}
			stretch := todo[from:min(from+30, len(todo))]
			var in []rooms.Incoming
			for _, ev := range stretch {
				if random.Intn(3) > 0 {
					in = append(in, rooms.Incoming{Event: wire(t, ev), State: state})
				}
			}
			random.Shuffle(len(in), func(i, j int) { in[i], in[j] = in[j], in[i] })
			for i, out := range c.fill(in...) {
				if out.Event == nil || out.Why != nil {
					t.Fatalf("seed %d: event %d became %+v", seed, i, out)
				}
			}
			todo = slices.DeleteFunc(todo, func(ev *event.Event) bool {
				return slices.ContainsFunc(in, func(i rooms.Incoming) bool { return i.Event.ID == ev.ID })
			})
			if random.Intn(4) == 0 {
				c.restart()
			}
			if err := c.CheckConsistency(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		stored, err := c.Known(t.Context(), eventIDs(past))
		if err != nil {
			t.Fatal(err)
		}
		c.checkOrder(random, stored, !lies)
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
}

func eventIDs(events []*event.Event) []matrix.EventID {
	ids := make([]matrix.EventID, len(events))
	for i, ev := range events {
		ids[i] = ev.ID
	}
	return ids
}

// TestBackfillOneDepth has a room in which a server has driven the depth to where
// it cannot grow: what builds on each other has the same depth, and is in order
// all the same if it comes in order, branch by branch.
func TestBackfillOneDepth(t *testing.T) {
	a, b, c := newServer(t, "a", "sqlite"), newServer(t, "b", "sqlite"), newServer(t, "c", "sqlite")
	a.found(lookup(t, "12"))
	b.joinVia(a)
	from := current(a.events())
	say := func(prev ...*event.Event) *event.Event {
		var refs []event.Ref
		for _, ev := range prev {
			refs = append(refs, ev.Ref())
		}
		if refs == nil {
			refs = a.extremities()
		}
		ev := b.forge(draft{sender: b.user, typ: matrix.TypeMessage, content: `{"body":"x"}`, prev: refs, from: from, depth: event.MaxDepth,
			ts: int64(1_600_000_000_000 + len(refs))})
		a.accept(ev)
		return ev
	}
	root := say()
	left, right := []*event.Event{say(root)}, []*event.Event{say(root)}
	for range 6 {
		left, right = append(left, say(left[len(left)-1])), append(right, say(right[len(right)-1]))
	}
	top := say(left[len(left)-1], right[len(right)-1])
	state := idsOf(a.events())
	c.joinVia(a)
	fill := func(events ...*event.Event) {
		t.Helper()
		for _, ev := range events {
			if out := c.fill(rooms.Incoming{Event: wire(t, ev), State: state}); out[0].Event == nil || out[0].Why != nil {
				t.Fatalf("%+v", out[0])
			}
		}
	}
	fill(top)
	fill(reversed(left)...)
	fill(root)
	fill(reversed(right)...)
	all := slices.Concat([]*event.Event{root, top}, left, right)
	stored, err := c.Known(t.Context(), eventIDs(all))
	if err != nil {
		t.Fatal(err)
	}
	c.checkOrder(rand.New(rand.NewSource(1)), stored, true)
	if err := c.CheckConsistency(t.Context()); err != nil {
		t.Error(err)
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
