package rooms

import (
	"context"
	"errors"

	"github.com/teahouse-chat/teahouse/internal/db"
	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms/state"
)

// updateTries bounds how often Update fetches something and calls again; every
// time it has fetched one thing more.
const updateTries = 256

var errUpdateTries = errors.New("rooms: an update asks for ever more to be fetched")

// Update runs fn with the room's turn and commits what it appended, all of it
// or nothing. It returns after the commit, with the events. fn may be called
// several times, must not wait for anything, and passes on the builder's errors.
func (e *Engine) Update(ctx context.Context, id matrix.RoomID, sender matrix.UserID, fn func(*Builder) error) ([]*Stored, error) {
	r, err := e.Room(ctx, id)
	if err != nil {
		return nil, err
	}
	return e.update(ctx, r, sender, newFetched(), nil, fn)
}

// Send appends one event. With a transaction id, a request that is sent again
// gets the event of the first time, also after a restart.
// spec: client-server#transaction-identifiers
func (e *Engine) Send(ctx context.Context, id matrix.RoomID, sender matrix.UserID, p Proto, txn *TxnKey) (*Stored, error) {
	r, err := e.Room(ctx, id)
	if err != nil {
		return nil, err
	}
	send := func() (*Stored, error) {
		got := newFetched()
		if p.Redacts != "" && len(r.Servers()) > 0 {
			// What it redacts may be about to come in.
			if err := r.intake.Acquire(ctx, 1); err != nil {
				return nil, err
			}
			defer r.intake.Release(1)
			got.settled = true
		}
		events, err := e.update(ctx, r, sender, got, txn, func(b *Builder) error {
			_, err := b.Append(p)
			return err
		})
		if err != nil {
			return nil, err
		}
		return events[0], nil
	}
	if txn == nil {
		return send()
	}
	return e.once(ctx, *txn, send)
}

func (e *Engine) update(ctx context.Context, r *Room, sender matrix.UserID, got *fetched, txn *TxnKey, fn func(*Builder) error) ([]*Stored, error) {
	for range updateTries {
		events, pending, err := e.attempt(ctx, r, sender, got, txn, fn)
		var n *need
		switch {
		case errors.As(err, &n):
			if err := e.fetch(ctx, r, got, n); err != nil {
				return nil, err
			}
		case errors.Is(err, errHeadFailed):
			if err := e.reloadHead(ctx, r); err != nil {
				return nil, err
			}
		case err != nil || pending == nil:
			return nil, err
		default:
			// What is enqueued is committed whether or not the caller is still
			// there, and whoever sends again must learn of it.
			return events, pending.Wait(context.WithoutCancel(ctx))
		}
	}
	return nil, errUpdateTries
}

// attempt runs fn on a copy of the head and enqueues what it appended.
func (e *Engine) attempt(ctx context.Context, r *Room, sender matrix.UserID, got *fetched, txn *TxnKey, fn func(*Builder) error) ([]*Stored, *db.Pending, error) {
	if err := r.turn.Acquire(ctx, 1); err != nil {
		return nil, nil, err
	}
	defer r.turn.Release(1)
	if r.head.failed.Load() {
		return nil, nil, errHeadFailed
	}
	b := &Builder{e: e, room: r, sender: sender, head: r.head.clone(), got: got}
	if err := fn(b); err != nil {
		b.head.pending.remove(b.events)
		return nil, nil, err
	}
	if len(b.events) == 0 && len(b.then) == 0 {
		return nil, nil, nil
	}
	if txn != nil {
		b.events[0].Txn = txn
	}
	r.head = b.head
	return b.events, b.commit(txn), nil
}

// fetch reads what a builder asked for; no lock is held.
func (e *Engine) fetch(ctx context.Context, r *Room, got *fetched, n *need) error {
	switch {
	case n.sign != nil:
		return e.sign(ctx, got, n)
	case n.event != 0:
		events, err := e.Events(ctx, []state.EventNID{n.event})
		if err != nil {
			return err
		}
		got.events[n.event] = events[0]
	case n.id != "":
		events, err := e.eventsByID(ctx, []matrix.EventID{n.id})
		if err != nil {
			return err
		}
		got.ids[n.id] = nil
		if len(events) > 0 {
			got.ids[n.id] = events[0]
		}
	case n.thread != "":
		threads, err := e.Threads(ctx, r, []matrix.EventID{n.thread})
		if err != nil {
			return err
		}
		got.threads[n.thread] = threads[n.thread].Unread
	case n.chain:
		return e.fetchChain(ctx, r, got)
	case n.key == nil:
		return e.fetchBranches(ctx, r, got, n)
	default:
		find := e.keys.find
		if n.allot {
			find = e.keys.allot
		}
		k, err := find(ctx, *n.key)
		if err != nil {
			return err
		}
		got.keys[*n.key] = k
	}
	return nil
}
