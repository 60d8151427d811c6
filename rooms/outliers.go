package rooms

import (
	"context"
	"errors"
	"slices"

	"github.com/teahouse-chat/teahouse/internal/db"
	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms/auth"
	"github.com/teahouse-chat/teahouse/rooms/event"
	"github.com/teahouse-chat/teahouse/rooms/state"
)

var errNoStateEvent = errors.New("only state events authorise others")

// outliers brings in state events that have no place in a room's history: auth
// chains, and the state before an event whose previous events are not here.
type outliers struct {
	e       *Engine
	room    RoomNID
	id      matrix.RoomID
	version *event.Version
	create  *Stored // the room's create event, nil before it is known
	got     *fetched
	events  []*Stored // those that are new
	keys    []auth.Key
}

// StoreOutliers makes state events of other servers known, without a place in
// the room's history, so that other events can refer to them. They may come in
// any order. The outcomes are in the order of the events.
func (e *Engine) StoreOutliers(ctx context.Context, id matrix.RoomID, events []*event.Event) ([]Outcome, error) {
	r, err := e.enterInside(ctx, id)
	if err != nil {
		return nil, err
	}
	defer r.intake.Release(1)
	return e.storeOutliers(ctx, r, newFetched(), events)
}

// storeOutliers is StoreOutliers for whoever holds the room's intake. In the end
// got has the events.
func (e *Engine) storeOutliers(ctx context.Context, r *Room, got *fetched, events []*event.Event) ([]Outcome, error) {
	create, err := e.StateEvent(ctx, r.View().State, matrix.TypeCreate, "")
	if err != nil {
		return nil, err
	}
	o := &outliers{e: e, room: r.NID, id: r.ID, version: r.Version, create: create, got: got}
	defer o.claim(events)()
	outcomes, err := o.admitAll(ctx, events)
	if err != nil || len(o.events) == 0 {
		return outcomes, err
	}
	if err := e.DB.Write(context.WithoutCancel(ctx), o.write); err != nil {
		return nil, err
	}
	for _, k := range o.keys {
		e.keys.stored(k)
	}
	for _, st := range o.events {
		e.cache.Add(st.NID, st)
	}
	return outcomes, nil
}

// claim reserves the ids of the events.
func (o *outliers) claim(events []*event.Event) (release func()) {
	o.got.taken, release = o.e.claims.claim(o.version, o.room, idsOf(events))
	return release
}

func (o *outliers) write(tx *db.Tx) error {
	for _, k := range o.keys {
		if err := o.e.keys.store(tx, k); err != nil {
			return err
		}
	}
	for _, st := range o.events {
		if err := insertStored(tx, st); err != nil {
			return err
		}
	}
	return nil
}

// admitAll judges events by their auth events, those that others rest on first.
func (o *outliers) admitAll(ctx context.Context, events []*event.Event) ([]Outcome, error) {
	n := len(events)
	for _, ev := range events {
		n += len(ev.AuthEvents)
	}
	ids := make([]matrix.EventID, 0, n)
	o.keys, o.events = make([]auth.Key, 0, len(events)), make([]*Stored, 0, len(events))
	for _, ev := range events {
		ids = append(ids, ev.ID)
		ids = append(ids, ev.AuthEvents...)
		if ev.IsState() {
			o.keys = append(o.keys, auth.Key{Type: ev.Type, StateKey: ev.StateKey()})
		}
	}
	if err := o.e.fetchIDs(ctx, o.got, ids); err != nil {
		return nil, err
	}
	keys, err := o.e.keys.allotAll(ctx, o.keys)
	if err != nil {
		return nil, err
	}
	o.got.keys = keys
	o.keys = o.keys[:0]
	outcomes := make([]Outcome, len(events))
	for _, i := range authOrder(events) {
		outcomes[i] = o.admit(events[i])
	}
	return outcomes, nil
}

func (o *outliers) admit(ev *event.Event) Outcome {
	switch known := o.got.ids[ev.ID]; {
	case ev.RoomID != o.id || ev.Version != o.version || o.got.taken[ev.ID] || known != nil && known.Room != o.room:
		return Outcome{Why: errOtherRoom}
	case known != nil:
		return Outcome{Event: known, Known: true}
	case !ev.IsState():
		return Outcome{Why: errNoStateEvent}
	}
	if !ev.ContentHashOK() {
		ev = ev.Redact()
	}
	st := &Stored{Event: ev, Room: o.room, Flags: Outlier}
	auths := make([]*Stored, len(ev.AuthEvents))
	var missing []matrix.EventID
	for i, id := range ev.AuthEvents {
		if auths[i] = o.got.ids[id]; auths[i] == nil {
			missing = append(missing, id)
			continue
		}
		st.Auth = append(st.Auth, auths[i].NID)
	}
	if len(missing) > 0 {
		return Outcome{Missing: missing}
	}
	why := o.judge(ev, auths)
	if why != nil {
		st.Flags |= Rejected
	}
	k := auth.Key{Type: ev.Type, StateKey: ev.StateKey()}
	st.NID, st.Key = state.EventNID(o.e.eventSeq.Next()), o.got.keys[k]
	if o.create == nil && ev.Type == matrix.TypeCreate && why == nil {
		o.create = st
	}
	o.got.ids[ev.ID], o.got.events[st.NID] = st, st
	o.events, o.keys = append(o.events, st), append(o.keys, k)
	return Outcome{Event: st, Why: why}
}

func (o *outliers) judge(ev *event.Event, auths []*Stored) error {
	if ev.Type == matrix.TypeCreate && o.create != nil {
		return errCreate
	}
	return checkAuthEvents(ev, auths, authEventsOf(ev, auths, o.create))
}

// authOrder gives the indexes of the events in an order in which each comes after
// its auth events; events that lead to themselves come last. Where the room id
// implies the create event, that counts as an auth event of all.
func authOrder(events []*event.Event) []int {
	index := make(map[matrix.EventID]int, len(events))
	for i, ev := range events {
		index[ev.ID] = i
	}
	waits := make([]int, len(events))
	citers := make([][]int, len(events))
	var order []int
	for i, ev := range events {
		for _, id := range ev.AuthEvents {
			if at, ok := index[id]; ok {
				waits[i]++
				citers[at] = append(citers[at], i)
			}
		}
		if waits[i] == 0 {
			order = append(order, i)
		}
	}
	slices.SortStableFunc(order, func(a, b int) int { return creates(events[b]) - creates(events[a]) })
	for n := 0; n < len(order); n++ {
		for _, i := range citers[order[n]] {
			if waits[i]--; waits[i] == 0 {
				order = append(order, i)
			}
		}
	}
	for i := range events {
		if waits[i] > 0 {
			order = append(order, i)
		}
	}
	return order
}

func creates(ev *event.Event) int {
	if ev.Type == matrix.TypeCreate {
		return 1
	}
	return 0
}
