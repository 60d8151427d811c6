package resolve

import (
	"cmp"
	"container/heap"
	"math"
	"slices"
	"strings"

	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms/auth"
	"github.com/teahouse-chat/teahouse/rooms/event"
	"github.com/teahouse-chat/teahouse/rooms/state"
)

// isPowerEvent tells whether the event might take somebody's ability to do
// something.
// spec: rooms/v2#definitions
func isPowerEvent(e *event.Event) bool {
	switch e.Type {
	case matrix.TypePowerLevels, matrix.TypeJoinRules:
		return e.Is(e.Type, "")
	case matrix.TypeMember:
		m := e.Membership()
		return e.IsState() && (m == matrix.MembershipLeave || m == matrix.MembershipBan) && e.StateKey() != string(e.Sender)
	}
	return false
}

// powerOrder sorts events by the reverse topological power ordering: Kahn's
// algorithm, which takes of the events whose auth events are out the one with
// the most powerful sender, then the oldest, then the one with the smallest id.
// spec: rooms/v2#definitions
func (r *resolution) powerOrder(set []state.EventNID) []state.EventNID {
	member := make(map[state.EventNID]int, len(set)) // auth events in the set that are not out yet
	for _, nid := range set {
		member[nid] = 0
	}
	citers := make(map[state.EventNID][]state.EventNID)
	for _, nid := range set {
		for _, a := range r.graph.auth[nid] {
			if _, ok := member[a]; ok {
				member[nid]++
				citers[a] = append(citers[a], nid)
			}
		}
	}
	var ready candidates
	for _, nid := range set {
		if member[nid] == 0 {
			ready = append(ready, r.candidate(nid))
		}
	}
	heap.Init(&ready)
	order := make([]state.EventNID, 0, len(set))
	for len(ready) > 0 {
		next := heap.Pop(&ready).(candidate).rec.NID
		order = append(order, next)
		for _, citer := range citers[next] {
			if member[citer]--; member[citer] == 0 {
				heap.Push(&ready, r.candidate(citer))
			}
		}
	}
	return order
}

// candidate is an event with its sender's power in the eyes of its auth events.
type candidate struct {
	rec   *Record
	power int64
}

func (r *resolution) candidate(nid state.EventNID) candidate {
	rec := r.graph.records[nid]
	var levels *event.Event
	create := r.create
	for _, a := range rec.Auth {
		switch e := r.graph.records[a].Event; {
		case e.Is(matrix.TypePowerLevels, ""):
			levels = e
		case e.Is(matrix.TypeCreate, ""):
			create = e
		}
	}
	p := auth.LevelsOf(levels, create)
	return candidate{rec, p.User(rec.Event.Sender)}
}

type candidates []candidate

func (h candidates) Len() int { return len(h) }
func (h candidates) Less(i, j int) bool {
	if h[i].power != h[j].power {
		return h[i].power > h[j].power
	}
	return byAge(h[i].rec, h[j].rec) < 0
}
func (h candidates) Swap(i, j int) { h[i], h[j] = h[j], h[i] }
func (h *candidates) Push(x any)   { *h = append(*h, x.(candidate)) }
func (h *candidates) Pop() any {
	last := (*h)[len(*h)-1]
	*h = (*h)[:len(*h)-1]
	return last
}

// byAge orders by timestamp, then by id.
func byAge(a, b *Record) int {
	if c := cmp.Compare(a.Event.OriginServerTS, b.Event.OriginServerTS); c != 0 {
		return c
	}
	return strings.Compare(string(a.Event.ID), string(b.Event.ID))
}

// offMainline is the position of an event that no mainline event leads to.
const offMainline = math.MaxInt

// mainline is the chain of power level events behind the resolved one. It is
// followed only as far as the events that are asked for reach.
type mainline struct {
	graph    *graph
	key      state.KeyNID // of power levels
	last     state.EventNID
	place    map[state.EventNID]int
	position map[state.EventNID]int // of power level events beside the mainline
}

func newMainline(g *graph, levels state.EventNID) *mainline {
	m := &mainline{graph: g, last: levels, place: make(map[state.EventNID]int), position: make(map[state.EventNID]int)}
	m.key, _ = g.src.Key(matrix.TypePowerLevels, "")
	if levels != 0 {
		m.place[levels] = 0
	}
	return m
}

// mainlineOrder sorts events by the mainline ordering based on the power level
// event, 0 for none.
// spec: rooms/v2#definitions
func (r *resolution) mainlineOrder(set []state.EventNID, levels state.EventNID) ([]state.EventNID, error) {
	m := newMainline(r.graph, levels)
	position := make(map[state.EventNID]int, len(set))
	for _, nid := range set {
		p, err := m.of(nid)
		if err != nil {
			return nil, err
		}
		position[nid] = p
	}
	order := slices.Clone(set)
	slices.SortFunc(order, func(a, b state.EventNID) int {
		if c := cmp.Compare(position[b], position[a]); c != 0 {
			return c
		}
		return byAge(r.graph.records[a], r.graph.records[b])
	})
	return order, nil
}

// of is the event's mainline position.
func (m *mainline) of(nid state.EventNID) (int, error) {
	at, err := m.levelsOf(nid)
	if err != nil {
		return 0, err
	}
	var path []state.EventNID
	position := offMainline
	for at != 0 {
		if err := m.extend(at); err != nil {
			return 0, err
		}
		if p, ok := m.place[at]; ok {
			position = p
			break
		}
		if p, ok := m.position[at]; ok {
			position = p
			break
		}
		path = append(path, at)
		if at, err = m.levelsOf(at); err != nil {
			return 0, err
		}
	}
	for _, p := range path {
		m.position[p] = position
	}
	return position, nil
}

// extend follows the mainline until it is as old as the event.
func (m *mainline) extend(until state.EventNID) error {
	for m.last > until {
		next, err := m.levelsOf(m.last)
		if err != nil {
			return err
		}
		if next != 0 {
			m.place[next] = len(m.place)
		}
		m.last = next
	}
	return nil
}

// levelsOf is the power level event among the event's auth events, 0 if none.
func (m *mainline) levelsOf(nid state.EventNID) (state.EventNID, error) {
	if err := m.graph.loadWithAuth([]state.EventNID{nid}); err != nil {
		return 0, err
	}
	for _, a := range m.graph.auth[nid] {
		if m.graph.records[a].Key == m.key {
			return a, nil
		}
	}
	return 0, nil
}
