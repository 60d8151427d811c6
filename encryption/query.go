package encryption

import (
	"context"
	"encoding/json"
	"maps"
	"slices"

	"github.com/teahouse-chat/teahouse/internal/db"
	"github.com/teahouse-chat/teahouse/internal/httpx"
	"github.com/teahouse-chat/teahouse/internal/matrix"
)

// maxQueried bounds the users of one request.
const maxQueried = 10_000

type queryRequest struct {
	Timeout    int64                                `json:"timeout"` // ms
	DeviceKeys *map[matrix.UserID][]matrix.DeviceID `json:"device_keys"`
}

type queryAnswer struct {
	*Keys
	Failures failures `json:"failures"`
}

// query gives the keys of users.
// spec: client-server#post_matrixclientv3keysquery
func (e *Encryption) query(ctx context.Context, c *httpx.Caller, q *queryRequest) (*queryAnswer, error) {
	if q.DeviceKeys == nil {
		return nil, matrix.MissingParam("device_keys is missing")
	}
	if len(*q.DeviceKeys) > maxQueried {
		return nil, matrix.InvalidParam("At most %d users can be asked about at once", maxQueried)
	}
	local, remote := map[matrix.UserID][]matrix.DeviceID{}, map[matrix.ServerName]map[matrix.UserID][]matrix.DeviceID{}
	for user, devices := range *q.DeviceKeys {
		if _, err := matrix.ParseUserID(string(user)); err != nil {
			return nil, err
		}
		if e.local(user) {
			local[user] = devices
			continue
		}
		if remote[user.Server()] == nil {
			remote[user.Server()] = map[matrix.UserID][]matrix.DeviceID{}
		}
		remote[user.Server()][user] = devices
	}
	keys, err := e.QueryLocal(ctx, c.User, local)
	if err != nil {
		return nil, err
	}
	answer := &queryAnswer{Keys: keys, Failures: failures{}}
	asked(ctx, e, q.Timeout, remote, answer.Failures, e.queryServer, func(users map[matrix.UserID][]matrix.DeviceID, got *Keys) {
		for user := range users { // a server speaks for whom it was asked about
			keys.take(user, got)
		}
	})
	return answer, nil
}

func (e *Encryption) queryServer(ctx context.Context, server matrix.ServerName, users map[matrix.UserID][]matrix.DeviceID) (*Keys, error) {
	return e.Remote.QueryKeys(ctx, server, users)
}

// take adds what another server said of its user. What is malformed does not
// reach clients.
func (k *Keys) take(user matrix.UserID, got *Keys) {
	if devices := got.Devices[user]; devices != nil {
		k.Devices[user] = map[matrix.DeviceID]json.RawMessage{}
		for id, raw := range devices {
			if _, err := parseDeviceKeys(raw, device{user, id}); err == nil {
				k.Devices[user][id] = raw
			}
		}
	}
	for _, part := range []struct {
		usage    string
		from, to map[matrix.UserID]json.RawMessage
	}{{usageMaster, got.Master, k.Master}, {usageSelfSigning, got.SelfSigning, k.SelfSigning}} {
		if raw := part.from[user]; raw != nil {
			if _, err := parseCrossKey(part.usage, part.usage, raw, user); err == nil {
				part.to[user] = raw
			}
		}
	}
}

// QueryLocal gives the keys of local users as asker may see them; asker is "" for
// another server. No devices means all of a user's.
func (e *Encryption) QueryLocal(ctx context.Context, asker matrix.UserID, users map[matrix.UserID][]matrix.DeviceID) (*Keys, error) {
	keys := &Keys{
		Devices: map[matrix.UserID]map[matrix.DeviceID]json.RawMessage{},
		Master:  map[matrix.UserID]json.RawMessage{}, SelfSigning: map[matrix.UserID]json.RawMessage{},
		UserSigning: map[matrix.UserID]json.RawMessage{},
	}
	if len(users) == 0 {
		return keys, nil
	}
	list := slices.Collect(maps.Keys(users))
	return keys, e.DB.View(ctx, func(q db.Querier) error {
		names, err := e.allDevices(ctx, q, list)
		if err != nil {
			return err
		}
		signed, err := signaturesOn(ctx, q, asker, list)
		if err != nil {
			return err
		}
		for user := range names {
			keys.Devices[user] = map[matrix.DeviceID]json.RawMessage{}
		}
		err = db.Each(ctx, q, selectDeviceKeys, func(s db.Scanner) error {
			var d device
			var bare string
			if err := s.Scan(&d.user, &d.id, &bare); err != nil {
				return err
			}
			name, there := names[d.user][d.id]
			if there && (len(users[d.user]) == 0 || slices.Contains(users[d.user], d.id)) {
				keys.Devices[d.user][d.id] = render(bare, signed[target{d.user, string(d.id)}], &name)
			}
			return nil
		}, list)
		if err != nil {
			return err
		}
		return db.Each(ctx, q, selectCrossKeys, func(s db.Scanner) error {
			var user matrix.UserID
			var usage, public, bare string
			if err := s.Scan(&user, &usage, &public, &bare); err != nil {
				return err
			}
			to := keys.Master
			switch usage {
			case usageSelfSigning:
				to = keys.SelfSigning
			case usageUserSigning:
				// With whom somebody has verified is nobody else's business.
				if to = keys.UserSigning; user != asker {
					return nil
				}
			}
			to[user] = render(bare, signed[target{user, public}], nil)
			return nil
		}, list)
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

// signaturesOn reads the signatures that asker may see, in order.
// spec: client-server#key-and-signature-security
func signaturesOn(ctx context.Context, q db.Querier, asker matrix.UserID, users []matrix.UserID) (map[target][]signature, error) {
	all := map[target][]signature{}
	return all, db.Each(ctx, q, selectSignatures, func(s db.Scanner) error {
		var g signature
		err := s.Scan(&g.user, &g.target, &g.signer, &g.signerKey, &g.text)
		on := target{g.user, g.target}
		all[on] = append(all[on], g)
		return err
	}, users, asker)
}

// render adds to stored keys what is kept apart. name is a device's.
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
		b = append(b, `,"unsigned":{`...)
		if *name != "" {
			b = appendText(append(b, `"device_display_name":`...), *name)
		}
		b = append(b, '}')
	}
	return append(b, '}')
}
