package resolve

import (
	"fmt"
	"slices"

	"github.com/teahouse-chat/teahouse/rooms/event"
	"github.com/teahouse-chat/teahouse/rooms/state"
)

// Record is what resolution needs to know of a state event.
type Record struct {
	NID      state.EventNID
	Key      state.KeyNID
	Event    *event.Event
	Auth     []state.EventNID // auth_events, each smaller than NID
	Rejected bool
}

// Source gives records by number.
type Source interface {
	// Records returns one record per number, in the same order; every one exists.
	Records(nids []state.EventNID) ([]*Record, error)
	// Key is the number of a state key, if any event ever had it.
	Key(typ, stateKey string) (state.KeyNID, bool)
}

// AuthSource is a Source that can list auth events without loading events. If
// the Source is one, walks through auth chains use it.
type AuthSource interface {
	AuthEvents(nids []state.EventNID) ([][]state.EventNID, error)
}

// Resolve merges the states by the algorithm of the room version. The result
// shares chunks with the first of them.
// spec: server-server#room-state-resolution
func Resolve(v *event.Version, sets []*state.Map, src Source) (*state.Map, error) {
	sets, changes := distinct(sets)
	switch {
	case len(sets) == 0:
		return nil, nil
	case len(sets) == 1:
		return sets[0], nil
	}
	r := &resolution{version: v, graph: newGraph(src), sets: sets, conflicts: conflicts(sets, changes)}
	switch v.StateRes {
	case event.StateResV1:
		return r.v1()
	case event.StateResV2, event.StateResV21:
		return r.v2()
	}
	return nil, fmt.Errorf("room version %s has no state resolution", v.ID)
}

// resolution is one run.
type resolution struct {
	version   *event.Version
	graph     *graph
	sets      []*state.Map // distinct, at least two
	conflicts map[state.KeyNID][]state.EventNID
	create    *event.Event // where the room id names it, so that events do not
}

// distinct drops states equal to one before, and returns with the others how
// they differ from the first.
func distinct(sets []*state.Map) (kept []*state.Map, changes [][]state.Change) {
	for i, s := range sets {
		if i == 0 {
			kept = append(kept, s)
			continue
		}
		if slices.Contains(kept, s) {
			continue
		}
		diff := state.Diff(sets[0], s)
		if len(diff) == 0 || slices.ContainsFunc(changes, func(c []state.Change) bool { return slices.Equal(c, diff) }) {
			continue
		}
		kept = append(kept, s)
		changes = append(changes, diff)
	}
	return kept, changes
}

// conflicts lists, for each key at which the sets differ, the different events
// that they have there, by ascending number; 0 stands for a set without the key.
func conflicts(sets []*state.Map, changes [][]state.Change) map[state.KeyNID][]state.EventNID {
	found := make(map[state.KeyNID][]state.EventNID)
	for _, diff := range changes {
		for _, c := range diff {
			if _, seen := found[c.Key]; seen {
				continue
			}
			events := make([]state.EventNID, 0, 2)
			for _, s := range sets {
				nid, _ := s.Get(c.Key)
				if !slices.Contains(events, nid) {
					events = append(events, nid)
				}
			}
			slices.Sort(events)
			found[c.Key] = events
		}
	}
	return found
}

// conflictedEvents are all events at the conflicted keys, ascending.
func (r *resolution) conflictedEvents() []state.EventNID {
	var all []state.EventNID
	for _, events := range r.conflicts {
		for _, nid := range events {
			if nid != 0 {
				all = append(all, nid)
			}
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// finish lays what was decided over the first state: at the conflicted keys, and
// at keys that no state has. On all other keys the states agree.
func (r *resolution) finish(decided map[state.KeyNID]state.EventNID) *state.Map {
	entries := make([]state.Entry, 0, len(r.conflicts)+len(decided))
	for key := range r.conflicts {
		entries = append(entries, state.Entry{Key: key, Event: decided[key]})
	}
	for key, nid := range decided {
		_, conflicted := r.conflicts[key]
		if _, agreed := r.sets[0].Get(key); !conflicted && !agreed {
			entries = append(entries, state.Entry{Key: key, Event: nid})
		}
	}
	return r.sets[0].Apply(entries)
}
