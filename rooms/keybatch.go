package rooms

import (
	"context"
	"slices"

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

var (
	keysByStateKeys = db.SQL(`SELECT key_nid, type, state_key FROM state_keys WHERE state_key IN {texts $1}`)
	keysByTypes     = db.SQL(`SELECT key_nid, type, state_key FROM state_keys WHERE state_key = '' AND type IN {texts $1}`)
)

// findAll is find for many keys, with one query for those that name somebody or
// something, and one for the others. Keys that no event ever had get 0.
func (t *keyTable) findAll(ctx context.Context, keys []auth.Key) (map[auth.Key]state.KeyNID, error) {
	found := make(map[auth.Key]state.KeyNID, len(keys))
	var cold, types []string
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
		if k.StateKey == "" { // which goes with any number of types
			types = append(types, k.Type)
		} else if !asked[k.StateKey] {
			asked[k.StateKey] = true
			cold = append(cold, k.StateKey)
		}
	}
	for part := range slices.Chunk(cold, readAtOnce) {
		if err := t.read(ctx, found, keysByStateKeys, part); err != nil {
			return nil, err
		}
	}
	for part := range slices.Chunk(types, readAtOnce) {
		if err := t.read(ctx, found, keysByTypes, part); err != nil {
			return nil, err
		}
	}
	return found, nil
}

// read takes those keys from the database that are looked for.
func (t *keyTable) read(ctx context.Context, found map[auth.Key]state.KeyNID, stmt *db.Stmt, names []string) error {
	return db.Each(ctx, t.db, stmt, func(s db.Scanner) error {
		var k auth.Key
		var n state.KeyNID
		if err := s.Scan(&n, &k.Type, &k.StateKey); err != nil {
			return err
		}
		if _, asked := found[k]; asked {
			found[k] = n
			t.mu.Lock()
			defer t.mu.Unlock()
			t.keep(k, n)
		}
		return nil
	}, names)
}

// allotAll is allot for many keys.
func (t *keyTable) allotAll(ctx context.Context, keys []auth.Key) (map[auth.Key]state.KeyNID, error) {
	if found, all := t.knownAll(keys); all {
		return found, nil
	}
	t.allotting.Lock()
	defer t.allotting.Unlock()
	found, err := t.findAll(ctx, keys)
	if err != nil {
		return nil, err
	}
	for k, n := range found {
		if n == 0 {
			found[k] = t.number(k)
		}
	}
	return found, nil
}

// knownAll looks in memory, and tells whether all of the keys are there.
func (t *keyTable) knownAll(keys []auth.Key) (found map[auth.Key]state.KeyNID, all bool) {
	found = map[auth.Key]state.KeyNID{}
	for _, k := range keys {
		n, ok := t.known(k)
		if !ok {
			return nil, false
		}
		found[k] = n
	}
	return found, true
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
