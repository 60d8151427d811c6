// Package clock is time as a parameter, for what waits and not only looks: the
// system's, or one that a test moves.
package clock

import (
	"slices"
	"sync"
	"time"
)

// Clock tells the time and waits.
type Clock interface {
	Now() time.Time
	// Timer gives the time once, when d has passed. stop frees what it holds; it may
	// be called at any time, and need not be called once the time came.
	Timer(d time.Duration) (c <-chan time.Time, stop func())
}

// System is the machine's clock.
var System Clock = system{}

type system struct{}

func (system) Now() time.Time { return time.Now() }

func (system) Timer(d time.Duration) (<-chan time.Time, func()) {
	t := time.NewTimer(d)
	return t.C, func() { t.Stop() }
}

// Manual is a clock that stands still until it is moved.
type Manual struct {
	mu     sync.Mutex
	now    time.Time
	timers []*timer // by time
	ended  []*timer // until what waits has seen it
}

type timer struct {
	at time.Time
	c  chan time.Time
}

// NewManual makes a clock that shows now.
func NewManual(now time.Time) *Manual { return &Manual{now: now} }

// Now is the time that the clock was moved to.
func (m *Manual) Now() time.Time {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.now
}

// Timer is given the time by the Advance that reaches it.
func (m *Manual) Timer(d time.Duration) (<-chan time.Time, func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	t := &timer{m.now.Add(d), make(chan time.Time, 1)}
	if d <= 0 {
		t.c <- m.now
		m.ended = append(m.ended, t)
		return t.c, func() { m.stop(t) }
	}
	i, _ := slices.BinarySearchFunc(m.timers, t.at, func(o *timer, at time.Time) int {
		if o.at.After(at) {
			return 1
		}
		return -1 // behind those of the same time
	})
	m.timers = slices.Insert(m.timers, i, t)
	return t.c, func() { m.stop(t) }
}

func (m *Manual) stop(t *timer) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.timers = slices.DeleteFunc(m.timers, func(o *timer) bool { return o == t })
	m.ended = slices.DeleteFunc(m.ended, func(o *timer) bool { return o == t })
}

// Advance moves the clock on and ends the timers on the way.
func (m *Manual) Advance(d time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.now = m.now.Add(d)
	n := 0
	for ; n < len(m.timers) && !m.timers[n].at.After(m.now); n++ {
		m.timers[n].c <- m.now
	}
	m.ended = append(m.ended, m.timers[:n]...)
	m.timers = slices.Delete(m.timers, 0, n)
}

// Next is how long it is until the first timer; false if nothing waits.
func (m *Manual) Next() (time.Duration, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.timers) == 0 {
		return 0, false
	}
	return m.timers[0].at.Sub(m.now), true
}

// Seen tells that every timer that has ended was received from or stopped: what waited
// goes on.
func (m *Manual) Seen() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.ended = slices.DeleteFunc(m.ended, func(t *timer) bool { return len(t.c) == 0 })
	return len(m.ended) == 0
}
