package rooms

import (
	"context"

	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms/state"
)

// Stored is Known for a few events.
func (e *Engine) Stored(ctx context.Context, ids ...matrix.EventID) (map[matrix.EventID]*Stored, error) {
	return e.Known(ctx, ids)
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
