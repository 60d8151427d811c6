package encryption

import (
	"context"
	"maps"
	"slices"

	"github.com/teahouse-chat/teahouse/internal/db"
	"github.com/teahouse-chat/teahouse/internal/matrix"
)

// DevicesChanged is published when the devices of a user, or the keys that they
// are trusted by, have changed.
type DevicesChanged struct {
	User     matrix.UserID
	Watchers []matrix.UserID // the local users who are told
	Position int64
	Private  bool // nobody else is to be told, other servers neither

	cross bool // cross-signing keys were replaced
}

// crossSigning stands for a user's cross-signing keys among their devices.
const crossSigning matrix.DeviceID = ""

// change runs an op that may change what others know of a user's devices, and
// tells them if it did. The op returns the devices that they have to look at
// anew, each once.
//
// Who shares a room with the user is found before the write, since that may read,
// and again after it: somebody who came in between is told, too.
func (e *Encryption) change(ctx context.Context, user matrix.UserID, announce bool, op func(tx *db.Tx) ([]matrix.DeviceID, error)) error {
	ctx = context.WithoutCancel(ctx)
	var watchers []matrix.UserID
	if announce {
		var err error
		if watchers, err = e.watchers(ctx, user); err != nil {
			return err
		}
	}
	var changed []matrix.DeviceID
	err := e.DB.Write(ctx, func(tx *db.Tx) error {
		var err error
		if changed, err = op(tx); err != nil || len(changed) == 0 {
			return err
		}
		return e.announce(tx, user, watchers, changed)
	})
	if err != nil || len(changed) == 0 {
		return err
	}
	return e.tellLate(ctx, user, watchers)
}

// announce tells of changed devices: local users now, other servers when it is
// their turn.
func (e *Encryption) announce(tx *db.Tx, user matrix.UserID, watchers []matrix.UserID, changed []matrix.DeviceID) error {
	if err := e.tellAll(tx, user, watchers, slices.Contains(changed, crossSigning)); err != nil || !e.local(user) {
		return err
	}
	return note(tx, user, changed)
}

func (e *Encryption) tellAll(tx *db.Tx, user matrix.UserID, watchers []matrix.UserID, cross bool) error {
	c := DevicesChanged{User: user, Watchers: watchers, Position: tx.Position(), cross: cross}
	tx.Publish(c)
	return tx.Exec(upsertChange, user, "", c.Position)
}

// tell notes a change of user's keys that only seenBy sees.
func (e *Encryption) tell(tx *db.Tx, user, seenBy matrix.UserID) error {
	c := DevicesChanged{User: user, Watchers: []matrix.UserID{seenBy}, Position: tx.Position(), Private: true}
	tx.Publish(c)
	return tx.Exec(upsertChange, user, seenBy, c.Position)
}

// tellLate wakes those who came to share a room while a change was written. The
// change itself is in the database; waking is all that they could miss.
func (e *Encryption) tellLate(ctx context.Context, user matrix.UserID, told []matrix.UserID) error {
	now, err := e.watchers(ctx, user)
	if err != nil {
		return err
	}
	known := make(map[matrix.UserID]bool, len(told))
	for _, u := range told {
		known[u] = true
	}
	late := slices.DeleteFunc(now, func(u matrix.UserID) bool { return known[u] })
	if len(late) == 0 {
		return nil
	}
	return e.DB.Write(ctx, func(tx *db.Tx) error { return e.tellAll(tx, user, late, false) })
}

// watchers are the local users who share a room with a user; a local user
// themselves is among them.
func (e *Encryption) watchers(ctx context.Context, user matrix.UserID) ([]matrix.UserID, error) {
	if !e.local(user) {
		return e.Rooms.LocalCompany(ctx, user)
	}
	all := map[matrix.UserID]struct{}{user: {}}
	mine, err := e.Rooms.Memberships(ctx, user)
	if err != nil {
		return nil, err
	}
	for _, m := range mine {
		if m.Membership != matrix.MembershipJoin {
			continue
		}
		r, err := e.Rooms.RoomByNID(ctx, m.Room)
		if err != nil {
			return nil, err
		}
		for _, u := range r.LocalMembers() {
			all[u] = struct{}{}
		}
	}
	return slices.Collect(maps.Keys(all)), nil
}

// untold is published beside a DevicesChanged that nobody but its user was told
// of, as the op could not look for others.
type untold struct{ user matrix.UserID }

// announceAlone is announce for an op that cannot wait for who shares a room with
// the user; they are told after the commit.
func (e *Encryption) announceAlone(tx *db.Tx, user matrix.UserID, changed []matrix.DeviceID) error {
	tx.Publish(untold{user})
	return e.announce(tx, user, []matrix.UserID{user}, changed)
}

// tellOthers wakes those whom an op left out. It is called on the writer.
func (e *Encryption) tellOthers(user matrix.UserID) {
	go func() {
		if err := e.tellLate(context.Background(), user, []matrix.UserID{user}); err != nil {
			e.Log.Warn("users were not woken for a change of somebody's devices; their next request tells them", "user", user, "error", err)
		}
	}()
}

// Renamed notes, in the write that does it, that a device of a local user got
// another name.
func (e *Encryption) Renamed(tx *db.Tx, user matrix.UserID, id matrix.DeviceID) error {
	return e.announceAlone(tx, user, []matrix.DeviceID{id})
}
