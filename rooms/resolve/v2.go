package resolve

import (
	"maps"
	"slices"

	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms/event"
	"github.com/teahouse-chat/teahouse/rooms/state"
)

// v2 is state resolution v2 and v2.1, which differ in where they start from and
// in what they take to be in conflict.
// spec: rooms/v2#algorithm
// spec: rooms/v12#algorithm
func (r *resolution) v2() (*state.Map, error) {
	if err := r.findCreate(); err != nil {
		return nil, err
	}
	full, err := r.fullConflictedSet()
	if err != nil {
		return nil, err
	}
	if err := r.graph.loadWithAuth(full); err != nil {
		return nil, err
	}
	p := &partial{r: r, decided: make(map[state.KeyNID]state.EventNID)}
	if r.version.StateRes == event.StateResV2 {
		p.base = r.sets[0]
	}
	power, rest := r.split(full)
	if err := p.iterate(r.powerOrder(power)); err != nil {
		return nil, err
	}
	var levels state.EventNID
	if key, ok := r.graph.src.Key(matrix.TypePowerLevels, ""); ok {
		levels = p.at(key)
	}
	order, err := r.mainlineOrder(rest, levels)
	if err != nil {
		return nil, err
	}
	if err := p.iterate(order); err != nil {
		return nil, err
	}
	return r.finish(p.decided), nil
}

// findCreate finds the create event where events do not name it, because their
// room id does.
func (r *resolution) findCreate() error {
	if !r.version.RoomIDHash {
		return nil
	}
	key, _ := r.graph.src.Key(matrix.TypeCreate, "")
	for _, set := range r.sets {
		if nid, ok := set.Get(key); ok {
			if err := r.graph.load([]state.EventNID{nid}); err != nil {
				return err
			}
			r.create = r.graph.records[nid].Event
			return nil
		}
	}
	return nil
}

// fullConflictedSet is ascending.
func (r *resolution) fullConflictedSet() ([]state.EventNID, error) {
	full := r.conflictedEvents()
	if r.version.StateRes == event.StateResV21 {
		between, err := r.graph.subgraph(full)
		if err != nil {
			return nil, err
		}
		full = append(full, between...)
		slices.Sort(full)
		full = slices.Compact(full)
	}
	difference, err := r.authDifference(full)
	if err != nil {
		return nil, err
	}
	full = append(full, difference...)
	slices.Sort(full)
	return slices.Compact(full), nil
}

// split takes the power events, with those events of the set that they rest on,
// from the set. Both parts are ascending.
func (r *resolution) split(full []state.EventNID) (power, rest []state.EventNID) {
	conflicted := make(map[state.EventNID]bool, len(full)) // true: picked
	for _, nid := range full {
		conflicted[nid] = false
	}
	var picked []state.EventNID
	pick := func(nid state.EventNID) {
		if done, ok := conflicted[nid]; ok && !done {
			conflicted[nid] = true
			picked = append(picked, nid)
		}
	}
	for _, nid := range full {
		if isPowerEvent(r.graph.records[nid].Event) {
			pick(nid)
		}
	}
	for i := 0; i < len(picked); i++ {
		for _, a := range r.graph.auth[picked[i]] {
			pick(a)
		}
	}
	maps.DeleteFunc(conflicted, func(_ state.EventNID, picked bool) bool { return picked })
	slices.Sort(picked)
	return picked, slices.Sorted(maps.Keys(conflicted))
}
