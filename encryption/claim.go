package encryption

import (
	"context"
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/teahouse-chat/teahouse/internal/db"
	"github.com/teahouse-chat/teahouse/internal/httpx"
	"github.com/teahouse-chat/teahouse/internal/matrix"
)

const (
	// claimedKept is how long a claimed key is remembered, so that a device that
	// uploads it once more does not make it claimable again.
	claimedKept = 7 * 24 * time.Hour
	maxClaims   = 10_000 // of one request
	claimsAtime = 100    // of one write, so that others get their turn
)

type claimRequest struct {
	Timeout     int64   `json:"timeout"` // ms
	OneTimeKeys *Claims `json:"one_time_keys"`
}

type claimAnswer struct {
	OneTimeKeys Claimed  `json:"one_time_keys"`
	Failures    failures `json:"failures"`
}

// claim hands out one-time keys.
// spec: client-server#post_matrixclientv3keysclaim
func (e *Encryption) claim(ctx context.Context, c *httpx.Caller, q *claimRequest) (*claimAnswer, error) {
	if q.OneTimeKeys == nil {
		return nil, matrix.MissingParam("one_time_keys is missing")
	}
	total := 0
	local, remote := Claims{}, map[matrix.ServerName]Claims{}
	for user, devices := range *q.OneTimeKeys {
		if _, err := matrix.ParseUserID(string(user)); err != nil {
			return nil, err
		}
		total += len(devices)
		if e.local(user) {
			local[user] = devices
			continue
		}
		if remote[user.Server()] == nil {
			remote[user.Server()] = Claims{}
		}
		remote[user.Server()][user] = devices
	}
	if total > maxClaims {
		return nil, matrix.InvalidParam("At most %d keys can be claimed at once", maxClaims)
	}
	answer := &claimAnswer{OneTimeKeys: Claimed{}, Failures: failures{}}
	var err error
	if answer.OneTimeKeys, err = e.ClaimLocal(ctx, local); err != nil {
		return nil, err
	}
	asked(ctx, e, q.Timeout, remote, answer.Failures, e.claimServer, func(_ Claims, got Claimed) {
		maps.Copy(answer.OneTimeKeys, got)
	})
	return answer, nil
}

// UnmarshalJSON reads keys as another server gives them. What does not have the
// form is left out.
func (c *Claimed) UnmarshalJSON(raw []byte) error {
	*c = Claimed{}
	for user, raw := range membersOf[matrix.UserID](raw) {
		(*c)[user] = map[matrix.DeviceID]map[string]json.RawMessage{}
		for id, raw := range membersOf[matrix.DeviceID](raw) {
			(*c)[user][id] = membersOf[string](raw)
		}
	}
	return nil
}

// wanted is one key to claim.
type wanted struct {
	device
	algorithm string
}

// ClaimLocal hands out keys of local users' devices, to whoever asks.
func (e *Encryption) ClaimLocal(ctx context.Context, claims Claims) (Claimed, error) {
	var list []wanted
	for _, user := range slices.Sorted(maps.Keys(claims)) {
		for _, id := range slices.Sorted(maps.Keys(claims[user])) {
			list = append(list, wanted{device{user, id}, claims[user][id]})
		}
	}
	all := Claimed{}
	for some := range slices.Chunk(list, claimsAtime) {
		var got []oneTimeKey
		err := e.DB.Write(ctx, func(tx *db.Tx) error {
			var err error
			got, err = e.claimSome(ctx, tx, some)
			return err
		})
		if err != nil {
			return nil, err
		}
		for i, k := range got {
			if k.key == "" {
				continue
			}
			w := some[i]
			if all[w.user] == nil {
				all[w.user] = map[matrix.DeviceID]map[string]json.RawMessage{}
			}
			all[w.user][w.id] = map[string]json.RawMessage{k.algorithm + ":" + k.id: json.RawMessage(k.key)}
		}
	}
	return all, nil
}

// claimSome returns a key for each that is wanted; one without a text where
// there is none.
func (e *Encryption) claimSome(ctx context.Context, tx *db.Tx, some []wanted) ([]oneTimeKey, error) {
	var users []matrix.UserID
	for _, w := range some {
		if len(users) == 0 || users[len(users)-1] != w.user {
			users = append(users, w.user)
		}
	}
	there, err := e.allDevices(ctx, tx, users)
	if err != nil {
		return nil, err
	}
	got := make([]oneTimeKey, len(some))
	for i, w := range some {
		if _, ok := there[w.user][w.id]; !ok || strings.IndexByte(w.algorithm, 0) >= 0 {
			continue
		}
		if got[i], err = e.claimOne(ctx, tx, w); err != nil {
			return nil, err
		}
	}
	return got, e.prune(tx)
}

func (e *Encryption) claimOne(ctx context.Context, tx *db.Tx, w wanted) (oneTimeKey, error) {
	for {
		k, found, err := db.One(ctx, tx, claimOneTime, func(s db.Scanner) (oneTimeKey, error) {
			k := oneTimeKey{algorithm: w.algorithm}
			err := s.Scan(&k.id, &k.key)
			return k, err
		}, e.Now().UnixMilli(), w.user, w.id, w.algorithm)
		if err != nil {
			return k, err
		}
		if found {
			tx.Publish(keysMoved(w.device))
			return k, nil
		}
		// None, or another process was faster with the one that was found.
		_, more, err := db.One(ctx, tx, anyOneTime, scanInt, w.user, w.id, w.algorithm)
		if err != nil {
			return k, err
		}
		if !more {
			return e.claimFallback(ctx, tx, w)
		}
	}
}

// claimFallback gives the fallback key, which stays.
// spec: client-server#one-time-and-fallback-keys
func (e *Encryption) claimFallback(ctx context.Context, tx *db.Tx, w wanted) (oneTimeKey, error) {
	var found oneTimeKey
	wasUsed := false
	err := db.Each(ctx, tx, selectFallback, func(s db.Scanner) error {
		k, used, err := scanFallback(s)
		if k.algorithm == w.algorithm {
			found, wasUsed = k, used
		}
		return err
	}, w.user, w.id)
	if err != nil || found.key == "" || wasUsed {
		return found, err
	}
	tx.Publish(keysMoved(w.device))
	return found, tx.Exec(useFallback, w.user, w.id, w.algorithm)
}
