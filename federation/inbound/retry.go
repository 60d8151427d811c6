package inbound

import (
	"time"

	"github.com/teahouse-chat/teahouse/internal/db"
	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms"
)

const (
	firstBackoff = 15 * time.Second
	maxBackoff   = time.Hour
	// Some sixteen hours: longer than most outages. What comes after an event that
	// was given up brings it back, if it can be had then.
	maxTries = 24
	// maxBreak bounds how long failures delay what else an origin has in the room.
	maxBreak = 4 * time.Minute
	maxAge   = 3 * 24 * time.Hour
	// aliveTime is how soon a server is asked again at the earliest when it has
	// shown that it is there.
	aliveTime = 5 * time.Second
)

// backoff is how long to wait after so many failures.
func backoff(failures int) time.Duration {
	return min(firstBackoff<<min(max(failures-1, 0), 16), maxBackoff)
}

// wake lets the work go on that has waited long enough.
func (in *Inbound) wake() {
	now := in.Now().UnixMilli()
	in.mu.Lock()
	defer in.mu.Unlock()
	for _, q := range in.queues {
		if q.stuck > 0 || q.pause > 0 {
			if q.pause <= now {
				q.pause = 0
			}
			in.next(q, now)
		}
	}
}

// failed notes that something could not be had for events of an origin, and which
// servers could not be reached. It is called with the lock held.
func (in *Inbound) failed(q *queue, origin matrix.ServerName, items []*item, servers []matrix.ServerName, now int64) {
	if len(items) == 0 {
		delete(q.breaks, origin)
		return
	}
	b := q.breaks[origin]
	if b == nil {
		b = &rest{}
		q.breaks[origin] = b
	}
	b.failures++
	b.tried, b.until = now, now+min(backoff(b.failures), maxBreak).Milliseconds()
	in.awaits(q.room, servers)
	in.postpone(q, items, now)
}

// postpone lets stuck events wait longer than before, or gives them up. It is
// called with the lock held.
func (in *Inbound) postpone(q *queue, items []*item, now int64) {
	gone := map[*row]bool{}
	for _, it := range items {
		r := it.row
		r.tries++
		r.tried, r.retryAt = now, now+backoff(r.tries).Milliseconds()
		if r.tries >= maxTries || now-r.received > maxAge.Milliseconds() {
			gone[r] = true
			in.Log.Warn("An event of another server is given up: what it refers to cannot be had", "event", it.id, "origin", r.origin, "tries", r.tries)
			continue
		}
		seq, tries, retryAt := r.seq, r.tries, r.retryAt
		in.DB.Submit(func(tx *db.Tx) error { return tx.Exec(delayStaged, tries, retryAt, seq) })
	}
	in.giveUp(q, gone)
}

// abandon drops events for which waiting would be in vain: what is before them
// can never be accepted, and nobody tells the state. What comes after them stays,
// and is looked for by itself. It is called with the lock held.
func (in *Inbound) abandon(q *queue, items []*item) {
	gone := map[*row]bool{}
	for _, it := range items {
		gone[it.row] = true
		in.Log.Warn("An event of another server is given up: what it builds on is malformed", "event", it.id, "origin", it.row.origin)
	}
	in.discard(q, gone)
}

// giveUp drops rows, and what cannot be brought in without them. It is called
// with the lock held.
func (in *Inbound) giveUp(q *queue, gone map[*row]bool) {
	if len(gone) == 0 {
		return
	}
	q.dependents(gone)
	in.discard(q, gone)
}

// discard takes rows out for good. It is called with the lock held.
func (in *Inbound) discard(q *queue, gone map[*row]bool) {
	seqs := make([]int64, 0, len(gone))
	for r := range gone {
		seqs = append(seqs, r.seq)
	}
	in.metrics.pdus.WithLabelValues("dropped").Add(float64(len(gone)))
	in.remove(q, gone)
	in.forget(seqs)
}

// awaits notes that servers which could not be reached may have what a room
// needs. It is called with the lock held.
func (in *Inbound) awaits(room rooms.RoomNID, servers []matrix.ServerName) {
	for _, s := range servers {
		if in.failing[s] == nil {
			if len(in.failing) >= failingKept {
				return
			}
			in.failing[s] = map[rooms.RoomNID]bool{}
		}
		if len(in.failing[s]) < failingKept {
			in.failing[s][room] = true
		}
	}
}
