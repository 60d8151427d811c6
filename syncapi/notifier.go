package syncapi

import (
	"context"
	"sync"
	"time"

	"github.com/teahouse-chat/teahouse/internal/db"
	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms"
)

// recordKept is how long a user's record outlives their last request.
const recordKept = 5 * time.Minute

// room is what the notifier needs of a *rooms.Room.
type room interface {
	IsLocalMember(matrix.UserID) bool
	LocalMembers() []matrix.UserID
}

// notifier knows what changed for the users who are connected, and wakes their
// requests.
type notifier struct {
	now         func() time.Time
	memberships func(context.Context, matrix.UserID) ([]rooms.Membership, error)
	foreign     func(change any) []matrix.UserID // whom changes of other features concern

	mu        sync.Mutex
	position  int64 // everything up to here is recorded
	ephemeral int64 // generation of typing and presence
	users     map[matrix.UserID]*record
	rooms     map[rooms.RoomNID]map[*record]struct{} // records of joined users
	peeking   map[rooms.RoomNID]map[*waiter]struct{}
	swept     time.Time
}

// record is what is known of a connected user. The notifier's lock guards it.
type record struct {
	user    matrix.UserID
	loaded  chan struct{} // closed once the rooms are known
	err     error         // why they are not; set before loaded is closed
	used    time.Time
	floor   stand // every change above it is marked here
	newest  stand // the newest change
	data    int64 // the newest change of account data or of what encryption adds
	seen    int64 // generation of the newest presence that concerns the user
	rooms   map[rooms.RoomNID]marks
	waiters map[*waiter]struct{}
	echoes  map[matrix.DeviceID]<-chan struct{} // closed when what the device sent last has been answered
}

// stand is a point in both orders: of the stream, and of what is in memory only.
type stand struct{ position, ephemeral int64 }

func (s stand) covers(t stand) bool { return s.position >= t.position && s.ephemeral >= t.ephemeral }

// marks are the newest changes of one room, as far as they concern one user.
type marks struct {
	joined   bool
	events   int64 // position
	receipts int64 // position
	typing   int64 // generation
}

func (m marks) above(s stand) bool {
	return m.events > s.position || m.receipts > s.position || m.typing > s.ephemeral
}

// waiter is one open request.
type waiter struct {
	user   matrix.UserID
	device matrix.DeviceID
	wake   chan struct{} // holds at most one
	ended  bool          // the session is over; guarded by the notifier's lock
}

func newNotifier(d Deps) *notifier {
	n := &notifier{
		now:      d.Now,
		position: d.DB.Position(),
		users:    map[matrix.UserID]*record{},
		rooms:    map[rooms.RoomNID]map[*record]struct{}{},
		peeking:  map[rooms.RoomNID]map[*waiter]struct{}{},
	}
	n.memberships = func(ctx context.Context, u matrix.UserID) ([]rooms.Membership, error) {
		return d.Rooms.Memberships(ctx, u)
	}
	n.foreign = func(change any) []matrix.UserID {
		if u := d.Data.Changed(change); u != "" {
			return []matrix.UserID{u}
		}
		if d.Encryption != nil {
			return d.Encryption.Changed(change)
		}
		return nil
	}
	return n
}

// enter registers a request of the user's device: whatever happens from now on
// wakes it. It comes back once the user's rooms are known. Whoever entered must
// leave.
func (n *notifier) enter(ctx context.Context, user matrix.UserID, device matrix.DeviceID) (*record, *waiter, error) {
	w := &waiter{user: user, device: device, wake: make(chan struct{}, 1)}
	n.mu.Lock()
	n.sweep()
	rec, there := n.users[user]
	if !there {
		rec = &record{
			user: user, loaded: make(chan struct{}),
			rooms: map[rooms.RoomNID]marks{}, waiters: map[*waiter]struct{}{},
		}
		n.users[user] = rec
	}
	rec.waiters[w] = struct{}{}
	n.mu.Unlock()
	if !there {
		n.load(context.WithoutCancel(ctx), rec)
	}
	var err error
	select {
	case <-rec.loaded:
		err = rec.err
	case <-ctx.Done():
		err = ctx.Err()
	}
	if err != nil {
		n.leave(rec, w)
		return nil, nil, err
	}
	return rec, w, nil
}

// leave takes a request out.
func (n *notifier) leave(rec *record, w *waiter) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(rec.waiters, w)
	rec.used = n.now()
}

// load finds the rooms of a new record. Since the record is known to publish
// already, whatever happens meanwhile to the user's memberships is marked; only
// the rooms that nothing happened to are taken from what was read.
func (n *notifier) load(ctx context.Context, rec *record) {
	memberships, err := n.memberships(ctx, rec.user)
	n.mu.Lock()
	defer n.mu.Unlock()
	defer close(rec.loaded)
	if err != nil {
		rec.err = err
		n.drop(rec)
		return
	}
	for _, m := range memberships {
		if _, touched := rec.rooms[m.Room]; !touched && m.Membership == matrix.MembershipJoin {
			n.join(rec, m.Room)
		}
	}
	rec.floor = stand{n.position, n.ephemeral}
}

// join adds a room to the record, or takes note of it again.
func (n *notifier) join(rec *record, nid rooms.RoomNID) {
	m := rec.rooms[nid]
	m.joined = true
	rec.rooms[nid] = m
	index := n.rooms[nid]
	if index == nil {
		index = map[*record]struct{}{}
		n.rooms[nid] = index
	}
	index[rec] = struct{}{}
}

func (n *notifier) part(rec *record, nid rooms.RoomNID) {
	m := rec.rooms[nid]
	m.joined = false
	rec.rooms[nid] = m
	n.unindex(rec, nid)
}

func (n *notifier) unindex(rec *record, nid rooms.RoomNID) {
	index := n.rooms[nid]
	delete(index, rec)
	if len(index) == 0 {
		delete(n.rooms, nid)
	}
}

// drop forgets a record.
func (n *notifier) drop(rec *record) {
	for nid, m := range rec.rooms {
		if m.joined {
			n.unindex(rec, nid)
		}
	}
	delete(n.users, rec.user)
}

// sweep drops, now and then, the records that nobody has used for long.
func (n *notifier) sweep() {
	now := n.now()
	if now.Sub(n.swept) < recordKept/4 {
		return
	}
	n.swept = now
	for _, rec := range n.users {
		select {
		case <-rec.loaded:
			if len(rec.waiters) == 0 && now.Sub(rec.used) > recordKept {
				n.drop(rec)
			}
		default:
		}
	}
}

// publish records a commit. It runs on the database's writer goroutine.
func (n *notifier) publish(b db.Batch) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, change := range b.Changes {
		switch c := change.(type) {
		case *rooms.Committed:
			n.committed(c.Room.NID, c.Room, c.Events)
		case ReceiptChanged:
			n.receipt(c)
		default:
			for _, u := range n.foreign(change) {
				if rec := n.users[u]; rec != nil {
					rec.data = b.Position
					rec.touch(stand{position: b.Position})
				}
			}
		}
	}
	n.position = b.Position
}

// committed marks a room's new events for the joined users, and for those whose
// own membership changed.
func (n *notifier) committed(nid rooms.RoomNID, r room, events []*rooms.Stored) {
	at := int64(0)
	for _, ev := range events {
		at = max(at, ev.Position)
		n.sent(ev.Txn)
	}
	if at == 0 {
		return // history that was filled in
	}
	mark := func(rec *record) {
		m := rec.rooms[nid]
		m.events = at
		rec.rooms[nid] = m
		rec.touch(stand{position: at})
	}
	for rec := range n.rooms[nid] {
		mark(rec)
	}
	settle := func(u matrix.UserID) {
		rec := n.users[u]
		if rec == nil {
			return
		}
		if r.IsLocalMember(u) {
			n.join(rec, nid)
		} else {
			n.part(rec, nid)
		}
		mark(rec)
	}
	forked := false
	for _, ev := range events {
		if ev.IsState() && ev.Type == matrix.TypeMember {
			settle(matrix.UserID(ev.StateKey()))
		}
		forked = forked || ev.Resolved != ev.Snapshot
	}
	if forked { // resolution may change memberships without a new event
		for rec := range n.rooms[nid] {
			settle(rec.user)
		}
		for _, u := range r.LocalMembers() {
			settle(u)
		}
	}
	for w := range n.peeking[nid] {
		w.rouse()
	}
}

// receipt marks a receipt for those who may see it.
func (n *notifier) receipt(c ReceiptChanged) {
	mark := func(rec *record) {
		m := rec.rooms[c.Room]
		m.receipts = c.Position
		rec.rooms[c.Room] = m
		rec.touch(stand{position: c.Position})
	}
	if c.Type == ReadPrivate {
		if rec := n.users[c.User]; rec != nil {
			mark(rec)
		}
		return
	}
	for rec := range n.rooms[c.Room] {
		mark(rec)
	}
}

// typed marks a change of who types in a room. change makes it and tells whether
// it was one.
func (n *notifier) typed(nid rooms.RoomNID, change func(generation int64) bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if !change(n.ephemeral + 1) {
		return
	}
	n.ephemeral++
	for rec := range n.rooms[nid] {
		m := rec.rooms[nid]
		m.typing = n.ephemeral
		rec.rooms[nid] = m
		rec.touch(stand{ephemeral: n.ephemeral})
	}
}

// met marks changes of presence for the users in the rooms and for the users
// themselves.
func (n *notifier) met(users []matrix.UserID, in []rooms.RoomNID, set func(generation int64)) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.ephemeral++
	set(n.ephemeral)
	mark := func(rec *record) {
		if rec.seen != n.ephemeral {
			rec.seen = n.ephemeral
			rec.touch(stand{ephemeral: n.ephemeral})
		}
	}
	for _, u := range users {
		if rec := n.users[u]; rec != nil {
			mark(rec)
		}
	}
	for _, nid := range in {
		for rec := range n.rooms[nid] {
			mark(rec)
		}
	}
}

// touch notes a change and wakes the user's requests.
func (rec *record) touch(s stand) {
	rec.newest.position = max(rec.newest.position, s.position)
	rec.newest.ephemeral = max(rec.newest.ephemeral, s.ephemeral)
	for w := range rec.waiters {
		w.rouse()
	}
}

func (w *waiter) rouse() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}
