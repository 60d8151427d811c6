package resolve

import (
	"container/heap"
	"slices"

	"github.com/teahouse-chat/teahouse/rooms/state"
)

// seedBatch is how many agreed events have their auth events fetched at a time.
const seedBatch = 512

// authDifference returns the events that are in the auth chains of some of the
// sets, but not of all. Of those that are in conflict already it need not, and
// may, return some that are in all.
//
// Events that all sets share put their auth chains into all chains, so at first
// only the conflicted events are walked from. What that finds is the difference
// or more: it remains to take away what a shared event leads to, and only shared
// events newer than the oldest find in question can. A few of them take away most.
// A member who is thrown out on one side is found, and may be very old, but is in
// conflict anyway.
// spec: rooms/v2#definitions
func (r *resolution) authDifference(conflicted []state.EventNID) ([]state.EventNID, error) {
	found, err := r.chains(nil)
	if err != nil {
		return nil, err
	}
	found = slices.DeleteFunc(found, func(nid state.EventNID) bool {
		_, known := slices.BinarySearch(conflicted, nid)
		return known
	})
	if len(found) > 0 {
		found, err = r.withoutCommon(found)
	}
	if err != nil || len(found) == 0 {
		return nil, err
	}
	oldest := found[len(found)-1]
	var shared []state.EventNID
	for key, nid := range r.sets[0].All() {
		if _, conflicted := r.conflicts[key]; nid > oldest && !conflicted {
			shared = append(shared, nid)
		}
	}
	if len(shared) == 0 {
		return found, nil
	}
	slices.SortFunc(shared, func(a, b state.EventNID) int { return int(b - a) })
	found, err = r.chains(shared)
	return slices.DeleteFunc(found, func(nid state.EventNID) bool { return nid < oldest }), err
}

// probed is how many shared events are looked at before all of them are.
const probed = 256

// withoutCommon takes away those of the finds, newest first, that shared events rest
// on directly. As a rule that is all of them: power levels, join rules and the create
// event stand behind almost every member of a room, so that a few members tell it,
// and a large room is not walked through.
func (r *resolution) withoutCommon(found []state.EventNID) ([]state.EventNID, error) {
	var some []state.EventNID
	for key, nid := range r.sets[0].All() {
		if _, conflicted := r.conflicts[key]; nid > found[0] && !conflicted {
			if some = append(some, nid); len(some) == probed {
				break
			}
		}
	}
	if err := r.graph.loadAuth(some); err != nil {
		return nil, err
	}
	common := map[state.EventNID]bool{}
	for _, nid := range some {
		for _, a := range r.graph.auth[nid] {
			common[a] = true
		}
	}
	return slices.DeleteFunc(found, func(nid state.EventNID) bool { return common[nid] }), nil
}

// chains walks the auth chains of all sets at once, newest event first, and
// returns the events that some sets reach and others do not, newest first. Those
// in shared, newest first, lie in every set. The walk ends as soon as every
// event that is left to visit is reached by all sets.
func (r *resolution) chains(shared []state.EventNID) ([]state.EventNID, error) {
	w := newWalk(r.graph, len(r.sets))
	conflicted := r.conflictedEvents()
	if err := r.graph.loadAuth(conflicted); err != nil {
		return nil, err
	}
	for i, set := range r.sets {
		for key := range r.conflicts {
			if nid, ok := set.Get(key); ok {
				for _, a := range r.graph.auth[nid] {
					w.reach(a, i)
				}
			}
		}
	}
	var found []state.EventNID
	for w.partial > 0 {
		for len(shared) > 0 && shared[0] > w.pending[0] {
			batch := shared[:min(seedBatch, len(shared))]
			if err := r.graph.loadAuth(batch); err != nil {
				return nil, err
			}
			for len(batch) > 0 && batch[0] > w.pending[0] {
				for _, a := range r.graph.auth[batch[0]] {
					w.reachAll(a)
				}
				batch, shared = batch[1:], shared[1:]
			}
		}
		if w.partial == 0 {
			break
		}
		nid, all, err := w.visit()
		if err != nil {
			return nil, err
		}
		if !all {
			found = append(found, nid)
		}
	}
	return found, nil
}

// walk goes down the auth graph. Of every event it has heard of it knows which
// sets reach it, as bits.
type walk struct {
	graph   *graph
	sets    int
	words   int // of the bits of one event
	index   map[state.EventNID]int
	bits    []uint64
	pending newest
	partial int // pending events that some sets do not reach
}

func newWalk(g *graph, sets int) *walk {
	return &walk{graph: g, sets: sets, words: (sets + 63) / 64, index: make(map[state.EventNID]int)}
}

// of returns the event's bits, and puts it up for a visit if it is new.
func (w *walk) of(nid state.EventNID) []uint64 {
	i, ok := w.index[nid]
	if !ok {
		i = len(w.bits)
		w.index[nid] = i
		w.bits = append(w.bits, make([]uint64, w.words)...)
		heap.Push(&w.pending, nid)
		w.partial++
	}
	return w.bits[i : i+w.words]
}

func (w *walk) full(bits []uint64) bool {
	for i, word := range bits {
		all := ^uint64(0)
		if i == w.words-1 && w.sets%64 != 0 {
			all = 1<<(w.sets%64) - 1
		}
		if word != all {
			return false
		}
	}
	return true
}

// add lets a pending event gain bits.
func (w *walk) add(nid state.EventNID, gain func(bits []uint64)) {
	bits := w.of(nid)
	if w.full(bits) {
		return
	}
	if gain(bits); w.full(bits) {
		w.partial--
	}
}

func (w *walk) reach(nid state.EventNID, set int) {
	w.add(nid, func(bits []uint64) { bits[set/64] |= 1 << (set % 64) })
}

func (w *walk) reachAll(nid state.EventNID) {
	w.add(nid, func(bits []uint64) {
		for set := range w.sets {
			bits[set/64] |= 1 << (set % 64)
		}
	})
}

// visit takes the newest pending event, hands its bits on to its auth events and
// tells whether all sets reach it.
func (w *walk) visit() (nid state.EventNID, all bool, err error) {
	if _, known := w.graph.auth[w.pending[0]]; !known {
		if err := w.graph.loadAuth(w.pending); err != nil {
			return 0, false, err
		}
	}
	nid = heap.Pop(&w.pending).(state.EventNID)
	from := slices.Clone(w.of(nid))
	all = w.full(from)
	if !all {
		w.partial--
	}
	for _, a := range w.graph.auth[nid] {
		w.add(a, func(bits []uint64) {
			for i := range bits {
				bits[i] |= from[i]
			}
		})
	}
	return nid, all, nil
}
