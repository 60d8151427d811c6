package rooms_test

import (
	"fmt"
	"math/rand"
	"slices"
	"testing"

	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms"
	"github.com/teahouse-chat/teahouse/rooms/event"
)

// web makes a graph of n events in which each builds on one to three of the last
// ones, and gives them in an order in which they could have been sent.
func (s *server) web(by *server, n int, random *rand.Rand) []*event.Event {
	s.t.Helper()
	by.room, by.v = s.room, s.v
	from := current(s.events())
	refs, depth := s.extremities(), int64(20)
	var events []*event.Event
	for i := range n {
		prev := []event.Ref{refs[len(refs)-1]}
		for range random.Intn(3) {
			if ref := refs[max(0, len(refs)-1-random.Intn(5))]; !slices.Contains(prev, ref) {
				prev = append(prev, ref)
			}
		}
		ev := by.forge(draft{sender: by.user, typ: matrix.TypeMessage, content: fmt.Sprintf(`{"body":"%d"}`, i), prev: prev, from: from, depth: depth})
		refs, depth, events = append(refs, ev.Ref()), depth+1, append(events, ev)
	}
	return events
}

func idsOf(events []*rooms.Stored) []matrix.EventID {
	var ids []matrix.EventID
	for _, st := range events {
		ids = append(ids, st.ID)
	}
	return ids
}

func (s *server) before(limit int, from ...matrix.EventID) []matrix.EventID {
	s.t.Helper()
	events, err := s.Before(s.t.Context(), s.theRoom(), from, limit)
	if err != nil {
		s.t.Fatal(err)
	}
	return idsOf(events)
}

func (s *server) between(earliest, latest []matrix.EventID, depth int64, limit int) []matrix.EventID {
	s.t.Helper()
	events, err := s.Between(s.t.Context(), s.theRoom(), earliest, latest, depth, limit)
	if err != nil {
		s.t.Fatal(err)
	}
	return idsOf(events)
}

// TestWalkBack walks back through a tangled room: in pages of any size, all of it
// is found, and what is asked for between two ends is what lies there.
func TestWalkBack(t *testing.T) {
	for _, kind := range kinds {
		a, b := newServer(t, "a", kind), newServer(t, "b", "sqlite")
		a.found(lookup(t, "12"))
		b.joinVia(a)
		sent := a.web(b, 250, rand.New(rand.NewSource(1)))
		a.accept(sent...)
		slices.Reverse(sent)
		want := make([]matrix.EventID, len(sent))
		for i, ev := range sent {
			want[i] = ev.ID
		}
		for _, limit := range []int{0, 1, 7, 250} {
			if got := a.before(limit, want[0]); !slices.Equal(got, want[:limit]) {
				t.Errorf("%d events: %v", limit, got)
			}
		}
		if got := a.before(10_000, want[0]); len(got) != 255 {
			t.Errorf("all that there is: %d", len(got))
		}
		if got := a.before(10, "$unknown"); len(got) != 0 {
			t.Errorf("before an unknown event: %v", got)
		}
		got := a.between([]matrix.EventID{want[200]}, []matrix.EventID{want[10]}, sent[180].Depth, 1000)
		oldest := slices.Clone(want[11:181])
		slices.Reverse(oldest)
		if !slices.Equal(got, oldest) {
			t.Errorf("between two ends there are %d events", len(got))
		}
		if got := a.between(nil, want[:1], 0, 20); !slices.Equal(got, reversed(want[1:21])) {
			t.Errorf("the nearest 20: %v", got)
		}
		if got := a.between(want[1:4], want[:1], 0, 20); slices.Contains(got, want[1]) || slices.Contains(got, want[0]) {
			t.Errorf("the ends are among what is between: %v", got)
		}
	}
}

func reversed[T any](list []T) []T {
	list = slices.Clone(list)
	slices.Reverse(list)
	return list
}

// TestWalkPassesWhatIsNotServed has turned down events between others.
func TestWalkPassesWhatIsNotServed(t *testing.T) {
	a, b := two(t, lookup(t, "12"))
	first := a.say("first")
	bad := b.forge(draft{sender: "@third:b", typ: matrix.TypeMessage, content: `{}`, prev: a.extremities(), from: current(a.events()), depth: 20})
	a.give(bad)
	after := b.forge(draft{sender: b.user, typ: matrix.TypeMessage, content: `{}`, prev: []event.Ref{bad.Ref()}, from: current(a.events()), depth: 21})
	a.accept(after)
	if got := a.before(2, after.ID); !slices.Equal(got, []matrix.EventID{after.ID, first.ID}) {
		t.Errorf("before: %v", got)
	}
	if got := a.between(nil, []matrix.EventID{after.ID}, 0, 1); !slices.Equal(got, []matrix.EventID{first.ID}) {
		t.Errorf("between: %v", got)
	}
}

// TestWalkFan has a hostile fan of events: the walk is not led astray by it.
func TestWalkFan(t *testing.T) {
	a, b := two(t, lookup(t, "12"))
	from, root := current(a.events()), a.say("root")
	var fan []event.Ref
	for i := range 2000 {
		ev := b.forge(draft{sender: b.user, typ: matrix.TypeMessage, content: fmt.Sprintf(`{"body":"%d"}`, i), prev: []event.Ref{root.Ref()}, from: from, depth: 20})
		fan = append(fan, ev.Ref())
		a.accept(ev)
	}
	var tips []event.Ref
	for part := range slices.Chunk(fan, 20) {
		ev := b.forge(draft{sender: b.user, typ: matrix.TypeMessage, content: `{}`, prev: part, from: from, depth: 21})
		tips = append(tips, ev.Ref())
		a.accept(ev)
	}
	top := b.forge(draft{sender: b.user, typ: matrix.TypeMessage, content: `{}`, prev: tips[:20], from: from, depth: 22})
	a.accept(top)
	if got := a.before(100, top.ID); len(got) != 100 || got[0] != top.ID {
		t.Errorf("%d events", len(got))
	}
	if got := a.before(1000, top.ID); len(got) < 421 {
		t.Errorf("all of the fan: %d", len(got))
	}
}
