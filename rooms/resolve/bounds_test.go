package resolve_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms/event"
	"github.com/teahouse-chat/teahouse/rooms/resolve"
	"github.com/teahouse-chat/teahouse/rooms/state"
)

func user(i int) string { return fmt.Sprintf("@user%d:u.example", i) }

// crowded is a room with n members beside alice, bob and carol, who have power.
func crowded(t failer, version string, n int) (*world, branch) {
	w, b := opened(t, version, map[string]int{bob: 50, carol: 75}, nil)
	b = w.must(b, matrix.TypeMember, bob, bob, membership("join"), 4)
	b = w.must(b, matrix.TypeMember, carol, carol, membership("join"), 5)
	for i := range n {
		b = w.must(b, matrix.TypeMember, user(i), user(i), membership("join"), int64(6+i))
	}
	return w, b
}

// wide forks a room: a thousand members are kicked on one side and banned on the
// other, and the power levels change all the time on both.
func wide(t failer, version string, n int) (w *world, left, right branch) {
	w, b := crowded(t, version, n)
	left, right = b, b
	for i := range n {
		ts := int64(10_000 + i)
		left = w.must(left, matrix.TypeMember, user(i), bob, membership("leave"), ts)
		right = w.must(right, matrix.TypeMember, user(i), carol, membership("ban"), ts)
		if i%10 == 0 {
			left = w.must(left, matrix.TypePowerLevels, "", alice, powers(w, map[string]int{bob: 50, carol: 75, erin: i % 100}), ts)
			right = w.must(right, matrix.TypePowerLevels, "", alice, powers(w, map[string]int{bob: 50, carol: 75, dave: i % 100}), ts)
		}
	}
	return w, left, right
}

func TestWideForkIsResolvedInTime(t *testing.T) {
	for _, version := range []string{"1", "2", "11", "12"} {
		w, left, right := wide(t, version, 1000)
		start := time.Now()
		m := w.resolve([]*state.Map{left.state, right.state})
		took := time.Since(start)
		t.Logf("version %s: %v, %d batches of %d records", version, took, w.batches, w.loaded)
		if took > time.Second {
			t.Errorf("version %s took %v", version, took)
		}
		if w.batches > 10 {
			t.Errorf("version %s asked %d times", version, w.batches)
		}
		if m.Len() != left.state.Len() {
			t.Errorf("version %s: %d entries, want %d", version, m.Len(), left.state.Len())
		}
	}
}

// A fork of many small branches, more than fit in a word of bits.
func TestManyBranches(t *testing.T) {
	for _, version := range []string{"1", "6", "12"} {
		w, b := crowded(t, version, 0)
		var sets []*state.Map
		for i := range 150 {
			side := w.must(b, matrix.TypeTopic, "", bob, map[string]any{"topic": fmt.Sprint(i)}, int64(100+i%7))
			if i%3 == 0 {
				side = w.must(side, matrix.TypePowerLevels, "", alice, powers(w, map[string]int{bob: 50, carol: i % 60}), int64(100+i%5))
				side = w.must(side, matrix.TypeName, "", alice, map[string]any{"name": fmt.Sprint(i)}, int64(100+i%11))
			}
			sets = append(sets, side.state)
		}
		start := time.Now()
		w.resolve(sets)
		if took := time.Since(start); took > time.Second {
			t.Errorf("version %s took %v", version, took)
		}
		w.agree(t, sets[:70]...)
	}
}

// The cost is that of the conflict: in a room of thousands a topic on two sides
// asks for a handful of events, and so do power levels.
func TestCostGrowsWithTheConflict(t *testing.T) {
	for _, version := range []string{"1", "2", "12"} {
		w, b := crowded(t, version, 3000)
		b = w.must(b, matrix.TypeTopic, "", bob, map[string]any{"topic": "old"}, 50_000)
		left := w.must(b, matrix.TypeTopic, "", bob, map[string]any{"topic": "left"}, 50_001)
		left = w.must(left, matrix.TypePowerLevels, "", alice, powers(w, map[string]int{bob: 60}), 50_002)
		left = w.must(left, matrix.TypeName, "", bob, map[string]any{"name": "left"}, 50_003)
		right := w.must(b, matrix.TypeTopic, "", bob, map[string]any{"topic": "right"}, 50_004)
		right = w.must(right, matrix.TypePowerLevels, "", alice, powers(w, map[string]int{bob: 70}), 50_005)
		right = w.must(right, matrix.TypeMember, user(5), bob, membership("ban"), 50_006)
		w.batches, w.loaded = 0, 0
		w.resolve([]*state.Map{left.state, right.state})
		if w.loaded > 40 || w.batches > 20 {
			t.Errorf("version %s: %d records in %d batches", version, w.loaded, w.batches)
		}
	}
}

// Long chains are walked, not recurred into, and only where they matter.
func TestDeepChains(t *testing.T) {
	for _, version := range []string{"2", "12"} {
		w, b := opened(t, version, nil, nil)
		b = w.must(b, matrix.TypeMember, bob, bob, membership("join"), 4)
		old := b
		for i := range 3000 {
			b = w.must(b, matrix.TypePowerLevels, "", alice, powers(w, map[string]int{bob: i % 2}), int64(5+i))
		}
		left := w.must(b, matrix.TypeTopic, "", alice, map[string]any{"topic": "left"}, 9000)
		right := w.must(old, matrix.TypeTopic, "", alice, map[string]any{"topic": "right"}, 9001)
		start := time.Now()
		m := w.resolve([]*state.Map{left.state, right.state})
		if took := time.Since(start); took > time.Second {
			t.Errorf("version %s took %v", version, took)
		}
		if levelOf(view{w, m}, bob) != 1 {
			t.Errorf("version %s lost the chain", version)
		}
	}
}

// A source that contradicts itself is an error, not an endless walk.
func TestCyclesEnd(t *testing.T) {
	for _, version := range []string{"2", "12"} {
		for _, auth := range [][]state.EventNID{{6}, {7}, {8}, {0}, {-1}} {
			w, b := opened(t, version, nil, nil)
			left := w.must(b, matrix.TypeTopic, "", alice, map[string]any{"topic": "left"}, 5)
			left = w.must(left, matrix.TypePowerLevels, "", alice, powers(w, map[string]int{bob: 1}), 6)
			right := w.must(b, matrix.TypeTopic, "", alice, map[string]any{"topic": "right"}, 7)
			w.records[5].Auth = auth
			w.records[4].Auth = []state.EventNID{6}
			for _, src := range []resolve.Source{w, edges{w}} {
				if _, err := resolve.Resolve(w.v, []*state.Map{left.state, right.state}, src); err == nil || !strings.Contains(err.Error(), "not older") {
					t.Errorf("version %s, auth %v: %v", version, auth, err)
				}
			}
		}
	}
}

func TestUnknownAlgorithm(t *testing.T) {
	w, b := opened(t, "12", nil, nil)
	other := w.must(b, matrix.TypeTopic, "", alice, map[string]any{"topic": "t"}, 9)
	v := &event.Version{ID: "none"}
	if _, err := resolve.Resolve(v, []*state.Map{b.state, other.state}, w); err == nil {
		t.Error("no error")
	}
}

func BenchmarkResolveTopic(b *testing.B) {
	w, at := crowded(b, "12", 2000)
	left := w.must(at, matrix.TypeTopic, "", bob, map[string]any{"topic": "left"}, 50_001)
	right := w.must(at, matrix.TypeTopic, "", bob, map[string]any{"topic": "right"}, 50_002)
	sets := []*state.Map{left.state, right.state}
	b.ReportAllocs()
	for b.Loop() {
		w.resolve(sets)
	}
}

func BenchmarkResolveWide(b *testing.B) {
	w, left, right := wide(b, "12", 1000)
	sets := []*state.Map{left.state, right.state}
	b.ReportAllocs()
	for b.Loop() {
		w.resolve(sets)
	}
}
