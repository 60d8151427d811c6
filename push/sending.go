package push

import (
	"cmp"
	"slices"
	"time"

	"github.com/teahouse-chat/teahouse/internal/db"
	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms"
	"github.com/teahouse-chat/teahouse/rooms/state"
)

// note is an event that a user is notified of.
type note struct {
	room     rooms.RoomNID
	event    state.EventNID
	position int64
	thread   matrix.EventID
	result   Result
	at       time.Time
}

// sending is what a pusher has to deliver. delivery.mu guards it.
type sending struct {
	pending   []note // by position
	resume    int64  // what came above this position before the server started is to be looked for; 0: nothing
	stored    int64  // the mark in the database
	counts    bool   // the badge may have changed
	badge     int64  // that was sent last
	refused   int    // how often the first event was
	notBefore time.Time
	queued    bool // waits for its gateway
	busy      bool // is being worked on
	stopped   bool // the pusher is gone
}

// mark is the position above which the pusher has something to deliver, 0 if it
// has nothing.
func (s *sending) mark() int64 {
	switch {
	case s.resume > 0:
		return s.resume
	case len(s.pending) > 0:
		return s.pending[0].position - 1
	}
	return 0
}

func (s *sending) idle() bool { return s.resume == 0 && len(s.pending) == 0 && !s.counts }

// add takes an event in, in its order. Of too many the oldest are given up.
func (s *sending) add(n note) {
	at, there := slices.BinarySearchFunc(s.pending, n.position, func(n note, position int64) int {
		return cmp.Compare(n.position, position)
	})
	if there {
		return
	}
	s.pending = slices.Insert(slices.Clone(s.pending), at, n)
	if len(s.pending) > maxPending {
		s.pending, s.refused = s.pending[len(s.pending)-maxPending:], 0
	}
}

// done takes away what was delivered or given up.
func (s *sending) done(position int64) {
	s.refused = 0
	s.pending = slices.DeleteFunc(slices.Clone(s.pending), func(n note) bool { return n.position == position })
}

// storedGateway is a failing gateway as the database knows it.
type storedGateway struct {
	failures int
	retry    int64 // ms since 1970
}

// checkpoint is the write that stores how far the follower has come and what
// pushers still have to deliver of it, and perhaps of what comes right after.
func (p *Push) checkpoint() func(tx *db.Tx) error {
	d := p.delivery
	d.mu.Lock()
	defer d.mu.Unlock()
	position := p.follower.judged.Load()
	marks := map[int64]int64{}
	for u := range d.dirty {
		if m := u.mark(); m != u.stored && !u.stopped {
			marks[u.nid], u.stored = m, m
		}
	}
	clear(d.dirty)
	gateways := map[string]storedGateway{}
	for host := range d.failing {
		g := storedGateway{}
		if now := d.gateways[host]; now != nil && now.failures > 0 {
			g = storedGateway{now.failures, now.retryAt.UnixMilli()}
		}
		gateways[host] = g
	}
	clear(d.failing)
	return func(tx *db.Tx) error {
		if err := tx.Exec(upsertCursor, position); err != nil {
			return err
		}
		for nid, m := range marks {
			if err := tx.Exec(pusherPending, m, nid); err != nil {
				return err
			}
		}
		for host, g := range gateways {
			var err error
			if g.failures == 0 {
				err = tx.Exec(deleteGateway, host)
			} else {
				err = tx.Exec(upsertGateway, host, g.failures, g.retry)
			}
			if err != nil {
				return err
			}
		}
		return nil
	}
}
