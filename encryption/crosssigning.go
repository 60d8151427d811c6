package encryption

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"net/http"
	"slices"
	"strings"

	"github.com/teahouse-chat/teahouse/internal/db"
	"github.com/teahouse-chat/teahouse/internal/httpx"
	"github.com/teahouse-chat/teahouse/internal/matrix"
)

// What a cross-signing key is used for.
const (
	usageMaster      = "master"
	usageSelfSigning = "self_signing"
	usageUserSigning = "user_signing"
)

type crossRequest struct {
	Master      json.RawMessage `json:"master_key"`
	SelfSigning json.RawMessage `json:"self_signing_key"`
	UserSigning json.RawMessage `json:"user_signing_key"`
	Auth        json.RawMessage `json:"auth"`
	Body        json.RawMessage `body:"raw"`
}

func scanCrossKey(s db.Scanner) (user matrix.UserID, usage string, k *signedKeys, err error) {
	var public, text string
	if err = s.Scan(&user, &usage, &public, &text); err == nil {
		k, err = parseKeys("a stored key", json.RawMessage(text))
	}
	return user, usage, k, err
}

// crossKeysOf returns a local user's keys by usage, without signatures.
func crossKeysOf(ctx context.Context, q db.Querier, user matrix.UserID) (map[string]*signedKeys, error) {
	keys := map[string]*signedKeys{}
	return keys, db.Each(ctx, q, selectCrossKeys, func(s db.Scanner) error {
		_, usage, k, err := scanCrossKey(s)
		keys[usage] = k
		return err
	}, []matrix.UserID{user})
}

// parse reads the keys of the request by usage.
func (q *crossRequest) parse(user matrix.UserID) (map[string]*signedKeys, error) {
	keys := map[string]*signedKeys{}
	for _, part := range []struct {
		name, usage string
		raw         json.RawMessage
	}{{"master_key", usageMaster, q.Master}, {"self_signing_key", usageSelfSigning, q.SelfSigning}, {"user_signing_key", usageUserSigning, q.UserSigning}} {
		if absent(part.raw) {
			continue
		}
		k, err := parseCrossKey(part.name, part.usage, part.raw, user)
		if err != nil {
			return nil, err
		}
		keys[part.usage] = k
	}
	return keys, nil
}

// uploadCross publishes the caller's cross-signing keys. The first ones need no
// authentication, nor do those that are there already; everything else does.
// spec: client-server#post_matrixclientv3keysdevice_signingupload
func (e *Encryption) uploadCross(ctx context.Context, c *httpx.Caller, q *crossRequest) (*struct{}, error) {
	keys, err := q.parse(c.User)
	if err != nil {
		return nil, err
	}
	old, err := crossKeysOf(ctx, e.DB, c.User)
	if err != nil {
		return nil, err
	}
	if same(keys, old) {
		return nil, nil
	}
	master := keys[usageMaster]
	if master == nil {
		master = old[usageMaster]
	}
	if master == nil {
		return nil, matrix.MissingParam("There is no master key; upload one")
	}
	for _, usage := range []string{usageSelfSigning, usageUserSigning} {
		if k := keys[usage]; k != nil && !k.by(c.User, master.public()) {
			return nil, invalidSignature("The master key has not signed the %s key", strings.ReplaceAll(usage, "_", "-"))
		}
	}
	if err := distinct(keys, old); err != nil {
		return nil, err
	}
	if old[usageMaster] != nil && c.Appservice == "" {
		if err := e.UIA.Require(ctx, c, "POST keys/device_signing/upload", q.Body, q.Auth); err != nil {
			return nil, err
		}
	}
	return nil, e.change(ctx, c.User, true, func(tx *db.Tx) ([]matrix.DeviceID, error) {
		now, err := crossKeysOf(ctx, tx, c.User)
		if err != nil {
			return nil, err
		}
		if !same(now, old) || !same(old, now) {
			return nil, matrix.NewError(http.StatusConflict, matrix.CodeUnknown, "Your keys have changed meanwhile; look at them and try again")
		}
		return e.storeCross(ctx, tx, c.User, keys, old)
	})
}

// distinct refuses keys of which two would be the same: signatures are kept by the
// key they are on.
func distinct(keys, old map[string]*signedKeys) error {
	all := maps.Clone(old)
	maps.Copy(all, keys)
	usages := map[string]string{}
	for usage, k := range all {
		if other, taken := usages[k.public()]; taken {
			return matrix.InvalidParam("The keys for %s and %s must differ", min(usage, other), max(usage, other))
		}
		usages[k.public()] = usage
	}
	return nil
}

// same tells whether every one of the keys is there.
func same(keys, there map[string]*signedKeys) bool {
	for usage, k := range keys {
		if there[usage] == nil || there[usage].bare != k.bare {
			return false
		}
	}
	return true
}

// by tells whether the user has signed the keys with a cross-signing key.
func (k *signedKeys) by(user matrix.UserID, public string) bool {
	pub, ok := bytes32(public)
	return ok && k.verify(user, ed25519Prefix+public, pub)
}

// storeCross replaces keys. What the replaced ones have signed, and what was
// signed of them, goes with them. It returns what others have to look at anew.
func (e *Encryption) storeCross(ctx context.Context, tx *db.Tx, user matrix.UserID, keys, old map[string]*signedKeys) ([]matrix.DeviceID, error) {
	names, err := e.allDevices(ctx, tx, []matrix.UserID{user})
	if err != nil {
		return nil, err
	}
	gone := map[string]*signedKeys{}
	for usage, k := range old {
		switch {
		case keys[usage] != nil && keys[usage].bare != k.bare:
		case keys[usage] == nil && keys[usageMaster] != nil && keys[usageMaster].bare != old[usageMaster].bare:
			// Signed by a master key that is no more.
			if err := tx.Exec(deleteCrossKeys, user, usage); err != nil {
				return nil, err
			}
		default:
			continue
		}
		gone[usage] = k
	}
	changed, err := forgetCross(ctx, tx, user, gone)
	if err != nil {
		return nil, err
	}
	master := old[usageMaster]
	if keys[usageMaster] != nil {
		master = keys[usageMaster]
	}
	for usage, k := range keys {
		if _, taken := names[user][matrix.DeviceID(k.public())]; taken {
			return nil, matrix.Forbidden("One of your devices has the %s key as its id", usage)
		}
		if err := tx.Exec(upsertCrossKeys, user, usage, k.public(), k.bare); err != nil {
			return nil, err
		}
		list, err := masterOrDevices(ctx, tx, k, usage, master)
		if err != nil {
			return nil, err
		}
		if _, err := e.addSignatures(ctx, tx, list); err != nil {
			return nil, err
		}
	}
	return changed, nil
}

// forgetCross deletes what keys that are no more have signed, and what was signed
// of them. It returns what others have to look at anew: the cross-signing keys,
// and the devices that lost a signature.
func forgetCross(ctx context.Context, tx *db.Tx, user matrix.UserID, gone map[string]*signedKeys) ([]matrix.DeviceID, error) {
	changed := []matrix.DeviceID{crossSigning}
	if len(gone) == 0 {
		return changed, nil
	}
	var publics, ids []string
	for _, k := range gone {
		publics, ids = append(publics, k.public()), append(ids, ed25519Prefix+k.public())
	}
	if err := tx.Exec(deleteSignaturesOn, user, publics); err != nil {
		return nil, err
	}
	signed, err := db.All(ctx, tx, selectSignedBy, scanText, user, ids)
	if err != nil {
		return nil, err
	}
	for _, id := range signed {
		if !slices.Contains(publics, id) {
			changed = append(changed, matrix.DeviceID(id))
		}
	}
	return changed, tx.Exec(deleteSignaturesBy, user, ids)
}

// masterOrDevices are the signatures on a new key that are kept: of the master
// key, and on a master key of the user's devices. A device's that does not
// verify is an error.
func masterOrDevices(ctx context.Context, q db.Querier, k *signedKeys, usage string, master *signedKeys) ([]signature, error) {
	if usage != usageMaster {
		id := ed25519Prefix + master.public()
		return []signature{{k.UserID, k.public(), k.UserID, id, k.Signatures[string(k.UserID)][id]}}, nil
	}
	if len(k.Signatures[string(k.UserID)]) == 0 {
		return nil, nil
	}
	devices, err := deviceKeysOf(ctx, q, k.UserID)
	if err != nil {
		return nil, err
	}
	var list []signature
	for id, text := range k.Signatures[string(k.UserID)] {
		name, ok := strings.CutPrefix(id, ed25519Prefix)
		d := devices[matrix.DeviceID(name)]
		if !ok || d == nil {
			continue // nothing to verify it by
		}
		if !k.verify(k.UserID, id, d.ed25519()) {
			return nil, invalidSignature("The signature of the device %q on the master key is not valid", name)
		}
		list = append(list, signature{k.UserID, k.public(), k.UserID, id, text})
	}
	return list, nil
}

// deviceKeysOf returns the keys of a local user's devices, without signatures.
func deviceKeysOf(ctx context.Context, q db.Querier, user matrix.UserID) (map[matrix.DeviceID]*signedKeys, error) {
	keys := map[matrix.DeviceID]*signedKeys{}
	return keys, db.Each(ctx, q, selectDeviceKeys, func(s db.Scanner) error {
		var d device
		var text string
		if err := s.Scan(&d.user, &d.id, &text); err != nil {
			return err
		}
		k, err := parseKeys("stored keys", json.RawMessage(text))
		keys[d.id] = k
		return err
	}, []matrix.UserID{user})
}

// addSignatures stores verified signatures and tells whether any is new.
func (e *Encryption) addSignatures(ctx context.Context, tx *db.Tx, list []signature) (bool, error) {
	added := false
	for _, g := range list {
		n, err := tx.Changed(upsertSignature, g.user, g.target, g.signer, g.signerKey, g.text)
		if err != nil {
			return false, err
		}
		added = added || n > 0
	}
	return added, nil
}

// challenge is an error of UIA that tells the client how to go on.
type challenge interface {
	error
	HTTPStatus() int
	MarshalJSON() ([]byte, error)
}

// guarded is an answer, or a challenge in its place.
type guarded struct{ challenge challenge }

func (g *guarded) HTTPStatus() int {
	if g.challenge != nil {
		return g.challenge.HTTPStatus()
	}
	return http.StatusOK
}

func (g *guarded) MarshalJSON() ([]byte, error) {
	if g.challenge != nil {
		return g.challenge.MarshalJSON()
	}
	return []byte("{}"), nil
}

// challenged makes a handler that answers challenges.
func challenged[Q any](h func(context.Context, *httpx.Caller, *Q) (*struct{}, error)) func(context.Context, *httpx.Caller, *Q) (*guarded, error) {
	return func(ctx context.Context, c *httpx.Caller, q *Q) (*guarded, error) {
		_, err := h(ctx, c, q)
		if ch, ok := errors.AsType[challenge](err); ok {
			return &guarded{ch}, nil
		}
		return &guarded{}, err
	}
}
