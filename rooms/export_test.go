package rooms

import (
	"context"
	"slices"

	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms/event"
	"github.com/teahouse-chat/teahouse/rooms/state"
)

// Extremities are the room's forward extremities, in the order of their ids.
func (r *Room) Extremities(ctx context.Context) ([]event.Ref, error) {
	if err := r.turn.Acquire(ctx, 1); err != nil {
		return nil, err
	}
	defer r.turn.Release(1)
	var refs []event.Ref
	for _, x := range r.head.extremities {
		refs = append(refs, x.ref)
	}
	slices.SortFunc(refs, func(a, b event.Ref) int {
		if a.ID < b.ID {
			return -1
		}
		return 1
	})
	return refs, nil
}

// Stored returns events by id, whatever became of them.
func (e *Engine) Stored(ctx context.Context, ids ...matrix.EventID) (map[matrix.EventID]*Stored, error) {
	events, err := e.eventsByID(ctx, ids)
	found := map[matrix.EventID]*Stored{}
	for _, st := range events {
		found[st.ID] = st
	}
	return found, err
}

// ForgetBranches empties the memory of everything about branches.
func (e *Engine) ForgetBranches() {
	e.branches.Purge()
	e.merges.Purge()
	e.auths.Purge()
	e.cache.Purge()
	e.layers.Purge()
}

// ForgetMerges empties the memory of resolutions only.
func (e *Engine) ForgetMerges() { e.merges.Purge() }

// Loaded tells whether a room is in memory.
func (e *Engine) Loaded(id matrix.RoomID) bool {
	e.mu.RLock()
	defer e.mu.RUnlock()
	return e.rooms.byID[id].Value() != nil
}

// EventNumbers lists the event numbers of a state.
func EventNumbers(m *state.Map) []state.EventNID {
	var nids []state.EventNID
	for _, n := range m.All() {
		nids = append(nids, n)
	}
	return nids
}
