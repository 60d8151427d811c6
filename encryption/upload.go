package encryption

import (
	"context"
	"encoding/json"
	"maps"
	"slices"
	"strings"

	"github.com/teahouse-chat/teahouse/internal/db"
	"github.com/teahouse-chat/teahouse/internal/httpx"
	"github.com/teahouse-chat/teahouse/internal/matrix"
)

// Bounds on what one device may keep here.
const (
	maxUploaded   = 1000 // one-time keys of one request
	maxOneTime    = 5000 // unclaimed one-time keys of a device
	maxAlgorithms = 16   // of fallback keys
)

type uploadRequest struct {
	DeviceKeys   json.RawMessage            `json:"device_keys"`
	OneTimeKeys  map[string]json.RawMessage `json:"one_time_keys"`
	FallbackKeys map[string]json.RawMessage `json:"fallback_keys"`
	// The name of fallback keys before they were specified.
	UnstableFallback map[string]json.RawMessage `json:"org.matrix.msc2732.fallback_keys"`
}

type uploadAnswer struct {
	Counts map[string]int `json:"one_time_key_counts"`
}

// oneTimeKey is a checked one-time or fallback key.
type oneTimeKey struct{ algorithm, id, key string }

// deviceUpload is all that a device uploads, checked.
type deviceUpload struct {
	device   device
	keys     *signedKeys // nil: none
	oneTime  []oneTimeKey
	fallback []oneTimeKey
}

func absent(raw json.RawMessage) bool { return len(raw) == 0 || string(raw) == "null" }

// checkUpload checks everything that can be checked without the database.
func checkUpload(d device, q *uploadRequest) (*deviceUpload, error) {
	u := &deviceUpload{device: d}
	var err error
	if !absent(q.DeviceKeys) {
		if u.keys, err = parseDeviceKeys(q.DeviceKeys, d); err != nil {
			return nil, err
		}
	}
	if len(q.OneTimeKeys) > maxUploaded {
		return nil, matrix.InvalidParam("At most %d one-time keys can be uploaded at once", maxUploaded)
	}
	if u.oneTime, err = checkAll(q.OneTimeKeys, d.user); err != nil {
		return nil, err
	}
	fallback := q.FallbackKeys
	if fallback == nil {
		fallback = q.UnstableFallback
	}
	if len(fallback) > maxAlgorithms {
		return nil, matrix.InvalidParam("A device has at most %d fallback keys", maxAlgorithms)
	}
	if u.fallback, err = checkAll(fallback, d.user); err != nil {
		return nil, err
	}
	for i, k := range u.fallback {
		if i > 0 && u.fallback[i-1].algorithm == k.algorithm {
			return nil, matrix.InvalidParam("There is more than one fallback key of the algorithm %q", k.algorithm)
		}
	}
	return u, nil
}

// checkAll checks keys by their ids and sorts them.
func checkAll(keys map[string]json.RawMessage, user matrix.UserID) ([]oneTimeKey, error) {
	list := make([]oneTimeKey, 0, len(keys))
	for _, id := range slices.Sorted(maps.Keys(keys)) {
		algorithm, name, key, err := checkOneTime(id, keys[id], user)
		if err != nil {
			return nil, err
		}
		list = append(list, oneTimeKey{algorithm, name, key})
	}
	slices.SortStableFunc(list, func(a, b oneTimeKey) int { return strings.Compare(a.algorithm, b.algorithm) })
	return list, nil
}

// upload publishes keys of the caller's device.
// spec: client-server#post_matrixclientv3keysupload
func (e *Encryption) upload(ctx context.Context, c *httpx.Caller, q *uploadRequest) (*uploadAnswer, error) {
	d, err := needDevice(c)
	if err != nil {
		return nil, err
	}
	u, err := checkUpload(d, q)
	if err != nil {
		return nil, err
	}
	if u.keys == nil && len(u.oneTime)+len(u.fallback) == 0 {
		// What clients send to learn the counts.
		n, err := e.countsOf(ctx, d)
		return &uploadAnswer{n.oneTime}, err
	}
	var answer *uploadAnswer
	err = e.change(ctx, d.user, u.keys != nil, func(tx *db.Tx) ([]matrix.DeviceID, error) {
		there, err := e.exists(ctx, tx, d)
		if err != nil {
			return nil, err
		}
		if !there {
			return nil, matrix.UnknownToken(false)
		}
		changed, err := e.store(ctx, tx, u)
		if err != nil {
			return nil, err
		}
		n, err := readCounts(ctx, tx, d)
		answer = &uploadAnswer{n.oneTime}
		return changed, err
	})
	return answer, err
}

type namedUpload struct {
	uploadRequest
	DeviceID matrix.DeviceID `path:"deviceId"`
}

func (e *Encryption) uploadNamed(ctx context.Context, c *httpx.Caller, q *namedUpload) (*uploadAnswer, error) {
	if q.DeviceID != c.Device {
		return nil, matrix.InvalidParam("The device in the path is not that of the access token")
	}
	return e.upload(ctx, c, &q.uploadRequest)
}

// store writes an upload and returns what others have to look at anew.
func (e *Encryption) store(ctx context.Context, tx *db.Tx, u *deviceUpload) (changed []matrix.DeviceID, err error) {
	if u.keys != nil {
		if changed, err = e.storeDeviceKeys(ctx, tx, u); err != nil {
			return nil, err
		}
	}
	added, err := e.storeOneTime(ctx, tx, u)
	if err != nil {
		return nil, err
	}
	replaced, err := storeFallback(ctx, tx, u)
	if err != nil {
		return nil, err
	}
	if len(changed) > 0 || added || replaced {
		tx.Publish(keysMoved(u.device))
	}
	return changed, nil
}

func (e *Encryption) storeDeviceKeys(ctx context.Context, tx *db.Tx, u *deviceUpload) ([]matrix.DeviceID, error) {
	d := u.device
	old, found, err := db.One(ctx, tx, selectKeysOf, scanText, d.user, d.id)
	if err != nil || found && old == u.keys.bare && len(u.keys.Signatures) == 0 {
		return nil, err
	}
	cross, err := crossKeysOf(ctx, tx, d.user)
	if err != nil {
		return nil, err
	}
	for _, k := range cross {
		if k.public() == string(d.id) {
			return nil, matrix.Forbidden("The device has the id of one of your cross-signing keys")
		}
	}
	signatures, err := u.keys.bySelf(cross[usageSelfSigning])
	if err != nil {
		return nil, err
	}
	changed := []matrix.DeviceID{d.id}
	if found && old == u.keys.bare {
		if added, err := e.addSignatures(ctx, tx, signatures); err != nil || !added {
			return nil, err
		}
		return changed, nil
	}
	if found {
		more, err := forgetKeys(ctx, tx, u, old)
		if err != nil {
			return nil, err
		}
		changed = append(changed, more...)
	}
	if err := tx.Exec(upsertDeviceKeys, d.user, d.id, u.keys.bare); err != nil {
		return nil, err
	}
	_, err = e.addSignatures(ctx, tx, signatures)
	return changed, err
}

// forgetKeys deletes what was said of the keys that an upload replaces, and by
// them if those are others.
func forgetKeys(ctx context.Context, tx *db.Tx, u *deviceUpload, old string) ([]matrix.DeviceID, error) {
	d := u.device
	if err := tx.Exec(deleteSignaturesOn, d.user, []string{string(d.id)}); err != nil {
		return nil, err
	}
	if before, err := parseKeys("stored keys", json.RawMessage(old)); err == nil && before.identity() == u.keys.identity() {
		return nil, nil
	}
	for _, s := range []*db.Stmt{deleteOneTime, deleteFallback} {
		if err := tx.Exec(s, d.user, []matrix.DeviceID{d.id}); err != nil {
			return nil, err
		}
	}
	signed, err := forgetSigner(ctx, tx, d.user, []matrix.DeviceID{d.id})
	if err != nil || !signed {
		return nil, err
	}
	return []matrix.DeviceID{crossSigning}, nil
}

// bySelf are the signatures on a device's keys that can be verified: by the
// device and by its user's self-signing key. A wrong one of the device is an
// error.
func (k *signedKeys) bySelf(selfSigning *signedKeys) ([]signature, error) {
	var list []signature
	for id, sig := range k.Signatures[string(k.UserID)] {
		s := signature{k.UserID, string(k.DeviceID), k.UserID, id, sig}
		switch {
		case id == ed25519Prefix+string(k.DeviceID):
			if !k.verify(k.UserID, id, k.ed25519()) {
				return nil, invalidSignature("The device's signature on its keys is not valid")
			}
			list = append(list, s)
		case selfSigning != nil && id == ed25519Prefix+selfSigning.public():
			if pub, ok := bytes32(selfSigning.public()); ok && k.verify(k.UserID, id, pub) {
				list = append(list, s)
			}
		}
	}
	return list, nil
}

// storeOneTime adds the one-time keys that are new. A key that was uploaded
// before, claimed or not, stays as it is.
func (e *Encryption) storeOneTime(ctx context.Context, tx *db.Tx, u *deviceUpload) (bool, error) {
	if len(u.oneTime) == 0 {
		return false, nil
	}
	var algorithms, ids, keys []string
	for _, k := range u.oneTime {
		ids = append(ids, k.id)
		if len(algorithms) == 0 || algorithms[len(algorithms)-1] != k.algorithm {
			algorithms = append(algorithms, k.algorithm)
		}
	}
	there := map[[2]string]string{}
	err := db.Each(ctx, tx, selectOneTime, func(s db.Scanner) error {
		var k oneTimeKey
		err := s.Scan(&k.algorithm, &k.id, &k.key)
		there[[2]string{k.algorithm, k.id}] = k.key
		return err
	}, u.device.user, u.device.id, algorithms, ids)
	if err != nil {
		return false, err
	}
	algorithms, ids = nil, nil
	for _, k := range u.oneTime {
		old, found := there[[2]string{k.algorithm, k.id}]
		switch {
		case !found:
			algorithms, ids, keys = append(algorithms, k.algorithm), append(ids, k.id), append(keys, k.key)
		case old != k.key:
			return false, matrix.InvalidParam("There is another one-time key with the id %s:%s", k.algorithm, k.id)
		}
	}
	if len(ids) == 0 {
		return false, nil
	}
	n, err := readCounts(ctx, tx, u.device)
	if err != nil {
		return false, err
	}
	total := len(ids)
	for _, some := range n.oneTime {
		total += some
	}
	if total > maxOneTime {
		return false, matrix.InvalidParam("A device has at most %d one-time keys", maxOneTime)
	}
	return true, tx.Exec(insertOneTime, u.device.user, u.device.id, e.batches.Next(), algorithms, ids, keys)
}

// storeFallback replaces the fallback keys that differ. One that is uploaded
// again keeps the mark of its use.
func storeFallback(ctx context.Context, tx *db.Tx, u *deviceUpload) (bool, error) {
	if len(u.fallback) == 0 {
		return false, nil
	}
	there := map[string]oneTimeKey{}
	err := db.Each(ctx, tx, selectFallback, func(s db.Scanner) error {
		k, _, err := scanFallback(s)
		there[k.algorithm] = k
		return err
	}, u.device.user, u.device.id)
	if err != nil {
		return false, err
	}
	changed := false
	for _, k := range u.fallback {
		if there[k.algorithm] == k {
			continue
		}
		changed = true
		if err := tx.Exec(upsertFallback, u.device.user, u.device.id, k.algorithm, k.id, k.key); err != nil {
			return false, err
		}
	}
	return changed, nil
}

func scanFallback(s db.Scanner) (k oneTimeKey, used bool, err error) {
	err = s.Scan(&k.algorithm, &k.id, &k.key, &used)
	return k, used, err
}
