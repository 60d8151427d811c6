package db

import "sync"

// Tail is a queue of commits for a reader that goes at its own pace. It never
// holds up the writer: a reader that falls too far behind loses the queue and is
// told up to where, so that it can read what it missed from the database. What it
// gets, all subscribers have been told of before.
type Tail struct {
	pick  func(change any) bool
	limit int

	mu     sync.Mutex
	queue  []Batch
	missed int64
	wake   chan struct{} // buffered: there is something
}

// Tail begins to collect commits, at most limit of them, of whose changes only
// those that pick takes are kept. It lives as long as the database is open.
func (d *DB) Tail(limit int, pick func(change any) bool) *Tail {
	t := &Tail{pick: pick, limit: limit, wake: make(chan struct{}, 1)}
	d.writer.follow(t)
	return t
}

// publish takes a commit in; it runs on the writer's goroutine.
func (t *Tail) publish(b Batch) {
	var picked []any
	for _, change := range b.Changes {
		if t.pick(change) {
			picked = append(picked, change)
		}
	}
	b.Changes = picked
	t.mu.Lock()
	switch last := len(t.queue) - 1; {
	case last+1 >= t.limit:
		t.queue, t.missed = nil, b.Position
	case last >= 0 && len(picked) == 0:
		t.queue[last].Position = b.Position
	default:
		t.queue = append(t.queue, b)
	}
	t.mu.Unlock()
	select {
	case t.wake <- struct{}{}:
	default:
	}
}

// Wake is sent to when there may be something to take.
func (t *Tail) Wake() <-chan struct{} { return t.wake }

// Take returns the commits that came since the last call, in their order. If missed
// is not 0, commits up to that position were dropped before these.
func (t *Tail) Take() (batches []Batch, missed int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	batches, missed = t.queue, t.missed
	t.queue, t.missed = nil, 0
	return batches, missed
}
