package news

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

// clock is the kit's.
type clock interface {
	Now() time.Time
	Timer(d time.Duration) (c <-chan time.Time, stop func())
}

// loop does something again and again: when it is woken, and when it is due.
type loop struct {
	what string
	// do does what is due and tells when it has to be called next; the zero time means
	// when it is woken.
	do   func(ctx context.Context) (time.Time, error)
	bell chan struct{}

	mu         sync.Mutex
	rung, busy bool
}

func (l *loop) start(what string, do func(context.Context) (time.Time, error)) {
	l.what, l.do, l.bell, l.rung = what, do, make(chan struct{}, 1), true
}

// wake has it look now. It never waits.
func (l *loop) wake() {
	l.mu.Lock()
	l.rung = true
	l.mu.Unlock()
	select {
	case l.bell <- struct{}{}:
	default:
	}
}

// turn notes that it begins, or that it rests.
func (l *loop) turn(busy bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.busy = busy
	if busy {
		l.rung = false
	}
}

func (l *loop) idle() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return !l.rung && !l.busy
}

// run loops until ctx ends.
func (l *loop) run(ctx context.Context, c clock, log *slog.Logger) {
	for ctx.Err() == nil {
		l.turn(true)
		next, err := l.do(ctx)
		now := c.Now()
		if err != nil {
			if ctx.Err() == nil {
				log.Error(l.what+" failed; trying again", "error", err)
			}
			next = now.Add(retry)
		}
		var alarm <-chan time.Time
		stop := func() {}
		if !next.IsZero() {
			alarm, stop = c.Timer(next.Sub(now))
		}
		l.turn(false)
		select {
		case <-ctx.Done():
		case <-l.bell:
		case <-alarm:
		}
		stop()
	}
}
