package encryption

import (
	"context"
	"encoding/json"
	"maps"
	"math"

	"github.com/teahouse-chat/teahouse/internal/db"
	"github.com/teahouse-chat/teahouse/internal/matrix"
)

// fetched is a list that was asked for at a position.
type fetched struct {
	list   *remoteList
	stream int64
	at     int64
}

// keep stores lists that were asked for, of users who shared a room with a local
// user all the time since, and of whom no change was heard meanwhile, and counts
// them. Local users are told where a list is not what it was.
func (e *Encryption) keep(ctx context.Context, got map[matrix.UserID]fetched) (kept int, err error) {
	ctx = context.WithoutCancel(ctx)
	var changed []matrix.UserID
	err = e.DB.Write(ctx, func(tx *db.Tx) error {
		kept, changed = 0, nil
		k, err := e.keeper(ctx, tx, got)
		if err != nil {
			return err
		}
		for user, f := range got {
			if !k.may(user, f) {
				continue
			}
			kept++
			news, err := k.keep(tx, user, f)
			if err != nil {
				return err
			}
			if !news {
				continue
			}
			changed = append(changed, user)
			if err := e.tellAll(tx, user, nil, false); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return 0, err
	}
	for _, user := range changed {
		if err := e.tellLate(ctx, user, nil); err != nil {
			return kept, err
		}
	}
	return kept, nil
}

// keeper is what decides over lists that were asked for.
type keeper struct {
	known    map[matrix.UserID]remoteUser
	stored   map[matrix.UserID]*remoteList
	together map[matrix.UserID]bool // since the lists were asked for
}

func (e *Encryption) keeper(ctx context.Context, tx *db.Tx, got map[matrix.UserID]fetched) (*keeper, error) {
	k := &keeper{known: map[matrix.UserID]remoteUser{}, together: map[matrix.UserID]bool{}}
	var users []matrix.UserID
	at := int64(math.MaxInt64)
	for user, f := range got {
		users, at = append(users, user), min(at, f.at)
	}
	together, err := e.Rooms.InCompany(ctx, tx, users, at)
	if err != nil {
		return nil, err
	}
	for _, user := range together {
		k.together[user] = true
	}
	err = db.Each(ctx, tx, selectRemoteUsers, func(s db.Scanner) error {
		u, err := scanRemoteUser(s)
		k.known[u.user] = u
		return err
	}, users)
	if err != nil {
		return nil, err
	}
	k.stored, err = readRemote(ctx, tx, users)
	return k, err
}

func (k *keeper) may(user matrix.UserID, f fetched) bool {
	return k.together[user] && k.known[user].touched <= f.at
}

// keep stores a list and tells whether it differs from what local users may know.
func (k *keeper) keep(tx *db.Tx, user matrix.UserID, f fetched) (news bool, err error) {
	was, known := k.known[user]
	old := k.stored[user]
	if old == nil {
		old = newRemoteList()
	}
	if err := f.list.replace(tx, user, old); err != nil {
		return false, err
	}
	tx.Publish(listMoved{user})
	return known && !f.list.equals(old),
		tx.Exec(upsertRemoteUser, user, user.Server(), f.stream, max(was.touched, f.at), false)
}

// listMoved is published when what is kept of a remote user changed.
type listMoved struct{ user matrix.UserID }

func (l *remoteList) equals(old *remoteList) bool {
	return maps.Equal(l.devices, old.devices) && maps.Equal(l.cross, old.cross)
}

// replace stores the list in the place of an old one.
func (l *remoteList) replace(tx *db.Tx, user matrix.UserID, old *remoteList) error {
	gone, ids, texts := changedEntries(l.devices, old.devices)
	if err := storeEntries(tx, user, gone, ids, texts, deleteRemoteDevices, upsertRemoteDevices); err != nil {
		return err
	}
	if k := old.cross[usageMaster]; k != "" && k != l.cross[usageMaster] {
		if err := forgetRemoteMaster(tx, user, k, l.cross[usageMaster]); err != nil {
			return err
		}
	}
	usagesGone, usages, keys := changedEntries(l.cross, old.cross)
	return storeEntries(tx, user, usagesGone, usages, keys, deleteRemoteCross, upsertRemoteCross)
}

// changedEntries compares what there was with what there is.
func changedEntries[K ~string](now, old map[K]string) (gone, names []K, texts []string) {
	for name := range old {
		if _, ok := now[name]; !ok {
			gone = append(gone, name)
		}
	}
	for name, text := range now {
		if old[name] != text {
			names, texts = append(names, name), append(texts, text)
		}
	}
	return gone, names, texts
}

func storeEntries[K ~string](tx *db.Tx, user matrix.UserID, gone, names []K, texts []string, remove, upsert *db.Stmt) error {
	if len(gone) > 0 {
		if err := tx.Exec(remove, user, gone); err != nil {
			return err
		}
	}
	if len(names) == 0 {
		return nil
	}
	return tx.Exec(upsert, user, names, texts)
}

// forgetRemoteMaster deletes what local users have signed of a master key that
// another takes the place of.
func forgetRemoteMaster(tx *db.Tx, user matrix.UserID, old, now string) error {
	was, err := parseKeys("a stored key", json.RawMessage(old))
	if err != nil {
		return err
	}
	if now != "" {
		if is, err := parseKeys("a key", json.RawMessage(now)); err == nil && is.bare == was.bare {
			return nil
		}
	}
	return tx.Exec(deleteSignaturesOn, user, []string{was.public()})
}
