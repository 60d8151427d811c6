package encryption

import (
	"context"
	"encoding/json"
	"maps"
	"math"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/teahouse-chat/teahouse/internal/db"
	"github.com/teahouse-chat/teahouse/internal/matrix"
)

// The lists of other servers' users are kept for those who share a room with a
// local user: their servers tell of changes.

// Bounds on what is kept of what other servers say.
const (
	maxRemoteDevices = 1000 // of one user
	maxRemoteName    = 256  // bytes of a device's name
)

// unknownStream is the stream id of a list that came without one.
const unknownStream int64 = -1

// remoteList is the list of a remote user as another server gave it, with what is
// malformed left out. Each value is canonical.
type remoteList struct {
	devices map[matrix.DeviceID]string
	cross   map[string]string // by usage
}

// addDevice takes over the keys of a device, if they are such.
func (l *remoteList) addDevice(d device, keys json.RawMessage, name string) {
	if len(l.devices) >= maxRemoteDevices {
		return
	}
	if text, ok := remoteDevice(d, keys, name); ok {
		l.devices[d.id] = text
	}
}

// remoteDevice is what is kept and shown of a remote user's device: its keys as
// they were signed, with the signatures of their owner alone, and its name. Keys
// that no client could use are set aside. The signature of the self-signing key
// is not verified here: it may come before that key does, and clients do it.
func remoteDevice(d device, keys json.RawMessage, name string) (string, bool) {
	if absent(keys) || !plain(string(d.id), matrix.MaxIDBytes) {
		return "", false
	}
	k, err := parseDeviceKeys(keys, d)
	if err != nil {
		return "", false
	}
	own := ed25519Prefix + string(d.id)
	if k.Signatures[string(d.user)][own] != "" && !k.verify(d.user, own, k.ed25519()) {
		return "", false
	}
	name = remoteName(name)
	return string(render(k.bare, k.byOwner(), &name)), true
}

// remoteName makes the name of a device fit to be shown.
func remoteName(name string) string {
	name = strings.Map(func(r rune) rune {
		if r == 0 || r == utf8.RuneError {
			return -1
		}
		return r
	}, name)
	for len(name) > maxRemoteName {
		_, size := utf8.DecodeLastRuneInString(name)
		name = name[:len(name)-size]
	}
	return name
}

// byOwner are the well-formed signatures of the owner on keys, in order.
func (k *signedKeys) byOwner() []signature {
	var list []signature
	for id, text := range k.Signatures[string(k.UserID)] {
		if strings.HasPrefix(id, ed25519Prefix) && len(id) <= matrix.MaxIDBytes+len(ed25519Prefix) && signatureOK(text) {
			list = append(list, signature{signer: k.UserID, signerKey: id, text: text})
		}
	}
	slices.SortFunc(list, func(a, b signature) int { return strings.Compare(a.signerKey, b.signerKey) })
	return list
}

// addCross takes over cross-signing keys as far as they are well-formed and the
// self-signing key is signed by the master key; master is the one to go by if
// none is given. It returns false if something had to be left out.
func (l *remoteList) addCross(user matrix.UserID, master, selfSigning json.RawMessage) bool {
	complete := true
	if !absent(master) {
		if k, err := parseCrossKey("master_key", usageMaster, master, user); err == nil {
			l.cross[usageMaster] = string(render(k.bare, k.byOwner(), nil))
		} else {
			complete = false
		}
	}
	if absent(selfSigning) {
		return complete
	}
	k, err := parseCrossKey("self_signing_key", usageSelfSigning, selfSigning, user)
	if err != nil || !l.vouches(user, k) {
		return false
	}
	l.cross[usageSelfSigning] = string(render(k.bare, k.byOwner(), nil))
	return complete
}

// vouches tells whether the master key of the list has signed a key.
func (l *remoteList) vouches(user matrix.UserID, k *signedKeys) bool {
	text, ok := l.cross[usageMaster]
	if !ok {
		return false
	}
	master, err := parseCrossKey("master_key", usageMaster, json.RawMessage(text), user)
	return err == nil && k.by(user, master.public())
}

// listOfKeys is the part of an answer of /user/keys/query about a user.
func listOfKeys(user matrix.UserID, got *Keys) *remoteList {
	l := newRemoteList()
	for id, raw := range got.Devices[user] {
		var about struct {
			Unsigned struct {
				Name string `json:"device_display_name"`
			} `json:"unsigned"`
		}
		_ = json.Unmarshal(raw, &about) // a name of the wrong type is none
		l.addDevice(device{user, id}, raw, about.Unsigned.Name)
	}
	l.addCross(user, got.Master[user], got.SelfSigning[user])
	return l
}

// listOfDevices is an answer of /user/devices.
func listOfDevices(got *UserDevices, user matrix.UserID) *remoteList {
	l := newRemoteList()
	for _, raw := range got.Devices {
		var d userDevice
		if json.Unmarshal(raw, &d) == nil {
			l.addDevice(device{user, d.ID}, d.Keys, d.Name)
		}
	}
	l.addCross(user, got.Master, got.SelfSigning)
	return l
}

func newRemoteList() *remoteList {
	return &remoteList{map[matrix.DeviceID]string{}, map[string]string{}}
}

// list is the form in which the list is given to clients.
func (l *remoteList) list(user matrix.UserID) *deviceList {
	list := newDeviceList()
	for id, text := range l.devices {
		list.devices[id] = json.RawMessage(text)
	}
	for usage, text := range l.cross {
		if k, err := parseCrossKey(usage, usage, json.RawMessage(text), user); err == nil {
			list.cross[usage] = &crossKey{k.public(), k.bare, k.byOwner(), json.RawMessage(text)}
		}
	}
	return list
}

// readRemote reads what is stored of remote users, be it stale or not.
func readRemote(ctx context.Context, q db.Querier, users []matrix.UserID) (map[matrix.UserID]*remoteList, error) {
	lists := map[matrix.UserID]*remoteList{}
	of := func(user matrix.UserID) *remoteList {
		if lists[user] == nil {
			lists[user] = newRemoteList()
		}
		return lists[user]
	}
	err := db.Each(ctx, q, selectRemoteDevices, func(s db.Scanner) error {
		var d device
		var text string
		err := s.Scan(&d.user, &d.id, &text)
		of(d.user).devices[d.id] = text
		return err
	}, users)
	if err != nil {
		return nil, err
	}
	return lists, db.Each(ctx, q, selectRemoteCross, func(s db.Scanner) error {
		var user matrix.UserID
		var usage, text string
		err := s.Scan(&user, &usage, &text)
		of(user).cross[usage] = text
		return err
	}, users)
}

// remoteUser is what is known of a remote user's list.
type remoteUser struct {
	user    matrix.UserID
	stream  int64
	touched int64
	stale   bool
}

func scanRemoteUser(s db.Scanner) (u remoteUser, err error) {
	err = s.Scan(&u.user, &u.stream, &u.touched, &u.stale)
	return u, err
}

// trackedLists gives those of remote users' lists that can be relied upon, from
// memory or the database.
func (e *Encryption) trackedLists(ctx context.Context, users []matrix.UserID) (map[matrix.UserID]*deviceList, error) {
	users, err := e.undoubted(ctx, users)
	if err != nil {
		return nil, err
	}
	return e.lists.many(ctx, users, func(ctx context.Context, users []matrix.UserID) (map[matrix.UserID]*deviceList, error) {
		lists := map[matrix.UserID]*deviceList{}
		return lists, e.DB.View(ctx, func(q db.Querier) error {
			var fresh []matrix.UserID
			err := db.Each(ctx, q, selectRemoteUsers, func(s db.Scanner) error {
				u, err := scanRemoteUser(s)
				if !u.stale {
					fresh = append(fresh, u.user)
				}
				return err
			}, users)
			if err != nil || len(fresh) == 0 {
				return err
			}
			stored, err := readRemote(ctx, q, fresh)
			if err != nil {
				return err
			}
			for _, user := range fresh {
				if stored[user] == nil {
					stored[user] = newRemoteList()
				}
				lists[user] = stored[user].list(user)
			}
			return nil
		})
	})
}

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
