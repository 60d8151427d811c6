package db_test

import (
	"sync"
	"testing"

	"github.com/teahouse-chat/teahouse/internal/db"
	"github.com/teahouse-chat/teahouse/internal/db/dbtest"
)

// TestSequences takes numbers in several goroutines and over restarts. Every
// number that a commit has used stays used.
func TestSequences(t *testing.T) {
	for _, kind := range []string{"sqlite", "postgres"} {
		t.Run(kind, func(t *testing.T) {
			url := dbtest.URL(t, kind)
			used := map[int64]bool{}
			for restart, each := range []int{3, 2500, 1, 40} {
				d := dbtest.OpenURL(t, url)
				seq := d.Sequence("things")
				var mu sync.Mutex
				var wg sync.WaitGroup
				for range 4 {
					wg.Go(func() {
						last := int64(0)
						for range each {
							n := seq.Next()
							mu.Lock()
							if used[n] || n <= last {
								t.Errorf("restart %d: %d after %d, used: %v", restart, n, last, used[n])
							}
							used[n] = true
							mu.Unlock()
							last = n
						}
					})
				}
				wg.Wait()
				if other := d.Sequence("other").Next(); restart == 0 && other != 1 {
					t.Errorf("another sequence began with %d", other)
				}
				// Any commit makes the numbers so far count; a failed one doesn't.
				d.Write(t.Context(), func(tx *db.Tx) error {
					tx.Exec(insertThing, seq.Next(), "x", nil, 0, nil, nil)
					return tx.Exec(insertThing, seq.Next(), "x", nil, 0, nil, nil)
				})
				mustPut(t, d, touchWritten, 0)
				d.Close()
			}
		})
	}
}

// TestSequenceWithinAnOp takes more numbers than are reserved.
func TestSequenceWithinAnOp(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, d *db.DB) {
		seq := d.Sequence("many")
		err := d.Write(t.Context(), func(tx *db.Tx) error {
			for range 10_000 {
				seq.Next()
			}
			return tx.Exec(ignoreThing, seq.Next(), "x")
		})
		if err != nil {
			t.Error(err)
		}
	})
}
