package encryption

import (
	"context"
	"encoding/json"
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
