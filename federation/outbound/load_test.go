package outbound_test

import (
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	"runtime"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/teahouse-chat/teahouse/federation/outbound"
	"github.com/teahouse-chat/teahouse/federation/transport"
	"github.com/teahouse-chat/teahouse/internal/db"
	"github.com/teahouse-chat/teahouse/internal/db/dbtest"
	"github.com/teahouse-chat/teahouse/internal/matrix"
)

// crowd names servers.
func crowd(prefix string, n int) []matrix.ServerName {
	list := make([]matrix.ServerName, n)
	for i := range list {
		list[i] = matrix.ServerName(fmt.Sprintf("%s%03d", prefix, i))
	}
	return list
}

// Of a thousand servers half are dead: their requests hang until they are given
// up. The others notice little of it at the first event, and nothing later.
func TestTheDeadDoNotSlowTheLiving(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		living, dead := crowd("living", 500), crowd("dead", 500)
		w.took = 20 * time.Millisecond
		w.up(living...)
		for _, s := range dead {
			w.net.change(s, func(p *peer) { p.hang = true })
		}
		all := slices.Concat(dead, living)
		said := 0
		arrival := func() time.Duration {
			began := time.Now()
			w.say("!1", 1, all...)
			for said += len(living); w.net.taken.Load() < int64(said); time.Sleep(5 * time.Millisecond) {
				if time.Since(began) > time.Hour {
					t.Fatal("it does not arrive")
				}
			}
			return time.Since(began)
		}
		if d := arrival(); d > 2*time.Second {
			t.Errorf("the first event takes %v", d)
		}
		pass(5 * time.Minute)
		for range 10 {
			if d := arrival(); d > 60*time.Millisecond {
				t.Errorf("an event takes %v", d)
			}
			pass(7 * time.Minute)
		}
		w.once(living...)
	})
}

// A destination that is dead takes little memory, whatever happened meanwhile.
func TestMemoryOfTheDead(t *testing.T) {
	url := dbtest.URL(t, "sqlite")
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, url)
		dead := crowd("dead", 400)
		w.down(dead...)
		before := heap()
		for i := range 300 {
			w.say("!1", 1, dead...)
			w.offer("m.receipt", fmt.Sprint(i), true, fmt.Sprintf(`{"!1":{"m.read":{"@u%d:us":{"data":{"ts":1},"event_ids":["$2"]}}}}`, i), dead...)
			if i%50 == 0 {
				pass(time.Hour)
			}
		}
		pass(time.Minute)
		w.net.mu.Lock()
		clear(w.net.peers) // what the test remembers does not count
		w.net.mu.Unlock()
		if each := (heap() - before) / len(dead); each > 20_000 {
			t.Errorf("a destination takes %d bytes", each)
		} else {
			t.Logf("a destination takes %d bytes", each)
		}
	})
}

func heap() int {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int(m.HeapAlloc)
}

// quick answers at once, or never.
type quick struct {
	taken atomic.Int64
	dead  func(matrix.ServerName) bool
}

func (q *quick) Do(ctx context.Context, r transport.Request) ([]byte, error) {
	if q.dead(r.Destination) {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	q.taken.Add(1)
	return []byte(`{"pdus":{}}`), nil
}

// BenchmarkFanOut sends events to a thousand servers, none or half of which hang.
func BenchmarkFanOut(b *testing.B) {
	for name, dead := range map[string]func(matrix.ServerName) bool{
		"all living": func(matrix.ServerName) bool { return false },
		"half dead":  func(s matrix.ServerName) bool { return s[len(s)-1]%2 == 0 },
	} {
		b.Run(name, func(b *testing.B) {
			w, net := benchWorld(b, dead)
			all := crowd("s", 1000)
			living := int64(0)
			for _, s := range all {
				if !dead(s) {
					living++
				}
			}
			w.say("!1", 1, all...)
			w.until(b, net, living)
			b.ResetTimer()
			for i := range b.N {
				w.say("!1", 1, all...)
				w.until(b, net, living*int64(i+2))
			}
		})
	}
}

// until waits for so many transactions to be taken.
func (w *world) until(b *testing.B, net *quick, n int64) {
	b.Helper()
	for began := time.Now(); net.taken.Load() < n; runtime.Gosched() {
		if time.Since(began) > time.Minute {
			b.Fatalf("%d of %d", net.taken.Load(), n)
		}
	}
}

func benchWorld(b *testing.B, dead func(matrix.ServerName) bool) (*world, *quick) {
	b.Helper()
	net := &quick{dead: dead}
	w := &world{TB: b, url: dbtest.URL(b, "sqlite"), history: newHistory(), net: &network{}}
	w.change = func(d *outbound.Deps) { d.Sender, d.Log = net, slog.New(slog.DiscardHandler) }
	w.open()
	b.Cleanup(func() {
		w.queues.Crash()
		_ = w.db.Close()
	})
	return w, net
}

// BenchmarkCatchUp lets a server catch up with 10,000 events after an outage.
func BenchmarkCatchUp(b *testing.B) {
	const events = 10_000
	var down atomic.Bool
	w, net := benchWorld(b, func(matrix.ServerName) bool { return false })
	w.queues.Crash()
	sender := senderFunc(func(ctx context.Context, r transport.Request) ([]byte, error) {
		if down.Load() {
			return nil, &transport.UnreachableError{Server: r.Destination, Err: errDown}
		}
		return net.Do(ctx, r)
	})
	w.change = func(d *outbound.Deps) { d.Sender, d.Rand, d.Log = sender, rand.Reader, slog.New(slog.DiscardHandler) }
	w.crash()
	b.ResetTimer()
	for range b.N {
		b.StopTimer()
		down.Store(true)
		w.say("!1", 1, "a")
		for i := range events / 100 {
			w.say(matrix.RoomID(fmt.Sprint("!", i%10)), 100, "a")
		}
		last := w.db.Position()
		down.Store(false)
		b.StartTimer()
		for w.queues.Sent("a") < last {
			w.queues.Retry("a")
			time.Sleep(time.Millisecond)
		}
	}
	b.ReportMetric(float64(events*b.N)/b.Elapsed().Seconds(), "events/s")
}

type senderFunc func(context.Context, transport.Request) ([]byte, error)

func (f senderFunc) Do(ctx context.Context, r transport.Request) ([]byte, error) { return f(ctx, r) }

// BenchmarkSending is what a message in a room of a thousand servers costs the
// database's writer.
func BenchmarkSending(b *testing.B) {
	w, _ := benchWorld(b, func(matrix.ServerName) bool { return true })
	all := crowd("s", 1000)
	w.say("!1", 1, all...)
	b.ResetTimer()
	for range b.N {
		if err := w.db.Submit(func(tx *db.Tx) error { w.commit(tx, "!1", 1, all); return nil }).Wait(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
}
