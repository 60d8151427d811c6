package state

import (
	"cmp"
	"slices"
)

// normal returns the entries sorted by key, each key once; of entries with the
// same key the last counts. Entries that are so already come back as they are.
func normal(entries []Entry) []Entry {
	sorted := true
	for i := 1; i < len(entries) && sorted; i++ {
		sorted = entries[i-1].Key < entries[i].Key
	}
	if sorted {
		return entries
	}
	entries = slices.Clone(entries)
	slices.SortStableFunc(entries, func(a, b Entry) int { return cmp.Compare(a.Key, b.Key) })
	kept := entries[:0]
	for i, e := range entries {
		if i+1 == len(entries) || entries[i+1].Key != e.Key {
			kept = append(kept, e)
		}
	}
	return kept
}

// merge lays newer over older, both in normal order, in a slice of its own;
// removals stay as entries with event 0.
func merge(older, newer []Entry) []Entry {
	merged := make([]Entry, 0, len(older)+len(newer))
	for _, e := range newer {
		i := 0
		for i < len(older) && older[i].Key < e.Key {
			i++
		}
		merged = append(merged, older[:i]...)
		if i < len(older) && older[i].Key == e.Key {
			i++
		}
		merged, older = append(merged, e), older[i:]
	}
	return append(merged, older...)
}

// present drops removals, in place.
func present(entries []Entry) []Entry {
	kept := entries[:0]
	for _, e := range entries {
		if e.Event != 0 {
			kept = append(kept, e)
		}
	}
	return kept
}
