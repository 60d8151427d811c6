package db_test

import (
	"context"
	"errors"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/teahouse-chat/teahouse/internal/db"
	"github.com/teahouse-chat/teahouse/internal/db/dbtest"
)

var countThings = db.SQL(`SELECT count(*) FROM things`)

func count(t *testing.T, q db.Querier) int64 {
	t.Helper()
	n, _, err := db.One(context.Background(), q, countThings, scanInt)
	if err != nil {
		t.Error(err)
	}
	return n
}

func TestPrepareAll(t *testing.T) {
	for _, kind := range []string{"sqlite", "postgres"} {
		t.Run(kind, func(t *testing.T) {
			if err := db.PrepareAll(t.Context(), dbtest.Open(t, kind)); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestTxSeesItsWrites(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, d *db.DB) {
		err := d.Write(t.Context(), func(tx *db.Tx) error {
			if err := tx.Exec(ignoreThing, 1, "one"); err != nil {
				return err
			}
			if n := count(t, tx); n != 1 {
				t.Errorf("the op sees %d of its rows", n)
			}
			if n := count(t, d); n != 0 {
				t.Errorf("others see %d rows before the commit", n)
			}
			name, _, err := db.One(t.Context(), tx, upsertThing, scanText, 1, "uno")
			if err != nil || name != "uno" {
				t.Errorf("RETURNING gave %q, %v", name, err)
			}
			n, err := tx.Changed(ignoreThing, 1, "again")
			if n != 0 {
				t.Errorf("a conflict changed %d rows", n)
			}
			return err
		})
		if err != nil || count(t, d) != 1 {
			t.Error(err, count(t, d))
		}
	})
}

// TestReturningIsAWrite has an op refuse after it wrote through Query.
func TestReturningIsAWrite(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, d *db.DB) {
		err := d.Write(t.Context(), func(tx *db.Tx) error {
			if _, _, err := db.One(t.Context(), tx, upsertThing, scanText, 1, "x"); err != nil {
				return err
			}
			return errRefused
		})
		if !errors.Is(err, errRefused) || count(t, d) != 0 {
			t.Error(err, count(t, d))
		}
	})
}

func TestView(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, d *db.DB) {
		mustPut(t, d, ignoreThing, 1, "one")
		err := d.View(t.Context(), func(q db.Querier) error {
			before := count(t, q)
			mustPut(t, d, ignoreThing, 2, "two")
			if after := count(t, q); before != 1 || after != 1 {
				t.Errorf("a view saw %d rows, then %d", before, after)
			}
			rows, err := q.Query(t.Context(), findOthers, []int64{})
			if err != nil {
				return err
			}
			rows.Next()
			if _, err := q.Query(t.Context(), countThings); err == nil {
				t.Error("a query ran while rows were open")
			}
			return errRefused // and leaves rows open
		})
		if !errors.Is(err, errRefused) || count(t, d) != 2 {
			t.Error(err, count(t, d))
		}
		if _, err := d.Query(t.Context(), upsertThing, 3, "three"); err == nil || count(t, d) != 2 {
			t.Error("the read pool wrote")
		}
	})
}

func TestTxEndsWithItsOp(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, d *db.DB) {
		var kept *db.Tx
		if err := d.Write(t.Context(), func(tx *db.Tx) error {
			kept = tx
			rows, err := tx.Query(t.Context(), countThings)
			rows.Next()
			return err // and leaves rows open
		}); err != nil {
			t.Fatal(err)
		}
		if err := kept.Exec(ignoreThing, 1, "x"); err == nil {
			t.Error("an op wrote after its end")
		}
		mustPut(t, d, ignoreThing, 2, "two")
	})
}

func TestGoexitFailsTheBatchOnly(t *testing.T) {
	d := dbtest.Open(t, "sqlite")
	if err := d.Write(t.Context(), func(*db.Tx) error { runtime.Goexit(); return nil }); err == nil {
		t.Error("no error")
	}
	mustPut(t, d, ignoreThing, 1, "x")
}

func TestSubmitThen(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, d *db.DB) {
		// As a room does it: once an op has failed, those built on it must not
		// commit, even where the failure left the transaction clean.
		failed := false
		var told []int
		var results []error
		hold := make(chan struct{})
		d.Submit(func(*db.Tx) error { <-hold; return nil })
		var last *db.Pending
		for i := range 6 {
			last = d.SubmitThen(func(tx *db.Tx) error {
				if i == 2 || failed {
					return errRefused
				}
				return tx.Exec(ignoreThing, i, string(rune('a'+i)))
			}, func(err error) {
				failed = failed || err != nil
				told = append(told, i)
				results = append(results, err)
			})
		}
		close(hold)
		last.Wait(t.Context())
		if !slices.Equal(told, []int{0, 1, 2, 3, 4, 5}) || results[1] != nil || results[2] == nil || results[5] == nil {
			t.Error(told, results)
		}
		if n := count(t, d); n != 2 {
			t.Errorf("%d ops committed", n)
		}
	})
}

func TestWriteGivesUpWithItsContext(t *testing.T) {
	d := dbtest.Open(t, "sqlite")
	hold := make(chan struct{})
	d.Submit(func(*db.Tx) error { <-hold; return nil })
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if err := d.Write(ctx, func(tx *db.Tx) error { return tx.Exec(ignoreThing, 1, "x") }); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
	close(hold)
	mustPut(t, d, ignoreThing, 2, "y")
	if n := count(t, d); n != 1 {
		t.Errorf("%d rows: the op ran after its caller had gone", n)
	}
}

func TestCloseFinishesWhatItAccepted(t *testing.T) {
	for _, kind := range []string{"sqlite", "postgres"} {
		t.Run(kind, func(t *testing.T) {
			url := dbtest.URL(t, kind)
			d, err := db.Open(t.Context(), url, db.Options{})
			if err != nil {
				t.Fatal(err)
			}
			for i := range 2000 {
				d.Submit(func(tx *db.Tx) error { return tx.Exec(insertThing, i, time.Duration(i).String(), nil, 0, nil, nil) })
			}
			if err := d.Close(); err != nil {
				t.Error(err)
			}
			if err := d.Write(t.Context(), func(*db.Tx) error { return nil }); err == nil {
				t.Error("a write was taken after Close")
			}
			if _, err := d.Query(t.Context(), countThings); err == nil {
				t.Error("a read was taken after Close")
			}
			if n := count(t, dbtest.OpenURL(t, url)); n != 2000 {
				t.Errorf("%d of 2000 accepted writes are there", n)
			}
		})
	}
}

func TestReadsEndWithTheirContext(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, d *db.DB) {
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		began := time.Now()
		if _, _, err := db.One(ctx, d, endless, scanInt); err == nil {
			t.Error("no error")
		}
		if took := time.Since(began); took > 5*time.Second {
			t.Errorf("an endless query ended after %v", took)
		}
		if n := count(t, d); n != 0 {
			t.Error(n)
		}
	})
}

var endless = db.SQL(`WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT (i + 1) % 1000 FROM n) SELECT count(*) FROM n`)

func TestErrorsNameTheStatement(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, d *db.DB) {
		mustPut(t, d, insertThing, 1, "x", nil, 0, nil, nil)
		err := put(t, d, insertThing, 2, "x", nil, 0, nil, nil)
		if !db.IsUnique(err) || !strings.Contains(err.Error(), "value_test.go:") {
			t.Error(err)
		}
		err = put(t, d, insertThing, 3, nil, nil, 0, nil, nil)
		if err == nil || db.IsUnique(err) {
			t.Error(err)
		}
	})
}
