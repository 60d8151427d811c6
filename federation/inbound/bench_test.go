package inbound_test

import (
	"testing"
	"time"

	"github.com/teahouse-chat/teahouse/rooms/event"
)

// BenchmarkBurst sends messages in a small room as fast as they are taken, 50 in
// a transaction.
func BenchmarkBurst(b *testing.B) {
	g := newRig(b, "sqlite")
	r := g.found("12")
	events := r.say(b.N)
	b.ReportAllocs()
	b.ResetTimer()
	g.there.deliver(events...)
	g.settle()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "events/s")
}

// BenchmarkGap sends one event that comes after 10,000 others.
func BenchmarkGap(b *testing.B) {
	var took time.Duration
	for range b.N {
		g := newRig(b, "sqlite")
		r := g.found("12")
		events := r.say(10_001)
		begun := time.Now()
		g.there.deliver([]*event.Event{events[10_000]}...)
		g.settle()
		took += time.Since(begun)
		if got := g.tips(r.ID); len(got) != 1 || got[0] != events[10_000].ID {
			b.Fatalf("%v", got)
		}
	}
	b.ReportMetric(float64(b.N)*10_000/took.Seconds(), "events/s")
}
