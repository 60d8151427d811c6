package db_test

import (
	"fmt"
	"testing"

	"github.com/teahouse-chat/teahouse/internal/db"
	"github.com/teahouse-chat/teahouse/internal/db/dbtest"
)

// TestTail: a reader gets what it picks of the commits, in their order; one that
// falls behind is told up to where, and gets what comes after.
func TestTail(t *testing.T) {
	d := dbtest.Open(t, "sqlite")
	const limit = 3
	told, picked := 0, 0
	tail := d.Tail(limit, func(change any) bool {
		if picked++; picked > told {
			t.Errorf("the tail is told of %v before a subscriber", change)
		}
		_, ok := change.(string)
		return ok
	})
	d.Subscribe(func(b db.Batch) { told += len(b.Changes) })
	write := func(changes ...any) {
		t.Helper()
		if err := d.Write(t.Context(), func(tx *db.Tx) error {
			tx.Position()
			for _, c := range changes {
				tx.Publish(c)
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
	}
	got := func(want string) {
		t.Helper()
		<-tail.Wake()
		batches, missed := tail.Take()
		text := ""
		for _, b := range batches {
			if b.Position > d.Position() {
				t.Errorf("the position is %d where the tail has %d", d.Position(), b.Position)
			}
			text += fmt.Sprint(b.Position, b.Changes, " ")
		}
		if text += fmt.Sprint(missed); text != want {
			t.Fatalf("%s, not %s", text, want)
		}
	}
	at := func(n int64) int64 { return d.Position() + n }
	one := at(1)
	write("a", 7, "b")
	write(8) // nothing of it is wanted, but that it was
	got(fmt.Sprintf("%d [a b] 0", one+1))
	if batches, missed := tail.Take(); len(batches) > 0 || missed > 0 {
		t.Fatalf("%v and %d come twice", batches, missed)
	}
	first := at(1)
	for i := range limit + 2 {
		write(fmt.Sprint(i))
	}
	got(fmt.Sprintf("%d [4] %d", first+4, first+3))
}
