package rooms

import (
	"context"

	"github.com/teahouse-chat/teahouse/internal/db"
	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms/auth"
	"github.com/teahouse-chat/teahouse/rooms/state"
)

// Foresee numbers, at once, the state keys of events that are about to be
// appended. Without it Append asks for one new key after the other.
func (e *Engine) Foresee(ctx context.Context, protos []Proto) error {
	var keys []auth.Key
	for _, p := range protos {
		if p.StateKey != nil {
			keys = append(keys, auth.Key{Type: p.Type, StateKey: *p.StateKey})
		}
	}
	_, err := e.keys.allotAll(ctx, keys)
	return err
}

var keysByStateKeys = db.SQL(`SELECT key_nid, type, state_key FROM state_keys WHERE state_key IN {texts $1}`)

// findAll is find for many keys, with one query for all that name somebody or
// something. Keys that no event ever had get 0.
func (t *keyTable) findAll(ctx context.Context, keys []auth.Key) (map[auth.Key]state.KeyNID, error) {
	found := make(map[auth.Key]state.KeyNID, len(keys))
	var cold []string
	asked := map[string]bool{}
	for _, k := range keys {
		if _, ok := found[k]; ok {
			continue
		}
		if n, ok := t.known(k); ok {
			found[k] = n
			continue
		}
		found[k] = 0
		if k.StateKey == "" {
			// The empty state key goes with any number of types.
			n, err := t.find(ctx, k)
			if err != nil {
				return nil, err
			}
			found[k] = n
		} else if !asked[k.StateKey] {
			asked[k.StateKey] = true
			cold = append(cold, k.StateKey)
		}
	}
	if len(cold) == 0 {
		return found, nil
	}
	read := map[auth.Key]state.KeyNID{}
	err := db.Each(ctx, t.db, keysByStateKeys, func(s db.Scanner) error {
		var k auth.Key
		var n state.KeyNID
		err := s.Scan(&n, &k.Type, &k.StateKey)
		read[k] = n
		return err
	}, cold)
	if err != nil {
		return nil, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for k := range found {
		if n, ok := read[k]; ok {
			found[k] = n
			t.keep(k, n)
		}
	}
	return found, nil
}

// allotAll is allot for many keys.
func (t *keyTable) allotAll(ctx context.Context, keys []auth.Key) (map[auth.Key]state.KeyNID, error) {
	found, err := t.findAll(ctx, keys)
	if err != nil {
		return nil, err
	}
	var fresh []auth.Key
	for k, n := range found {
		if n == 0 {
			fresh = append(fresh, k)
		}
	}
	if len(fresh) == 0 {
		return found, nil
	}
	t.allotting.Lock()
	defer t.allotting.Unlock()
	again, err := t.findAll(ctx, fresh)
	if err != nil {
		return nil, err
	}
	for k, n := range again {
		if n == 0 {
			n = t.number(k)
		}
		found[k] = n
	}
	return found, nil
}

// number gives a new number to a key that the database was found not to have,
// unless somebody else has done so since.
func (t *keyTable) number(k auth.Key) state.KeyNID {
	fresh := state.KeyNID(t.seq.Next() << 1)
	if k.Type == matrix.TypeMember {
		fresh |= 1
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, there := range []map[auth.Key]state.KeyNID{t.young, t.unstored, t.old} {
		if n, ok := there[k]; ok {
			return n
		}
	}
	t.unstored[k] = fresh
	return fresh
}
