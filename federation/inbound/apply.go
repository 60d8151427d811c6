package inbound

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/teahouse-chat/teahouse/federation/keys"
	"github.com/teahouse-chat/teahouse/internal/db"
	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms"
	"github.com/teahouse-chat/teahouse/rooms/auth"
	"github.com/teahouse-chat/teahouse/rooms/event"
)

const (
	// keyPatience is how long a room waits for keys that are not known. What needs
	// longer is set aside, so that no stranger delays the others.
	keyPatience = time.Second
	// ownPause is how long a room is left alone when our own database fails.
	ownPause = 5 * time.Second
)

// item is a staged event in somebody's hands.
type item struct {
	row  *row
	seq  int64 // as it was read: another may have taken its place since
	id   matrix.EventID
	ev   *event.Event
	fate fate
	// missing are events that the engine wants first; of an item that waits.
	missing []matrix.EventID
}

// fate is what is to become of a staged event.
type fate int

const (
	waits fate = iota // for what is staged, or to be tried again
	stuck             // until something was fetched
	done              // the engine has it, or it is given up
)

// turn brings in the next events of a room.
func (in *Inbound) turn(ctx context.Context, q *queue, origin matrix.ServerName) {
	items := in.begin(q, origin)
	var err error
	if len(items) > 0 {
		err = guard(func() error { return in.bring(ctx, q, items) })
	}
	in.end(ctx, q, items, err)
}

// begin takes the next rows of a queue.
func (in *Inbound) begin(q *queue, origin matrix.ServerName) []*item {
	in.mu.Lock()
	defer in.mu.Unlock()
	delete(q.wanted, origin)
	if q.running || q.pause > in.Now().UnixMilli() {
		return nil
	}
	items := hold(q.next())
	q.running = len(items) > 0
	return items
}

// hold takes rows in hand. It is called with the lock held.
func hold(rows []*row) []*item {
	items := make([]*item, len(rows))
	for i, r := range rows {
		r.busy = true
		items[i] = &item{row: r, seq: r.seq}
	}
	return items
}

func (in *Inbound) bring(ctx context.Context, q *queue, items []*item) error {
	r, err := in.Rooms.RoomByNID(ctx, q.room)
	if matrix.HasCode(err, matrix.CodeNotFound) { // it was removed
		for _, it := range items {
			it.fate = done
		}
		return nil
	}
	if err != nil {
		return err
	}
	if err := in.read(ctx, r, items); err != nil {
		return err
	}
	if err := in.verify(ctx, items, keyPatience); err != nil {
		return err
	}
	if r.LocalMemberCount() == 0 {
		return in.outside(ctx, r, items)
	}
	return in.admit(ctx, r, items)
}

type pdu struct {
	seq  int64
	id   matrix.EventID
	json []byte
}

func scanPDU(s db.Scanner) (p pdu, err error) {
	err = s.Scan(&p.seq, &p.id, &p.json)
	return p, err
}

// read gives the items their events. What is not in the database any more is
// done with.
func (in *Inbound) read(ctx context.Context, r *rooms.Room, items []*item) error {
	seqs := make([]int64, len(items))
	for i, it := range items {
		seqs[i] = it.seq
	}
	rows, err := db.All(ctx, in.DB, pdusBySeq, scanPDU, seqs)
	if err != nil {
		return err
	}
	found := make(map[int64]pdu, len(rows))
	for _, p := range rows {
		found[p.seq] = p
	}
	for _, it := range items {
		p, ok := found[it.seq]
		if !ok {
			it.fate = done
			continue
		}
		it.id = p.id
		if it.ev, err = event.Load(r.Version, p.id, r.ID, p.json); err != nil {
			return err
		}
	}
	return nil
}

// verify checks the signatures of the items that nobody has checked yet.
func (in *Inbound) verify(ctx context.Context, items []*item, patience time.Duration) error {
	var list []*item
	var events []*event.Event
	for _, it := range items {
		if it.fate == waits && !it.row.checked {
			list, events = append(list, it), append(events, it.ev)
		}
	}
	if len(list) == 0 {
		return nil
	}
	limited, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	var own error
	for i, err := range in.Fetch.Verify(limited, events) {
		it := list[i]
		var bad *keys.Error
		switch {
		case err == nil:
			it.row.checked = true
		case errors.Is(err, keys.ErrNoKey), limited.Err() != nil && ctx.Err() == nil:
			it.fate = stuck
		case errors.As(err, &bad):
			in.drop(it, "it is not properly signed", err)
		default:
			own = err
		}
	}
	return own
}

// drop gives an event up.
func (in *Inbound) drop(it *item, why string, err error) {
	it.fate = done
	in.metrics.pdus.WithLabelValues("dropped").Inc()
	in.Log.Info("An event of another server was dropped: "+why, "event", it.id, "origin", it.row.origin, "error", err)
}

// admit gives the items to the engine, all together or, if that fails, one by
// one, so that one that the engine stumbles over fails alone.
func (in *Inbound) admit(ctx context.Context, r *rooms.Room, items []*item) error {
	var list []*item
	var incoming []rooms.Incoming
	for _, it := range items {
		if it.fate == waits {
			list, incoming = append(list, it), append(incoming, rooms.Incoming{Event: it.ev})
		}
	}
	if len(list) == 0 {
		return nil
	}
	outcomes, err := in.give(ctx, r, incoming)
	if err == nil {
		for i, out := range outcomes {
			in.settle(r, list[i], out)
		}
		return nil
	}
	if len(list) == 1 || ctx.Err() != nil {
		return err
	}
	for i, it := range list {
		outcomes, err := in.give(ctx, r, incoming[i:i+1])
		if err != nil {
			in.Log.Error("An event of another server could not be brought in", "event", it.id, "room", r.ID, "error", err)
			it.fate = stuck
			continue
		}
		in.settle(r, it, outcomes[0])
	}
	return nil
}

func (in *Inbound) give(ctx context.Context, r *rooms.Room, incoming []rooms.Incoming) (outcomes []rooms.Outcome, err error) {
	err = guard(func() error {
		outcomes, err = in.Rooms.Receive(ctx, r.ID, incoming)
		return err
	})
	return outcomes, err
}

// settle notes what became of an event.
func (in *Inbound) settle(r *rooms.Room, it *item, out rooms.Outcome) {
	if len(out.Missing) > 0 {
		it.missing = out.Missing
		return
	}
	it.fate = done
	outcome := "accepted"
	switch {
	case out.Event == nil:
		outcome = "dropped"
	case out.Known:
		outcome = "known"
	case out.Event.Flags&rooms.Rejected != 0:
		outcome = "rejected"
	case out.Event.Flags&rooms.SoftFailed != 0:
		outcome = "soft_failed"
	}
	in.metrics.pdus.WithLabelValues(outcome).Inc()
	in.metrics.lag.Observe(time.Duration((in.Now().UnixMilli() - it.row.received) * int64(time.Millisecond)).Seconds())
	if outcome == "accepted" || outcome == "known" {
		return
	}
	rule := ""
	var broken *auth.Rejection
	if errors.As(out.Why, &broken) {
		rule = broken.Rule
	}
	in.Log.Info("An event of another server was turned down", "as", outcome, "event", it.id, "type", it.ev.Type, "sender", it.ev.Sender,
		"room", r.ID, "origin", it.row.origin, "rule", rule, "why", out.Why)
}

// end puts the items of a turn back, or takes them out.
func (in *Inbound) end(ctx context.Context, q *queue, items []*item, err error) {
	now := in.Now().UnixMilli()
	if err != nil && ctx.Err() == nil {
		in.Log.Error("Events of other servers could not be brought in; it will be tried again", "error", err)
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	if err != nil {
		q.pause = now + ownPause.Milliseconds()
	}
	if len(items) > 0 {
		q.running = false
	}
	in.putBack(q, items, now)
	in.next(q, now)
}

// putBack ends the work on items. It is called with the lock held.
func (in *Inbound) putBack(q *queue, items []*item, now int64) {
	gone := map[*row]bool{}
	var seqs []int64
	var again []*item
	for _, it := range items {
		it.row.busy = false
		if it.fate == done {
			seqs = append(seqs, it.seq)
		}
		if it.row.seq != it.seq {
			continue // another copy has come, and waits
		}
		switch {
		case it.fate == done:
			gone[it.row] = true
		case it.fate == stuck || slices.ContainsFunc(it.missing, func(id matrix.EventID) bool { return !q.here(in.key(id)) }):
			q.setStuck(it.row, true)
			if it.row.filled { // fetching was of no use
				again = append(again, it)
			}
		}
	}
	in.remove(q, gone)
	in.forget(seqs)
	in.postpone(q, again, now)
}

// remove takes rows out of a queue. It is called with the lock held.
func (in *Inbound) remove(q *queue, gone map[*row]bool) {
	q.remove(gone)
	in.rows -= len(gone)
	in.metrics.staged.Set(float64(in.rows))
}

// forget deletes rows of the database. If that is lost, they are given to the
// engine again after the next start, which knows them.
func (in *Inbound) forget(seqs []int64) {
	if len(seqs) > 0 {
		in.DB.Submit(func(tx *db.Tx) error { return tx.Exec(deleteStaged, seqs) })
	}
}

// next lets the work on a room go on, or ends it. It is called with the lock
// held.
func (in *Inbound) next(q *queue, now int64) {
	in.schedule(q)
	in.startFill(q, now)
	if q.running || q.filling > 0 || len(q.wanted) > 0 {
		return
	}
	if q.stuck == 0 && len(q.rows) > 0 && q.pause <= now {
		in.dropCycle(q)
	}
	if len(q.rows) == 0 {
		delete(in.queues, q.room)
	}
}

// schedule lets a turn of a room be run. It is called with the lock held.
func (in *Inbound) schedule(q *queue) {
	if q.running || q.pause > in.Now().UnixMilli() {
		return
	}
	for _, r := range q.order {
		if q.wanted[r.origin] || !q.ready(r, nil) {
			continue
		}
		q.wanted[r.origin] = true
		in.turns.add(r.origin, func(ctx context.Context) { in.turn(ctx, q, r.origin) })
	}
}

// dropCycle gives up events that wait for each other. It is called with the lock
// held, when a room has nothing else.
func (in *Inbound) dropCycle(q *queue) {
	gone := map[*row]bool{}
	var seqs []int64
	for _, r := range q.rows {
		gone[r] = true
		seqs = append(seqs, r.seq)
		in.metrics.pdus.WithLabelValues("dropped").Inc()
	}
	in.Log.Info("Events of other servers that refer to each other in a circle were dropped", "events", len(gone))
	in.remove(q, gone)
	in.forget(seqs)
}
