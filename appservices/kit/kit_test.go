package kit_test

import (
	"context"
	"slices"
	"testing"

	"maunium.net/go/mautrix/event"

	"github.com/teahouse-chat/teahouse/appservices/kit"
	"github.com/teahouse-chat/teahouse/appservices/kit/kittest"
	"github.com/teahouse-chat/teahouse/internal/db/dbtest"
)

// each runs a test on both databases.
func each(t *testing.T, f func(t *testing.T, url string)) {
	t.Helper()
	for _, kind := range []string{"sqlite", "postgres"} {
		t.Run(kind, func(t *testing.T) { f(t, dbtest.EmptyURL(t, kind)) })
	}
}

// echo answers every text with the same one.
func echo(ctx context.Context, c kit.Config) (kittest.Service, error) {
	s, err := kit.Open(ctx, c)
	if err != nil {
		return nil, err
	}
	s.On(event.EventMessage, func(tx *kit.Tx, ev *kit.Event) error {
		if text := ev.Text(); text != "" {
			tx.Reply(ev, text)
		}
		return nil
	})
	return s, nil
}

func TestEcho(t *testing.T) {
	each(t, func(t *testing.T, url string) {
		r := kittest.Start(t, kittest.Options{Database: url, Open: echo})
		alice := r.User("alice")
		room := alice.CreateRoom(r.Bot())
		r.Settle()
		if got := r.Members(room); !slices.Contains(got, r.Bot()) {
			t.Fatalf("the members are %v", got)
		}
		for _, text := range []string{"one", "two", "three"} {
			alice.Say(room, text)
		}
		r.Settle()
		r.Kill()
		alice.Say(room, "four")
		r.Settle()
		if got := r.Said(room); !slices.Equal(got, []string{"one", "two", "three", "four"}) {
			t.Errorf("the answers are %q", got)
		}
	})
}
