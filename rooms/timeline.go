package rooms

import (
	"context"
	"fmt"
	"math"
	"slices"

	"github.com/teahouse-chat/teahouse/internal/db"
	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms/auth"
	"github.com/teahouse-chat/teahouse/rooms/state"
)

const (
	maxPosition = math.MaxInt64
	minPosition = math.MinInt64
)

// TimelineQuery asks for a stretch of a room's timeline.
type TimelineQuery struct {
	Room      *Room
	From      int64 // exclusive: where reading starts
	To        int64 // where it ends: exclusive backwards, inclusive forwards; 0 is no bound
	Backwards bool  // newest first
	Limit     int
}

// Timeline reads events in the order of their positions. Rejected and
// soft-failed ones are left out, so a short answer does not mean the end: only
// an empty one does.
func (e *Engine) Timeline(ctx context.Context, q TimelineQuery) ([]*Stored, error) {
	if events, ok := q.recent(); ok {
		return events, nil
	}
	stmt, to := timelineUp, int64(maxPosition)
	if q.Backwards {
		stmt, to = timelineDown, minPosition
	}
	if q.To != 0 {
		to = q.To
	}
	for from := q.From; ; {
		events, err := db.All(ctx, e.DB, stmt, e.scanEvents(ctx), q.Room.NID, from, to, q.Limit)
		if err != nil || len(events) == 0 {
			return nil, err
		}
		from = events[len(events)-1].Position
		for i, st := range events {
			// What is in memory knows more: the sender's transaction id.
			if known, ok := e.cache.Peek(st.NID); ok {
				events[i] = known
			}
		}
		if events = slices.DeleteFunc(events, func(st *Stored) bool { return !st.Served() }); len(events) > 0 {
			return events, nil
		}
	}
}

// recent answers from memory where the room's view reaches far enough.
func (q TimelineQuery) recent() ([]*Stored, bool) {
	v := q.Room.View()
	if q.Backwards {
		var events []*Stored
		for i := len(v.Recent) - 1; i >= 0 && len(events) < q.Limit; i-- {
			st := v.Recent[i]
			if q.To != 0 && st.Position <= q.To {
				return events, true
			}
			if st.Position < q.From {
				events = append(events, st)
			}
		}
		return events, len(events) == q.Limit || q.To != 0 && q.To >= v.RecentFrom
	}
	if q.From < v.RecentFrom {
		return nil, false
	}
	start, _ := slices.BinarySearchFunc(v.Recent, q.From+1, byPosition)
	events := v.Recent[start:]
	if q.To != 0 {
		end, _ := slices.BinarySearchFunc(events, q.To+1, byPosition)
		events = events[:end]
	}
	return slices.Clone(events[:min(len(events), q.Limit)]), true
}

func byPosition(st *Stored, position int64) int {
	switch {
	case st.Position < position:
		return -1
	case st.Position > position:
		return 1
	}
	return 0
}

// Events returns the events with these numbers, in the same order.
func (e *Engine) Events(ctx context.Context, nids []state.EventNID) ([]*Stored, error) {
	events := make([]*Stored, len(nids))
	var missing []state.EventNID
	for i, n := range nids {
		if st, ok := e.cache.Get(n); ok {
			events[i] = st
		} else {
			missing = append(missing, n)
		}
	}
	if len(missing) == 0 {
		return events, nil
	}
	read, err := db.All(ctx, e.DB, eventsByNIDs, e.scanEvents(ctx), missing)
	if err != nil {
		return nil, err
	}
	byNID := make(map[state.EventNID]*Stored, len(read))
	for _, st := range read {
		byNID[st.NID] = e.remember(st)
	}
	if missing = slices.DeleteFunc(missing, func(n state.EventNID) bool { return byNID[n] != nil }); len(missing) > 0 {
		outside, err := e.outsideEvents(ctx, missing)
		if err != nil {
			return nil, err
		}
		for _, st := range outside {
			byNID[st.NID] = e.remember(st)
		}
	}
	for i, n := range nids {
		if events[i] == nil {
			if events[i] = byNID[n]; events[i] == nil {
				return nil, fmt.Errorf("rooms: event %d is missing", n)
			}
		}
	}
	return events, nil
}

// remember caches an event that was read, unless a writer was faster.
func (e *Engine) remember(st *Stored) *Stored {
	if there, ok, _ := e.cache.PeekOrAdd(st.NID, st); ok {
		return there
	}
	return st
}

// EventByID returns a timeline or state event of the room; 404 M_NOT_FOUND if
// there is none that may be served.
func (e *Engine) EventByID(ctx context.Context, r *Room, id matrix.EventID) (*Stored, error) {
	v := r.View()
	for i := len(v.Recent) - 1; i >= 0; i-- {
		if v.Recent[i].ID == id {
			return v.Recent[i], nil
		}
	}
	events, err := e.eventsByID(ctx, []matrix.EventID{id})
	if err != nil {
		return nil, err
	}
	if len(events) == 0 || events[0].Room != r.NID || !events[0].Served() {
		return nil, matrix.NotFound("There is no such event in the room")
	}
	return events[0], nil
}

// RoomOf finds the room of an event that is served.
func (e *Engine) RoomOf(ctx context.Context, id matrix.EventID) (*Room, error) {
	events, err := e.eventsByID(ctx, []matrix.EventID{id})
	if err != nil {
		return nil, err
	}
	if len(events) == 0 || !events[0].Served() {
		return nil, matrix.NotFound("There is no such event")
	}
	return e.RoomByNID(ctx, events[0].Room)
}

func (e *Engine) eventsByID(ctx context.Context, ids []matrix.EventID) ([]*Stored, error) {
	events, err := db.All(ctx, e.DB, eventsByIDs, e.scanEvents(ctx), ids)
	for i, st := range events {
		events[i] = e.remember(st)
	}
	return events, err
}

// EventNear finds the event whose origin_server_ts is nearest to ts, from there
// on or up to there; nil if there is none.
func (e *Engine) EventNear(ctx context.Context, r *Room, ts int64, backwards bool) (*Stored, error) {
	stmt := nearestAfter
	if backwards {
		stmt = nearestUpTo
	}
	st, _, err := db.One(ctx, e.DB, stmt, e.scanEvents(ctx), r.NID, ts)
	return st, err
}

// StateAt returns the room's state just after a position.
func (e *Engine) StateAt(ctx context.Context, r *Room, position int64) (*state.Map, error) {
	v := r.View()
	if position >= v.Position {
		return v.State, nil
	}
	for i := len(v.Recent) - 1; i >= 0; i-- {
		if v.Recent[i].Position <= position {
			return e.Snapshot(ctx, v.Recent[i].Resolved)
		}
	}
	n, _, err := db.One(ctx, e.DB, resolvedAt, scanOne[SnapshotNID], r.NID, position)
	if err != nil {
		return nil, err
	}
	return e.Snapshot(ctx, n)
}

// Snapshot returns a stored state.
func (e *Engine) Snapshot(ctx context.Context, n SnapshotNID) (*state.Map, error) {
	layers, err := e.snapshotLayers(ctx, n)
	if err != nil {
		return nil, err
	}
	return state.Rebuild(layers), nil
}

// StateEvents returns the events of a state whose keys are wanted, in the order
// of the keys' numbers; a nil want takes all.
func (e *Engine) StateEvents(ctx context.Context, m *state.Map, want func(state.KeyNID) bool) ([]*Stored, error) {
	var nids []state.EventNID
	for k, n := range m.All() {
		if want == nil || want(k) {
			nids = append(nids, n)
		}
	}
	return e.Events(ctx, nids)
}

// StateEvent returns one event of a state, nil if there is none.
func (e *Engine) StateEvent(ctx context.Context, m *state.Map, typ, stateKey string) (*Stored, error) {
	k, err := e.keys.find(ctx, auth.Key{Type: typ, StateKey: stateKey})
	if err != nil || k == 0 {
		return nil, err
	}
	n, ok := m.Get(k)
	if !ok {
		return nil, nil
	}
	events, err := e.Events(ctx, []state.EventNID{n})
	if err != nil {
		return nil, err
	}
	return events[0], nil
}
