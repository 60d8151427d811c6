package rooms

import (
	"context"
	"errors"
	"slices"

	"github.com/teahouse-chat/teahouse/internal/db"
	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms/auth"
	"github.com/teahouse-chat/teahouse/rooms/event"
	"github.com/teahouse-chat/teahouse/rooms/state"
)

// Backfill brings in history from before what this server has of a room: events
// that accepted ones build on, and those that these build on, in any order. They
// are judged by their auth events and the state before them, get positions below
// zero in the order of their depths, and change nothing of what the room is now.
// Incoming.State is wanted of the oldest ones, whose previous events are not here.
// An event that nothing here builds on could have been made up today: it is taken
// only if the room's present state would allow it, too.
// spec: server-server#backfilling-and-retrieving-missing-events
func (e *Engine) Backfill(ctx context.Context, id matrix.RoomID, events []Incoming) ([]Outcome, error) {
	r, err := e.enterInside(ctx, id)
	if err != nil {
		return nil, err
	}
	defer r.intake.Release(1)
	f := &filling{e: e, room: r, events: events, got: newFetched(), told: map[int]*told{}}
	taken, release := e.claims.claim(r.Version, r.NID, f.ids())
	defer release()
	f.got.taken = taken
	return f.do(ctx)
}

// filling is one call of Backfill.
type filling struct {
	e      *Engine
	room   *Room
	events []Incoming
	got    *fetched
	told   map[int]*told
	near   []SnapshotNID // after events that build on these
}

// told is a state that another server tells.
type told struct {
	state   *state.Map
	missing []matrix.EventID
}

var errUnconnected = errors.New("nothing that is known of the room builds on the event")

func (f *filling) ids() []matrix.EventID {
	ids := make([]matrix.EventID, len(f.events))
	for i, in := range f.events {
		ids[i] = in.Event.ID
	}
	return ids
}

func (f *filling) do(ctx context.Context) ([]Outcome, error) {
	if err := f.prefetch(ctx); err != nil {
		return nil, err
	}
	b, err := f.builder(ctx)
	if err != nil {
		return nil, err
	}
	events := make([]*event.Event, len(f.events))
	for i, in := range f.events {
		events[i] = in.Event
	}
	order := prevOrder(events)
	connected := f.connected(order)
	outcomes := make([]Outcome, len(events))
	for _, i := range order {
		if outcomes[i], err = f.admit(ctx, b, i, connected[i]); err != nil {
			return nil, err
		}
	}
	b.events, b.known = append(b.events, b.released...), append(b.known, b.released...)
	if len(b.events) == 0 {
		return outcomes, nil
	}
	if err := f.allot(ctx, b); err != nil {
		return nil, err
	}
	return outcomes, f.commit(b).Wait(context.WithoutCancel(ctx))
}

// prefetch reads, in bulk, what judging the events will ask for.
func (f *filling) prefetch(ctx context.Context) error {
	in := &intake{e: f.e, room: f.room, got: f.got}
	for i, inc := range f.events {
		in.events = append(in.events, Incoming{Event: inc.Event})
		if inc.State != nil {
			t, err := f.e.toldState(ctx, f.room, inc.State)
			if err != nil {
				return err
			}
			f.told[i] = t
		}
	}
	if err := in.prefetch(ctx); err != nil {
		return err
	}
	nids, err := db.All(ctx, f.e.DB, backwardBy, scanOne[state.EventNID], f.ids(), f.room.NID, nearKept)
	if err != nil {
		return err
	}
	events, err := f.e.Events(ctx, nids)
	for _, st := range events {
		f.near = append(f.near, st.Snapshot)
	}
	f.near = sortedSnapshots(f.near)
	return err
}

// nearKept is how many states are compared with one that was told, to store it as
// what it differs in.
const nearKept = 4

var (
	backwardBy = db.SQL(`SELECT DISTINCT event_nid FROM backward WHERE prev IN {texts $1} AND room_nid = $2 ORDER BY event_nid LIMIT $3`)
	toldEvents = db.SQL(`SELECT event_id, event_nid, room_nid, key_nid, flags FROM events WHERE event_id IN {texts $1}`)
)

// toldState is the state that is made of these events of the room, rejected ones
// left out. The events themselves are not read: it may be tens of thousands.
func (e *Engine) toldState(ctx context.Context, r *Room, ids []matrix.EventID) (*told, error) {
	t := &told{}
	entries := make([]state.Entry, 0, len(ids))
	seen := make(map[matrix.EventID]bool, len(ids))
	for part := range slices.Chunk(ids, readAtOnce) {
		err := db.Each(ctx, e.DB, toldEvents, func(s db.Scanner) error {
			var id matrix.EventID
			var room RoomNID
			var entry state.Entry
			var flags Flags
			if err := s.Scan(&id, &entry.Event, &room, &entry.Key, &flags); err != nil {
				return err
			}
			seen[id] = true
			if room == r.NID && entry.Key != 0 && flags&Rejected == 0 {
				entries = append(entries, entry)
			}
			return nil
		}, part)
		if err != nil {
			return nil, err
		}
	}
	for _, id := range ids {
		if !seen[id] {
			t.missing = append(t.missing, id)
		}
	}
	slices.SortFunc(entries, func(a, b state.Entry) int { return int(a.Event - b.Event) })
	t.state = state.FromEntries(entries)
	return t, nil
}

// builder makes a builder with a head of its own, which is the room as everybody
// sees it and is never made the room's: no turn is taken.
func (f *filling) builder(ctx context.Context) (*olderBuilder, error) {
	now, err := f.e.branch(ctx, f.room.View().Snapshot)
	if err != nil {
		return nil, err
	}
	h := newHead()
	h.state, h.chain = now.state, now.chain
	return &olderBuilder{Builder: Builder{e: f.e, room: f.room, head: h, got: f.got, older: true}, near: f.near}, nil
}

// connected tells which of the events accepted ones build on, be it through
// others.
func (f *filling) connected(order []int) map[int]bool {
	builtOn, connected := map[matrix.EventID]bool{}, map[int]bool{}
	for _, i := range slices.Backward(order) {
		ev := f.events[i].Event
		if !builtOn[ev.ID] && !f.got.builtOn[ev.ID] {
			continue
		}
		connected[i] = true
		for _, id := range ev.PrevEvents {
			builtOn[id] = true
		}
	}
	return connected
}

// admit takes one event through all checks, and fetches what they ask for.
func (f *filling) admit(ctx context.Context, b *olderBuilder, i int, connected bool) (Outcome, error) {
	for range updateTries {
		before, head := *b, b.head.clone()
		out, err := b.admit(f.events[i].Event, f.told[i], connected)
		var n *need
		if !errors.As(err, &n) {
			return out, err
		}
		*b, b.head = before, head
		if err := f.e.fetch(ctx, f.room, f.got, n); err != nil {
			return Outcome{}, err
		}
	}
	return Outcome{}, errUpdateTries
}

// olderBuilder adds events to a room's past.
type olderBuilder struct {
	Builder
	near     []SnapshotNID
	tip      SnapshotNID // the snapshot that was made last
	released []*Stored   // redactions that waited for one of the events
}

func (b *olderBuilder) admit(ev *event.Event, t *told, connected bool) (Outcome, error) {
	a := &arrival{ev: ev}
	if out, done, err := b.recognise(a); done || err != nil {
		return out, err
	}
	missing, err := b.gather(a, t)
	if err != nil || len(missing) > 0 {
		return Outcome{Missing: missing}, err
	}
	if a.before, err = b.before(a, t); err != nil {
		return Outcome{}, err
	}
	flags, why, err := b.judgeThen(a)
	if err != nil {
		return Outcome{}, err
	}
	if no, err := b.contradicts(a, flags); err != nil || no {
		return Outcome{Why: errRestsOn}, err
	}
	if !connected {
		if refused, err := b.refusedNow(a); err != nil || refused {
			return Outcome{Why: errUnconnected}, err
		}
	}
	if a.st, err = b.number(a, flags); err != nil {
		return Outcome{}, err
	}
	if err := b.redactions(a); err != nil {
		return Outcome{}, err
	}
	b.place(a)
	b.got.builtOn[ev.ID] = true
	b.link(a)
	for _, by := range a.awaiting {
		b.release(by, a.st)
	}
	return Outcome{Event: a.st, Why: why}, nil
}

// refusedNow tells whether the room's present state forbids the event.
func (b *olderBuilder) refusedNow(a *arrival) (bool, error) {
	st, err := b.stateFor(b.head.state, a.ev)
	return err == nil && auth.Check(a.ev, st) != nil, err
}

// gather finds the events that a refers to, and lists those that are missing. What
// is here of its past counts more than what is told of it.
func (b *olderBuilder) gather(a *arrival, t *told) (missing []matrix.EventID, err error) {
	if a.prevs, missing, err = b.find(a.ev.PrevEvents, b.placed); err != nil {
		return nil, err
	}
	if len(missing) > 0 && t != nil {
		missing = t.missing
	}
	auths, lost, err := b.find(a.ev.AuthEvents, known)
	a.auths = auths
	return append(slices.Clip(missing), lost...), err
}

// before finds the state before an event.
func (b *olderBuilder) before(a *arrival, t *told) (ground, error) {
	if len(a.prevs) == len(a.ev.PrevEvents) {
		return b.after(a.prevs)
	}
	list, err := b.branchesOf(b.near)
	if err != nil {
		return ground{}, err
	}
	base := nearest(t.state, append(list, b.current()))
	changes := state.Diff(base.state, t.state)
	delta := make([]state.Entry, len(changes))
	for i, c := range changes {
		delta[i] = state.Entry{Key: c.Key, Event: c.New}
	}
	return ground{state: base.state.Apply(delta), base: base}, nil // which shares what it can
}

// place gives the event its snapshot and its thread. Snapshots of events that
// follow each other grow along one line.
func (b *olderBuilder) place(a *arrival) {
	st, after := a.st, a.before.state
	if st.IsState() && st.Flags&Rejected == 0 {
		after = after.Set(st.Key, st.NID)
	}
	fork := a.before.base.nid() != b.tip && len(a.prevs) == len(a.ev.PrevEvents)
	name := matrix.EventID("after " + string(st.ID))
	own := b.snapshot(a.before.base, after, b.got.number(name, b.e.snapSeq.Next), fork)
	if own != a.before.base {
		b.tip = own.nid()
	}
	if len(a.prevs) < len(a.ev.PrevEvents) {
		b.near = append(slices.Clip(b.near), own.nid())
	}
	st.Snapshot, st.Resolved = own.nid(), own.nid()
	if st.Relation.Type == relThread && len(a.awaiting) == 0 {
		st.Thread = st.Relation.Target
	}
}

// release lets a redaction have its effect now that its target is here. It shows
// in its place in the past.
func (b *olderBuilder) release(by, target *Stored) {
	b.Then(func(tx *db.Tx) error { return tx.Exec(deleteAwaited, target.ID, by.NID) })
	switch {
	case by.Flags != Held:
	case slices.Contains(b.events, by): // nobody has seen it yet
		by.Flags = 0
	default:
		shown := *by
		shown.Flags = 0
		b.released = append(b.released, &shown)
	}
}

// older is published when history was added to a room's past.
type older struct {
	room     *Room
	events   []*Stored
	redacted map[state.EventNID]*Stored
}

func (f *filling) commit(b *olderBuilder) *db.Pending {
	done := &older{f.room, b.events, b.redacted}
	return f.e.DB.SubmitThen(func(tx *db.Tx) error {
		if err := b.write(tx); err != nil {
			return err
		}
		tx.Publish(done)
		return nil
	}, b.settled)
}

// publishOlder shows what was added to a room's past to those who have seen what
// it changes.
func (e *Engine) publishOlder(c *older) {
	for _, st := range c.events {
		e.renew(st)
	}
	for _, st := range c.redacted {
		e.renew(st)
	}
	c.room.replace(c.redacted)
}

// renew caches an event as it was committed. It may get its place in the history
// and be redacted by two writes that do not know of each other: then only the
// database knows both.
func (e *Engine) renew(st *Stored) {
	if there, ok := e.cache.Peek(st.NID); ok && (there.RedactedBy != 0 && st.RedactedBy == 0 || there.Position != 0 && st.Position == 0) {
		e.cache.Remove(st.NID)
		return
	}
	e.cache.Add(st.NID, st)
}
