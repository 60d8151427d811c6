package syncapi

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/teahouse-chat/teahouse/internal/db"
	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms"
)

const (
	foreignTogether = 200 * time.Millisecond // receipts within it are stored in one write
	foreignPending  = 5000                   // receipts that wait for that
	heldReceipts    = 2000                   // that wait for their events
	heldPerServer   = 200
	heldFor         = time.Minute
)

// foreign are receipts of users of other servers, until they are stored. Of a user
// who reads on only the last one is; and their receipts count nothing as read, since
// nobody here asks what they have not read.
type foreign struct {
	db  *db.DB
	now func() time.Time
	log *slog.Logger

	mu      sync.Mutex
	pending map[writtenKey]foreignReceipt
	timer   *time.Timer // set while pending is to be stored
	held    map[matrix.EventID][]heldReceipt
	count   int                       // of held
	byHost  map[matrix.ServerName]int // of held
	closed  bool
}

type foreignReceipt struct {
	Receipt
	room *rooms.Room
}

// heldReceipt waits for its event.
type heldReceipt struct {
	foreignReceipt
	origin matrix.ServerName
	since  time.Time
}

func newForeign(d Deps) *foreign {
	return &foreign{
		db: d.DB, now: d.Now, log: d.Log, pending: map[writtenKey]foreignReceipt{},
		held: map[matrix.EventID][]heldReceipt{}, byHost: map[matrix.ServerName]int{},
	}
}

// add has receipts stored before long, at once if there are many.
func (f *foreign) add(ctx context.Context, r *rooms.Room, list ...Receipt) error {
	f.mu.Lock()
	for _, c := range list {
		f.put(foreignReceipt{c, r})
	}
	full := len(f.pending) >= foreignPending
	f.mu.Unlock()
	if full {
		return f.flush(ctx)
	}
	return nil
}

// put makes a receipt pending unless a later one is; f.mu is held.
func (f *foreign) put(c foreignReceipt) {
	k := writtenKey{c.User, c.Room, c.Thread}
	if old, ok := f.pending[k]; ok && old.EventPosition >= c.EventPosition || f.closed {
		return
	}
	f.pending[k] = c
	if f.timer == nil {
		f.timer = time.AfterFunc(foreignTogether, func() {
			if err := f.flush(context.Background()); err != nil {
				f.log.Error("receipts of other servers' users could not be stored", "error", err)
			}
		})
	}
}

// flush stores what is pending.
func (f *foreign) flush(ctx context.Context) error {
	f.mu.Lock()
	pending := f.pending
	f.pending = map[writtenKey]foreignReceipt{}
	if f.timer != nil {
		f.timer.Stop()
		f.timer = nil
	}
	f.mu.Unlock()
	if len(pending) == 0 {
		return nil
	}
	return f.db.Write(ctx, func(tx *db.Tx) error {
		position := tx.Position()
		for _, c := range pending {
			c.Position = position
			n, err := tx.Changed(advanceReceipt, c.Room, c.User, c.Type, c.Thread, c.Event, c.EventPosition, 0, c.Timestamp, position)
			if err != nil {
				return err
			}
			if n > 0 {
				tx.Publish(ReceiptChanged{Receipt: c.Receipt, RoomID: c.room.ID})
				position = tx.Position()
			}
		}
		return nil
	})
}

// wait keeps a receipt for an event that is not here yet.
func (f *foreign) wait(r *rooms.Room, origin matrix.ServerName, c Receipt) {
	f.mu.Lock()
	defer f.mu.Unlock()
	now := f.now()
	if f.count >= heldReceipts || f.byHost[origin] >= heldPerServer {
		f.expire(now)
	}
	if f.count >= heldReceipts || f.byHost[origin] >= heldPerServer {
		return
	}
	f.held[c.Event] = append(f.held[c.Event], heldReceipt{foreignReceipt{c, r}, origin, now})
	f.count++
	f.byHost[origin]++
}

// expire drops what has waited in vain; f.mu is held.
func (f *foreign) expire(now time.Time) {
	for id, list := range f.held {
		if now.Sub(list[len(list)-1].since) >= heldFor {
			f.release(id)
		}
	}
}

// release takes out what waits for an event; f.mu is held.
func (f *foreign) release(id matrix.EventID) []heldReceipt {
	list := f.held[id]
	delete(f.held, id)
	f.count -= len(list)
	for _, h := range list {
		if f.byHost[h.origin]--; f.byHost[h.origin] == 0 {
			delete(f.byHost, h.origin)
		}
	}
	return list
}

// publish takes up the receipts for events that have come. It runs on the
// database's writer.
func (f *foreign) publish(b db.Batch) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.count == 0 {
		return
	}
	for _, change := range b.Changes {
		c, ok := change.(*rooms.Committed)
		if !ok {
			continue
		}
		for _, ev := range c.Events {
			for _, h := range f.release(ev.ID) {
				if h.Room == ev.Room && ev.Position != 0 && ev.Served() && inThread(ev, h.Thread) {
					h.EventPosition = ev.Position
					f.put(h.foreignReceipt)
				}
			}
		}
	}
}

// inThread tells, by the event alone, whether a receipt for it can be of a thread.
func inThread(ev *rooms.Stored, thread string) bool {
	switch thread {
	case "", string(ev.ID), string(ev.Thread):
		return true
	}
	return thread == threadMain && ev.Thread == ""
}

// close stores what is left.
func (f *foreign) close() {
	if err := f.flush(context.Background()); err != nil {
		f.log.Error("receipts of other servers' users could not be stored", "error", err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.closed = true
	if f.timer != nil {
		f.timer.Stop()
	}
}
