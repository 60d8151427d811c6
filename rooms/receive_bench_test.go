package rooms_test

import (
	"fmt"
	"slices"
	"syscall"
	"testing"
	"time"

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

// BenchmarkResolve resolves conflicts in rooms of different sizes: two topics that
// were set at the same time, and two branches of 1,000 events each, every tenth of
// which sets the topic or lets somebody in. What it costs is to follow from the
// conflict, not from the room.
func BenchmarkResolve(b *testing.B) {
	for _, members := range []int{1000, 10_000, 50_000} {
		b.Run(fmt.Sprint(members), func(b *testing.B) {
			a, _ := crowd(b, members)
			b.Run("topics", func(b *testing.B) { a.conflict(b, 1, 1) })
			b.Run("branches", func(b *testing.B) { a.conflict(b, 1000, 10) })
		})
	}
}

// conflict measures what it takes to bring in a branch of n events beside one as
// long, of which every so many are of state.
func (s *server) conflict(b *testing.B, n, every int) {
	b.ReportAllocs()
	var cpu time.Duration
	for round := range b.N {
		b.StopTimer()
		st, prev, depth := current(s.events()), s.extremities(), int64(100_000)
		var branch []*event.Event
		for i := range n {
			d := draft{sender: "@member7:c", typ: matrix.TypeMessage, content: fmt.Sprintf(`{"body":"%d"}`, i), prev: prev, from: st, depth: depth + int64(i)}
			ours := message("ours")
			switch u := fmt.Sprintf("@late%d-%d:c", round, i); {
			case i%(2*every) == 0:
				ours = stateProto(matrix.TypeTopic, "", fmt.Sprintf(`{"topic":"ours %d"}`, i))
				d.sender, d.typ, d.key = s.user, matrix.TypeTopic, key("")
				d.content = fmt.Sprintf(`{"topic":"theirs %d"}`, i)
			case i%every == 0:
				d.sender, d.typ, d.key, d.content = matrix.UserID(u), matrix.TypeMember, &u, `{"membership":"join"}`
			}
			ev := s.forge(d)
			prev, branch = []event.Ref{ev.Ref()}, append(branch, ev)
			s.send(ours)
		}
		began := processor(b)
		b.StartTimer()
		for part := range slices.Chunk(branch, 50) {
			s.accept(part...)
		}
		b.StopTimer()
		cpu += processor(b) - began
		s.say("joined again")
	}
	b.ReportMetric(float64(cpu.Microseconds())/1000/float64(b.N), "cpu-ms/op")
}

// processor is the processor time that the process has used.
func processor(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
