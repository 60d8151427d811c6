package state

import (
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// model is the state as a plain map, which every operation is compared with.
type model map[KeyNID]EventNID

func (o model) apply(changes []Entry) model {
	o = maps.Clone(o)
	for _, c := range changes {
		o[c.Key] = c.Event
		if c.Event == 0 {
			delete(o, c.Key)
		}
	}
	return o
}

func (o model) entries() []Entry {
	list := make([]Entry, 0, len(o))
	for _, k := range slices.Sorted(maps.Keys(o)) {
		list = append(list, Entry{k, o[k]})
	}
	return list
}

func (o model) diff(to model) (changes []Change) {
	both := maps.Clone(o)
	maps.Copy(both, to)
	for _, k := range slices.Sorted(maps.Keys(both)) {
		if o[k] != to[k] {
			changes = append(changes, Change{k, o[k], to[k]})
		}
	}
	return changes
}

// drawChanges makes changes as rooms do: single ones, new keys at the end, runs
// of neighbours, removals, and keys that occur twice.
func drawChanges(t *rapid.T) []Entry {
	const keys = 3000
	event := rapid.OneOf(rapid.Just(EventNID(0)), rapid.Map(rapid.Int64Range(1, 1<<40), func(n int64) EventNID { return EventNID(n) }))
	start := rapid.Int64Range(1, keys).Draw(t, "start")
	step := rapid.Int64Range(1, 9).Draw(t, "step")
	n := rapid.OneOf(rapid.Just(1), rapid.IntRange(0, 5), rapid.IntRange(100, 900)).Draw(t, "count")
	first := event.Draw(t, "event")
	changes := make([]Entry, 0, n+3)
	for i := range int64(n) {
		e := Entry{KeyNID(start + i*step), first}
		if first != 0 {
			e.Event += EventNID(i)
		}
		changes = append(changes, e)
	}
	for range rapid.IntRange(0, 3).Draw(t, "others") {
		changes = append(changes, Entry{KeyNID(rapid.Int64Range(1, 2*keys).Draw(t, "key")), event.Draw(t, "event")})
	}
	return changes
}

func TestMapAgreesWithPlainMap(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		type version struct {
			m *Map
			o model
		}
		versions := []version{{nil, model{}}}
		for range rapid.IntRange(1, 25).Draw(t, "steps") {
			from := rapid.SampledFrom(versions).Draw(t, "from")
			changes := drawChanges(t)
			given := slices.Clone(changes)
			to := version{o: from.o.apply(changes)}
			switch {
			case len(changes) == 1:
				to.m = from.m.Set(changes[0].Key, changes[0].Event)
			case from.m == nil:
				to.m = FromEntries(changes)
			default:
				to.m = from.m.Apply(changes)
			}
			if !slices.Equal(given, changes) {
				t.Fatal("the caller's changes were changed")
			}
			if len(from.o.diff(to.o)) == 0 && to.m != from.m {
				t.Fatal("changes that change nothing made a new version")
			}
			if got, want := Diff(from.m, to.m), from.o.diff(to.o); !slices.Equal(got, want) {
				t.Fatalf("Diff to the next version = %v, want %v", got, want)
			}
			versions = append(versions, to)
		}
		for _, v := range versions {
			checkShape(t, v.m)
			if got := v.m.Entries(); !slices.Equal(got, v.o.entries()) || v.m.Len() != len(v.o) {
				t.Fatalf("entries = %v (%d), want %v", got, v.m.Len(), v.o.entries())
			}
			for range 20 {
				k := KeyNID(rapid.Int64Range(-1, 7000).Draw(t, "key"))
				got, ok := v.m.Get(k)
				if want, wantOK := v.o[k]; got != want || ok != wantOK {
					t.Fatalf("Get(%d) = %d, %v, want %d, %v", k, got, ok, want, wantOK)
				}
			}
			other := rapid.SampledFrom(versions).Draw(t, "other")
			if got, want := Diff(v.m, other.m), v.o.diff(other.o); !slices.Equal(got, want) {
				t.Fatalf("Diff = %v, want %v", got, want)
			}
		}
	})
}

// checkShape checks the invariants that doc.go promises, and that chunks are
// few: two neighbours hold at least minChunk*2 entries between them.
func checkShape(t rapid.TB, m *Map) {
	t.Helper()
	if m == nil {
		return
	}
	last, n := KeyNID(0), 0
	for i, s := range m.spans {
		entries := s.chunk.entries
		if len(entries) == 0 || len(entries) > maxChunk || s.min != entries[0].Key {
			t.Fatalf("chunk %d: %d entries from %d, indexed at %d", i, len(entries), entries[0].Key, s.min)
		}
		if i > 0 && len(entries)+len(m.spans[i-1].chunk.entries) < 2*minChunk {
			t.Fatalf("chunks %d and %d are small and were not joined", i-1, i)
		}
		for _, e := range entries {
			if e.Key <= last || e.Event == 0 {
				t.Fatalf("chunk %d: %v after key %d", i, e, last)
			}
			last = e.Key
		}
		n += len(entries)
	}
	if n != m.n {
		t.Fatalf("%d entries, counted as %d", n, m.n)
	}
}

// Where most entries go, what is left moves together; the last ones out leave
// the empty state.
func TestChunksOfAShrinkingStateAreJoined(t *testing.T) {
	const n = 20 * maxChunk
	for _, bulk := range []bool{false, true} {
		m, o := numbered(n), model{}
		for _, e := range m.Entries() {
			o[e.Key] = e.Event
		}
		random := rand.New(rand.NewPCG(5, 6))
		var pending []Entry
		for i, k := range random.Perm(n) {
			pending = append(pending, Entry{KeyNID(k + 1), 0})
			if bulk && len(pending) < n/16 && i < n-1 {
				continue
			}
			m, o, pending = m.Apply(pending), o.apply(pending), nil
			if i%97 == 0 || bulk {
				checkShape(t, m)
			}
			if i%997 == 0 && !slices.Equal(m.Entries(), o.entries()) {
				t.Fatalf("after %d removals: %v, want %v", i+1, m.Entries(), o.entries())
			}
		}
		if m.Len() != 0 || len(m.spans) != 0 || len(Diff(m, nil)) != 0 {
			t.Errorf("%d entries in %d chunks are left", m.Len(), len(m.spans))
		}
	}
}

// A run of chunks that shrink together is joined over all of them.
func TestManySmallChunksAreJoinedAtOnce(t *testing.T) {
	m := numbered(20 * maxChunk)
	var changes []Entry
	for k := range m.All() {
		if k%50 != 0 {
			changes = append(changes, Entry{k, 0})
		}
	}
	m = m.Apply(changes)
	checkShape(t, m)
	if m.Len() != 20*maxChunk/50 || len(m.spans) > 2 {
		t.Errorf("%d entries lie in %d chunks", m.Len(), len(m.spans))
	}
}

func TestLastOfSeveralChangesCounts(t *testing.T) {
	var changes []Entry
	want := model{}
	random := rand.New(rand.NewPCG(7, 8))
	for i := range 5000 {
		e := Entry{KeyNID(1 + random.IntN(300)), EventNID(i + 1)}
		changes = append(changes, e)
		want[e.Key] = e.Event
	}
	if got := FromEntries(changes).Entries(); !slices.Equal(got, want.entries()) {
		t.Errorf("got %v, want %v", got, want.entries())
	}
}

func TestAllStopsWhenAsked(t *testing.T) {
	m := numbered(1000)
	var seen []KeyNID
	for k := range m.All() {
		if seen = append(seen, k); len(seen) == 3 {
			break
		}
	}
	if !slices.Equal(seen, []KeyNID{1, 2, 3}) {
		t.Errorf("saw %v", seen)
	}
	for range (*Map)(nil).All() {
		t.Error("the empty state has entries")
	}
}

// A room's keys are numbered as they come, so that its chunks must fill up.
func TestGrowingStateFillsItsChunks(t *testing.T) {
	var m *Map
	for i := range 10 * maxChunk {
		m = m.Set(KeyNID(i+1), EventNID(i+1))
	}
	if len(m.spans) != 10 {
		t.Errorf("%d entries lie in %d chunks, want 10", m.n, len(m.spans))
	}
}

// A one-entry change costs one chunk, and its Diff looks at that one only.
func TestVersionsShareChunks(t *testing.T) {
	const full = 400 * maxChunk
	even := make([]Entry, full)
	for i := range even {
		even[i] = Entry{KeyNID(2*i + 2), EventNID(i + 10)}
	}
	a := FromEntries(even)
	for name, c := range map[string]struct {
		change Entry
		copied int
	}{
		"replace":       {Entry{full, 7_000_000}, 1},
		"remove":        {Entry{full, 0}, 1},
		"insert, split": {Entry{full + 1, 7_000_000}, 2},
		"first":         {Entry{1, 7_000_000}, 2},
		"behind all":    {Entry{2*full + 1, 7_000_000}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			b := a.Set(c.change.Key, c.change.Event)
			shared := make(map[*chunk]bool)
			for _, s := range a.spans {
				shared[s.chunk] = true
			}
			own := 0
			for _, s := range b.spans {
				if !shared[s.chunk] {
					own++
				}
			}
			if own != c.copied {
				t.Errorf("%d of %d chunks were copied, want %d", own, len(b.spans), c.copied)
			}
			for _, pair := range [][2]*Map{{a, b}, {b, a}} {
				changes, compared := diff(pair[0], pair[1])
				if len(changes) != 1 || compared > maxChunk+1 {
					t.Errorf("%d changes, %d entries compared", len(changes), compared)
				}
			}
		})
	}
}

// numbered is a state of n entries as a room of n members has it.
func numbered(n int) *Map {
	entries := make([]Entry, n)
	for i := range entries {
		entries[i] = Entry{KeyNID(i + 1), EventNID(2*i + 10)}
	}
	return FromEntries(entries)
}

func BenchmarkSet(b *testing.B) {
	m := numbered(100_000)
	b.ReportAllocs()
	for i := range b.N {
		m.Set(KeyNID(i*7919%100_000+1), EventNID(i+1_000_000))
	}
}

func BenchmarkGet(b *testing.B) {
	m := numbered(100_000)
	for i := range b.N {
		m.Get(KeyNID(i*7919%100_000 + 1))
	}
}

func BenchmarkDiffOneOf100000(b *testing.B) {
	x := numbered(100_000)
	y := x.Set(50_000, 7)
	b.ReportAllocs()
	for range b.N {
		Diff(x, y)
	}
}

func BenchmarkFromEntries100000(b *testing.B) {
	entries := numbered(100_000).Entries()
	for range b.N {
		FromEntries(entries)
	}
}

func BenchmarkApply1000Of100000(b *testing.B) {
	m := numbered(100_000)
	changes := make([]Entry, 1000)
	for i := range changes {
		changes[i] = Entry{KeyNID(i*97 + 1), 5}
	}
	for range b.N {
		m.Apply(changes)
	}
}
