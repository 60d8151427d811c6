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

// Incoming is an event of another server: parsed, and with all signatures that
// it needs.
type Incoming struct {
	Event *event.Event
	// State, if it is not nil, is the room's state before the event as another
	// server tells it: events that are known, be it as outliers. It stands for the
	// states of previous events that cannot be had.
	State []matrix.EventID
	// Relay tells that this server has to send the event on to the others in the
	// room: its sender's server is not in the room, or not the only one that signed.
	Relay bool
}

// Outcome is what became of an Incoming.
type Outcome struct {
	// Event is nil if nothing was stored. Its Flags tell whether it was rejected.
	Event *Stored
	Known bool // the event had its place before
	// Missing are the events that must be brought in before this one: previous
	// and auth events.
	Missing []matrix.EventID
	// Why the event was rejected, soft-failed or not stored at all: often an
	// *auth.Rejection.
	Why error
}

// commitTries is how often events are brought in that fail because of what other
// events before them did.
const commitTries = 4

// hurry is how often an event's states are resolved without the room's turn.
// After that the room has changed meanwhile so often that it is made to wait.
const hurry = 3

// Receive brings events of other servers into a room, each after those that it
// builds on. Every event is judged by itself: a bad one fails none of its
// neighbours, save those that depend on it. An error is the server's own.
// spec: server-server#checks-performed-on-receipt-of-a-pdu
func (e *Engine) Receive(ctx context.Context, id matrix.RoomID, events []Incoming) ([]Outcome, error) {
	r, err := e.enterInside(ctx, id)
	if err != nil {
		return nil, err
	}
	defer r.intake.Release(1)
	return e.receive(ctx, r, events)
}

// receive is Receive for whoever holds the room's intake.
func (e *Engine) receive(ctx context.Context, r *Room, events []Incoming) ([]Outcome, error) {
	in := &intake{e: e, room: r, events: events}
	return in.do(ctx)
}

// do admits all events and waits until they are committed. If what they build on
// could not be stored, they are admitted again, to what is left.
func (in *intake) do(ctx context.Context) (outcomes []Outcome, err error) {
	for range commitTries {
		if in.got == nil {
			in.got = newFetched()
		}
		if outcomes, err = in.once(ctx); !errors.Is(err, errHeadFailed) {
			return outcomes, err
		}
		in.got, in.outcomes, in.pending = nil, nil, nil
	}
	return nil, err
}

func (in *intake) once(ctx context.Context) ([]Outcome, error) {
	taken, release := in.e.claims.claim(in.room.Version, in.room.NID, in.ids())
	defer release()
	in.got.taken = taken
	if err := in.prefetch(ctx); err != nil {
		return nil, err
	}
	err := in.run(ctx)
	for _, p := range in.pending {
		if failed := p.Wait(context.WithoutCancel(ctx)); failed != nil {
			err = failed
		}
	}
	if err != nil {
		return nil, err
	}
	return in.outcomes, nil
}

// intake is one call of Receive.
type intake struct {
	e        *Engine
	room     *Room
	got      *fetched
	events   []Incoming
	outcomes []Outcome // of the first events, as far as it has come
	pending  []*db.Pending
	// of imports
	replace  bool // the state given with the event replaces the room's
	creating bool // the room is new
	outliers *outliers
}

// prefetch reads, in bulk, what judging the events will ask for.
func (in *intake) prefetch(ctx context.Context) error {
	own := in.ids()
	var ids []matrix.EventID
	var needed, states []auth.Key
	for _, i := range in.events {
		ev := i.Event
		ids = append(ids, ev.ID)
		ids = append(ids, ev.PrevEvents...)
		ids = append(ids, ev.AuthEvents...)
		ids = append(ids, i.State...)
		if ev.Redacts != "" {
			ids = append(ids, ev.Redacts)
		}
		needed = append(needed, auth.NeededBy(ev)...)
		if ev.IsState() {
			states = append(states, auth.Key{Type: ev.Type, StateKey: ev.StateKey()})
		}
	}
	if err := in.e.fetchIDs(ctx, in.got, ids); err != nil {
		return err
	}
	if err := in.fetchKeys(ctx, needed, states); err != nil {
		return err
	}
	return in.e.fetchLoose(ctx, in.got, own)
}

func (in *intake) ids() []matrix.EventID {
	ids := make([]matrix.EventID, len(in.events))
	for i, inc := range in.events {
		ids[i] = inc.Event.ID
	}
	return ids
}

func (in *intake) fetchKeys(ctx context.Context, needed, states []auth.Key) error {
	found, err := in.e.keys.findAll(ctx, append(needed, auth.Key{Type: matrix.TypeCreate}))
	if err != nil {
		return err
	}
	for k, n := range found {
		in.got.keys[k] = n
	}
	allotted, err := in.e.keys.allotAll(ctx, states)
	for k, n := range allotted {
		in.got.keys[k] = n
	}
	return err
}

// fetchIDs reads events by id; got knows then which there are and which not.
func (e *Engine) fetchIDs(ctx context.Context, got *fetched, ids []matrix.EventID) error {
	var cold []matrix.EventID
	for _, id := range ids {
		if _, asked := got.ids[id]; !asked {
			got.ids[id] = nil
			cold = append(cold, id)
		}
	}
	for part := range slices.Chunk(cold, readAtOnce) {
		events, err := e.eventsByID(ctx, part)
		if err != nil {
			return err
		}
		for _, st := range events {
			got.ids[st.ID], got.events[st.NID] = st, st
		}
	}
	return nil
}

// run admits the events one after the other. Whenever one asks for something,
// those before it are committed and the turn is given back.
func (in *intake) run(ctx context.Context) error {
	tries, hurried := 0, 0
	for len(in.outcomes) < len(in.events) {
		before := len(in.outcomes)
		err := in.attempt(ctx, hurried >= hurry)
		if len(in.outcomes) > before {
			tries, hurried = 0, 0
		}
		var n *need
		switch {
		case errors.As(err, &n):
			if tries++; tries > updateTries {
				return errUpdateTries
			}
			if n.merge != nil {
				hurried++
			}
			if err := in.e.fetch(ctx, in.room, in.got, n); err != nil {
				return err
			}
		case errors.Is(err, errHeadFailed) && len(in.pending) == 0:
			if err := in.e.reloadHead(ctx, in.room); err != nil {
				return err
			}
		case err != nil:
			return err
		}
	}
	return nil
}

// attempt admits, under the room's turn, as many events as it can.
func (in *intake) attempt(ctx context.Context, hurried bool) error {
	r := in.room
	if err := r.turn.Acquire(ctx, 1); err != nil {
		return err
	}
	defer r.turn.Release(1)
	if r.head.failed.Load() {
		return errHeadFailed
	}
	b := &Builder{e: in.e, room: r, head: r.head.clone(), got: in.got, hurried: hurried, creating: in.creating, importing: in.replace}
	if in.replace {
		if err := in.begin(b); err != nil {
			return err
		}
	}
	var stopped error
	for stopped == nil && len(in.outcomes) < len(in.events) {
		before, head := *b, b.head.clone()
		out, err := b.admit(in.events[len(in.outcomes)])
		if err != nil {
			// What it did to the builder so far is undone.
			*b = before
			b.head, stopped = head, err
			continue
		}
		in.outcomes = append(in.outcomes, out)
	}
	if in.replace && !in.joined(b) {
		return stopped
	}
	if len(b.events) > 0 {
		r.head = b.head
		in.pending = append(in.pending, b.commit(nil))
	}
	return stopped
}

// arrival is an event on its way into the room.
type arrival struct {
	Incoming
	ev          *event.Event
	known       *Stored // as outlier; or nil
	prevs       []*Stored
	auths       []*Stored
	authEvents  authState // auths; with the create event where the room id implies it
	before      ground
	redacts     *Stored   // what it takes the content from
	awaits      bool      // what it redacts is not here yet
	awaiting    []*Stored // redactions that were here before it
	st          *Stored
	linear      bool // it builds on all that the room's next event would build on
	extremities []extremity
}

// ground is the state before an event, and the stored snapshot that is nearest.
type ground struct {
	state *state.Map
	base  *branch
	merge *merged // where it comes from, if it is no stored snapshot
}

// admit takes one event through all checks and makes it part of the room. If it
// fails, the builder must be put back to what it was.
func (b *Builder) admit(in Incoming) (Outcome, error) {
	a := &arrival{Incoming: in, ev: in.Event}
	if out, done, err := b.recognise(a); done || err != nil {
		return out, err
	}
	if missing, err := b.gather(a); err != nil || len(missing) > 0 {
		return Outcome{Missing: missing}, err
	}
	var err error
	if a.before, err = b.before(a); err != nil {
		return Outcome{}, err
	}
	flags, why, err := b.judge(a)
	if err != nil {
		return Outcome{}, err
	}
	if no, err := b.contradicts(a, flags); err != nil || no {
		return Outcome{Why: errRestsOn}, err
	}
	if a.st, err = b.number(a, flags); err != nil {
		return Outcome{}, err
	}
	if err := b.redactions(a); err != nil {
		return Outcome{}, err
	}
	there := b.head.servers
	if err := b.place(a); err != nil {
		return Outcome{}, err
	}
	if a.Relay && a.st.Flags == 0 {
		if err := b.sendOut(a.st, there); err != nil {
			return Outcome{}, err
		}
	}
	b.keep(a)
	return Outcome{Event: a.st, Why: why}, nil
}

var (
	errOtherRoom = errors.New("the event is of another room, or of another room version")
	errCreate    = errors.New("a room has one create event")
)

// recognise ends the matter of events that are not of the room, and of those
// that have come before.
func (b *Builder) recognise(a *arrival) (out Outcome, done bool, err error) {
	if a.ev.RoomID != b.room.ID || a.ev.Version != b.room.Version || b.got.taken[a.ev.ID] {
		return Outcome{Why: errOtherRoom}, true, nil
	}
	known, err := b.byID(a.ev.ID)
	switch {
	case err != nil:
		return Outcome{}, true, err
	case known == nil:
		// spec: server-server#validating-hashes-and-signatures-on-received-events
		if !a.ev.ContentHashOK() {
			a.ev = a.ev.Redact()
		}
		return Outcome{}, false, nil
	case known.Room != b.room.NID:
		return Outcome{Why: errOtherRoom}, true, nil
	case known.Flags&Outlier == 0:
		return Outcome{Event: known, Known: true}, true, nil
	}
	a.known, a.ev = known, known.Event
	return Outcome{}, false, nil
}

// gather finds the events that a refers to, and lists those that are missing.
func (b *Builder) gather(a *arrival) (missing []matrix.EventID, err error) {
	if a.prevs, missing, err = b.find(a.ev.PrevEvents, b.placed); err != nil {
		return nil, err
	}
	if a.State != nil {
		if _, missing, err = b.find(a.State, known); err != nil {
			return nil, err
		}
	}
	auths, lost, err := b.find(a.ev.AuthEvents, known)
	a.auths = auths
	return append(missing, lost...), err
}

// find looks for events that are good, and lists the others as missing.
func (b *Builder) find(ids []matrix.EventID, good func(*Stored) bool) (found []*Stored, missing []matrix.EventID, err error) {
	for _, id := range ids {
		st, err := b.byID(id)
		switch {
		case err != nil:
			return nil, nil, err
		case st == nil || !good(st):
			missing = append(missing, id)
		default:
			found = append(found, st)
		}
	}
	return found, missing, nil
}

// placed tells whether an event has its place in the room's history.
func (b *Builder) placed(st *Stored) bool { return st.Flags&Outlier == 0 && st.Room == b.room.NID }

func known(*Stored) bool { return true }

// number makes the event a row, with the numbers that it got at its first try.
func (b *Builder) number(a *arrival, flags Flags) (*Stored, error) {
	st := &Stored{Event: a.ev, Room: b.room.NID, Relation: relationOf(a.ev), Flags: flags}
	if a.known != nil {
		st.NID, st.RedactedBy = a.known.NID, a.known.RedactedBy
	} else {
		st.NID = state.EventNID(b.got.number(a.ev.ID, b.e.eventSeq.Next))
	}
	if !a.ev.IsState() {
		return st, nil
	}
	for _, s := range a.auths {
		st.Auth = append(st.Auth, s.NID)
	}
	k := auth.Key{Type: a.ev.Type, StateKey: a.ev.StateKey()}
	key, err := b.key(k)
	if err != nil {
		return nil, err
	}
	if key == 0 {
		return nil, &need{key: &k, allot: true}
	}
	st.Key = key
	st.Replaces, _ = a.before.state.Get(key)
	b.newKeys = append(b.newKeys, k)
	return st, nil
}

// number is the number that was drawn for a name first, so that an event whose
// admission is tried again keeps the numbers that others may know it by.
func (g *fetched) number(name matrix.EventID, draw func() int64) int64 {
	n, ok := g.numbers[name]
	if !ok {
		n = draw()
		g.numbers[name] = n
	}
	return n
}
