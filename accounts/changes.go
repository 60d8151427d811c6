package accounts

import (
	"slices"

	"github.com/teahouse-chat/teahouse/internal/db"
	"github.com/teahouse-chat/teahouse/internal/matrix"
)

// SessionsEnded is published on the stream when sessions of a user's devices
// end.
type SessionsEnded struct {
	User    matrix.UserID
	Devices []matrix.DeviceID
	// Removed tells that the devices are gone, too; else a new session took
	// over.
	Removed bool
}

// AccountChanged is published when an account is locked, unlocked, deactivated,
// or becomes or ceases to be an administrator's.
type AccountChanged struct {
	User        matrix.UserID
	Locked      bool
	Deactivated bool
}

// tokensReplaced is published when a refreshed session's old tokens end. The
// session itself goes on.
type tokensReplaced struct {
	user   matrix.UserID
	device matrix.DeviceID
}

// committed keeps the cache true and ends the long polls of ended sessions. It
// runs on the database's writer.
func (a *Accounts) committed(b db.Batch) {
	for _, change := range b.Changes {
		switch c := change.(type) {
		case tokensReplaced:
			a.cache.evict(c.user, c.device)
		case SessionsEnded:
			a.cache.evict(c.User, c.Devices...)
			a.seen.forget(c.User, c.Devices)
			for _, d := range c.Devices {
				a.ended(c.User, d)
			}
		case AccountChanged:
			a.cache.evict(c.User)
			if c.Locked || c.Deactivated {
				a.ended(c.User, "")
			}
		}
	}
}

func (a *Accounts) ended(user matrix.UserID, device matrix.DeviceID) {
	a.endMu.Lock()
	fns := slices.Clone(a.onEnd)
	a.endMu.Unlock()
	for _, fn := range fns {
		fn(user, device)
	}
}
