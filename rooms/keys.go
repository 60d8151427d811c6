package rooms

import (
	"context"
	"sync"

	"github.com/teahouse-chat/teahouse/internal/db"
	"github.com/teahouse-chat/teahouse/rooms/auth"
	"github.com/teahouse-chat/teahouse/rooms/state"
)

// keysKept is how many of the most recently used keys are kept in each half of
// the table.
const keysKept = 200_000

// keyTable numbers (type, state key) pairs. A number is given out before it is
// stored: every commit that uses an unstored one stores it.
type keyTable struct {
	db  *db.DB
	seq *db.Sequence

	mu        sync.Mutex
	young     map[auth.Key]state.KeyNID // the table is two generations: when the
	old       map[auth.Key]state.KeyNID // young one is full it becomes the old one
	unstored  map[auth.Key]state.KeyNID
	allotting sync.Mutex // one at a time looks in the database and allots
}

func newKeyTable(d *db.DB) *keyTable {
	return &keyTable{
		db: d, seq: d.Sequence("state_key"),
		young: map[auth.Key]state.KeyNID{}, old: map[auth.Key]state.KeyNID{}, unstored: map[auth.Key]state.KeyNID{},
	}
}

// MemberKey tells whether a state key number stands for an m.room.member key:
// such numbers are odd, so that a room's other state can be listed without
// looking at its members.
func MemberKey(k state.KeyNID) bool { return k&1 == 1 }

// known looks in memory only.
func (t *keyTable) known(k auth.Key) (state.KeyNID, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if n, ok := t.young[k]; ok {
		return n, true
	}
	if n, ok := t.unstored[k]; ok {
		return n, true
	}
	n, ok := t.old[k]
	if ok {
		t.keep(k, n)
	}
	return n, ok
}

// keep remembers a stored key; t.mu is held.
func (t *keyTable) keep(k auth.Key, n state.KeyNID) {
	if len(t.young) >= keysKept {
		t.old, t.young = t.young, make(map[auth.Key]state.KeyNID, keysKept/4)
	}
	t.young[k] = n
}

// find looks in memory, then in the database; 0 if no event ever had the key.
func (t *keyTable) find(ctx context.Context, k auth.Key) (state.KeyNID, error) {
	if n, ok := t.known(k); ok {
		return n, nil
	}
	n, found, err := db.One(ctx, t.db, keyByName, scanOne[state.KeyNID], k.StateKey, k.Type)
	if err != nil || !found {
		return 0, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.keep(k, n)
	return n, nil
}

// allot finds the key's number or gives it a new one.
func (t *keyTable) allot(ctx context.Context, k auth.Key) (state.KeyNID, error) {
	if n, ok := t.known(k); ok {
		return n, nil
	}
	t.allotting.Lock()
	defer t.allotting.Unlock()
	if n, err := t.find(ctx, k); err != nil || n != 0 {
		return n, err
	}
	return t.number(k), nil
}

// store writes the key's number if it may not be in the database yet.
func (t *keyTable) store(tx *db.Tx, k auth.Key) error {
	t.mu.Lock()
	n, fresh := t.unstored[k]
	t.mu.Unlock()
	if !fresh {
		return nil
	}
	return tx.Exec(insertKey, n, k.Type, k.StateKey)
}

// stored notes that a commit has stored the key.
func (t *keyTable) stored(k auth.Key) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if n, ok := t.unstored[k]; ok {
		delete(t.unstored, k)
		t.keep(k, n)
	}
}

// Keys numbers the keys; 0 where no event ever had one.
func (e *Engine) Keys(ctx context.Context, keys []auth.Key) ([]state.KeyNID, error) {
	nids := make([]state.KeyNID, len(keys))
	for i, k := range keys {
		n, err := e.keys.find(ctx, k)
		if err != nil {
			return nil, err
		}
		nids[i] = n
	}
	return nids, nil
}

func scanOne[T any](s db.Scanner) (v T, err error) {
	err = s.Scan(&v)
	return v, err
}
