package outbound

import (
	"time"

	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms"
)

// maxQueue is how many events a destination's queue holds in memory.
const maxQueue = 512

// slow is how long a transaction may take before its destination gets a cursor
// of its own, so that it holds the head back for everybody no longer.
const slow = 5 * time.Second

const noCursor = -1

// destination is a server that is sent to. Queues.mu guards it.
type destination struct {
	server matrix.ServerName

	queue   []rooms.Departure // in order; what is in flight comes first
	sent    int64             // it has every event up to here; only if there is a queue or more
	newest  int64             // the last event that was put into the queue, or sent
	more    bool              // the database has events behind the queue
	skipped bool              // since they were looked for, an event was left out of the queue
	skipTo  int64             // the queue is the newest events of rooms; once it is empty, everything up to here counts as sent
	refills int               // of the queue from the database, since there is more

	edus      bool // the database may have EDUs above eduSent
	freshEDUs bool // since they were looked for, one was stored
	eduSent   int64
	eduGone   int64 // up to here they are deleted
	offers    []offer
	delay     time.Duration // how long they are gathered
	denied    bool          // there is no federation with it: the database is to forget it

	busy    bool        // a transaction is under way, or waits for its turn
	flying  int64       // since when, in ms; 0 if it is not under way
	resting bool        // nothing is tried before the timer
	timer   *time.Timer // of a rest, or of the time that offers are collected
	limits  limits      // of the next transaction
	refused int         // how much was set aside since it last took something

	failures    int   // since it last took something
	woken       int   // how often a sign of life has cut its rest short since
	retryAt     int64 // ms since 1970
	notBefore   int64 // the same: until then it wants to be left alone
	lastSuccess int64
	lastFailure int64
	problem     string
	saved       row // as it is in the database
	tidied      int // failures when its stored EDUs were last gone through
}

// append adds an event that was just committed. Beyond what the queue holds, and
// while the destination fails, the database remembers.
func (d *destination) append(it rooms.Departure) {
	if it.Position <= d.newest {
		return // it was read from the database already
	}
	if !d.hasEvents() {
		d.sent = it.Position - 1
	}
	if d.more || d.failures > 0 || len(d.queue) >= maxQueue {
		if !d.more {
			d.more, d.refills = true, 0
			d.newest = max(d.sent, d.newest)
		}
		d.skipped = true
		return
	}
	d.queue = append(d.queue, it)
	d.newest = it.Position
}

// advance takes the first n events of the queue as sent.
func (d *destination) advance(n int) {
	if n == 0 {
		return
	}
	if d.skipTo == 0 {
		d.sent = d.queue[n-1].Position
	}
	d.queue = append(d.queue[:0], d.queue[n:]...)
	if len(d.queue) > 0 {
		return
	}
	d.queue = nil
	if d.skipTo != 0 {
		d.sent, d.newest, d.skipTo = d.skipTo, d.skipTo, 0
	}
}

// rewind leaves what is to be sent to the database.
func (d *destination) rewind() {
	if len(d.queue) > 0 || d.more {
		d.queue, d.more, d.refills, d.skipTo, d.newest = nil, true, 0, 0, d.sent
	}
}

// hasEvents tells whether there are events to send.
func (d *destination) hasEvents() bool { return len(d.queue) > 0 || d.more }

// lasting tells whether there is something to send that is not lost when it is
// not sent soon.
func (d *destination) lasting() bool { return d.hasEvents() || d.edus }

// lags tells whether the destination needs a cursor of its own.
func (d *destination) lags(now int64) bool {
	return d.more || len(d.queue) > 0 && d.flying != 0 && now-d.flying > slow.Milliseconds()
}

// idle tells whether the record is of no use but to say when the destination
// last took something.
func (d *destination) idle() bool {
	return !d.busy && !d.lasting() && len(d.offers) == 0 && d.failures == 0 && d.timer == nil && !d.denied &&
		d.saved.cursor < 0 && d.saved.failures == 0 && d.eduSent == d.eduGone
}

// row is what the database is to know of the destination.
func (d *destination) row(now int64) row {
	r := row{noCursor, d.failures, d.retryAt, d.lastSuccess, d.lastFailure, d.problem}
	if d.lags(now) {
		r.cursor = d.sent
	}
	return r
}

// limits say how many events and stored EDUs a transaction has at most.
type limits struct{ pdus, edus int }

// full is what a transaction may carry.
// spec: server-server#transactions
var full = limits{50, 100}

// half goes towards the part of what was refused that is to blame.
func (l limits) half() limits {
	switch {
	case l.pdus > 0 && l.edus > 0:
		return limits{l.pdus, 0}
	case l.pdus > 1:
		return limits{(l.pdus + 1) / 2, 0}
	case l.edus > 1:
		return limits{0, (l.edus + 1) / 2}
	}
	return l
}

// double goes back to full transactions.
func (l limits) double() limits {
	return limits{min(2*max(l.pdus, 1), full.pdus), min(2*max(l.edus, 1), full.edus)}
}
