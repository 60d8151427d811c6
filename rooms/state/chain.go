package state

import (
	"fmt"
	"slices"
)

// Layer is one stored snapshot: what it changes over its parent snapshot, or
// all of its state if it has no parent (0). Entries are sorted by key; one with
// event 0 removes its key from what the parents say.
type Layer struct {
	NID, Parent int64
	Entries     []Entry
}

// Chain is the stored form of one snapshot, as the next snapshot needs to know
// it: its layers' numbers and sizes, and the entries of all but the bottom one,
// so that planning never reads the database. It is immutable; the zero Chain
// belongs to the empty state before a room's first event.
type Chain struct {
	links []link // oldest first
}

type link struct {
	nid     int64
	size    int
	entries []Entry // nil for the bottom: when that is due, the Map has them
}

// NewChain makes the chain of a snapshot from its layers, oldest first, as they
// were read to Rebuild it. It fails if they do not follow on each other.
func NewChain(layers []Layer) (Chain, error) {
	var c Chain
	for _, l := range layers {
		if l.NID == 0 || l.Parent != c.Top() {
			return Chain{}, fmt.Errorf("state: layer %d is stored over %d, not over %d", l.NID, l.Parent, c.Top())
		}
		_, c = c.push(l.NID, l.Entries)
	}
	return c, nil
}

// Rebuild is the state that layers amount to, oldest first.
func Rebuild(layers []Layer) *Map {
	var m *Map
	for _, l := range layers {
		m = m.Apply(l.Entries)
	}
	return m
}

// Top is the number of the snapshot, 0 of the empty state.
func (c Chain) Top() int64 {
	if len(c.links) == 0 {
		return 0
	}
	return c.links[len(c.links)-1].nid
}

// Depth is the number of layers that must be read to rebuild the snapshot.
func (c Chain) Depth() int { return len(c.links) }

// Next gives the layer to store as snapshot nid, which changes c's snapshot by
// delta and so has the state after, and the chain of the new snapshot.
//
// The new layer takes over the top layers while it reaches half the size of
// the next: then every layer is less than half of the one below, a chain over a
// bottom of n entries has at most log2(n)+2 layers, and an entry is written
// again about log n times at most. What it took over stays stored for the
// snapshots that build on it.
func (c Chain) Next(nid int64, delta []Entry, after *Map) (Layer, Chain) {
	entries := merge(nil, normal(delta))
	keep := len(c.links)
	for keep > 0 && 2*len(entries) >= c.links[keep-1].size {
		keep--
		entries = merge(c.links[keep].entries, entries)
	}
	if keep == 0 {
		entries = after.Entries()
	}
	return Chain{c.links[:keep]}.push(nid, entries)
}

// maxFork bounds the layers that Fork may pile up.
const maxFork = 64

// Fork is Next for a snapshot beside the line of snapshots that the room grows
// along. It takes nothing over: where Next is due to write a large layer, a
// server that sends many events with that same snapshot before them would have
// it written for each of them.
func (c Chain) Fork(nid int64, delta []Entry, after *Map) (Layer, Chain) {
	if len(c.links) == 0 || len(c.links) >= maxFork {
		return c.Next(nid, delta, after)
	}
	return c.push(nid, merge(nil, normal(delta)))
}

// push puts a layer on the chain, in a new chain.
func (c Chain) push(nid int64, entries []Entry) (Layer, Chain) {
	l := Layer{NID: nid, Parent: c.Top(), Entries: entries}
	top := link{nid: nid, size: len(entries)}
	if l.Parent != 0 {
		top.entries = entries
	}
	return l, Chain{append(slices.Clip(c.links), top)}
}
