package rooms_test

import (
	"fmt"
	"testing"

	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms"
	"github.com/teahouse-chat/teahouse/rooms/event"
)

// crowd makes a room of n members of another server, and imports it at b.
func crowd(t testing.TB, n int) (a, b *server) {
	t.Helper()
	a, b = newServer(t, "a", "sqlite"), newServer(t, "b", "sqlite")
	a.found(lookup(t, "12"))
	st := current(a.events())
	prev, depth := a.extremities(), int64(10)
	var joins []*event.Event
	for i := range n {
		u := fmt.Sprintf("@member%d:c", i)
		ev := a.forge(draft{sender: matrix.UserID(u), typ: matrix.TypeMember, key: &u, content: `{"membership":"join"}`,
			prev: prev, from: st, depth: depth, ts: int64(1_600_000_000_000 + i)})
		prev, depth = []event.Ref{ev.Ref()}, depth+1
		joins = append(joins, ev)
	}
	for len(joins) > 0 {
		batch := joins[:min(len(joins), 1000)]
		a.accept(batch...)
		joins = joins[len(batch):]
	}
	b.joinVia(a)
	return a, b
}

// BenchmarkReceive brings in messages that follow each other, 50 at a time.
func BenchmarkReceive(b *testing.B) {
	a, other := newServer(b, "a", "sqlite"), newServer(b, "b", "sqlite")
	a.found(lookup(b, "12"))
	other.joinVia(a)
	batches := make([][]rooms.Incoming, (b.N+49)/50)
	st := current(a.events())
	prev, depth := a.extremities(), int64(10)
	for i := range batches {
		for range 50 {
			ev := other.forge(draft{sender: other.user, typ: matrix.TypeMessage, content: fmt.Sprintf(`{"body":"message %d of about the usual length","msgtype":"m.text"}`, depth),
				prev: prev, from: st, depth: depth})
			prev, depth = []event.Ref{ev.Ref()}, depth+1
			batches[i] = append(batches[i], rooms.Incoming{Event: ev})
		}
	}
	b.ReportAllocs()
	b.ResetTimer()
	for _, batch := range batches {
		if _, err := a.Receive(b.Context(), a.room, batch); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkFork brings an event into a room of 10,000 members that makes a
// second forward extremity, each time with a state that must be resolved anew.
func BenchmarkFork(b *testing.B) {
	const members = 10_000
	a, _ := crowd(b, members)
	for _, cold := range []bool{false, true} {
		b.Run(fmt.Sprintf("cold=%v", cold), func(b *testing.B) {
			for range b.N {
				b.StopTimer()
				st, tip := current(a.events()), a.extremities()
				a.send(stateProto(matrix.TypeTopic, "", `{"topic":"ours"}`))
				a.send(stateProto(matrix.TypeMember, "@guest:b", `{"membership":"ban"}`))
				u := "@member7:c"
				fork := a.forge(draft{sender: matrix.UserID(u), typ: matrix.TypeMember, key: &u, content: `{"membership":"join","displayname":"x"}`,
					prev: tip, from: st, depth: 20_000})
				if cold {
					a.ForgetBranches()
				}
				b.StartTimer()
				a.accept(fork)
				b.StopTimer()
				a.say("joined again")
			}
		})
	}
}
