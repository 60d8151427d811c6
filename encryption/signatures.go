package encryption

import (
	"context"
	"encoding/json"
	"net/http"
	"slices"
	"strings"

	"github.com/teahouse-chat/teahouse/internal/db"
	"github.com/teahouse-chat/teahouse/internal/httpx"
	"github.com/teahouse-chat/teahouse/internal/matrix"
)

// maxSigned bounds the keys of one request.
const maxSigned = 500

type signaturesRequest struct {
	Body json.RawMessage `body:"raw"`
}

type signaturesAnswer struct {
	Failures map[matrix.UserID]map[string]*matrix.Error `json:"failures"`
}

func (a *signaturesAnswer) fail(user matrix.UserID, id string, err error) {
	if a.Failures[user] == nil {
		a.Failures[user] = map[string]*matrix.Error{}
	}
	a.Failures[user][id] = matrix.AsError(err)
}

// signer is what a user can sign with, and may see of what they sign.
type signer struct {
	user    matrix.UserID
	devices map[matrix.DeviceID]*signedKeys
	cross   map[string]*signedKeys
	others  map[matrix.UserID]*signedKeys // master keys
}

// uploadSignatures adds signatures to keys that are known.
// spec: client-server#post_matrixclientv3keyssignaturesupload
func (e *Encryption) uploadSignatures(ctx context.Context, c *httpx.Caller, q *signaturesRequest) (*signaturesAnswer, error) {
	var body map[matrix.UserID]map[string]json.RawMessage
	if err := json.Unmarshal(q.Body, &body); err != nil {
		return nil, matrix.BadJSON("The body must be an object of signed keys by user and key id").Because(err)
	}
	total := 0
	var others []matrix.UserID
	for user, keys := range body {
		if _, err := matrix.ParseUserID(string(user)); err != nil {
			return nil, err
		}
		if total += len(keys); user != c.User {
			others = append(others, user)
		}
	}
	if total > maxSigned {
		return nil, matrix.InvalidParam("At most %d keys can be signed at once", maxSigned)
	}
	s, err := e.signer(ctx, e.DB, c.User, others)
	if err != nil {
		return nil, err
	}
	if err := e.mastersElsewhere(ctx, s, others); err != nil {
		return nil, err
	}
	answer := &signaturesAnswer{Failures: map[matrix.UserID]map[string]*matrix.Error{}}
	var good []signature
	for user, keys := range body {
		for id, raw := range keys {
			list, err := s.check(user, id, raw)
			if err != nil {
				answer.fail(user, id, err)
			}
			good = append(good, list...)
		}
	}
	if len(good) == 0 {
		return answer, nil
	}
	return answer, e.addChecked(ctx, s, good, others)
}

// signer reads what signatures are verified with.
func (e *Encryption) signer(ctx context.Context, q db.Querier, user matrix.UserID, others []matrix.UserID) (*signer, error) {
	s := &signer{user: user, others: map[matrix.UserID]*signedKeys{}}
	var err error
	if s.devices, err = deviceKeysOf(ctx, q, user); err != nil {
		return nil, err
	}
	if s.cross, err = crossKeysOf(ctx, q, user); err != nil || len(others) == 0 {
		return s, err
	}
	return s, db.Each(ctx, q, selectCrossKeys, func(row db.Scanner) error {
		owner, usage, k, err := scanCrossKey(row)
		if usage == usageMaster {
			s.others[owner] = k
		}
		return err
	}, others)
}

// mastersElsewhere asks other servers for the master keys of their users.
func (e *Encryption) mastersElsewhere(ctx context.Context, s *signer, users []matrix.UserID) error {
	remote := wantedKeys{}
	for _, u := range users {
		if !e.local(u) {
			remote[u] = nil
		}
	}
	if len(remote) == 0 {
		return nil
	}
	lists, err := e.remoteLists(ctx, 0, remote, failures{})
	if err != nil {
		return err
	}
	for u, l := range lists {
		if k := l.cross[usageMaster]; k != nil {
			if s.others[u], err = parseCrossKey("master_key", usageMaster, k.raw, u); err != nil {
				return err
			}
		}
	}
	return ctx.Err()
}

// check returns the signatures in an uploaded object that are the signer's and
// verify. It is an error if there is none, or if one does not.
func (s *signer) check(user matrix.UserID, id string, raw json.RawMessage) ([]signature, error) {
	k, err := parseKeys("The signed object", raw)
	if err != nil {
		return nil, err
	}
	known, by := s.signable(user, id)
	if known == nil {
		return nil, matrix.NotFound("There is no such key that you could sign")
	}
	if known.bare != k.bare {
		return nil, matrix.InvalidParam("The signed object is not the key that is known under this id")
	}
	var list []signature
	for keyID, text := range k.Signatures[string(s.user)] {
		name, ok := strings.CutPrefix(keyID, ed25519Prefix)
		if !ok || user == s.user && name == id {
			continue // the device's own, which came with its keys
		}
		pub := by(name)
		if pub == "" {
			return nil, matrix.NewError(http.StatusBadRequest, codeInvalidSignature, "%q is no key of yours that such keys are signed with", keyID)
		}
		raw, _ := bytes32(pub)
		if !k.verify(s.user, keyID, raw) {
			return nil, invalidSignature("The signature by %q is not valid", keyID)
		}
		list = append(list, signature{user, id, s.user, keyID, text})
	}
	if len(list) == 0 {
		return nil, invalidSignature("There is no signature of yours")
	}
	return list, nil
}

// signable finds a key that the signer may sign, and by which keys: their own
// devices by the self-signing key, their own master key by devices, the master
// keys of others by the user-signing key.
// spec: client-server#cross-signing
func (s *signer) signable(user matrix.UserID, id string) (k *signedKeys, by func(name string) string) {
	only := func(usage string) func(string) string {
		return func(name string) string {
			if k := s.cross[usage]; k != nil && k.public() == name {
				return name
			}
			return ""
		}
	}
	if user != s.user {
		if k := s.others[user]; k != nil && k.public() == id {
			return k, only(usageUserSigning)
		}
		return nil, nil
	}
	if k := s.devices[matrix.DeviceID(id)]; k != nil {
		return k, only(usageSelfSigning)
	}
	if k := s.cross[usageMaster]; k != nil && k.public() == id {
		return k, func(name string) string {
			if d := s.devices[matrix.DeviceID(name)]; d != nil {
				return d.Keys[ed25519Prefix+name]
			}
			return ""
		}
	}
	return nil, nil
}

// addChecked stores signatures, unless the keys have changed since they were
// verified. Others look anew at keys that their owner has signed; what a user
// signs of others, only they see.
func (e *Encryption) addChecked(ctx context.Context, s *signer, good []signature, others []matrix.UserID) error {
	return e.change(ctx, s.user, true, func(tx *db.Tx) ([]matrix.DeviceID, error) {
		now, err := e.signer(ctx, tx, s.user, others)
		if err != nil {
			return nil, err
		}
		var own []matrix.DeviceID
		for _, g := range good {
			before, _ := s.signable(g.user, g.target)
			after, by := now.signable(g.user, g.target)
			if after == nil && !e.local(g.user) {
				after, by = s.signable(g.user, g.target)
			}
			name := strings.TrimPrefix(g.signerKey, ed25519Prefix)
			if after == nil || after.bare != before.bare || by(name) == "" {
				continue
			}
			added, err := e.addSignatures(ctx, tx, []signature{g})
			switch {
			case err != nil:
				return nil, err
			case added && g.user == s.user:
				own = append(own, now.deviceID(g.target))
			case added:
				if err := e.tell(tx, g.user, s.user); err != nil {
					return nil, err
				}
			}
		}
		slices.Sort(own)
		return slices.Compact(own), nil
	})
}

// deviceID is the device whose keys have an id, crossSigning if it is that of a
// cross-signing key.
func (s *signer) deviceID(id string) matrix.DeviceID {
	if s.devices[matrix.DeviceID(id)] != nil {
		return matrix.DeviceID(id)
	}
	return crossSigning
}
