package rooms

import (
	"sync"

	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms/event"
)

// claims are the ids of events that are being brought in, where servers choose
// the ids: one that two rooms claim at the same time must not make the writes of
// either fail. Where an id is the event's hash it belongs to one room only.
type claims struct {
	mu sync.Mutex
	by map[matrix.EventID]RoomNID
}

// claim reserves ids for a room until release is called, and tells which of them
// another room has.
func (c *claims) claim(v *event.Version, room RoomNID, ids []matrix.EventID) (taken map[matrix.EventID]bool, release func()) {
	if v.EventIDs != event.IDText {
		return nil, func() {}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	var mine []matrix.EventID
	taken = map[matrix.EventID]bool{}
	for _, id := range ids {
		switch other, ok := c.by[id]; {
		case !ok:
			c.by[id] = room
			mine = append(mine, id)
		case other != room:
			taken[id] = true
		}
	}
	return taken, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		for _, id := range mine {
			delete(c.by, id)
		}
	}
}
