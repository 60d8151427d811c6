package state

import "iter"

// KeyNID is the number of a pair of event type and state key; it is positive.
type KeyNID int64

// EventNID is the number of an event; it is positive. Where an Entry is a
// change, 0 stands for "no event any more".
type EventNID int64

// Entry says which event stands at a key.
type Entry struct {
	Key   KeyNID
	Event EventNID
}

// maxChunk bounds the entries of a chunk, and with them what a Set copies.
const maxChunk = 256

// minChunk is the size below which a chunk joins its neighbour.
const minChunk = maxChunk / 4

// Map is one version of a room's state: a sorted array of entries, cut into
// chunks that versions share. A nil *Map is the empty state.
type Map struct {
	spans []span
	n     int
}

// span is a chunk with its smallest key beside it, so that a search stays in
// the index.
type span struct {
	min   KeyNID
	chunk *chunk
}

type chunk struct{ entries []Entry }

// Len is the number of entries.
func (m *Map) Len() int {
	if m == nil {
		return 0
	}
	return m.n
}

// Get returns the event at the key.
func (m *Map) Get(key KeyNID) (EventNID, bool) {
	i := m.find(key)
	if i < 0 {
		return 0, false
	}
	entries := m.spans[i].chunk.entries
	low, high := 0, len(entries)
	for low < high {
		if mid := int(uint(low+high) / 2); entries[mid].Key < key {
			low = mid + 1
		} else {
			high = mid
		}
	}
	if low == len(entries) || entries[low].Key != key {
		return 0, false
	}
	return entries[low].Event, true
}

// All yields the entries in the order of their keys.
func (m *Map) All() iter.Seq2[KeyNID, EventNID] {
	return func(yield func(KeyNID, EventNID) bool) {
		if m == nil {
			return
		}
		for _, s := range m.spans {
			for _, e := range s.chunk.entries {
				if !yield(e.Key, e.Event) {
					return
				}
			}
		}
	}
}

// Entries lists the entries in the order of their keys.
func (m *Map) Entries() []Entry {
	all := make([]Entry, 0, m.Len())
	if m != nil {
		for _, s := range m.spans {
			all = append(all, s.chunk.entries...)
		}
	}
	return all
}

// find returns the index of the only chunk that can hold the key, -1 if the key
// is smaller than all.
func (m *Map) find(key KeyNID) int {
	if m == nil {
		return -1
	}
	low, high := 0, len(m.spans)
	for low < high {
		if mid := int(uint(low+high) / 2); m.spans[mid].min <= key {
			low = mid + 1
		} else {
			high = mid
		}
	}
	return low - 1
}
