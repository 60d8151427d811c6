package syncapi

import (
	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms"
)

// changes say what may be new for a user above a stand.
type changes struct {
	upTo stand // everything up to here is covered
	// all tells that more than the record knows may have changed: every room
	// has to be looked at.
	all      bool
	rooms    map[rooms.RoomNID]marks
	data     bool
	presence bool
}

// any tells whether there is anything to look at.
func (c *changes) any() bool { return c.all || c.data || c.presence || len(c.rooms) > 0 }

// since tells what is new for the record's user above a stand.
func (n *notifier) since(rec *record, s stand) changes {
	n.mu.Lock()
	defer n.mu.Unlock()
	c := changes{upTo: stand{n.position, n.ephemeral}}
	if !s.covers(rec.floor) {
		c.all, c.data, c.presence = true, true, true
		return c
	}
	if s.covers(rec.newest) {
		return c
	}
	c.data = rec.data > s.position
	c.presence = rec.seen > s.ephemeral
	for nid, m := range rec.rooms {
		if m.above(s) {
			if c.rooms == nil {
				c.rooms = make(map[rooms.RoomNID]marks, 4)
			}
			c.rooms[nid] = m
		}
	}
	return c
}

// knowledge is what the notifier can tell without asking anybody.
type knowledge uint8

const (
	unknown knowledge = iota
	no
	yes
)

// meet tells of people whether they are in one of the rooms, as far as they are
// connected.
func (n *notifier) meet(people []seen, in map[rooms.RoomNID]struct{}) []knowledge {
	known := make([]knowledge, len(people))
	n.mu.Lock()
	defer n.mu.Unlock()
	for i, p := range people {
		rec := n.users[p.user]
		if rec == nil || rec.floor == (stand{}) { // not there, or its rooms are just being read
			continue
		}
		known[i] = no
		for nid, m := range rec.rooms {
			if _, mine := in[nid]; mine && m.joined {
				known[i] = yes
				break
			}
		}
	}
	return known
}

// stand is where everybody stands who has seen everything.
func (n *notifier) stand() stand {
	n.mu.Lock()
	defer n.mu.Unlock()
	return stand{n.position, n.ephemeral}
}

// peek registers a request for one room, whether or not its user is joined.
func (n *notifier) peek(nid rooms.RoomNID, user matrix.UserID, device matrix.DeviceID) *waiter {
	w := &waiter{user: user, device: device, wake: make(chan struct{}, 1)}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.peeking[nid] == nil {
		n.peeking[nid] = map[*waiter]struct{}{}
	}
	n.peeking[nid][w] = struct{}{}
	return w
}

func (n *notifier) unpeek(nid rooms.RoomNID, w *waiter) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.peeking[nid], w)
	if len(n.peeking[nid]) == 0 {
		delete(n.peeking, nid)
	}
}

// over tells whether the waiter's session has ended.
func (n *notifier) over(w *waiter) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return w.ended
}

// end ends the requests of a user's device; of all devices if it is "".
func (n *notifier) end(user matrix.UserID, device matrix.DeviceID) {
	n.mu.Lock()
	defer n.mu.Unlock()
	stop := func(w *waiter) {
		if w.user == user && (device == "" || w.device == device) {
			w.ended = true
			w.rouse()
		}
	}
	if rec := n.users[user]; rec != nil {
		for w := range rec.waiters {
			stop(w)
		}
	}
	for _, peekers := range n.peeking {
		for w := range peekers {
			stop(w)
		}
	}
}
