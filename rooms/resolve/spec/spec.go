package spec

import (
	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms/auth"
	"github.com/teahouse-chat/teahouse/rooms/event"
)

// State is a room state.
type State map[auth.Key]matrix.EventID

// Set is a set of events.
type Set map[matrix.EventID]bool

// Room is what is known of a room.
type Room struct {
	Version  *event.Version
	Events   map[matrix.EventID]*event.Event
	Rejected Set
}

// Resolve is the resolution of a set of states.
func (r *Room) Resolve(states []State) State {
	switch r.Version.StateRes {
	case event.StateResV1:
		return r.resolveV1(states)
	case event.StateResV2:
		unconflicted, conflicted := split(states)
		full := union(conflicted, r.authDifference(states))
		return r.algorithm(full, unconflicted, unconflicted)
	default:
		unconflicted, conflicted := split(states)
		full := union(conflicted, r.conflictedSubgraph(conflicted), r.authDifference(states))
		return r.algorithm(full, State{}, unconflicted)
	}
}

// algorithm is the five steps.
// spec: rooms/v12#algorithm
func (r *Room) algorithm(full Set, start, unconflicted State) State {
	// 1. The power events, and what they rest on, by power.
	x := Set{}
	for id := range full {
		if isPowerEvent(r.Events[id]) {
			x[id] = true
			for a := range r.authChainWithin(id, full) {
				x[a] = true
			}
		}
	}
	// 2. A partially resolved state.
	partial := r.iterativeAuthChecks(start, r.reverseTopologicalPowerOrdering(x))
	// 3. The rest, by the mainline.
	rest := minus(full, x)
	sorted := r.mainlineOrdering(partial[auth.Key{Type: matrix.TypePowerLevels}], rest)
	// 4.
	resolved := r.iterativeAuthChecks(partial, sorted)
	// 5.
	for key, id := range unconflicted {
		resolved[key] = id
	}
	return resolved
}

// split makes the unconflicted state map and the conflicted state set.
// spec: rooms/v12#definitions
func split(states []State) (unconflicted State, conflicted Set) {
	unconflicted, conflicted = State{}, Set{}
	for _, s := range states {
		for key, id := range s {
			everywhere := true
			for _, other := range states {
				everywhere = everywhere && other[key] == id
			}
			if everywhere {
				unconflicted[key] = id
			} else {
				conflicted[id] = true
			}
		}
	}
	return unconflicted, conflicted
}

// authChain is every event reachable by auth_events.
func (r *Room) authChain(id matrix.EventID) Set {
	chain := Set{}
	todo := r.Events[id].AuthEvents
	for len(todo) > 0 {
		a := todo[0]
		todo = todo[1:]
		if !chain[a] {
			chain[a] = true
			todo = append(append([]matrix.EventID{}, todo...), r.Events[a].AuthEvents...)
		}
	}
	return chain
}

// authChainWithin is the part of the auth chain that is reachable inside the set.
func (r *Room) authChainWithin(id matrix.EventID, set Set) Set {
	chain := Set{}
	todo := []matrix.EventID{id}
	for len(todo) > 0 {
		at := todo[0]
		todo = todo[1:]
		for _, a := range r.Events[at].AuthEvents {
			if set[a] && !chain[a] {
				chain[a] = true
				todo = append(todo, a)
			}
		}
	}
	return chain
}

// authDifference is the union of the full auth chains without their intersection.
func (r *Room) authDifference(states []State) Set {
	var full []Set
	for _, s := range states {
		chain := Set{}
		for _, id := range s {
			chain = union(chain, r.authChain(id))
		}
		full = append(full, chain)
	}
	all, common := Set{}, full[0]
	for _, chain := range full {
		all = union(all, chain)
		common = intersection(common, chain)
	}
	return minus(all, common)
}

// conflictedSubgraph is every event that lies between two of the set: in the auth
// chain of one and with the other in its own.
func (r *Room) conflictedSubgraph(conflicted Set) Set {
	subgraph := Set{}
	for top := range conflicted {
		for id := range r.authChain(top) {
			if conflicted[id] || len(intersection(r.authChain(id), conflicted)) > 0 {
				subgraph[top], subgraph[id] = true, true
			}
		}
	}
	return subgraph
}

func isPowerEvent(e *event.Event) bool {
	switch {
	case e.Is(matrix.TypePowerLevels, ""), e.Is(matrix.TypeJoinRules, ""):
		return true
	case e.Type == matrix.TypeMember && e.IsState() && e.StateKey() != string(e.Sender):
		return e.Membership() == matrix.MembershipLeave || e.Membership() == matrix.MembershipBan
	}
	return false
}

// iterativeAuthChecks applies the events that are allowed to a copy of the state.
func (r *Room) iterativeAuthChecks(start State, sorted []matrix.EventID) State {
	resolved := State{}
	for key, id := range start {
		resolved[key] = id
	}
	for _, id := range sorted {
		e := r.Events[id]
		if !r.Rejected[id] && auth.Check(e, r.judges(resolved, e)) == nil {
			resolved[auth.Key{Type: e.Type, StateKey: e.StateKey()}] = id
		}
	}
	return resolved
}

// judges is the state filled up with the auth events of the event. Where the room
// id names the create event, that is among them.
func (r *Room) judges(s State, e *event.Event) View {
	filled := State{}
	for _, a := range e.AuthEvents {
		if !r.Rejected[a] {
			filled[auth.Key{Type: r.Events[a].Type, StateKey: r.Events[a].StateKey()}] = a
		}
	}
	for key, id := range s {
		filled[key] = id
	}
	if r.Version.RoomIDHash {
		filled[auth.Key{Type: matrix.TypeCreate}] = matrix.EventID("$" + e.RoomID[1:])
	}
	return View{r, filled}
}

// View is a state of the room as the authorisation rules want it.
type View struct {
	Room  *Room
	State State
}

// Event is auth.State.
func (v View) Event(typ, stateKey string) *event.Event {
	return v.Room.Events[v.State[auth.Key{Type: typ, StateKey: stateKey}]]
}

func union(sets ...Set) Set {
	all := Set{}
	for _, s := range sets {
		for id := range s {
			all[id] = true
		}
	}
	return all
}

func intersection(a, b Set) Set {
	both := Set{}
	for id := range a {
		if b[id] {
			both[id] = true
		}
	}
	return both
}

func minus(a, b Set) Set {
	rest := Set{}
	for id := range a {
		if !b[id] {
			rest[id] = true
		}
	}
	return rest
}
