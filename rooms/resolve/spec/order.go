package spec

import (
	"math"
	"sort"

	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms/auth"
	"github.com/teahouse-chat/teahouse/rooms/event"
)

// reverseTopologicalPowerOrdering takes, again and again, the smallest event of
// those none of whose auth events is still waiting.
// spec: rooms/v12#definitions
func (r *Room) reverseTopologicalPowerOrdering(waiting Set) []matrix.EventID {
	waiting = union(waiting)
	var sorted []matrix.EventID
	for len(waiting) > 0 {
		var smallest *event.Event
		for id := range waiting {
			e := r.Events[id]
			free := true
			for _, a := range e.AuthEvents {
				free = free && !waiting[a]
			}
			if free && (smallest == nil || r.powerLess(e, smallest)) {
				smallest = e
			}
		}
		sorted = append(sorted, smallest.ID)
		delete(waiting, smallest.ID)
	}
	return sorted
}

func (r *Room) powerLess(x, y *event.Event) bool {
	if px, py := r.senderPower(x), r.senderPower(y); px != py {
		return px > py
	}
	return less(x, y)
}

// senderPower is the power of the sender when looking at the event's auth events.
func (r *Room) senderPower(e *event.Event) int64 {
	own := r.judges(State{}, &event.Event{AuthEvents: e.AuthEvents, RoomID: e.RoomID})
	return auth.Levels(own).User(e.Sender)
}

func less(x, y *event.Event) bool {
	if x.OriginServerTS != y.OriginServerTS {
		return x.OriginServerTS < y.OriginServerTS
	}
	return x.ID < y.ID
}

// mainlineOrdering sorts the set by the mainline ordering based on p, "" if there
// is no power level event.
func (r *Room) mainlineOrdering(p matrix.EventID, set Set) []matrix.EventID {
	var mainline []matrix.EventID
	if p != "" {
		mainline = append([]matrix.EventID{p}, r.powerLevelsBehind(p)...)
	}
	position := map[matrix.EventID]int{}
	var sorted []matrix.EventID
	for id := range set {
		sorted = append(sorted, id)
		position[id] = math.MaxInt
		for _, ej := range r.powerLevelsBehind(id) {
			if i := indexOf(mainline, ej); i >= 0 {
				position[id] = i
				break
			}
		}
	}
	sort.Slice(sorted, func(i, j int) bool {
		x, y := sorted[i], sorted[j]
		if position[x] != position[y] {
			return position[x] > position[y]
		}
		return less(r.Events[x], r.Events[y])
	})
	return sorted
}

// powerLevelsBehind lists the power level event in the auth events, the one in
// that one's auth events, and so on.
func (r *Room) powerLevelsBehind(id matrix.EventID) []matrix.EventID {
	var list []matrix.EventID
	for found := true; found; {
		found = false
		for _, a := range r.Events[id].AuthEvents {
			if r.Events[a].Is(matrix.TypePowerLevels, "") {
				list, id, found = append(list, a), a, true
				break
			}
		}
	}
	return list
}

func indexOf(list []matrix.EventID, id matrix.EventID) int {
	for i, other := range list {
		if other == id {
			return i
		}
	}
	return -1
}
