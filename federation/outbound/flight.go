package outbound

import (
	"context"
	"errors"
	"sync"
	"time"
)

// lane bounds how many transactions are under way.
type lane struct {
	limit   int
	running int
	waiting []*destination
}

// launch sends to a destination, unless there is nothing to send, or that is
// under way or has to wait; mu is held.
func (q *Queues) launch(d *destination) {
	if !q.started || q.closed || d.busy || d.resting || !d.lasting() && len(d.offers) == 0 {
		return
	}
	d.busy = true
	if d.timer != nil { // what is offered goes along
		d.timer.Stop()
		d.timer = nil
	}
	l := &q.living
	if d.failures > 0 {
		l = &q.failing
	}
	if l.running >= l.limit {
		l.waiting = append(l.waiting, d)
		return
	}
	l.running++
	q.start(d, l)
}

func (q *Queues) start(d *destination, l *lane) {
	d.flying = q.Now().UnixMilli()
	q.flights.Add(1)
	go q.fly(d, l)
}

// leave gives a place in a lane to the next who waits for one.
func (q *Queues) leave(l *lane) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(l.waiting) == 0 || q.closed {
		l.running--
		return
	}
	next := l.waiting[0]
	l.waiting[0] = nil
	l.waiting = l.waiting[1:]
	q.start(next, l)
}

// fly sends one transaction.
func (q *Queues) fly(d *destination, l *lane) {
	defer q.flights.Done()
	leave := sync.OnceFunc(func() { q.leave(l) })
	defer leave()
	impatience := time.AfterFunc(patience, leave)
	defer impatience.Stop()
	t, err := q.load(d)
	switch {
	case err != nil:
		q.stumble(d, err)
		return
	case t.empty():
		q.settle(d, t, nil)
		return
	}
	err = q.exchange(d.server, t)
	if q.ctx.Err() != nil {
		return // it goes on after a restart
	}
	if err != nil && t.single() && q.blames(d, err) {
		// Either it is this one, or the server takes nothing at all.
		if q.exchange(d.server, &transaction{}) == nil {
			q.setAside(d, t, err)
			return
		}
	}
	q.settle(d, t, err)
}

// stumble waits a little after a failure of our own.
func (q *Queues) stumble(d *destination, err error) {
	if q.ctx.Err() == nil && !errors.Is(err, context.Canceled) {
		q.Log.Error("what is to be sent to another server could not be read; it is tried again", "server", d.server, "error", err)
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	d.rewind()
	q.land(d)
	q.rest(d, ownFailure)
}

// land notes that nothing is under way to the destination; mu is held.
func (q *Queues) land(d *destination) { d.busy, d.flying = false, 0 }

// rest tries a destination again after a while; mu is held.
func (q *Queues) rest(d *destination, pause time.Duration) {
	if d.timer != nil {
		d.timer.Stop()
		d.timer = nil
	}
	if q.closed {
		return
	}
	d.resting = true
	var t *time.Timer
	t = time.AfterFunc(max(pause, 0), func() {
		q.mu.Lock()
		defer q.mu.Unlock()
		if d.timer != t {
			return // it was changed meanwhile
		}
		d.resting, d.timer = false, nil
		q.launch(d)
	})
	d.timer = t
}

// settle notes what became of a transaction.
func (q *Queues) settle(d *destination, t *transaction, err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.land(d)
	now := q.Now().UnixMilli()
	switch {
	case err == nil:
		q.succeeded(d, t, now)
	case notAllowed(err):
		q.deny(d)
		return
	case poisonous(err) && !t.single() && t.size() > 0:
		q.bisect(d, t)
	default:
		q.failed(d, t, err, now)
		return
	}
	if d.lasting() {
		q.launch(d)
	} else if len(d.offers) > 0 {
		q.collect(d, d.delay)
	}
}

// succeeded goes on behind a transaction that was taken; mu is held.
func (q *Queues) succeeded(d *destination, t *transaction, now int64) {
	q.pass(d, t)
	if t.empty() {
		return
	}
	if d.failures > 0 {
		q.Log.Info("another server takes events again", "server", d.server, "failures", d.failures)
		q.dirty()
	}
	d.failures, d.woken, d.retryAt, d.refused, d.tidied = 0, 0, 0, 0, 0
	d.lastSuccess = now
	d.limits = d.limits.double()
}

// pass moves on behind what a transaction carried; mu is held.
func (q *Queues) pass(d *destination, t *transaction) {
	d.advance(t.taken)
	if len(t.edus) > 0 {
		d.eduSent = t.edus[len(t.edus)-1].id
	}
	if t.allEDUs && !d.freshEDUs {
		d.edus = false
	}
	if t.size() > 0 || d.saved.cursor >= 0 && !d.more {
		q.dirty()
	}
}

// failed lets a destination rest, longer every time; mu is held.
func (q *Queues) failed(d *destination, t *transaction, err error, now int64) {
	d.failures++
	d.lastFailure, d.problem = now, explain(err)
	wanted := retryAfter(err)
	pause := max(q.backoff(d.failures), wanted)
	d.retryAt, d.notBefore = now+pause.Milliseconds(), now+wanted.Milliseconds()
	log := q.Log.Debug
	if d.failures == 1 {
		log = q.Log.Info
	}
	log("another server takes no events", "server", d.server, "failures", d.failures, "again in", pause, "error", err)
	if t.size() > 0 {
		d.limits = limits{len(t.events), len(t.edus)}
		if d.failures > 1 {
			d.limits = d.limits.half()
		}
	}
	d.rewind()
	if answered(err) { // it may be them that it did not like
		t.offers = nil
	}
	d.keepOffers(t.offers)
	q.rest(d, pause)
	q.dirty()
}

// deny drops what is for a server that we do not federate with; mu is held.
func (q *Queues) deny(d *destination) {
	d.queue, d.more, d.skipTo, d.edus, d.offers = nil, false, 0, false, nil
	d.failures, d.denied = 0, true
	q.dirty()
}
