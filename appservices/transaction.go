package appservices

import (
	"context"
	"encoding/json"

	"github.com/teahouse-chat/teahouse/internal/db"
	"github.com/teahouse-chat/teahouse/rooms"
	"github.com/teahouse-chat/teahouse/rooms/state"
)

const (
	// maxEvents and maxBody bound a transaction; one event may be larger than
	// that alone.
	maxEvents = 100
	maxBody   = 512 << 10
)

// content is the body of a transaction.
type content struct {
	Events []json.RawMessage `json:"events"`
}

// load returns the transaction that has to be sent next; nil if there is nothing.
func (c *courier) load(ctx context.Context) (*transaction, error) {
	t, found, err := db.One(ctx, c.s.DB, firstTxn, scanTransaction, c.nid)
	if err != nil || found {
		return &t, err
	}
	return c.advance(ctx, nil, outcome{})
}

// advance forgets a transaction that was taken, unless it is nil, and makes the one
// that comes next: the parts of an older one, or what waits. Its text is stored
// before it is sent and never changes.
func (c *courier) advance(ctx context.Context, taken *transaction, o outcome) (*transaction, error) {
	if taken != nil && taken.part {
		// Its other parts are in the database.
		return nil, c.s.DB.Write(ctx, func(tx *db.Tx) error { return c.forget(tx, taken, o) })
	}
	next, upTo, err := c.make(ctx)
	if err != nil || next == nil && taken == nil {
		return nil, err
	}
	err = c.s.DB.Write(ctx, func(tx *db.Tx) error {
		if taken != nil {
			if err := c.forget(tx, taken, o); err != nil {
				return err
			}
		}
		if next == nil {
			return nil
		}
		if err := tx.Exec(insertTxn, next.id, c.nid, next.place, next.part, next.events, next.body); err != nil {
			return err
		}
		return tx.Exec(takeEvents, c.nid, upTo)
	})
	if err != nil {
		return nil, err
	}
	return next, nil
}

func (c *courier) forget(tx *db.Tx, taken *transaction, o outcome) error {
	if err := tx.Exec(deleteTxn, taken.id); err != nil {
		return err
	}
	return tx.Exec(updateOutcome, o.failures, o.retryAt, o.lastSuccess, o.problem, c.nid)
}

// make renders what waits into a transaction, and tells up to which position that
// reaches; nil if nothing waits.
func (c *courier) make(ctx context.Context) (*transaction, int64, error) {
	rows, err := db.All(ctx, c.s.DB, nextEvents, scanWaiting, c.nid, maxEvents)
	if err != nil || len(rows) == 0 {
		return nil, 0, err
	}
	texts, err := c.render(ctx, rows)
	if err != nil {
		return nil, 0, err
	}
	body := content{Events: []json.RawMessage{}}
	size := 0
	upTo := rows[0].position
	for i, text := range texts {
		if size += len(text); size > maxBody && i > 0 {
			break
		}
		if text != nil {
			body.Events = append(body.Events, text)
		}
		upTo = rows[i].position
	}
	encoded, err := json.Marshal(body)
	if err != nil {
		return nil, 0, err
	}
	id := c.s.txnIDs.Next()
	return &transaction{id: id, place: 0, events: len(body.Events), body: encoded}, upTo, nil
}

// render gives events the form that services get, in their order; nil stands for an
// event that is not there any more.
func (c *courier) render(ctx context.Context, rows []waiting) ([]json.RawMessage, error) {
	nids := make([]state.EventNID, len(rows))
	for i, w := range rows {
		nids[i] = w.event
	}
	events, err := c.s.rooms.Events(ctx, nids)
	if err != nil {
		return nil, err
	}
	at := map[state.EventNID]int{}
	inRoom := map[rooms.RoomNID][]*rooms.Stored{}
	for i, w := range rows {
		at[w.event] = i
	}
	for _, ev := range events {
		inRoom[ev.Room] = append(inRoom[ev.Room], ev)
	}
	texts := make([]json.RawMessage, len(rows))
	for nid, list := range inRoom {
		r, err := c.s.rooms.RoomByNID(ctx, nid)
		if err != nil {
			return nil, err
		}
		rendered, err := c.s.rooms.Render(ctx, r, rooms.Viewer{}, list, rooms.Format{})
		if err != nil {
			return nil, err
		}
		for i, ev := range list {
			texts[at[ev.NID]] = rendered[i]
		}
	}
	return texts, nil
}

// part takes apart a transaction that the service refuses while it takes others:
// into halves that are sent by themselves, or, if it has one event, out of the way.
func (c *courier) part(ctx context.Context, t *transaction, why error) error {
	var whole content
	if err := json.Unmarshal(t.body, &whole); err != nil {
		return err
	}
	if len(whole.Events) <= 1 {
		return c.bury(ctx, t, why)
	}
	c.forgive()
	half := len(whole.Events) / 2
	var bodies [2][]byte
	var ids [2]int64
	for i, events := range [][]json.RawMessage{whole.Events[:half], whole.Events[half:]} {
		var err error
		if bodies[i], err = json.Marshal(content{events}); err != nil {
			return err
		}
		ids[i] = c.s.txnIDs.Next()
	}
	return c.s.DB.Write(ctx, func(tx *db.Tx) error {
		if err := tx.Exec(shiftTxns, c.nid, t.place); err != nil {
			return err
		}
		if err := tx.Exec(deleteTxn, t.id); err != nil {
			return err
		}
		if err := tx.Exec(insertTxn, ids[0], c.nid, t.place, true, half, bodies[0]); err != nil {
			return err
		}
		return tx.Exec(insertTxn, ids[1], c.nid, t.place+1, true, len(whole.Events)-half, bodies[1])
	})
}

// bury puts an event aside that the service refuses for ever.
func (c *courier) bury(ctx context.Context, t *transaction, why error) error {
	c.s.Log.Error("an application service refuses an event for ever; it is put aside, see teahouse appservice dead-letters",
		"service", c.id(), "error", why)
	c.s.metrics.buried(c.id())
	nid, now := c.s.deadNIDs.Next(), c.s.Now().UnixMilli()
	return c.s.DB.Write(ctx, func(tx *db.Tx) error {
		if err := tx.Exec(insertDead, nid, c.nid, now, why.Error(), t.body); err != nil {
			return err
		}
		return tx.Exec(deleteTxn, t.id)
	})
}
