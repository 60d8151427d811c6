package rooms

import (
	"context"

	"github.com/teahouse-chat/teahouse/internal/db"
	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms/state"
)

var (
	allBackward = db.SQL(`SELECT prev, event_nid, room_nid FROM backward`)
	awaitedBad  = db.SQL(`SELECT a.event_nid FROM awaited a LEFT JOIN events e ON e.event_nid = a.event_nid WHERE e.event_nid IS NULL`)
	allAwaited  = db.SQL(`SELECT DISTINCT event_nid FROM awaited`)
	allThreads  = db.SQL(`SELECT room_nid, root, replies FROM threads`)
)

// checkGaps compares the list of places where histories can be continued with the
// events that others build on and that are not here, or have no place.
func (c *checker) checkGaps(ctx context.Context, q db.Querier) error {
	listed := map[gap]bool{}
	err := db.Each(ctx, q, allBackward, func(s db.Scanner) error {
		var g gap
		var room RoomNID
		if err := s.Scan(&g.missing, &g.by, &room); err != nil {
			return err
		}
		listed[g] = true
		switch r := c.rooms[room]; {
		case r == nil:
			c.fault("room %d, which does not exist, goes on at %s", room, g.missing)
		case c.here(r, g.missing):
			c.fault("room %s goes on at %s, which is here", r.id, g.missing)
		}
		return nil
	})
	if err != nil || !c.all {
		return err
	}
	for _, r := range c.rooms {
		for g := range r.gaps {
			if !listed[g] && !c.here(r, g.missing) {
				c.fault("room %s does not go on at %s, which event %d builds on", r.id, g.missing, g.by)
			}
		}
	}
	return nil
}

// here tells whether an event has its place in a room.
func (c *checker) here(r *checkedRoom, id matrix.EventID) bool {
	nid, ok := c.ids[id]
	return ok && c.seen[nid].flags&Outlier == 0 && c.seen[nid].room == r.nid
}

// checkAwaited checks that only redactions wait for what they redact.
func (c *checker) checkAwaited(ctx context.Context, q db.Querier) error {
	lost, err := db.All(ctx, q, awaitedBad, scanOne[state.EventNID])
	if err != nil {
		return err
	}
	for _, nid := range lost {
		c.fault("event %d waits for what it redacts, and is not there", nid)
	}
	nids, err := db.All(ctx, q, allAwaited, scanOne[state.EventNID])
	if err != nil {
		return err
	}
	events, err := db.All(ctx, q, eventsByNIDs, c.e.scanEvents(ctx), nids)
	for _, st := range events {
		if st.Type != matrix.TypeRedaction || st.Flags&(Rejected|SoftFailed|Outlier) != 0 {
			c.fault("event %s, a %s with the flags %d, waits for what it redacts", st.ID, st.Type, st.Flags)
		}
	}
	return err
}

// checkThreads counts the replies of threads, those of the past included.
func (c *checker) checkThreads(ctx context.Context, q db.Querier) error {
	if !c.all {
		return nil
	}
	err := db.Each(ctx, q, allThreads, func(s db.Scanner) error {
		var room RoomNID
		var root matrix.EventID
		var replies int64
		if err := s.Scan(&room, &root, &replies); err != nil {
			return err
		}
		if r := c.rooms[room]; r != nil {
			if n := r.replies[root]; n != replies {
				c.fault("in room %s the thread %s has %d replies, and counts %d", r.id, root, n, replies)
			}
			delete(r.replies, root)
		}
		return nil
	})
	for _, r := range c.rooms {
		for root, n := range r.replies {
			c.fault("in room %s the thread %s has %d replies, and is not kept", r.id, root, n)
		}
	}
	return err
}
