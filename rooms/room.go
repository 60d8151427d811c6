package rooms

import (
	"maps"
	"slices"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/semaphore"

	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms/event"
	"github.com/teahouse-chat/teahouse/rooms/state"
)

// recentKept is how many of its newest events a loaded room keeps at least.
const recentKept = 64

// Room is a loaded room.
type Room struct {
	NID     RoomNID
	ID      matrix.RoomID
	Version *event.Version

	intake *semaphore.Weighted // held by whoever brings in events of other servers, before and beside turn
	turn   *semaphore.Weighted // first in, first out
	// replaced tells that the room is another *Room now; guarded by intake.
	replaced bool
	head     *head // guarded by turn

	view atomic.Pointer[View]

	mu      sync.RWMutex
	members map[matrix.UserID]struct{} // joined local users
}

// View is the committed room at one moment. It never changes.
type View struct {
	Position        int64 // of its newest event
	State           *state.Map
	Snapshot        SnapshotNID
	Joined, Invited int
	// Recent are the newest timeline events, oldest first: all whose position is
	// above RecentFrom. Rejected and soft-failed ones are not among them.
	Recent     []*Stored
	RecentFrom int64
	// Gap is the position of the newest event that came without all that it builds
	// on: whoever has followed the room until then has missed something.
	Gap int64

	servers *servers
}

// extremity is an event that no other has as its previous event yet.
type extremity struct {
	nid      state.EventNID
	ref      event.Ref
	depth    int64
	snapshot SnapshotNID // the state after it
}

// head is what the next event builds on. It runs ahead of the view by what is
// being committed. A head is changed by replacing it, so that a builder that
// gives up leaves no trace.
type head struct {
	extremities     []extremity
	state           *state.Map
	chain           state.Chain
	joined, invited int
	servers         *servers
	unread          int64
	threads         map[matrix.EventID]int64 // unread counts of the threads that were written to lately
	pending         *pendingEvents
	failed          *atomic.Bool // set when a commit of this line of heads failed
}

// extremityOf is the event as a forward extremity.
func extremityOf(st *Stored) extremity {
	return extremity{nid: st.NID, ref: st.Ref(), depth: st.Depth, snapshot: st.Snapshot}
}

// count keeps the numbers of joined and invited members.
func (h *head) count(membership string, by int) {
	switch membership {
	case matrix.MembershipJoin:
		h.joined += by
	case matrix.MembershipInvite:
		h.invited += by
	}
}

// clone copies what a builder may change in place.
func (h *head) clone() *head {
	c := *h
	c.extremities = slices.Clone(h.extremities)
	return &c
}

// pendingEvents are the events that are built on but not committed yet.
type pendingEvents struct {
	mu     sync.Mutex
	events map[state.EventNID]*Stored
}

func (p *pendingEvents) get(nid state.EventNID) *Stored {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.events[nid]
}

func (p *pendingEvents) add(st *Stored) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.events[st.NID] = st
}

func (p *pendingEvents) remove(events []*Stored) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, st := range events {
		delete(p.events, st.NID)
	}
}

// View returns the committed room.
func (r *Room) View() *View { return r.view.Load() }

// LocalMembers lists the joined users of this server.
func (r *Room) LocalMembers() []matrix.UserID {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return slices.Collect(maps.Keys(r.members))
}

// IsLocalMember tells whether a user of this server is joined.
func (r *Room) IsLocalMember(u matrix.UserID) bool {
	r.mu.RLock()
	defer r.mu.RUnlock()
	_, ok := r.members[u]
	return ok
}

// LocalMemberCount is the number of joined users of this server.
func (r *Room) LocalMemberCount() int {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return len(r.members)
}

// publish moves the view over a commit. It runs on the database's writer
// goroutine only.
func (r *Room) publish(c *Committed) {
	old := r.View()
	v := *old
	for _, st := range c.Events {
		if st.Position <= 0 || st.Flags&Outside != 0 {
			continue
		}
		if st.Served() {
			v.Recent = append(v.Recent, st)
		}
		v.Position = st.Position
	}
	v.State, v.Snapshot, v.Joined, v.Invited, v.servers = c.State, c.Snapshot, c.Joined, c.Invited, c.servers
	if c.gapped != nil {
		v.Gap = c.gapped.Position
	}
	if len(v.Recent) > 2*recentKept {
		cut := len(v.Recent) - recentKept
		v.RecentFrom = v.Recent[cut-1].Position
		v.Recent = slices.Clone(v.Recent[cut:])
	}
	if len(c.redacted) > 0 {
		v.Recent = replaceRedacted(v.Recent, c.redacted)
	}
	r.mu.Lock()
	for _, m := range c.memberChanges {
		if m.membership() == matrix.MembershipJoin {
			r.members[m.user] = struct{}{}
		} else {
			delete(r.members, m.user)
		}
	}
	r.mu.Unlock()
	r.view.Store(&v)
}

// replace shows redacted events in the place of the originals. It runs on the
// database's writer goroutine only.
func (r *Room) replace(redacted map[state.EventNID]*Stored) {
	if len(redacted) == 0 {
		return
	}
	v := *r.View()
	v.Recent = replaceRedacted(v.Recent, redacted)
	r.view.Store(&v)
}

// replaceRedacted puts redacted events in the place of the originals.
func replaceRedacted(recent []*Stored, redacted map[state.EventNID]*Stored) []*Stored {
	recent = slices.Clone(recent)
	for i, st := range recent {
		if r, ok := redacted[st.NID]; ok {
			recent[i] = r
		}
	}
	return recent
}
