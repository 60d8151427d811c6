package db_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/teahouse-chat/teahouse/internal/db"
	"github.com/teahouse-chat/teahouse/internal/db/dbtest"
	"pgregory.net/rapid"
)

var _ = db.Schema("dbtest", `
CREATE TABLE written (
	op       INTEGER NOT NULL,
	position INTEGER NOT NULL,
	name     TEXT UNIQUE
);
CREATE TABLE things (
	nid   INTEGER PRIMARY KEY,
	name  TEXT NOT NULL UNIQUE,
	body  {blob},
	flag  {bool} NOT NULL DEFAULT 0,
	maybe TEXT,
	score REAL
);
`)

var (
	insertWritten = db.SQL(`INSERT INTO written (op, position, name) VALUES ($1, $2, $3)`)
	touchWritten  = db.SQL(`UPDATE written SET name = name WHERE op = $1`)
	selectWritten = db.SQL(`SELECT op, position FROM written ORDER BY position, op`)
	countWritten  = db.SQL(`SELECT count(*) FROM written`)
)

type written struct{ op, position int64 }

func scanWritten(r db.Scanner) (w written, err error) {
	err = r.Scan(&w.op, &w.position)
	return w, err
}

func scanInt(r db.Scanner) (n int64, err error) {
	err = r.Scan(&n)
	return n, err
}

var errRefused = errors.New("refused")

// behaviours of an op in the property test.
const (
	good = iota
	goodWithoutPosition
	refusesFirst   // fails before it writes
	refusesLast    // fails after it wrote
	panics         // after it wrote
	breaksUnique   // a statement fails
	hidesError     // a statement fails and the op returns nil
	behaviourCount // number of them
)

func act(op int64, behaviour int) func(tx *db.Tx) error {
	return func(tx *db.Tx) error {
		if behaviour == refusesFirst {
			tx.Position()
			tx.Publish(-op)
			return errRefused
		}
		position := int64(0)
		if behaviour != goodWithoutPosition {
			position = tx.Position()
			tx.Publish(op)
		}
		if err := tx.Exec(insertWritten, op, position, fmt.Sprint(op)); err != nil {
			return err
		}
		switch behaviour {
		case refusesLast:
			return errRefused
		case panics:
			panic("on purpose")
		case breaksUnique:
			return tx.Exec(insertWritten, op, position, fmt.Sprint(op))
		case hidesError:
			tx.Changed(insertWritten, op, position, fmt.Sprint(op))
			return nil
		}
		if n, err := tx.Changed(touchWritten, op); err != nil || n != 1 {
			return fmt.Errorf("own write unseen: %d %w", n, err)
		}
		return nil
	}
}

// TestGroupCommit submits good ops among bad ones of every kind. Exactly the
// good ones are stored; their positions count up without gaps, in the order of
// submission; what is published is what is stored.
func TestGroupCommit(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, d *db.DB) {
		var published []int64
		last := int64(0)
		d.Subscribe(func(b db.Batch) {
			if b.Position < last {
				t.Errorf("published position %d after %d", b.Position, last)
			}
			last = b.Position
			for _, c := range b.Changes {
				published = append(published, c.(int64))
			}
		})
		op := int64(0)
		var want []written
		var wantPublished []int64
		position := int64(0)
		rapid.Check(t, func(rt *rapid.T) {
			// Mostly good, or nearly every batch would be of one op.
			kinds := rapid.SliceOfN(rapid.OneOf(rapid.Just(good), rapid.IntRange(0, behaviourCount-1)), 1, 60).Draw(rt, "ops")
			var pending []*db.Pending
			release := make(chan struct{})
			d.Submit(func(*db.Tx) error { <-release; return nil }) // lets the queue fill
			for i, kind := range kinds {
				pending = append(pending, d.Submit(act(op+int64(i), kind)))
			}
			close(release)
			for i, kind := range kinds {
				err := pending[i].Wait(context.Background())
				checkResult(rt, kind, err)
				switch kind {
				case good:
					position++
					want = append(want, written{op, position})
					wantPublished = append(wantPublished, op)
				case goodWithoutPosition:
					want = append(want, written{op, 0})
				}
				op++
			}
			got, err := db.All(context.Background(), d, selectWritten, scanWritten)
			if err != nil {
				rt.Fatal(err)
			}
			slices.SortFunc(got, func(a, b written) int { return int(a.op - b.op) })
			if !slices.Equal(got, want) {
				rt.Fatalf("stored %v\nwant   %v", got, want)
			}
			if d.Position() != position || last != position {
				rt.Fatalf("position %d, published %d, want %d", d.Position(), last, position)
			}
		})
		if !slices.Equal(published, wantPublished) {
			t.Fatalf("published %v\nwant      %v", published, wantPublished)
		}
	})
}

func checkResult(t *rapid.T, kind int, err error) {
	var panicked *db.PanicError
	ok := false
	switch kind {
	case good, goodWithoutPosition:
		ok = err == nil
	case refusesFirst, refusesLast:
		ok = errors.Is(err, errRefused)
	case panics:
		ok = errors.As(err, &panicked) && panicked.Value == "on purpose"
	case breaksUnique, hidesError:
		ok = db.IsUnique(err)
	}
	if !ok {
		t.Fatalf("behaviour %d returned %v", kind, err)
	}
}

// TestWriteConcurrently has many goroutines write at once.
func TestWriteConcurrently(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, d *db.DB) {
		const writers, each = 16, 20
		var wg sync.WaitGroup
		for w := range writers {
			wg.Go(func() {
				for i := range each {
					op := int64(w*each + i)
					err := d.Write(t.Context(), act(op, int(op)%behaviourCount%3))
					if err != nil && !errors.Is(err, errRefused) {
						t.Error(err)
					}
				}
			})
		}
		wg.Wait()
		n, _, err := db.One(t.Context(), d, countWritten, scanInt)
		if err != nil || n == 0 {
			t.Fatal(n, err)
		}
	})
}
