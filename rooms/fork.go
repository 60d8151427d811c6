package rooms

import (
	"context"
	"encoding/binary"
	"slices"
	"sync/atomic"

	"github.com/teahouse-chat/teahouse/internal/db"
	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms/event"
	"github.com/teahouse-chat/teahouse/rooms/resolve"
	"github.com/teahouse-chat/teahouse/rooms/state"
)

// branch is a stored snapshot in memory.
type branch struct {
	state *state.Map
	chain state.Chain
}

func (b *branch) nid() SnapshotNID { return SnapshotNID(b.chain.Top()) }

// merged is what several snapshots were resolved to.
type merged struct {
	state  *state.Map
	stored atomic.Pointer[branch] // nil as long as no snapshot of it is stored
}

// mergeJob is a resolution that is to be done without the room's turn.
type mergeJob struct {
	key  string
	sets []*state.Map
	src  *source
}

// mergeKey names a set of snapshots; nids are sorted.
func mergeKey(nids []SnapshotNID) string {
	var b []byte
	for _, n := range nids {
		b = binary.AppendUvarint(b, uint64(n))
	}
	return string(b)
}

// branch reads a stored snapshot.
func (e *Engine) branch(ctx context.Context, n SnapshotNID) (*branch, error) {
	if b, ok := e.branches.Get(n); ok {
		return b, nil
	}
	layers, err := e.snapshotLayers(ctx, n)
	if err != nil {
		// It may be on its way into the database: behind this empty write it is there.
		if err := e.DB.Write(ctx, func(*db.Tx) error { return nil }); err != nil {
			return nil, err
		}
		if layers, err = e.snapshotLayers(ctx, n); err != nil {
			return nil, err
		}
	}
	chain, err := state.NewChain(layers)
	if err != nil {
		return nil, err
	}
	b := &branch{state: state.Rebuild(layers), chain: chain}
	e.branches.Add(n, b)
	return b, nil
}

// merge resolves states, once for each set of snapshots.
func (e *Engine) merge(r *Room, j *mergeJob) (*merged, error) {
	if m, ok := e.merges.Get(j.key); ok {
		return m, nil
	}
	resolved, err := resolve.Resolve(r.Version, j.sets, j.src)
	if j.src.err != nil {
		err = j.src.err
	}
	if err != nil {
		return nil, err
	}
	m := &merged{state: resolved}
	e.merges.Add(j.key, m)
	return m, nil
}

// fetchBranches does what a builder that deals with branches asked for.
func (e *Engine) fetchBranches(ctx context.Context, r *Room, got *fetched, n *need) error {
	for _, nid := range n.branches {
		b, err := e.branch(ctx, nid)
		if err != nil {
			return err
		}
		got.branches[nid] = b
	}
	if n.merge != nil {
		n.merge.src.ctx = ctx
		m, err := e.merge(r, n.merge)
		if err != nil {
			return err
		}
		got.merges[n.merge.key] = m
	}
	events, err := e.Events(ctx, n.events)
	if err != nil {
		return err
	}
	for _, st := range events {
		got.events[st.NID] = st
	}
	if len(n.auths) == 0 {
		return nil
	}
	auths, err := e.readAuths(ctx, n.auths)
	for nid, l := range auths {
		got.auths[nid] = l
	}
	return err
}

// current is the head's state as a branch.
func (b *Builder) current() *branch { return &branch{b.head.state, b.head.chain} }

// branchesOf returns stored snapshots.
func (b *Builder) branchesOf(nids []SnapshotNID) ([]*branch, error) {
	list := make([]*branch, len(nids))
	var missing []SnapshotNID
	for i, n := range nids {
		var ok bool
		switch {
		case n == 0:
			list[i] = &branch{}
		case n == SnapshotNID(b.head.chain.Top()):
			list[i] = b.current()
		default:
			if list[i], ok = b.got.branches[n]; ok {
				continue
			}
			if list[i], ok = b.e.branches.Get(n); !ok {
				missing = append(missing, n)
			}
		}
	}
	if len(missing) > 0 {
		return nil, &need{branches: missing}
	}
	return list, nil
}

// merge resolves stored snapshots, arriving's among them if it is not nil. The
// room's turn is given back for the work, except for a caller whom the room runs
// away from again and again.
func (b *Builder) merge(nids []SnapshotNID, arriving *Stored) (*merged, error) {
	key := mergeKey(nids)
	if m, ok := b.got.merges[key]; ok {
		return m, nil
	}
	if m, ok := b.e.merges.Get(key); ok {
		return m, nil
	}
	list, err := b.branchesOf(nids)
	if err != nil {
		return nil, err
	}
	j := &mergeJob{key: key, src: &source{e: b.e, got: b.got, pending: b.head.pending, arriving: arriving}}
	for _, br := range list {
		j.sets = append(j.sets, br.state)
	}
	if !b.hurried {
		return nil, &need{merge: j}
	}
	return b.e.merge(b.room, j)
}

// snapshot makes the state a stored snapshot, as a change of base, and gives it
// the number unless base is the same state. fork keeps it apart from the line of
// snapshots that the room grows along.
func (b *Builder) snapshot(base *branch, m *state.Map, nid int64, fork bool) *branch {
	changes := state.Diff(base.state, m)
	if len(changes) == 0 {
		return base
	}
	delta := make([]state.Entry, len(changes))
	for i, c := range changes {
		delta[i] = state.Entry{Key: c.Key, Event: c.New}
	}
	add := base.chain.Next
	if fork {
		add = base.chain.Fork
	}
	layer, chain := add(nid, delta, m)
	b.layers = append(b.layers, layer)
	after := &branch{m, chain}
	b.got.branches[after.nid()] = after
	b.e.branches.Add(after.nid(), after)
	return after
}

// moveHead makes the branch the room's current state, on behalf of an event.
// Resolution may have changed memberships that the event does not speak of.
func (b *Builder) moveHead(to *branch, by *Stored) error {
	h := b.head
	changes := slices.DeleteFunc(state.Diff(h.state, to.state), func(c state.Change) bool { return !MemberKey(c.Key) })
	var nids []state.EventNID
	for _, c := range changes {
		nids = append(nids, c.Old, c.New)
	}
	members, err := b.storedAll(nids, by)
	if err != nil {
		return err
	}
	var moves memberMoves
	for i := range changes {
		old, fresh := members[2*i], members[2*i+1]
		change := memberChange{event: fresh, by: by}
		if old != nil {
			h.count(old.Membership(), -1)
			change.user = matrix.UserID(old.StateKey())
		}
		if fresh != nil {
			h.count(fresh.Membership(), 1)
			change.user = matrix.UserID(fresh.StateKey())
		}
		b.memberChanges = append(b.memberChanges, change)
		moves.add(b.e.ServerName, change.user, old, fresh)
		b.moved(change.user, old, fresh)
	}
	b.moveServers(moves, by)
	h.state, h.chain = to.state, to.chain
	return nil
}

// storedAll finds events, arriving among them if it is not nil; number 0 stands
// for none.
func (b *Builder) storedAll(nids []state.EventNID, arriving *Stored) ([]*Stored, error) {
	s := &source{e: b.e, got: b.got, pending: b.head.pending, arriving: arriving}
	events := make([]*Stored, len(nids))
	var missing []state.EventNID
	for i, nid := range nids {
		if nid == 0 {
			continue
		}
		if events[i] = s.inMemory(nid); events[i] == nil {
			missing = append(missing, nid)
		}
	}
	if len(missing) > 0 {
		return nil, &need{events: missing}
	}
	return events, nil
}

// maxPrevEvents is how many forward extremities an event can join.
// spec: rooms/v12#event-format
const maxPrevEvents = 20

var errNotRedacted = matrix.Forbidden("The room does not let you redact the event")

// appendMerging is Append in a room with more branches than an event can join:
// it joins the oldest ones, and goes the way of an event of another server.
func (b *Builder) appendMerging(p Proto) (*Stored, error) {
	b.hurried = true // the event is another one at the next call, so nothing could be prepared for it
	prevs, st, err := b.footing()
	if err != nil {
		return nil, err
	}
	ev, _, _, err := b.build(p, st, prevs)
	if err != nil {
		return nil, err
	}
	return b.bringIn(ev)
}

// bringIn makes an event of our own, which nobody has yet, part of the room by
// the way of those of other servers.
func (b *Builder) bringIn(ev *event.Event) (*Stored, error) {
	b.got.ids[ev.ID] = nil
	before, head := *b, b.head.clone()
	out, err := b.admit(Incoming{Event: ev, Relay: true})
	switch {
	case err != nil:
		return nil, err
	case out.Event != nil && out.Event.Flags == 0:
		return out.Event, nil
	}
	b.head.pending.remove(b.events[len(before.events):])
	*b, b.head = before, head
	if out.Why == nil {
		out.Why = errNotRedacted
	}
	return nil, forbidden(out.Why)
}

// footing is what a local event builds on: the forward extremities, as many of
// them as an event can join, and the state before it.
func (b *Builder) footing() ([]extremity, *state.Map, error) {
	prevs := b.head.extremities
	if len(prevs) <= maxPrevEvents {
		return prevs, b.head.state, nil
	}
	prevs = prevs[:maxPrevEvents]
	nids := make([]SnapshotNID, len(prevs))
	for i, x := range prevs {
		nids[i] = x.snapshot
	}
	nids = sortedSnapshots(nids)
	if len(nids) == 1 {
		list, err := b.branchesOf(nids)
		if err != nil {
			return nil, nil, err
		}
		return prevs, list[0].state, nil
	}
	m, err := b.merge(nids, nil)
	if err != nil {
		return nil, nil, err
	}
	return prevs, m.state, nil
}

// sortedSnapshots are the distinct snapshots, ascending.
func sortedSnapshots(nids []SnapshotNID) []SnapshotNID {
	nids = slices.Clone(nids)
	slices.Sort(nids)
	return slices.Compact(nids)
}
