package outbound

import (
	"context"
	"errors"
	"time"

	"github.com/teahouse-chat/teahouse/internal/db"
	"github.com/teahouse-chat/teahouse/internal/matrix"
)

const (
	saveDelay = time.Second // from a change until the cursors are stored
	keptIdle  = time.Hour   // how long the record of a destination outlives its use
	sweepTime = 10 * time.Minute
	tidyAfter = 3 // failures, from when on stored EDUs are thinned out
)

// Start takes up what the last run left, and begins to send.
func (q *Queues) Start(ctx context.Context) error {
	// Whatever is committed from here on comes by the stream.
	position := q.DB.Position()
	head, _, err := db.One(ctx, q.DB, selectHead, scanInt)
	if err != nil {
		return err
	}
	rows, err := readRows(ctx, q.DB)
	if err != nil {
		return err
	}
	behind, err := q.Rooms.DestinationsAfter(ctx, head)
	if err != nil {
		return err
	}
	waiting, err := db.All(ctx, q.DB, selectWaiting, scanServer)
	if err != nil {
		return err
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed || q.started {
		return errors.New("outbound: the queues can be started once")
	}
	q.started, q.position, q.stored = true, max(q.position, position), head
	q.swept = q.Now().UnixMilli()
	q.restore(rows, behind, head)
	for _, server := range waiting {
		d := q.get(server)
		d.edus, d.freshEDUs = true, true
	}
	for _, d := range q.all {
		if d.failures > 0 {
			q.rest(d, time.UnixMilli(d.retryAt).Sub(q.Now()))
		} else {
			q.launch(d)
		}
	}
	return nil
}

// restore makes the records of those who lag behind or fail; mu is held. What came
// by the stream meanwhile is in the database, too.
func (q *Queues) restore(rows map[matrix.ServerName]row, behind []matrix.ServerName, head int64) {
	from := func(d *destination, cursor int64) {
		d.queue, d.sent, d.newest = nil, cursor, cursor
		d.more, d.skipped = true, true
	}
	for _, server := range behind {
		if r, ok := rows[server]; !ok || r.cursor < 0 {
			from(q.get(server), head)
		}
	}
	for server, r := range rows {
		if r.cursor < 0 && r.failures == 0 && q.all[server] == nil {
			continue
		}
		d := q.get(server)
		d.saved = r
		d.failures, d.retryAt, d.lastSuccess, d.lastFailure, d.problem = r.failures, r.retryAt, r.lastSuccess, r.lastFailure, r.problem
		if r.cursor >= 0 {
			from(d, r.cursor)
		} else if d.failures > 0 {
			d.rewind()
		}
	}
}

// dirty has the cursors stored before long; mu is held.
func (q *Queues) dirty() {
	if q.saver == nil && q.started && !q.closed {
		q.saver = time.AfterFunc(saveDelay, q.saveSoon)
	}
}

func (q *Queues) saveSoon() {
	q.mu.Lock()
	if q.closed {
		q.mu.Unlock()
		return
	}
	q.flights.Add(1) // Close waits for it
	q.mu.Unlock()
	defer q.flights.Done()
	err := q.save(q.ctx)
	q.mu.Lock()
	defer q.mu.Unlock()
	q.saver = nil
	if err != nil && q.ctx.Err() == nil {
		q.Log.Error("how far other servers got could not be stored; it is tried again", "error", err)
	}
	if err != nil || q.unsettled() {
		q.dirty()
	}
}

// unsettled tells whether the head will move on by itself, or who is slow will
// need a cursor; mu is held.
func (q *Queues) unsettled() bool { return q.head(q.Now().UnixMilli()) < q.position }

// head is the position up to which all that have no cursor have got everything;
// mu is held.
func (q *Queues) head(now int64) int64 {
	head := q.position
	for _, d := range q.all {
		if len(d.queue) > 0 && !d.lags(now) {
			head = min(head, d.queue[0].Position-1)
		}
	}
	return head
}

// standing is a consistent picture of how far everybody got.
type standing struct {
	head  int64
	rows  map[matrix.ServerName]row
	edus  map[matrix.ServerName]int64 // up to where stored EDUs were sent
	tidy  map[matrix.ServerName]int   // whose stored EDUs are to be thinned out, and their failures
	drop  []matrix.ServerName         // those that we do not federate with
	since map[matrix.ServerName]int64 // when those whose records go last took something
}

// look takes the picture of what is not in the database; mu is held.
func (q *Queues) look() standing {
	now := q.Now().UnixMilli()
	s := standing{
		head: q.head(now), rows: map[matrix.ServerName]row{}, edus: map[matrix.ServerName]int64{},
		tidy: map[matrix.ServerName]int{}, since: map[matrix.ServerName]int64{},
	}
	sweep := now-q.swept > sweepTime.Milliseconds()
	if sweep {
		q.swept = now
	}
	for server, d := range q.all {
		r := d.row(now)
		differs := r
		differs.lastSuccess = d.saved.lastSuccess
		switch {
		case d.denied:
			s.drop = append(s.drop, server)
			continue
		case differs != d.saved:
			s.rows[server] = r
		case sweep && d.idle() && now-d.lastSuccess > keptIdle.Milliseconds():
			s.since[server] = d.lastSuccess
		}
		if d.eduSent > d.eduGone {
			s.edus[server] = d.eduSent
		}
		if d.edus && d.failures >= tidyAfter && d.failures > d.tidied {
			s.tidy[server] = d.failures
		}
	}
	return s
}

// empty tells whether there is nothing but the head.
func (s *standing) empty() bool {
	return len(s.rows)+len(s.edus)+len(s.tidy)+len(s.drop)+len(s.since) == 0
}

// write stores the picture.
func (s *standing) write(tx *db.Tx) error {
	if err := tx.Exec(updateHead, s.head); err != nil {
		return err
	}
	for server, r := range s.rows {
		if err := r.write(tx, server); err != nil {
			return err
		}
	}
	for server, upTo := range s.edus {
		if err := tx.Exec(deleteSent, server, upTo); err != nil {
			return err
		}
	}
	for server := range s.tidy {
		if err := tx.Exec(mergeDevices, server); err != nil {
			return err
		}
		if err := tx.Exec(deleteOldest, server, maxStored); err != nil {
			return err
		}
	}
	for _, server := range s.drop {
		if err := tx.Exec(deleteEDUs, server); err != nil {
			return err
		}
		if err := tx.Exec(deleteDestination, server); err != nil {
			return err
		}
	}
	for server, at := range s.since {
		if err := tx.Exec(noteSuccess, server, at); err != nil {
			return err
		}
	}
	return nil
}

// save stores how far everybody got. Nothing of an older picture is written over
// a newer one.
func (q *Queues) save(ctx context.Context) error {
	q.saving.Lock()
	defer q.saving.Unlock()
	q.mu.Lock()
	s := q.look()
	known := s.head == q.stored
	q.mu.Unlock()
	if known && s.empty() {
		return nil
	}
	if err := q.DB.Write(ctx, s.write); err != nil {
		return err
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.stored = s.head
	for server, r := range s.rows {
		q.all[server].saved = r
	}
	for server, upTo := range s.edus {
		q.all[server].eduGone = upTo
	}
	for server, failures := range s.tidy {
		q.all[server].tidied = failures
	}
	for _, server := range s.drop {
		d := q.all[server]
		if d.denied, d.saved = false, (row{cursor: noCursor}); !d.busy && !d.lasting() {
			delete(q.all, server)
		}
	}
	for server := range s.since {
		if q.all[server].idle() {
			delete(q.all, server)
		}
	}
	return nil
}
