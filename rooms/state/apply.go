package state

import (
	"slices"
	"sort"
)

// Set returns the state with the event at the key; event 0 removes the key. A
// Set that changes nothing returns m itself.
func (m *Map) Set(key KeyNID, event EventNID) *Map {
	return m.Apply([]Entry{{key, event}})
}

// Apply returns the state with all changes made, in one pass; an entry with
// event 0 removes its key, and of several entries with the same key the last
// counts. Changes that change nothing return m itself. It copies the index and
// the chunks that it touches.
func (m *Map) Apply(changes []Entry) *Map {
	changes = normal(changes)
	var old []span
	if m != nil {
		old = m.spans
	}
	b := builder{spans: make([]span, 0, len(old)+1+len(changes)/minChunk), n: m.Len()}
	for len(changes) > 0 {
		i := max(m.find(changes[0].Key), 0)
		group := changes
		if i+1 < len(old) {
			end := sort.Search(len(changes), func(j int) bool { return changes[j].Key >= old[i+1].min })
			group = changes[:end]
		}
		changes = changes[len(group):]
		b.keep(old[b.used:min(i, len(old))])
		if i < len(old) {
			b.edit(old[i], group, i+1 == len(old))
		} else {
			b.grow(nil, present(slices.Clone(group)))
		}
	}
	if !b.changed {
		return m
	}
	b.keep(old[b.used:])
	return &Map{spans: b.spans, n: b.n}
}

// FromEntries builds a state; entries may come in any order, of several with
// the same key the last counts, and those with event 0 are left out.
func FromEntries(entries []Entry) *Map { return (*Map)(nil).Apply(entries) }

// builder collects the chunks of a new version from left to right.
type builder struct {
	spans   []span
	used    int // chunks of the old version that are dealt with
	n       int // entries of the new version, as far as is known
	changed bool
}

// keep takes over chunks of the old version. Only the first can need to join
// what is before it: the others were neighbours already.
func (b *builder) keep(old []span) {
	b.used += len(old)
	if len(old) > 0 {
		b.put(old[0].chunk)
		b.spans = append(b.spans, old[1:]...)
	}
}

// edit takes over a chunk of the old version with the changes that fall on it.
func (b *builder) edit(old span, group []Entry, last bool) {
	b.used++
	entries := old.chunk.entries
	if last && group[0].Key > entries[len(entries)-1].Key {
		b.grow(old.chunk, present(slices.Clone(group)))
		return
	}
	edited := present(merge(entries, group))
	if slices.Equal(entries, edited) {
		b.put(old.chunk)
		return
	}
	b.changed = true
	b.n += len(edited) - len(entries)
	pieces := max(1, (len(edited)+maxChunk-1)/maxChunk)
	b.cut(edited, (len(edited)+pieces-1)/pieces)
}

// grow puts the last chunk of the old version, nil if there is none, and the
// entries that go behind it. A growing room gets its keys in ascending order:
// its chunks are filled and then left alone, instead of being split half full.
func (b *builder) grow(last *chunk, added []Entry) {
	b.changed = b.changed || len(added) > 0
	b.n += len(added)
	if last != nil && (len(added) == 0 || len(last.entries) == maxChunk) {
		b.put(last)
		last = nil
	}
	if last != nil {
		added = slices.Concat(last.entries, added)
	}
	b.cut(added, maxChunk)
}

// cut puts entries in chunks of the size. They become the builder's own.
func (b *builder) cut(entries []Entry, size int) {
	switch {
	case len(entries) == 0:
	case len(entries) <= size:
		b.put(&chunk{entries})
	default:
		for piece := range slices.Chunk(entries, size) {
			// Copied, so that no chunk keeps the memory of another alive.
			b.put(&chunk{slices.Clone(piece)})
		}
	}
}

// put appends a chunk. Where it or the chunk before it has become small, the
// two are joined, with room left so that the next Set does not split them.
func (b *builder) put(c *chunk) {
	if len(b.spans) > 0 {
		last := &b.spans[len(b.spans)-1]
		x, y := last.chunk.entries, c.entries
		if min(len(x), len(y)) < minChunk && len(x)+len(y) <= maxChunk-minChunk {
			last.chunk = &chunk{slices.Concat(x, y)}
			return
		}
	}
	b.spans = append(b.spans, span{c.entries[0].Key, c})
}
