package encryption

import (
	"context"
	"encoding/json"
	"maps"
	"slices"

	"github.com/teahouse-chat/teahouse/internal/db"
	"github.com/teahouse-chat/teahouse/internal/matrix"
)

// deviceUpdate is the content of m.device_list_update.
// spec: server-server#definition-mdevice_list_update
type deviceUpdate struct {
	UserID   matrix.UserID   `json:"user_id"`
	DeviceID matrix.DeviceID `json:"device_id"`
	StreamID int64           `json:"stream_id"`
	PrevID   []int64         `json:"prev_id"`
	Deleted  bool            `json:"deleted"`
	// What is malformed in these does not make the update unreadable.
	Name json.RawMessage `json:"device_display_name"`
	Keys json.RawMessage `json:"keys"`
}

// signingUpdate is the content of m.signing_key_update, with the numbers that
// this server adds to those that it sends.
// spec: server-server#definition-msigning_key_update
type signingUpdate struct {
	UserID      matrix.UserID   `json:"user_id"`
	Master      json.RawMessage `json:"master_key"`
	SelfSigning json.RawMessage `json:"self_signing_key"`
	StreamID    *int64          `json:"stream_id"`
	PrevID      []int64         `json:"prev_id"`
}

// HandleDeviceList takes over a change of a remote user's device. What another
// server may not say, or says in no readable form, is ignored.
func (e *Encryption) HandleDeviceList(ctx context.Context, origin matrix.ServerName, content json.RawMessage) error {
	var u deviceUpdate
	bad := json.Unmarshal(content, &u)
	idle := bad == nil && absent(u.Keys)
	return e.update(ctx, origin, userOf(content), idle, func(ctx context.Context, tx *db.Tx, was remoteUser) (remoteUser, bool, error) {
		is := was.follow(u.StreamID, u.PrevID)
		if bad != nil {
			is.stale = true
		}
		if is == was || is.stale {
			return is, is.stale, nil
		}
		return is, true, applyDevice(ctx, tx, &u)
	})
}

// HandleSigningKeys takes over a change of a remote user's cross-signing keys.
func (e *Encryption) HandleSigningKeys(ctx context.Context, origin matrix.ServerName, content json.RawMessage) error {
	var u signingUpdate
	bad := json.Unmarshal(content, &u)
	return e.update(ctx, origin, userOf(content), false, func(ctx context.Context, tx *db.Tx, was remoteUser) (remoteUser, bool, error) {
		is := was
		if u.StreamID != nil {
			if is = was.follow(*u.StreamID, u.PrevID); is == was {
				return was, false, nil
			}
		}
		if bad != nil || absent(u.Master) && absent(u.SelfSigning) {
			is.stale = true
		}
		if is.stale {
			return is, true, nil
		}
		complete, err := applyCross(ctx, tx, &u)
		is.stale = !complete
		return is, true, err
	})
}

// userOf is the user whom an update is about, "" if it cannot be told.
func userOf(content json.RawMessage) matrix.UserID {
	var u struct {
		UserID matrix.UserID `json:"user_id"`
	}
	if json.Unmarshal(content, &u) != nil {
		return ""
	}
	return u.UserID
}

// follow is the user after an update with these numbers: the same if it came
// before, stale unless it is the next one.
// spec: server-server#device-management
func (was remoteUser) follow(id int64, prev []int64) remoteUser {
	is := was
	switch {
	case id == was.stream:
	case slices.Equal(prev, []int64{was.stream}):
		is.stream = id
	default:
		is.stale = true
	}
	return is
}

// applyDevice stores what an update says of a device. Keys that no client could
// use are none.
func applyDevice(ctx context.Context, tx *db.Tx, u *deviceUpdate) error {
	d := device{u.UserID, u.DeviceID}
	if !plain(string(d.id), matrix.MaxIDBytes) {
		return nil
	}
	var name string
	_ = json.Unmarshal(u.Name, &name) // a name of the wrong type is none
	text, ok := remoteDevice(d, u.Keys, name)
	if ok = ok && !u.Deleted; ok {
		others, _, err := db.One(ctx, tx, countRemoteDevices, scanInt, d.user, d.id)
		if err != nil {
			return err
		}
		ok = others < maxRemoteDevices
	}
	if !ok {
		return tx.Exec(deleteRemoteDevices, d.user, []matrix.DeviceID{d.id})
	}
	return tx.Exec(upsertRemoteDevices, d.user, []matrix.DeviceID{d.id}, []string{text})
}

// applyCross stores cross-signing keys that an update brings, and tells whether
// they could be used.
func applyCross(ctx context.Context, tx *db.Tx, u *signingUpdate) (complete bool, err error) {
	stored, err := readRemote(ctx, tx, []matrix.UserID{u.UserID})
	if err != nil {
		return false, err
	}
	old := stored[u.UserID]
	if old == nil {
		old = newRemoteList()
	}
	now := &remoteList{devices: old.devices, cross: maps.Clone(old.cross)}
	if complete = now.addCross(u.UserID, u.Master, u.SelfSigning); !complete {
		return false, nil
	}
	if text, ok := now.cross[usageSelfSigning]; ok {
		k, err := parseCrossKey("a stored key", usageSelfSigning, json.RawMessage(text), u.UserID)
		if err != nil || !now.vouches(u.UserID, k) {
			delete(now.cross, usageSelfSigning) // of a master key that is no more
		}
	}
	return true, now.replace(tx, u.UserID, old)
}

// update runs an op on the list of a remote user, as far as the list can be
// relied upon, and tells local users. The op gives the user back as it leaves
// them, stale if the update does not follow upon what is known, and whether there
// is any news.
//
// The list of a user whom nobody here has asked about, or is asking about now, is
// not asked for because of an update: whoever is told of it does that. Of an idle
// update, one without keys, nobody is told then: servers send such as they begin to
// share a room, which local users are told of anyway.
func (e *Encryption) update(ctx context.Context, origin matrix.ServerName, user matrix.UserID, idle bool,
	op func(ctx context.Context, tx *db.Tx, was remoteUser) (is remoteUser, news bool, err error)) error {
	if _, err := matrix.ParseUserID(string(user)); err != nil || user.Server() != origin || e.local(user) {
		return nil
	}
	watchers, err := e.watchers(ctx, user)
	if err != nil || len(watchers) == 0 {
		return err // nobody here shares a room with the user
	}
	stale := false // set by the op, which may run twice
	err = e.DB.Write(ctx, func(tx *db.Tx) error {
		was, known, err := db.One(ctx, tx, selectRemoteUsers, scanRemoteUser, []matrix.UserID{user})
		if err != nil {
			return err
		}
		if !known && !e.asked.about(user) {
			if idle {
				return nil
			}
			return e.tellAll(tx, user, watchers, false)
		}
		is := remoteUser{user: user, stream: unknownStream, stale: true}
		if known {
			is = was
		}
		if !is.stale {
			var news bool
			if is, news, err = op(ctx, tx, was); err != nil || !news {
				return err
			}
		}
		stale = is.stale
		if err := tx.Exec(upsertRemoteUser, user, origin, is.stream, tx.Position(), is.stale); err != nil {
			return err
		}
		return e.tellAll(tx, user, watchers, false)
	})
	if err != nil {
		return err
	}
	if stale {
		e.resync.add(origin)
	}
	return e.tellLate(ctx, user, watchers)
}
