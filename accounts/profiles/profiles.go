package profiles

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"net/http"

	"github.com/teahouse-chat/teahouse/internal/db"
	"github.com/teahouse-chat/teahouse/internal/matrix"
)

// Limits of a profile.
// spec: client-server#profiles
const (
	MaxProfileBytes = 64 << 10
	MaxKeyBytes     = 255
)

// Rooms is where display names and avatars are shown. ProfileChanged sends the
// user's member event again, with the profile as it is by then, to every room
// that the user has joined; a call that failed is made again later.
type Rooms interface {
	ProfileChanged(ctx context.Context, user matrix.UserID) error
}

// Users knows who has an account here. Exists is false for a user who has
// never registered, or whose account was deactivated.
type Users interface {
	Exists(ctx context.Context, user matrix.UserID) (bool, error)
}

// Remote asks another server for the profile of one of its users: all of it,
// or only the field key if it is not "".
type Remote interface {
	Profile(ctx context.Context, user matrix.UserID, key string) (Fields, error)
}

// Deps is what New needs.
type Deps struct {
	DB         *db.DB
	ServerName matrix.ServerName
	Users      Users        // nil: who has no profile does not exist
	Rooms      Rooms        // nil: nothing is told; see SetRooms
	Remote     Remote       // nil: profiles of other servers are not found
	Log        *slog.Logger // nil: slog.Default()
}

// Profiles is the feature.
type Profiles struct {
	db     *db.DB
	server matrix.ServerName
	users  Users
	rooms  Rooms
	remote Remote
	log    *slog.Logger
	cache  cache
}

// Changed is published on the stream when a field of a local user's profile
// was set or deleted.
type Changed struct {
	User matrix.UserID
	Key  string
}

// New makes the feature.
func New(d Deps) (*Profiles, error) {
	if d.Log == nil {
		d.Log = slog.Default()
	}
	p := &Profiles{
		db: d.DB, server: d.ServerName, users: d.Users, rooms: d.Rooms, remote: d.Remote, log: d.Log,
		cache: newCache(),
	}
	d.DB.Subscribe(p.forget)
	return p, nil
}

// SetRooms names the rooms that are told of changes. It is for a program whose
// rooms need the profiles first, and must be called before requests are served.
func (p *Profiles) SetRooms(r Rooms) { p.rooms = r }

// forget drops what a commit made stale. It runs before the writers are
// answered, so that a client reads its own writes.
func (p *Profiles) forget(b db.Batch) {
	for _, c := range b.Changes {
		if c, ok := c.(Changed); ok {
			p.cache.drop(c.User)
		}
	}
}

// Get returns the profiles of local users, by user; who has none is absent.
func (p *Profiles) Get(ctx context.Context, users []matrix.UserID) (map[matrix.UserID]Fields, error) {
	found, missing, age := p.cache.get(users)
	if len(missing) == 0 {
		return found, nil
	}
	read := make(map[matrix.UserID]Fields, len(missing))
	for _, u := range missing {
		read[u] = nil // that there is no profile is worth remembering, too
	}
	if err := readFields(ctx, p.db, missing, read); err != nil {
		return nil, err
	}
	p.cache.put(read, age)
	for u, f := range read {
		if len(f) > 0 {
			found[u] = f
		}
	}
	return found, nil
}

// Lookup finds the profile of any user: all of it, or only the field key if it
// is not "". It fails with M_NOT_FOUND if there is no such user or field.
// spec: client-server#get_matrixclientv3profileuserid
func (p *Profiles) Lookup(ctx context.Context, user matrix.UserID, key string) (Fields, error) {
	fields, err := p.lookup(ctx, user, key)
	if err != nil || key == "" {
		return fields, err
	}
	value, ok := fields[key]
	if !ok {
		return nil, matrix.NotFound("This user's profile has no %q", key)
	}
	return Fields{key: value}, nil
}

func (p *Profiles) lookup(ctx context.Context, user matrix.UserID, key string) (Fields, error) {
	if user.Server() != p.server {
		if p.remote == nil {
			return nil, errNoProfile
		}
		return p.remote.Profile(ctx, user, key)
	}
	found, err := p.Get(ctx, []matrix.UserID{user})
	if err != nil {
		return nil, err
	}
	if fields, ok := found[user]; ok {
		return fields, nil
	}
	if p.users == nil {
		return nil, errNoProfile
	}
	exists, err := p.users.Exists(ctx, user)
	if err != nil {
		return nil, err
	}
	if !exists {
		return nil, errNoProfile
	}
	return Fields{}, nil
}

var errNoProfile = matrix.NotFound("There is no profile of this user")

// Set gives a local user's profile the field key. The value is any JSON; of the
// keys that the specification defines, it is checked.
// spec: client-server#put_matrixclientv3profileuseridkeyname
func (p *Profiles) Set(ctx context.Context, user matrix.UserID, key string, value json.RawMessage) error {
	if err := CheckKey(key); err != nil {
		return err
	}
	value, err := checkValue(key, value)
	if err != nil {
		return err
	}
	return p.change(ctx, user, key, func(tx *db.Tx, now Fields) (bool, error) {
		old, has := now[key]
		if value == nil { // an empty name or avatar
			if !has {
				return false, nil
			}
			return true, tx.Exec(deleteField, user, key)
		}
		if has && bytes.Equal(old, value) {
			return false, nil
		}
		if now.size()-memberSize(key, old, has)+memberSize(key, value, true) > MaxProfileBytes {
			return false, matrix.NewError(http.StatusBadRequest, matrix.CodeProfileTooLarge,
				"The profile would be larger than %d bytes; delete or shorten a field first", MaxProfileBytes)
		}
		return true, tx.Exec(upsertField, user, key, []byte(value))
	})
}

// Delete removes the field key from a local user's profile, if it is there.
// spec: client-server#delete_matrixclientv3profileuseridkeyname
func (p *Profiles) Delete(ctx context.Context, user matrix.UserID, key string) error {
	if err := CheckKey(key); err != nil {
		return err
	}
	return p.change(ctx, user, key, func(tx *db.Tx, now Fields) (bool, error) {
		if _, has := now[key]; !has {
			return false, nil
		}
		return true, tx.Exec(deleteField, user, key)
	})
}

// Erase removes the whole profile of a local user. The rooms are not told:
// who erases an account leaves them.
func (p *Profiles) Erase(ctx context.Context, user matrix.UserID) error {
	return p.db.Write(ctx, func(tx *db.Tx) error {
		tx.Publish(Changed{User: user})
		if err := tx.Exec(deleteDebt, user); err != nil {
			return err
		}
		return tx.Exec(deleteFields, user)
	})
}

// change runs edit on the current fields; if it changed something, the rooms
// that show it are told before change returns.
func (p *Profiles) change(ctx context.Context, user matrix.UserID, key string, edit func(*db.Tx, Fields) (bool, error)) error {
	var debt int64 // 0: nothing is owed
	err := p.db.Write(ctx, func(tx *db.Tx) error {
		debt = 0
		read := make(map[matrix.UserID]Fields, 1)
		if err := readFields(ctx, tx, []matrix.UserID{user}, read); err != nil {
			return err
		}
		changed, err := edit(tx, read[user])
		if err != nil || !changed {
			return err
		}
		tx.Publish(Changed{User: user, Key: key})
		if p.rooms == nil || key != KeyDisplayName && key != KeyAvatarURL {
			return nil
		}
		debt, err = owe(ctx, tx, user)
		return err
	})
	if err != nil || debt == 0 {
		return err
	}
	// The profile is changed; the rooms follow even if the client goes away.
	p.pay(context.WithoutCancel(ctx), user, debt)
	return nil
}

// pay tells the rooms of the user and crosses out the debt, unless it has grown
// meanwhile. After a failure it stays for Resume and for the next change.
func (p *Profiles) pay(ctx context.Context, user matrix.UserID, debt int64) {
	if err := p.rooms.ProfileChanged(ctx, user); err != nil {
		p.log.ErrorContext(ctx, "profile change did not reach all rooms; it will be tried again", "user", user, "err", err)
		return
	}
	err := p.db.Write(ctx, func(tx *db.Tx) error { return tx.Exec(settleDebt, user, debt) })
	if err != nil {
		p.log.ErrorContext(ctx, "profile change could not be marked as done", "user", user, "err", err)
	}
}

// Resume tells the rooms of changes that the last run of the server did not get
// round to. It returns when all are told; run it beside the requests.
func (p *Profiles) Resume(ctx context.Context) error {
	if p.rooms == nil {
		return nil
	}
	owed, err := db.All(ctx, p.db, selectDebts, scanDebt)
	if err != nil {
		return err
	}
	for _, d := range owed {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		p.pay(ctx, d.user, d.round)
	}
	return nil
}
