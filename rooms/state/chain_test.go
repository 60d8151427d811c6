package state

import (
	"math/bits"
	"math/rand/v2"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// rows is the table of layers as a database keeps it.
type rows map[int64]row

type row struct {
	parent int64
	blob   []byte
}

func (r rows) store(t testing.TB, l Layer) {
	t.Helper()
	if _, exists := r[l.NID]; exists {
		t.Fatalf("layer %d is written twice", l.NID)
	}
	r[l.NID] = row{l.Parent, AppendEntries(nil, l.Entries)}
}

// load reads the layers of a snapshot, oldest first.
func (r rows) load(t testing.TB, nid int64) (layers []Layer) {
	t.Helper()
	for nid != 0 {
		entries, err := DecodeEntries(r[nid].blob)
		if err != nil {
			t.Fatal(err)
		}
		layers = append(layers, Layer{nid, r[nid].parent, entries})
		nid = r[nid].parent
	}
	slices.Reverse(layers)
	return layers
}

// Snapshots that branch at random are all rebuilt from what was stored, and a
// chain that was read back plans the same layers as one that stayed in memory.
func TestChainRebuildsEverySnapshot(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		type snapshot struct {
			chain Chain
			m     *Map
			o     model
		}
		stored := make(rows)
		all := []snapshot{{o: model{}}}
		for nid := range int64(rapid.IntRange(1, 40).Draw(rt, "snapshots")) {
			from := all[len(all)-1]
			if rapid.IntRange(0, 3).Draw(rt, "jump") == 0 {
				from = rapid.SampledFrom(all).Draw(rt, "from")
			}
			if rapid.Bool().Draw(rt, "reload") {
				var err error
				if from.chain, err = NewChain(stored.load(t, from.chain.Top())); err != nil {
					rt.Fatal(err)
				}
			}
			delta := drawChanges(rt)
			to := snapshot{m: from.m.Apply(delta), o: from.o.apply(delta)}
			grow := Chain.Next
			if rapid.IntRange(0, 4).Draw(rt, "fork") == 0 {
				grow = Chain.Fork
			}
			var layer Layer
			layer, to.chain = grow(from.chain, nid+1, delta, to.m)
			if to.chain.Top() != nid+1 {
				rt.Fatalf("the new chain ends in %d, not in %d", to.chain.Top(), nid+1)
			}
			stored.store(t, layer)
			clear(delta)
			all = append(all, to)
		}
		for _, s := range all {
			layers := stored.load(t, s.chain.Top())
			if len(layers) != s.chain.Depth() {
				rt.Fatalf("%d layers, the chain says %d", len(layers), s.chain.Depth())
			}
			if got := Rebuild(layers).Entries(); !slices.Equal(got, s.o.entries()) {
				rt.Fatalf("snapshot %d is rebuilt as %v, want %v", s.chain.Top(), got, s.o.entries())
			}
			if len(layers) > 0 && slices.ContainsFunc(layers[0].Entries, func(e Entry) bool { return e.Event == 0 }) {
				rt.Fatalf("the bottom layer holds removals: %v", layers[0].Entries)
			}
		}
	})
}

func TestRemovalSurvivesUntilTheBottom(t *testing.T) {
	stored := make(rows)
	m := numbered(1000)
	layer, chain := Chain{}.Next(1, m.Entries(), m)
	stored.store(t, layer)
	for nid := int64(2); nid < 1200; nid++ {
		delta := []Entry{{KeyNID(nid), 0}}
		m = m.Apply(delta)
		layer, chain = chain.Next(nid, delta, m)
		stored.store(t, layer)
		if got := Rebuild(stored.load(t, nid)); len(Diff(got, m)) > 0 {
			t.Fatalf("snapshot %d differs: %v", nid, Diff(got, m))
		}
	}
}

func TestNewChainRefusesGaps(t *testing.T) {
	for name, layers := range map[string][]Layer{
		"the bottom is missing": {{NID: 2, Parent: 1}},
		"the middle is missing": {{NID: 1}, {NID: 3, Parent: 2}},
		"newest first":          {{NID: 2, Parent: 1}, {NID: 1}},
		"no number":             {{}},
	} {
		if _, err := NewChain(layers); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

// A room that grows to 50,000 members, one join at a time, among other rooms
// that take numbers as well.
func TestStorageOfAGrowingRoom(t *testing.T) {
	const (
		members     = 50_000
		rowOverhead = 20
		budget      = 100 // bytes a join, where 200 are allowed
	)
	random := rand.New(rand.NewPCG(1, 2))
	var m *Map
	var chain Chain
	key, event, total := KeyNID(10_000_000), EventNID(100_000_000), 0
	for nid := int64(1); nid <= members; nid++ {
		key += 1 + KeyNID(random.IntN(20))
		event += 1 + EventNID(random.IntN(100))
		delta := []Entry{{key, event}}
		m = m.Apply(delta)
		var layer Layer
		layer, chain = chain.Next(nid, delta, m)
		total += rowOverhead + len(AppendEntries(nil, layer.Entries))
		if most := bits.Len(uint(m.Len())) + 1; chain.Depth() > most {
			t.Fatalf("%d layers for %d members, at most %d expected", chain.Depth(), m.Len(), most)
		}
	}
	if perJoin := total / members; perJoin > budget {
		t.Errorf("%d bytes of state a join, want at most %d", perJoin, budget)
	} else {
		t.Logf("%d bytes of state a join, rows included; %d layers at the end", perJoin, chain.Depth())
	}
}

// Members change their names in turn: old entries are replaced, so the state
// stays as large as it is and its chain as short.
func TestStorageOfAChangingRoom(t *testing.T) {
	const members, changes = 2000, 20_000
	random := rand.New(rand.NewPCG(3, 4))
	m := numbered(members)
	_, chain := Chain{}.Next(1, m.Entries(), m)
	total := 0
	for i := range int64(changes) {
		delta := []Entry{{KeyNID(1 + random.IntN(members)), EventNID(100_000 + 10*i)}}
		m = m.Apply(delta)
		var layer Layer
		layer, chain = chain.Next(i+2, delta, m)
		total += len(AppendEntries(nil, layer.Entries))
		if chain.Depth() > bits.Len(members)+1 {
			t.Fatalf("%d layers", chain.Depth())
		}
	}
	if perChange := total / changes; perChange > 100 {
		t.Errorf("%d bytes a change", perChange)
	}
}

// Many events on top of one old snapshot must not each have the whole state
// written, whichever snapshot a remote server picks.
func TestForksCostWhatTheyChange(t *testing.T) {
	const members, forks = 4096, 200
	var m *Map
	var chain Chain
	for nid := int64(1); nid <= members; nid++ {
		delta := []Entry{{KeyNID(nid), EventNID(nid)}}
		m = m.Apply(delta)
		_, chain = chain.Next(nid, delta, m)
		if nid < members-50 {
			continue
		}
		side, sideMap, written := chain, m, 0
		for i := range int64(forks) {
			delta := []Entry{{KeyNID(members + 1 + i), 1_000_000 + EventNID(i)}}
			layer, _ := chain.Fork(10_000+i, delta, m.Apply(delta))
			written += len(layer.Entries)
			// A line of forks is merged now and then, so that it stays readable.
			sideMap = sideMap.Apply(delta)
			layer, side = side.Fork(20_000+i, delta, sideMap)
			written += len(layer.Entries)
			if side.Depth() > maxFork {
				t.Fatalf("%d layers", side.Depth())
			}
		}
		if written > 2*forks+2*(members+forks) {
			t.Fatalf("%d entries were written for %d forks at snapshot %d", written, 2*forks, nid)
		}
	}
}
