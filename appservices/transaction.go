package appservices

import (
	"context"
	"encoding/json"

	"github.com/teahouse-chat/teahouse/internal/db"
	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms"
	"github.com/teahouse-chat/teahouse/rooms/state"
)

const (
	// maxEvents and maxBody bound a transaction; one event may be larger than
	// that alone.
	maxEvents = 100
	maxBody   = 512 << 10
)

// content is the body of a transaction. What had another name before it was
// specified, or has not been specified yet, comes under both names: services know
// one of them.
type content struct {
	Events            []json.RawMessage `json:"events"`
	Ephemeral         []json.RawMessage `json:"ephemeral,omitempty"`
	UnstableEphemeral []json.RawMessage `json:"de.sorunome.msc2409.ephemeral,omitempty"`
	ToDevice          []json.RawMessage `json:"to_device,omitempty"`
	UnstableToDevice  []json.RawMessage `json:"de.sorunome.msc2409.to_device,omitempty"`

	DeviceLists  *deviceLists                                         `json:"org.matrix.msc3202.device_lists,omitempty"`
	OneTimeKeys  map[matrix.UserID]map[matrix.DeviceID]map[string]int `json:"org.matrix.msc3202.device_one_time_keys_count,omitempty"`
	FallbackKeys map[matrix.UserID]map[matrix.DeviceID][]string       `json:"org.matrix.msc3202.device_unused_fallback_key_types,omitempty"`
}

// beside is what a transaction holds beside events.
func (c content) beside() content {
	c.Events = []json.RawMessage{}
	return c
}

// onlyEvents tells whether a transaction holds nothing beside events.
func (c *content) onlyEvents() bool {
	return len(c.Ephemeral)+len(c.ToDevice)+len(c.OneTimeKeys) == 0 && c.DeviceLists == nil
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
	heard := c.heard()
	next, err := c.make(ctx, heard)
	if err == nil && (next.transaction != nil || taken != nil) {
		err = c.s.DB.Write(ctx, func(tx *db.Tx) error {
			if taken != nil {
				if err := c.forget(tx, taken, o); err != nil {
					return err
				}
			}
			return c.keep(tx, next)
		})
	}
	if err != nil {
		c.hear(heard)
		return nil, err
	}
	c.mu.Lock()
	c.beside = max(c.beside, next.upTo)
	c.news.add(next.news)
	more := next.transaction == nil && !c.news.empty()
	c.mu.Unlock()
	if more {
		c.look()
	}
	return next.transaction, nil
}

// keep stores a transaction that was made.
func (c *courier) keep(tx *db.Tx, next *draft) error {
	t := next.transaction
	if t == nil {
		return nil
	}
	t.id = c.s.txnIDs.Next()
	if err := tx.Exec(insertTxn, t.id, c.nid, t.place, t.part, t.events, t.ts, t.body); err != nil {
		return err
	}
	if err := next.take(tx); err != nil {
		return err
	}
	return tx.Exec(takeEvents, c.nid, next.position)
}

func (c *courier) forget(tx *db.Tx, taken *transaction, o outcome) error {
	if err := tx.Exec(deleteTxn, taken.id); err != nil {
		return err
	}
	return tx.Exec(updateOutcome, o.failures, o.retryAt, o.lastSuccess, o.problem, c.nid)
}

// draft is a transaction that was not stored yet; there is none if nothing waits.
type draft struct {
	*transaction
	*gathering
	position int64 // of the last event in it
}

// make renders what waits into a transaction.
func (c *courier) make(ctx context.Context, heard news) (*draft, error) {
	rows, err := db.All(ctx, c.s.DB, nextEvents, scanWaiting, c.nid, maxEvents)
	if err != nil {
		return nil, err
	}
	events, texts, err := c.render(ctx, rows)
	if err != nil {
		return nil, err
	}
	body := &content{Events: []json.RawMessage{}}
	d := &draft{}
	size := 0
	for i, text := range texts {
		if size += len(text); size > maxBody && i > 0 {
			events = events[:i]
			break
		}
		if text != nil {
			body.Events = append(body.Events, text)
		}
		d.position = rows[i].position
	}
	if d.gathering, err = c.gather(ctx, heard, events, body); err != nil {
		return nil, err
	}
	if len(rows) == 0 && body.onlyEvents() {
		return d, nil
	}
	encoded, err := json.Marshal(body)
	if err != nil {
		return nil, err
	}
	d.transaction = &transaction{events: len(body.Events), body: encoded}
	if len(body.Events) > 0 {
		d.ts = rows[0].ts
	}
	return d, nil
}

// render reads events and gives them the form that services get, in their order; nil
// stands for an event that is not there any more.
func (c *courier) render(ctx context.Context, rows []waiting) ([]*rooms.Stored, []json.RawMessage, error) {
	nids := make([]state.EventNID, len(rows))
	for i, w := range rows {
		nids[i] = w.event
	}
	events, err := c.s.rooms.Events(ctx, nids)
	if err != nil {
		return nil, nil, err
	}
	at := map[state.EventNID]int{}
	inOrder := make([]*rooms.Stored, len(rows))
	inRoom := map[rooms.RoomNID][]*rooms.Stored{}
	for i, w := range rows {
		at[w.event] = i
	}
	for _, ev := range events {
		inRoom[ev.Room] = append(inRoom[ev.Room], ev)
		inOrder[at[ev.NID]] = ev
	}
	texts := make([]json.RawMessage, len(rows))
	for nid, list := range inRoom {
		r, err := c.s.rooms.RoomByNID(ctx, nid)
		if err != nil {
			return nil, nil, err
		}
		rendered, err := c.s.rooms.Render(ctx, r, rooms.Viewer{}, list, rooms.Format{})
		if err != nil {
			return nil, nil, err
		}
		for i, ev := range list {
			texts[at[ev.NID]] = rendered[i]
		}
	}
	return inOrder, texts, nil
}

// part takes apart a transaction that the service refuses while it takes others:
// into what is beside the events and the events, and these into halves, which are
// sent by themselves; or, if there is no more to be parted, out of the way.
func (c *courier) part(ctx context.Context, t *transaction, why error) error {
	var whole content
	if err := json.Unmarshal(t.body, &whole); err != nil {
		return err
	}
	var parts [2]content
	half := len(whole.Events) / 2
	switch {
	case !whole.onlyEvents() && len(whole.Events) > 0:
		parts = [2]content{whole.beside(), {Events: whole.Events}}
	case half > 0:
		parts = [2]content{{Events: whole.Events[:half]}, {Events: whole.Events[half:]}}
	default:
		return c.bury(ctx, t, why)
	}
	c.forgive()
	var bodies [2][]byte
	for i, p := range parts {
		var err error
		if bodies[i], err = json.Marshal(p); err != nil {
			return err
		}
	}
	return c.s.DB.Write(ctx, func(tx *db.Tx) error {
		if err := tx.Exec(shiftTxns, c.nid, t.place); err != nil {
			return err
		}
		if err := tx.Exec(deleteTxn, t.id); err != nil {
			return err
		}
		for i, p := range parts {
			since := t.ts
			if len(p.Events) == 0 {
				since = 0
			}
			if err := tx.Exec(insertTxn, c.s.txnIDs.Next(), c.nid, t.place+int64(i), true, len(p.Events), since, bodies[i]); err != nil {
				return err
			}
		}
		return nil
	})
}

// bury puts an event aside that the service refuses for ever, or what came beside
// events.
func (c *courier) bury(ctx context.Context, t *transaction, why error) error {
	c.s.Log.Error("an application service refuses an event for ever; it is put aside, see teahouse appservice dead-letters",
		"service", c.id(), "error", why)
	c.s.metrics.buried(c.id())
	now := c.s.Now().UnixMilli()
	return c.s.DB.Write(ctx, func(tx *db.Tx) error {
		if err := tx.Exec(insertDead, c.s.deadNIDs.Next(), c.nid, now, why.Error(), t.body); err != nil {
			return err
		}
		return tx.Exec(deleteTxn, t.id)
	})
}
