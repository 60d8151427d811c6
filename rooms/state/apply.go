package state

import (
	"slices"
)

// Set returns the state with the event at the key; event 0 removes the key. A
// Set that changes nothing returns m itself.
func (m *Map) Set(key KeyNID, event EventNID) *Map {
	return m.Apply([]Entry{{key, event}})
}

// Apply returns the state with all changes made, in one pass; an entry with
// event 0 removes its key, and of several entries with the same key the last
// counts. Changes that change nothing return m itself.
func (m *Map) Apply(changes []Entry) *Map {
	changes = normal(changes)
	if len(changes) == 0 {
		return m
	}
	return FromEntries(merge(m.Entries(), changes))
}

// FromEntries builds a state; entries may come in any order, of several with
// the same key the last counts, and those with event 0 are left out.
func FromEntries(entries []Entry) *Map {
	m := new(Map)
	for c := range slices.Chunk(slices.DeleteFunc(slices.Clone(normal(entries)), func(e Entry) bool { return e.Event == 0 }), maxChunk) {
		m.spans = append(m.spans, span{c[0].Key, &chunk{c}})
		m.n += len(c)
	}
	return m
}

// merge lays newer over older, both sorted by key; removals of newer stay as
// entries with event 0.
func merge(older, newer []Entry) []Entry {
	merged := make([]Entry, 0, len(older)+len(newer))
	i := 0
	for _, e := range newer {
		for i < len(older) && older[i].Key < e.Key {
			merged = append(merged, older[i])
			i++
		}
		if i < len(older) && older[i].Key == e.Key {
			i++
		}
		merged = append(merged, e)
	}
	return append(merged, older[i:]...)
}
