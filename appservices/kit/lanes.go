package kit

import (
	"container/heap"
	"context"
	"log/slog"
	"runtime/debug"
	"sync"
	"time"

	"github.com/teahouse-chat/teahouse/internal/clock"
)

// lanes has work done for each of many keys, never twice at once for the same key,
// and for a bounded number of keys at once. A key that rests costs a few words.
type lanes struct {
	clock clock.Clock
	log   *slog.Logger
	width int
	// work does what there is for a key and tells when it wants to be called again;
	// the zero time means when it is woken.
	work func(ctx context.Context, key string) time.Time

	mu      sync.Mutex
	queue   laneHeap
	places  map[string]*lane
	running int
	paused  time.Time // nothing starts before this
	look    chan struct{}
}

type lane struct {
	key     string
	due     time.Time
	place   int // in the heap; -1 if it is not there
	running bool
	woken   bool // while it ran
	resting bool // its work asked for the time
}

func newLanes(c clock.Clock, log *slog.Logger, width int, work func(context.Context, string) time.Time) *lanes {
	return &lanes{clock: c, log: log, width: width, work: work, places: map[string]*lane{}, look: make(chan struct{}, 1)}
}

// wake has the work of a key done now.
func (l *lanes) wake(key string) { l.wakeAt(key, l.clock.Now()) }

// wakeAt has the work of a key done at a time, or before. A rest that the work asked
// for is not cut short.
func (l *lanes) wakeAt(key string, at time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	v := l.places[key]
	switch {
	case v == nil:
		v = &lane{key: key, due: at}
		l.places[key] = v
		heap.Push(&l.queue, v)
	case v.running:
		v.woken = true
	case at.Before(v.due) && !v.resting:
		v.due = at
		heap.Fix(&l.queue, v.place)
	}
	l.signal()
}

// pause has nothing start before a time.
func (l *lanes) pause(until time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if until.After(l.paused) {
		l.paused = until
	}
	l.signal()
}

func (l *lanes) signal() {
	select {
	case l.look <- struct{}{}:
	default:
	}
}

// idle tells that nothing runs and nothing is due.
func (l *lanes) idle() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.clock.Now()
	return l.running == 0 && (len(l.queue) == 0 || l.paused.After(now) || l.queue[0].due.After(now))
}

// run works until ctx ends, and until the work that was begun has returned.
func (l *lanes) run(ctx context.Context) {
	var work sync.WaitGroup
	defer work.Wait()
	for ctx.Err() == nil {
		wait, forever := l.start(ctx, &work)
		var alarm <-chan time.Time
		stop := func() {}
		if !forever {
			alarm, stop = l.clock.Timer(wait)
		}
		select {
		case <-alarm:
		case <-l.look:
		case <-ctx.Done():
		}
		stop()
	}
}

// start begins what is due and tells how long it is until something else is.
func (l *lanes) start(ctx context.Context, work *sync.WaitGroup) (wait time.Duration, forever bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.clock.Now()
	if l.paused.After(now) {
		return l.paused.Sub(now), false
	}
	for l.running < l.width && len(l.queue) > 0 {
		v := l.queue[0]
		if v.due.After(now) {
			return v.due.Sub(now), false
		}
		heap.Pop(&l.queue)
		v.running, v.woken, v.resting = true, false, false
		l.running++
		work.Go(func() { l.finished(v, l.guarded(ctx, v.key)) })
	}
	return 0, true // until something ends, or is woken
}

// guarded does the work of a key. One that panics rests.
func (l *lanes) guarded(ctx context.Context, key string) (again time.Time) {
	defer func() {
		if v := recover(); v != nil {
			l.log.Error("the work for a room panicked; trying again", "key", key, "panic", v, "stack", string(debug.Stack()))
			again = l.clock.Now().Add(longestRest)
		}
	}()
	return l.work(ctx, key)
}

func (l *lanes) finished(v *lane, again time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.running--
	v.running = false
	switch {
	case again.IsZero() && !v.woken:
		delete(l.places, v.key)
	case again.IsZero():
		v.due = l.clock.Now()
		heap.Push(&l.queue, v)
	default:
		v.due, v.resting = again, true
		heap.Push(&l.queue, v)
	}
	l.signal()
}

// laneHeap is ordered by when lanes are due.
type laneHeap []*lane

func (h laneHeap) Len() int           { return len(h) }
func (h laneHeap) Less(i, j int) bool { return h[i].due.Before(h[j].due) }
func (h laneHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].place, h[j].place = i, j
}
func (h *laneHeap) Push(v any) {
	l := v.(*lane)
	l.place = len(*h)
	*h = append(*h, l)
}
func (h *laneHeap) Pop() any {
	old := *h
	v := old[len(old)-1]
	old[len(old)-1] = nil
	*h, v.place = old[:len(old)-1], -1
	return v
}
