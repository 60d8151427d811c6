package encryption

import (
	"context"
	"encoding/json"
	"maps"
	"slices"

	"github.com/teahouse-chat/teahouse/internal/httpx"
	"github.com/teahouse-chat/teahouse/internal/matrix"
)

// maxQueried bounds the users of one request.
const maxQueried = 10_000

// wantedKeys are the devices by user that keys are wanted of; none means all.
type wantedKeys map[matrix.UserID][]matrix.DeviceID

type queryRequest struct {
	Timeout    int64       `json:"timeout"` // ms
	DeviceKeys *wantedKeys `json:"device_keys"`
}

type queryAnswer struct {
	*Keys
	failures failures
}

// MarshalJSON writes the answer without looking into the keys once more.
func (a *queryAnswer) MarshalJSON() ([]byte, error) {
	failed, err := json.Marshal(a.failures)
	if err != nil {
		return nil, err
	}
	b := append(a.appendMembers(a.buffer(len(failed)+32)), `,"failures":`...)
	return append(append(b, failed...), '}'), nil
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
	local, remote := wantedKeys{}, wantedKeys{}
	for user, devices := range *q.DeviceKeys {
		if _, err := matrix.ParseUserID(string(user)); err != nil {
			return nil, err
		}
		if e.local(user) {
			local[user] = devices
		} else {
			remote[user] = devices
		}
	}
	keys, err := e.QueryLocal(ctx, c.User, local)
	if err != nil {
		return nil, err
	}
	answer := &queryAnswer{Keys: keys, failures: failures{}}
	if len(remote) == 0 {
		return answer, nil
	}
	return answer, e.queryRemote(ctx, c.User, q.Timeout, remote, answer)
}

// QueryLocal gives the keys of local users as asker may see them; asker is "" for
// another server. Every one of them is in the answer: clients take a user who is
// not for one who could not be asked about, and believe in the devices they know.
func (e *Encryption) QueryLocal(ctx context.Context, asker matrix.UserID, users wantedKeys) (*Keys, error) {
	keys := newKeys(len(users))
	if len(users) == 0 {
		return keys, nil
	}
	lists, err := e.listsOf(ctx, slices.Collect(maps.Keys(users)))
	if err != nil {
		return nil, err
	}
	signed, err := e.signedBy(ctx, asker)
	if err != nil {
		return nil, err
	}
	for user, devices := range users {
		keys.take(user, lists[user], devices)
		keys.takeCross(user, lists[user], asker, signed)
	}
	return keys, nil
}

// take adds the keys of a user's devices; somebody without a list has none.
func (k *Keys) take(user matrix.UserID, l *deviceList, devices []matrix.DeviceID) {
	k.Devices[user] = map[matrix.DeviceID]json.RawMessage{}
	if l != nil {
		k.Devices[user] = l.selected(devices)
	}
}

func newKeys(n int) *Keys {
	return &Keys{
		Devices: make(map[matrix.UserID]map[matrix.DeviceID]json.RawMessage, n),
		Master:  make(map[matrix.UserID]json.RawMessage, n), SelfSigning: make(map[matrix.UserID]json.RawMessage, n),
		UserSigning: map[matrix.UserID]json.RawMessage{},
	}
}

// takeCross adds the cross-signing keys of a user as asker may see them: with the
// signatures of the owner and of the asker.
// spec: client-server#key-and-signature-security
func (k *Keys) takeCross(user matrix.UserID, l *deviceList, asker matrix.UserID, signed map[target][]signature) {
	if l == nil {
		return
	}
	for usage, key := range l.cross {
		raw := key.signedBy(signed[target{user, key.public}])
		switch usage {
		case usageMaster:
			k.Master[user] = raw
		case usageSelfSigning:
			k.SelfSigning[user] = raw
		case usageUserSigning:
			// With whom somebody has verified is nobody else's business.
			if user == asker {
				k.UserSigning[user] = raw
			}
		}
	}
}

// MarshalJSON writes the keys without looking into them once more.
func (k *Keys) MarshalJSON() ([]byte, error) {
	return append(k.appendMembers(k.buffer(8)), '}'), nil
}

// UnmarshalJSON reads keys as another server gives them. What does not have the
// form is left out: it spoils nothing of other users.
func (k *Keys) UnmarshalJSON(raw []byte) error {
	var parts struct {
		Devices     json.RawMessage `json:"device_keys"`
		Master      json.RawMessage `json:"master_keys"`
		SelfSigning json.RawMessage `json:"self_signing_keys"`
		UserSigning json.RawMessage `json:"user_signing_keys"`
	}
	if err := json.Unmarshal(raw, &parts); err != nil {
		return err
	}
	*k = *newKeys(0)
	for user, raw := range membersOf[matrix.UserID](parts.Devices) {
		if devices := membersOf[matrix.DeviceID](raw); devices != nil {
			k.Devices[user] = devices
		}
	}
	for raw, to := range map[*json.RawMessage]map[matrix.UserID]json.RawMessage{
		&parts.Master: k.Master, &parts.SelfSigning: k.SelfSigning, &parts.UserSigning: k.UserSigning,
	} {
		maps.Copy(to, membersOf[matrix.UserID](*raw))
	}
	return nil
}

// membersOf are the members of an object, nil if it is none.
func membersOf[K ~string](raw json.RawMessage) map[K]json.RawMessage {
	var members map[K]json.RawMessage
	if json.Unmarshal(raw, &members) != nil {
		return nil
	}
	return members
}

// buffer is one that the keys fit into, with an object begun in it.
func (k *Keys) buffer(more int) []byte {
	n := more + 128
	for user, devices := range k.Devices {
		n += len(user) + 16
		for id, raw := range devices {
			n += len(id) + len(raw) + 8
		}
	}
	for _, keys := range []map[matrix.UserID]json.RawMessage{k.Master, k.SelfSigning, k.UserSigning} {
		for user, raw := range keys {
			n += len(user) + len(raw) + 8
		}
	}
	return append(make([]byte, 0, n), '{')
}

// appendMembers appends the members of the answer of /keys/query.
func (k *Keys) appendMembers(b []byte) []byte {
	b = append(b, `"device_keys":{`...)
	first := true
	for user, devices := range k.Devices {
		b = append(appendName(b, first, user), '{')
		first = false
		inner := true
		for id, raw := range devices {
			b = append(appendName(b, inner, id), raw...)
			inner = false
		}
		b = append(b, '}')
	}
	b = append(b, '}')
	for _, part := range []struct {
		name string
		keys map[matrix.UserID]json.RawMessage
	}{{"master_keys", k.Master}, {"self_signing_keys", k.SelfSigning}, {"user_signing_keys", k.UserSigning}} {
		if len(part.keys) == 0 {
			continue
		}
		b = append(appendName(b, false, part.name), '{')
		first := true
		for user, raw := range part.keys {
			b = append(appendName(b, first, user), raw...)
			first = false
		}
		b = append(b, '}')
	}
	return b
}

// appendName appends the name of a member, after a comma unless it is the first.
func appendName[T ~string](b []byte, first bool, name T) []byte {
	if !first {
		b = append(b, ',')
	}
	return append(appendText(b, name), ':')
}
