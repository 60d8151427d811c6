package rooms_test

import (
	"fmt"
	"runtime"
	"runtime/metrics"
	"testing"
	"time"

	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms/event"
)

// strangers are the events of a room of n members of many servers, as a server
// gets them that joins, and the join.
func strangers(t testing.TB, n int) (a *server, st []*event.Event, join func(s *server) *event.Event) {
	t.Helper()
	a = newServer(t, "a", "sqlite")
	a.found(lookup(t, "12"))
	from := current(a.events())
	for _, ev := range from {
		st = append(st, wire(t, ev.Event))
	}
	prev, depth := a.extremities(), int64(10)
	for i := range n {
		u := fmt.Sprintf("@member%d:s%d.example.org", i, i%500)
		ev := a.forge(draft{sender: matrix.UserID(u), typ: matrix.TypeMember, key: &u,
			content: fmt.Sprintf(`{"avatar_url":"mxc://s%d.example.org/%032x","displayname":"Member %d","membership":"join"}`, i%500, i, i),
			prev:    prev, from: from, depth: depth, ts: int64(1_600_000_000_000 + i)})
		prev, depth = []event.Ref{ev.Ref()}, depth+1
		st = append(st, wire(t, ev))
	}
	return a, st, func(s *server) *event.Event {
		s.room, s.v = a.room, a.v
		return s.forge(draft{sender: s.user, typ: matrix.TypeMember, key: (*string)(&s.user), content: `{"membership":"join"}`,
			prev: prev, from: from, depth: depth})
	}
}

// heapPeak watches how much more memory live objects and garbage take than at
// first, in MB.
func heapPeak() (stop func() float64) {
	sample := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
	read := func() uint64 { metrics.Read(sample); return sample[0].Value.Uint64() }
	runtime.GC()
	first := read()
	quit, done := make(chan struct{}), make(chan uint64)
	go func() {
		most := first
		tick := time.NewTicker(2 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				most = max(most, read())
			case <-quit:
				done <- most
				return
			}
		}
	}()
	return func() float64 { close(quit); return float64(<-done-first) / (1 << 20) }
}

// BenchmarkImport joins rooms of other servers. The peak is above what the events
// take that are handed over; kept is what stays of that.
func BenchmarkImport(b *testing.B) {
	for _, members := range []int{1000, 10_000, 50_000} {
		b.Run(fmt.Sprint(members), func(b *testing.B) {
			_, st, join := strangers(b, members)
			var peak float64
			for range b.N {
				b.StopTimer()
				c := newServer(b, "c", "sqlite")
				ev := join(c)
				stop := heapPeak()
				b.StartTimer()
				if _, err := c.ImportState(b.Context(), c.v, c.room, st, nil, ev); err != nil {
					b.Fatal(err)
				}
				b.StopTimer()
				peak = max(peak, stop())
				b.StartTimer()
			}
			b.ReportMetric(peak, "MB-peak")
		})
	}
}
