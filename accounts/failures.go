package accounts

import (
	"sync"
	"time"

	"github.com/teahouse-chat/teahouse/internal/httpx"
	"github.com/teahouse-chat/teahouse/internal/matrix"
)

// maxFailing bounds the accounts with failures that are remembered.
const maxFailing = 50_000

// failureLimit bounds how often a password may be guessed wrong for one
// account, from wherever. It knows names, not accounts: a name that does not
// exist is limited the same way.
type failureLimit struct {
	burst int           // 0: no bound
	every time.Duration // until one failure is forgotten

	mu   sync.Mutex
	debt map[string]time.Time // when the name's failures will be forgotten
}

func newFailureLimit(r httpx.Rate) *failureLimit {
	f := &failureLimit{debt: make(map[string]time.Time)}
	if r.PerSecond > 0 && r.Burst > 0 {
		f.burst, f.every = r.Burst, time.Duration(float64(time.Second)/r.PerSecond)
	}
	return f
}

// attempt counts a try as failed before it is made, so that many at once do not
// get by. The caller forgives it if it succeeds.
func (f *failureLimit) attempt(name string, now time.Time) error {
	if f.burst == 0 {
		return nil
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	clear := f.debt[name]
	if clear.Before(now) {
		clear = now
	}
	clear = clear.Add(f.every)
	if over := clear.Sub(now) - time.Duration(f.burst)*f.every; over > 0 {
		return matrix.LimitExceeded(over)
	}
	if len(f.debt) >= maxFailing {
		f.shrink(now)
	}
	f.debt[name] = clear
	return nil
}

// forgive takes one attempt back.
func (f *failureLimit) forgive(name string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if clear, ok := f.debt[name]; ok {
		f.debt[name] = clear.Add(-f.every)
	}
}

// shrink forgets what has run out, and half of the rest if that is not enough.
func (f *failureLimit) shrink(now time.Time) {
	for name, clear := range f.debt {
		if !clear.After(now) {
			delete(f.debt, name)
		}
	}
	if len(f.debt) < maxFailing {
		return
	}
	for name := range f.debt {
		if len(f.debt) <= maxFailing/2 {
			return
		}
		delete(f.debt, name)
	}
}
