package db_test

import (
	"context"
	"slices"
	"sync"
	"testing"

	"github.com/teahouse-chat/teahouse/internal/db"
	"github.com/teahouse-chat/teahouse/internal/db/dbtest"
)

const killConnections = `SELECT pg_terminate_backend(pid) FROM pg_stat_activity
	WHERE datname = current_database() AND pid <> pg_backend_pid()`

// TestLostConnections ends all connections at the server: while the writer and
// the readers are idle, and amid a transaction and a view.
func TestLostConnections(t *testing.T) {
	url := dbtest.URL(t, "postgres")
	d := dbtest.OpenURL(t, url)
	cut := func() {
		t.Helper()
		if err := dbtest.Script(t, url, killConnections); err != nil {
			t.Fatal(err)
		}
	}
	mustPut(t, d, ignoreThing, 1, "one")
	count(t, d)

	cut()
	if n := count(t, d); n != 1 {
		t.Errorf("a reader with a stale connection saw %d rows", n)
	}
	cut()
	err := d.View(t.Context(), func(q db.Querier) error {
		if n := count(t, q); n != 1 {
			t.Errorf("a view with a stale connection saw %d rows", n)
		}
		cut()
		_, err := q.Query(t.Context(), countThings)
		return err
	})
	if err == nil {
		t.Error("a view went on after its connection had gone")
	}
	// The batch that finds out fails, as nobody could say whether it committed.
	put(t, d, ignoreThing, 2, "two")
	mustPut(t, d, ignoreThing, 3, "three")

	runs := 0
	err = d.Write(t.Context(), func(tx *db.Tx) error {
		runs++
		if _, err := tx.Changed(ignoreThing, 4, "four"); err != nil {
			return err
		}
		cut()
		_, err := tx.Changed(ignoreThing, 5, "five")
		return err
	})
	if err == nil {
		t.Errorf("a write went on after its connection had gone, run %d", runs)
	}
	mustPut(t, d, ignoreThing, 6, "six")
	got, err := db.All(t.Context(), d, findNIDs, scanInt, []int64{1, 3, 4, 5, 6})
	if err != nil || !slices.Equal(got, []int64{1, 3, 6}) {
		t.Error(got, err)
	}
}

// TestTwoProcesses has two DBs write to one database, as two servers would.
// Positions have no gaps over both, each sees its own in order, and numbers of a
// sequence are never given twice.
func TestTwoProcesses(t *testing.T) {
	url := dbtest.URL(t, "postgres")
	const writers, each = 4, 50
	var mu sync.Mutex
	var wg sync.WaitGroup
	used := map[int64]bool{}
	for range 2 {
		d := dbtest.OpenURL(t, url)
		seq := d.Sequence("ops")
		last := int64(0)
		d.Subscribe(func(b db.Batch) {
			if b.Position <= last {
				t.Errorf("position %d after %d", b.Position, last)
			}
			last = b.Position
		})
		for range writers {
			wg.Go(func() {
				for range each {
					op := seq.Next()
					mu.Lock()
					if used[op] {
						t.Errorf("number %d was given twice", op)
					}
					used[op] = true
					mu.Unlock()
					if err := d.Write(context.Background(), act(op, good)); err != nil {
						t.Error(err)
					}
				}
			})
		}
	}
	wg.Wait()
	stored, err := db.All(t.Context(), dbtest.OpenURL(t, url), selectWritten, scanWritten)
	if err != nil || len(stored) != 2*writers*each {
		t.Fatal(len(stored), err)
	}
	for i, w := range stored {
		if w.position != int64(i)+1 {
			t.Fatalf("position %d where %d is due", w.position, i+1)
		}
	}
}
