package encryption

import (
	"context"
	"encoding/json"
	"slices"
	"strings"

	"github.com/teahouse-chat/teahouse/internal/db"
	"github.com/teahouse-chat/teahouse/internal/matrix"
)

// listsKept is how many users' device lists are kept in memory.
const listsKept = 5000

// deviceList is what others are told of a user's devices. It is shared and never
// changed.
type deviceList struct {
	names   map[matrix.DeviceID]string          // of all devices, those without keys too
	devices map[matrix.DeviceID]json.RawMessage // as /keys/query gives them, to those who may see the names
	cross   map[string]*crossKey                // by usage
}

// crossKey is a cross-signing key with the signatures of its owner.
type crossKey struct {
	public, bare string
	signatures   []signature
	raw          json.RawMessage // with these
}

func newDeviceList() *deviceList {
	return &deviceList{map[matrix.DeviceID]string{}, map[matrix.DeviceID]json.RawMessage{}, map[string]*crossKey{}}
}

// signedBy is the key with more signatures.
func (k *crossKey) signedBy(more []signature) json.RawMessage {
	if len(more) == 0 {
		return k.raw
	}
	all := slices.SortedFunc(slices.Values(append(slices.Clone(k.signatures), more...)), func(a, b signature) int {
		if c := strings.Compare(string(a.signer), string(b.signer)); c != 0 {
			return c
		}
		return strings.Compare(a.signerKey, b.signerKey)
	})
	return render(k.bare, all, nil)
}

// selected are the devices that were asked for, all if none was named.
func (l *deviceList) selected(ids []matrix.DeviceID) map[matrix.DeviceID]json.RawMessage {
	if len(ids) == 0 {
		return l.devices
	}
	some := map[matrix.DeviceID]json.RawMessage{}
	for _, id := range ids {
		if raw, ok := l.devices[id]; ok {
			some[id] = raw
		}
	}
	return some
}

// nameless is what the list says of a device to those who may not see its name,
// or are told it beside.
func (l *deviceList) nameless(id matrix.DeviceID, unsigned string) json.RawMessage {
	raw := l.devices[id]
	kept := len(raw) - len(appendUnsigned(nil, l.names[id])) - 1
	return append(append(slices.Clone(raw[:kept]), unsigned...), '}')
}

// localLists reads the lists of local users. Those who have no devices are left
// out.
func (e *Encryption) localLists(ctx context.Context, q db.Querier, users []matrix.UserID) (map[matrix.UserID]*deviceList, error) {
	names, err := e.allDevices(ctx, q, users)
	if err != nil {
		return nil, err
	}
	lists := make(map[matrix.UserID]*deviceList, len(names))
	for user, devices := range names {
		lists[user] = newDeviceList()
		lists[user].names = devices
	}
	signed := map[target][]signature{}
	err = db.Each(ctx, q, selectOwnSignatures, func(s db.Scanner) error {
		g, err := scanSignature(s)
		on := target{g.user, g.target}
		signed[on] = append(signed[on], g)
		return err
	}, users)
	if err != nil {
		return nil, err
	}
	err = db.Each(ctx, q, selectDeviceKeys, func(s db.Scanner) error {
		var d device
		var bare string
		if err := s.Scan(&d.user, &d.id, &bare); err != nil {
			return err
		}
		if name, there := names[d.user][d.id]; there {
			lists[d.user].devices[d.id] = render(bare, signed[target{d.user, string(d.id)}], &name)
		}
		return nil
	}, users)
	if err != nil {
		return nil, err
	}
	return lists, db.Each(ctx, q, selectCrossKeys, func(s db.Scanner) error {
		var user matrix.UserID
		var usage string
		k := &crossKey{}
		if err := s.Scan(&user, &usage, &k.public, &k.bare); err != nil {
			return err
		}
		if lists[user] == nil {
			lists[user] = newDeviceList()
		}
		k.signatures = signed[target{user, k.public}]
		k.raw = render(k.bare, k.signatures, nil)
		lists[user].cross[usage] = k
		return nil
	}, users)
}

// listsOf gives the lists of local users, from memory as far as they are there.
func (e *Encryption) listsOf(ctx context.Context, users []matrix.UserID) (map[matrix.UserID]*deviceList, error) {
	return e.lists.many(ctx, users, func(ctx context.Context, users []matrix.UserID) (lists map[matrix.UserID]*deviceList, err error) {
		err = e.DB.View(ctx, func(q db.Querier) error {
			lists, err = e.localLists(ctx, q, users)
			return err
		})
		return lists, err
	})
}

// signedBy gives the signatures of a local user on other users' keys.
func (e *Encryption) signedBy(ctx context.Context, user matrix.UserID) (map[target][]signature, error) {
	if user == "" {
		return nil, nil
	}
	return e.signed.get(ctx, user, func(ctx context.Context) (map[target][]signature, error) {
		signed := map[target][]signature{}
		return signed, db.Each(ctx, e.DB, selectSignaturesBy, func(s db.Scanner) error {
			g, err := scanSignature(s)
			on := target{g.user, g.target}
			signed[on] = append(signed[on], g)
			return err
		}, user)
	})
}

// target is what a signature is on: a device, or a cross-signing key.
type target struct {
	user matrix.UserID
	id   string
}

// signature is one that was verified.
type signature struct {
	user      matrix.UserID // whose key it is on
	target    string
	signer    matrix.UserID
	signerKey string // key id, with its algorithm
	text      string
}

func scanSignature(s db.Scanner) (g signature, err error) {
	err = s.Scan(&g.user, &g.target, &g.signer, &g.signerKey, &g.text)
	return g, err
}

// render adds to stored keys what is kept apart: the signatures, in order, and
// the name of a device.
func render(bare string, signatures []signature, name *string) json.RawMessage {
	b := make([]byte, 0, len(bare)+160*(len(signatures)+1))
	b = append(b, bare[:len(bare)-1]...)
	b = append(b, `,"signatures":{`...)
	for i, g := range signatures {
		switch {
		case i == 0:
			b = append(appendText(b, g.signer), `:{`...)
		case signatures[i-1].signer != g.signer:
			b = append(b, `},`...)
			b = append(appendText(b, g.signer), `:{`...)
		default:
			b = append(b, ',')
		}
		b = append(appendText(b, g.signerKey), ':')
		b = appendText(b, g.text)
	}
	if len(signatures) > 0 {
		b = append(b, '}')
	}
	b = append(b, '}')
	if name != nil {
		b = appendUnsigned(b, *name)
	}
	return append(b, '}')
}

// appendUnsigned appends what says the name of a device.
func appendUnsigned(b []byte, name string) []byte {
	b = append(b, `,"unsigned":{`...)
	if name != "" {
		b = appendText(append(b, `"device_display_name":`...), name)
	}
	return append(b, '}')
}
