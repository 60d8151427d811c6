package rooms_test

import (
	"fmt"
	"maps"
	"slices"
	"testing"

	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms"
	"github.com/teahouse-chat/teahouse/rooms/event"
	"github.com/teahouse-chat/teahouse/rooms/state"
)

func nidsOf(events []*rooms.Stored) []state.EventNID {
	nids := make([]state.EventNID, len(events))
	for i, st := range events {
		nids[i] = st.NID
	}
	return nids
}

// TestAuthChain compares the auth chains of a state and of a message with what
// the events themselves say, in memory and from the database.
func TestAuthChain(t *testing.T) {
	for _, kind := range kinds {
		for _, v := range event.Versions() {
			t.Run(kind+" v"+v.ID, func(t *testing.T) {
				a := newServer(t, "a", kind)
				a.found(v)
				for i := range 20 {
					a.send(stateProto(matrix.TypeMember, fmt.Sprintf("@guest%d:c", i%5), fmt.Sprintf(`{"membership":"invite","n":%d}`, i)))
					a.send(stateProto(matrix.TypeMember, string(a.user), fmt.Sprintf(`{"membership":"join","n":%d}`, i)))
				}
				said := a.say("at the end")
				for range 2 {
					known, err := a.Known(t.Context(), []matrix.EventID{said.ID})
					if err != nil {
						t.Fatal(err)
					}
					a.checkChain(a.events())
					a.checkChain([]*rooms.Stored{known[said.ID]})
					a.checkChain(nil)
					a.restart()
				}
			})
		}
	}
}

func (s *server) checkChain(of []*rooms.Stored) {
	s.t.Helper()
	got, err := s.AuthChain(s.t.Context(), nidsOf(of))
	if err != nil {
		s.t.Fatal(err)
	}
	events, err := s.Events(s.t.Context(), got)
	if err != nil {
		s.t.Fatal(err)
	}
	want := map[matrix.EventID]bool{}
	_, chain := s.stateAndChain(of)
	for _, ev := range chain {
		want[ev.ID] = true
	}
	if s.v.RoomIDHash && len(of) > 0 {
		want[matrix.EventID("$"+s.room[1:])] = true
	}
	has := map[matrix.EventID]bool{}
	for _, st := range events {
		for _, id := range st.AuthEvents {
			if !has[id] {
				s.t.Errorf("%s comes before its auth event %s", st.ID, id)
			}
		}
		has[st.ID] = true
	}
	if !maps.Equal(has, want) {
		s.t.Errorf("of %d events: %d in the auth chain, want %d", len(of), len(has), len(want))
	}
	for _, st := range of {
		delete(want, st.ID)
	}
	beyond, err := s.AuthChainBeyond(s.t.Context(), nidsOf(of))
	if err != nil || len(beyond) != len(want) {
		s.t.Errorf("of %d events: %d beyond, want %d (%v)", len(of), len(beyond), len(want), err)
	}
}

// TestStateBefore asks for the state before each event of a room.
func TestStateBefore(t *testing.T) {
	a, b := two(t, lookup(t, "12"))
	tip := a.extremities()
	for i := range 3 {
		a.send(stateProto(matrix.TypeTopic, "", fmt.Sprintf(`{"topic":"%d"}`, i)))
		a.say(fmt.Sprint(i))
	}
	rejected := b.forge(draft{sender: "@third:b", typ: matrix.TypeTopic, key: key(""), content: `{}`, prev: tip, from: current(a.events()), depth: 20})
	a.give(rejected)
	for range 2 {
		o := newOracle(t, a.v)
		events, err := a.Timeline(t.Context(), rooms.TimelineQuery{Room: a.theRoom(), Limit: 1000})
		if err != nil {
			t.Fatal(err)
		}
		known, err := a.Known(t.Context(), []matrix.EventID{rejected.ID})
		if err != nil {
			t.Fatal(err)
		}
		for _, st := range append(events, known[rejected.ID]) {
			o.learn(st.Event)
			m, err := a.StateBefore(t.Context(), st)
			if err != nil {
				t.Fatal(err)
			}
			before, err := a.StateEvents(t.Context(), m, nil)
			if err != nil {
				t.Fatal(err)
			}
			if diff := describe(a.named(m.Len(), before), o.before[st.ID]); diff != "" {
				t.Errorf("the state before %s is not right:%s", st.Type, diff)
			}
		}
		a.restart()
	}
	outlier := b.forge(draft{sender: b.user, typ: matrix.TypeTopic, key: key(""), content: `{}`, prev: tip, from: current(a.events()), depth: 20})
	out, err := a.StoreOutliers(t.Context(), a.room, []*event.Event{outlier})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.StateBefore(t.Context(), out[0].Event); !matrix.HasCode(err, matrix.CodeNotFound) {
		t.Errorf("the state before an outlier: %v", err)
	}
}

// BenchmarkAuthChain is what a server has to be told that joins.
func BenchmarkAuthChain(b *testing.B) {
	for _, members := range []int{10_000, 50_000} {
		a, _ := crowd(b, members)
		nids := slices.Collect(maps.Values(maps.Collect(a.theRoom().View().State.All())))
		for _, cold := range []bool{false, true} {
			b.Run(fmt.Sprintf("%d/cold=%v", members, cold), func(b *testing.B) {
				b.ReportAllocs()
				for range b.N {
					if cold {
						b.StopTimer()
						a.ForgetBranches()
						b.StartTimer()
					}
					if _, err := a.AuthChainBeyond(b.Context(), nids); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}
