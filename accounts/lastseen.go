package accounts

import (
	"context"
	"net/netip"
	"sync"
	"time"

	"github.com/teahouse-chat/teahouse/internal/db"
	"github.com/teahouse-chat/teahouse/internal/matrix"
)

const (
	seenEvery  = 30_000 // milliseconds between two notes of one session
	flushEvery = time.Minute
)

// sighting is the last use of a device.
type sighting struct {
	userNID int64
	ts      int64
	addr    netip.Addr
}

type deviceKey struct {
	user   matrix.UserID
	device matrix.DeviceID
}

// lastSeen gathers the last uses of devices until they are written together:
// a request costs a look at the clock, not a write.
type lastSeen struct {
	mu    sync.Mutex
	dirty map[deviceKey]sighting
}

func newLastSeen() *lastSeen { return &lastSeen{dirty: make(map[deviceKey]sighting)} }

func (l *lastSeen) note(s *session, now int64, addr netip.Addr) {
	before := s.touched.Load()
	if now-before < seenEvery && before != 0 || !s.touched.CompareAndSwap(before, now) {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.dirty[deviceKey{s.caller.User, s.caller.Device}] = sighting{s.userNID, now, addr}
}

func (l *lastSeen) of(user matrix.UserID, device matrix.DeviceID) (sighting, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	s, ok := l.dirty[deviceKey{user, device}]
	return s, ok
}

func (l *lastSeen) forget(user matrix.UserID, devices []matrix.DeviceID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, d := range devices {
		delete(l.dirty, deviceKey{user, d})
	}
}

func (l *lastSeen) take() map[deviceKey]sighting {
	l.mu.Lock()
	defer l.mu.Unlock()
	taken := l.dirty
	l.dirty = make(map[deviceKey]sighting)
	return taken
}

// Flush writes when devices were last seen. What cannot be written is dropped:
// the next use notes it again.
func (a *Accounts) Flush(ctx context.Context) error {
	seen := a.seen.take()
	if len(seen) == 0 {
		return nil
	}
	return a.db.Write(ctx, func(tx *db.Tx) error {
		for key, s := range seen {
			if err := tx.Exec(touchDevice, s.ts, addrText(s.addr), s.userNID, key.device); err != nil {
				return err
			}
		}
		return nil
	})
}

func addrText(a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}

// Run makes up for departures that a crash cut short, then writes last uses
// every minute until ctx ends, and once more then.
func (a *Accounts) Run(ctx context.Context) {
	tick := time.NewTicker(flushEvery)
	defer tick.Stop()
	for {
		if err := a.resumeDepartures(ctx); err != nil && ctx.Err() == nil {
			a.log.Error("Cannot finish the deactivation of accounts; it is tried again", "error", err)
		}
		select {
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
			defer cancel()
			if err := a.Flush(last); err != nil {
				a.log.Warn("Cannot store when devices were last seen", "error", err)
			}
			return
		case <-tick.C:
			if err := a.Flush(ctx); err != nil && ctx.Err() == nil {
				a.log.Warn("Cannot store when devices were last seen", "error", err)
			}
		}
	}
}
