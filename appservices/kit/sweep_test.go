package kit_test

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/teahouse-chat/teahouse/appservices/kit"
	"github.com/teahouse-chat/teahouse/appservices/kit/kittest"
	"github.com/teahouse-chat/teahouse/internal/db"
	"github.com/teahouse-chat/teahouse/internal/db/dbtest"
)

// Every statement of the kit and of a service's own can be prepared.
func TestPrepareAll(t *testing.T) {
	each(t, func(t *testing.T, url string) {
		d, err := db.Open(t.Context(), url, db.Options{Set: ledger})
		if err != nil {
			t.Fatal(err)
		}
		defer d.Close()
		if err := db.PrepareAll(t.Context(), d); err != nil {
			t.Error(err)
		}
	})
}

// What the homeserver never told of is found: by the hour, and within minutes if
// something that the service sent does not come back either.
func TestLostEventsAreFound(t *testing.T) {
	each(t, func(t *testing.T, url string) {
		r := kittest.Start(t, kittest.Options{Database: url, Open: echo})
		alice := r.User("alice")
		room, other := alice.CreateRoom(r.Bot()), alice.CreateRoom(r.Bot())
		r.Settle()
		alice.Say(room, "zero")
		r.Settle()
		r.Break(kittest.Faults{Lose: 1})
		for i := range 250 { // several pages
			alice.Say(room, fmt.Sprint(i))
		}
		r.Settle()
		if got := r.Said(room); len(got) != 1 {
			t.Fatalf("%d answers to what is lost", len(got))
		}
		r.Pass(62 * time.Minute)
		if got := r.Said(room); len(got) != 251 || got[250] != "249" {
			t.Errorf("after an hour there are %d answers", len(got))
		}
		r.Pass(10 * time.Minute)

		r.Heal()
		alice.Say(other, "heard")
		r.Settle()
		r.Break(kittest.Faults{Lose: 1})
		alice.Say(other, "unheard")
		err := r.Service().(*kit.Service).Do(t.Context(), func(tx *kit.Tx) error {
			tx.Say(other, "psst")
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		r.Pass(5 * time.Minute)
		if got := r.Said(other); !slices.Contains(got, "unheard") {
			t.Errorf("in silence there are the answers %q", got)
		}
	})
}

// A service with a new database takes up the rooms that its user is in, and what was
// said there before is none of its business.
func TestNewDatabase(t *testing.T) {
	for _, kind := range []string{"sqlite", "postgres"} {
		t.Run(kind, func(t *testing.T) {
			r := kittest.Start(t, kittest.Options{Database: dbtest.EmptyURL(t, kind), Open: echo})
			alice := r.User("alice")
			room := alice.CreateRoom(r.Bot())
			r.Settle()
			alice.Say(room, "before")
			r.Settle()
			r.Move(dbtest.EmptyURL(t, kind))
			r.Settle()
			alice.Say(room, "after")
			r.Settle()
			if got := r.Said(room); !slices.Equal(got, []string{"before", "after"}) {
				t.Errorf("the answers are %q", got)
			}
		})
	}
}

// A homeserver that asks for time gets it, and what waits is sent then, in order.
func TestLimits(t *testing.T) {
	each(t, func(t *testing.T, url string) {
		r := kittest.Start(t, kittest.Options{Database: url, Open: echo})
		alice := r.User("alice")
		one, two := alice.CreateRoom(r.Bot()), alice.CreateRoom(r.Bot())
		r.Settle()
		r.Break(kittest.Faults{Limit: 1})
		alice.Say(one, "1")
		r.Pass(time.Second)
		alice.Say(one, "2")
		alice.Say(two, "3")
		r.Pass(1900 * time.Millisecond)
		if n := r.Limited(); n != 1 {
			t.Errorf("within the time that the homeserver asked for it was asked %d times", n)
		}
		r.Pass(200 * time.Millisecond)
		if n := r.Limited(); n < 2 || n > 3 {
			t.Errorf("after that time it was asked %d times", n)
		}
		r.Heal()
		r.Settle()
		if got := r.Said(one); !slices.Equal(got, []string{"1", "2"}) || !slices.Equal(r.Said(two), []string{"3"}) {
			t.Errorf("in the end the rooms have %q and %q", got, r.Said(two))
		}
	})
}

var (
	countInbox  = ledger.SQL(`SELECT count(*) FROM kit_inbox WHERE state = 1`)
	countOutbox = ledger.SQL(`SELECT count(*) FROM kit_outbox WHERE state = 1`)
)

// What is done is forgotten after a while, and not before.
func TestForgetting(t *testing.T) {
	each(t, func(t *testing.T, url string) {
		r := kittest.Start(t, kittest.Options{Database: url, Open: func(ctx context.Context, c kit.Config) (kittest.Service, error) {
			c.Keep = 48 * time.Hour
			return openLedger(ctx, c)
		}})
		alice := r.User("alice")
		room := alice.CreateRoom(r.Bot())
		r.Settle()
		alice.Say(room, "old")
		r.Settle()
		rows := func() (n [2]int) {
			for i, st := range []*kit.Stmt{countInbox, countOutbox} {
				var err error
				if n[i], _, err = kit.One(t.Context(), r.Service().(*kit.Service), st, scanInt); err != nil {
					t.Fatal(err)
				}
			}
			return n
		}
		before := rows()
		r.Pass(47 * time.Hour)
		if got := rows(); before[0] == 0 || got != before {
			t.Errorf("after two days there are %v rows of %v", got, before)
		}
		r.Pass(2 * time.Hour)
		if got := rows(); got != [2]int{} {
			t.Errorf("after another there are %v rows", got)
		}
		r.Kill() // which sweeps
		r.Pass(3 * time.Hour)
		exactlyOnce(t, r, r.Service().(*kit.Service), room, []string{"old"})
	})
}
