package rooms

import (
	"context"
	"slices"

	"github.com/teahouse-chat/teahouse/internal/db"
	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms/auth"
	"github.com/teahouse-chat/teahouse/rooms/state"
)

var (
	insertBackward = db.SQL(`INSERT INTO backward (prev, event_nid, room_nid) VALUES ($1, $2, $3) ON CONFLICT (prev, event_nid) DO NOTHING`)
	deleteBackward = db.SQL(`DELETE FROM backward WHERE prev = $1 AND room_nid = $2`)
	backwardIn     = db.SQL(`SELECT prev FROM backward WHERE prev IN {texts $1}`)

	insertAwaited = db.SQL(`INSERT INTO awaited (target, event_nid) VALUES ($1, $2) ON CONFLICT (target, event_nid) DO NOTHING`)
	deleteAwaited = db.SQL(`DELETE FROM awaited WHERE target = $1 AND event_nid = $2`)
	awaitedIn     = db.SQL(`SELECT target, event_nid FROM awaited WHERE target IN {texts $1} ORDER BY event_nid`)
)

// fetchLoose reads what is kept of events before they are there: the redactions
// that wait for them, and whether others build on them.
func (e *Engine) fetchLoose(ctx context.Context, got *fetched, ids []matrix.EventID) error {
	err := db.Each(ctx, e.DB, backwardIn, func(s db.Scanner) error {
		var id matrix.EventID
		err := s.Scan(&id)
		got.builtOn[id] = true
		return err
	}, ids)
	if err != nil {
		return err
	}
	var nids []state.EventNID
	var targets []matrix.EventID
	err = db.Each(ctx, e.DB, awaitedIn, func(s db.Scanner) error {
		var id matrix.EventID
		var nid state.EventNID
		err := s.Scan(&id, &nid)
		targets, nids = append(targets, id), append(nids, nid)
		return err
	}, ids)
	if err != nil {
		return err
	}
	events, err := e.Events(ctx, nids)
	for i, st := range events {
		got.awaiting[targets[i]] = append(got.awaiting[targets[i]], st)
	}
	return err
}

// before finds the state before an event.
func (b *Builder) before(a *arrival) (ground, error) {
	if a.State != nil {
		return b.givenState(a)
	}
	if a.linear = b.coversHead(a.prevs); a.linear {
		return ground{state: b.head.state, base: b.current()}, nil
	}
	return b.after(a.prevs)
}

// after is the state after several events.
func (b *Builder) after(prevs []*Stored) (ground, error) {
	nids := make([]SnapshotNID, len(prevs))
	for i, st := range prevs {
		nids[i] = st.Snapshot
	}
	nids = sortedSnapshots(nids)
	if len(nids) == 0 {
		return ground{base: &branch{}}, nil
	}
	var m *merged
	if len(nids) > 1 {
		var err error
		if m, err = b.merge(nids, nil); err != nil {
			return ground{}, err
		}
		if s := b.mergedSnapshot(m); s != nil {
			return ground{state: s.state, base: s}, nil
		}
	}
	list, err := b.branchesOf(nids)
	if err != nil {
		return ground{}, err
	}
	if m == nil {
		return ground{state: list[0].state, base: list[0]}, nil
	}
	return ground{state: m.state, base: nearest(m.state, append(list, b.current())), merge: m}, nil
}

// nearest is the branch that the state is the smallest change of. Any other would
// let a server have large snapshots stored for small events.
func nearest(m *state.Map, list []*branch) *branch {
	var best *branch
	least := 0
	for _, br := range list {
		if n := len(state.Diff(br.state, m)); best == nil || n < least {
			best, least = br, n
		}
	}
	return best
}

// mergedSnapshot is the stored snapshot of a resolution, if there is one.
func (b *Builder) mergedSnapshot(m *merged) *branch {
	if s := b.got.snapshots[m]; s != nil {
		return s
	}
	return m.stored.Load()
}

// givenState is the state before an event as another server has told it.
func (b *Builder) givenState(a *arrival) (ground, error) {
	m, err := b.stateOfIDs(a.State)
	if err != nil {
		return ground{}, err
	}
	if len(state.Diff(m, b.head.state)) == 0 {
		m = b.head.state
	}
	return ground{state: m, base: b.current()}, nil
}

// coversHead tells whether the previous events are just what the room's next
// event would build on. The state before such an event is the current state.
func (b *Builder) coversHead(prevs []*Stored) bool {
	if len(prevs) != len(b.head.extremities) {
		return false
	}
	for _, x := range b.head.extremities {
		if !slices.ContainsFunc(prevs, func(st *Stored) bool { return st.NID == x.nid }) {
			return false
		}
	}
	return true
}

// place gives the event its snapshots and, unless it was turned down, makes it a
// forward extremity.
func (b *Builder) place(a *arrival) error {
	st := a.st
	after := a.before.state
	turnedDown := st.Flags&(Rejected|SoftFailed) != 0
	if st.IsState() && st.Flags&Rejected == 0 {
		after = after.Set(st.Key, st.NID)
	}
	onLine := a.linear && !turnedDown
	name := matrix.EventID("after " + string(st.ID))
	own := b.snapshot(a.before.base, after, b.got.number(name, b.e.snapSeq.Next), !onLine)
	st.Snapshot = own.nid()
	a.extremities = b.head.extremities
	if turnedDown {
		st.Resolved, st.Unread = SnapshotNID(b.head.chain.Top()), b.head.unread
		return nil
	}
	a.extremities = extremitiesAfter(a, b.got.builtOn[st.ID])
	next := own
	if !onLine {
		resolved, err := b.resolveExtremities(a, own)
		if err != nil {
			return err
		}
		next = b.snapshot(b.current(), resolved, b.e.snapSeq.Next(), false)
	}
	if err := b.moveHead(next, st); err != nil {
		return err
	}
	st.Resolved = next.nid()
	if st.Flags != 0 {
		st.Unread = b.head.unread
		return nil
	}
	return b.count(st)
}

// extremitiesAfter are the forward extremities once the event is there; builtOn
// tells that known events build on it already.
func extremitiesAfter(a *arrival, builtOn bool) []extremity {
	left := make([]extremity, 0, len(a.extremities)+1)
	for _, x := range a.extremities {
		if !slices.ContainsFunc(a.prevs, func(st *Stored) bool { return st.NID == x.nid }) {
			left = append(left, x)
		}
	}
	if !builtOn || len(left) == 0 {
		left = append(left, extremityOf(a.st))
	}
	return left
}

// resolveExtremities is the room's state with the event in it.
func (b *Builder) resolveExtremities(a *arrival, own *branch) (*state.Map, error) {
	nids := make([]SnapshotNID, len(a.extremities))
	for i, x := range a.extremities {
		nids[i] = x.snapshot
	}
	if nids = sortedSnapshots(nids); len(nids) > 1 {
		m, err := b.merge(nids, a.st)
		if err != nil {
			return nil, err
		}
		return m.state, nil
	}
	if nids[0] == own.nid() {
		return own.state, nil
	}
	list, err := b.branchesOf(nids)
	if err != nil {
		return nil, err
	}
	return list[0].state, nil
}

// redactions finds out what the event takes the content from, and what has been
// waiting to take its own.
// spec: rooms/v3#handling-redactions
func (b *Builder) redactions(a *arrival) error {
	st := a.st
	if st.Flags&Rejected == 0 {
		for _, by := range b.got.awaiting[st.ID] {
			ok, err := b.mayRedact(by, st)
			if err != nil {
				return err
			}
			if ok {
				a.awaiting = append(a.awaiting, by)
			}
		}
	}
	if st.Type != matrix.TypeRedaction || st.IsState() || st.Redacts == "" || st.Flags != 0 {
		return nil
	}
	target, err := b.byID(st.Redacts)
	if err != nil {
		return err
	}
	switch {
	case target == nil:
		a.awaits = true
	case target.Room != b.room.NID || target.Flags&Rejected != 0:
	case allowsRedaction(st, a.authEvents, target):
		a.redacts = target
		return nil
	}
	if !b.room.Version.RedactionRule {
		st.Flags = Held
	}
	return nil
}

// mayRedact tells whether a redaction that came before its target applies to it.
func (b *Builder) mayRedact(by, target *Stored) (bool, error) {
	if by.Room != target.Room {
		return false, nil
	}
	create, err := b.State(matrix.TypeCreate, "")
	if err != nil {
		return false, err
	}
	auths := make([]*Stored, len(by.AuthEvents))
	for i, id := range by.AuthEvents {
		if auths[i], err = b.byID(id); err != nil {
			return false, err
		}
	}
	return allowsRedaction(by, authEventsOf(by.Event, auths, create), target), nil
}

// allowsRedaction tells whether a redaction applies. In the first room versions
// the authorisation rules have said so.
func allowsRedaction(by *Stored, st authState, target *Stored) bool {
	return by.Version.RedactionRule || by.Sender.Server() == target.Sender.Server() || powerToRedact(by.Sender, st)
}

func powerToRedact(u matrix.UserID, st authState) bool {
	levels := auth.Levels(st)
	return levels.User(u) >= levels.Redact
}

// keep adds the placed event to what the builder commits. Nothing fails any more.
func (b *Builder) keep(a *arrival) {
	b.head.extremities = a.extremities
	b.link(a)
	for _, by := range a.awaiting {
		b.release(by, a.st)
	}
}

// link adds the placed event, and what it means for others.
func (b *Builder) link(a *arrival) {
	st := a.st
	if len(a.awaiting) > 0 {
		st.Event, st.RedactedBy, st.Relation = st.Event.Redact(), a.awaiting[0].NID, Relation{}
	}
	b.add(st, a.known != nil)
	if a.before.merge != nil && !st.IsState() {
		b.keepMerge(a.before.merge, st.Snapshot)
	}
	if a.redacts != nil {
		b.redact(a.redacts, st)
	}
	if a.awaits {
		b.await(st)
	}
	// Where accepted events build on a turned down one the history goes on behind it.
	if st.Flags&(Rejected|SoftFailed) == 0 || b.got.builtOn[st.ID] {
		b.trackBackward(a)
	}
}

// await lets a redaction have its effect as soon as its target comes.
func (b *Builder) await(st *Stored) {
	b.got.awaiting[st.Redacts] = append(b.got.awaiting[st.Redacts], st)
	b.Then(func(tx *db.Tx) error { return tx.Exec(insertAwaited, st.Redacts, st.NID) })
}

func (b *Builder) add(st *Stored, known bool) {
	b.head.pending.add(st)
	b.got.ids[st.ID], b.got.events[st.NID] = st, st
	b.events = append(b.events, st)
	if known {
		b.known = append(b.known, st)
	}
}

// keepMerge remembers the snapshot that a resolution was stored as.
func (b *Builder) keepMerge(m *merged, n SnapshotNID) {
	stored := b.got.branches[n]
	if stored == nil || m.stored.Load() != nil {
		return
	}
	b.got.snapshots[m] = stored
	b.onStored = append(b.onStored, func() { m.stored.Store(stored) })
}

// release lets a redaction have its effect now that its target is here; if
// clients have not seen it, they do now.
func (b *Builder) release(by, target *Stored) {
	b.Then(func(tx *db.Tx) error { return tx.Exec(deleteAwaited, target.ID, by.NID) })
	if by.Flags != Held {
		return
	}
	shown := *by
	shown.Flags, shown.Resolved, shown.Unread = 0, SnapshotNID(b.head.chain.Top()), b.head.unread
	b.add(&shown, true)
}

// trackBackward keeps the list of the events that known ones build on and that
// are not here themselves: where the history can be continued.
func (b *Builder) trackBackward(a *arrival) {
	st := a.st
	if b.got.builtOn[st.ID] {
		b.Then(func(tx *db.Tx) error { return tx.Exec(deleteBackward, st.ID, st.Room) })
	}
	if len(a.prevs) == len(st.PrevEvents) {
		return
	}
	var missing []matrix.EventID
	for _, id := range st.PrevEvents {
		if !slices.ContainsFunc(a.prevs, func(p *Stored) bool { return p.ID == id }) {
			missing = append(missing, id)
			b.got.builtOn[id] = true
		}
	}
	if st.Flags == 0 && !b.older && !b.creating {
		b.gapped = st
	}
	b.Then(func(tx *db.Tx) error {
		for _, id := range missing {
			if err := tx.Exec(insertBackward, id, st.NID, st.Room); err != nil {
				return err
			}
		}
		return nil
	})
}
