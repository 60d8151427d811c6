package kit_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"github.com/teahouse-chat/teahouse/appservices/kit"
	"github.com/teahouse-chat/teahouse/appservices/kit/kittest"
)

// guestbook counts by room how often a service was invited.
type guestbook struct {
	mu    sync.Mutex
	times map[id.RoomID]int
}

func (g *guestbook) open(ctx context.Context, c kit.Config) (kittest.Service, error) {
	s, err := kit.Open(ctx, c)
	if err != nil {
		return nil, err
	}
	s.On(event.StateMember, func(tx *kit.Tx, ev *kit.Event) error {
		if m := ev.Content.AsMember(); m.Membership == event.MembershipInvite && ev.GetStateKey() == string(s.User()) {
			tx.Then(func() {
				g.mu.Lock()
				defer g.mu.Unlock()
				g.times[ev.RoomID]++
			})
		}
		return nil
	})
	return s, nil
}

func (g *guestbook) count(room id.RoomID) int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.times[room]
}

// invited runs a test on both databases, against homeservers that show the ids of
// invitations and such that do not.
func invited(t *testing.T, f func(t *testing.T, r *kittest.Rig, g *guestbook)) {
	t.Helper()
	for _, named := range []bool{false, true} {
		t.Run(fmt.Sprint("named=", named), func(t *testing.T) {
			each(t, func(t *testing.T, url string) {
				g := &guestbook{times: map[id.RoomID]int{}}
				f(t, kittest.Start(t, kittest.Options{Database: url, Open: g.open, InvitesNamed: named}), g)
			})
		})
	}
}

// is checks that the service is in a room, or is not, and how often it was invited.
func (g *guestbook) is(t *testing.T, r *kittest.Rig, room id.RoomID, there bool, times int) {
	t.Helper()
	if got := slices.Contains(r.Members(room), r.Bot()); got != there || g.count(room) != times {
		t.Errorf("in %s the service is there: %v, and was invited %d times rather than %d", room, got, g.count(room), times)
	}
}

// Invitations that the homeserver never told of are found by the hour, also the second
// one to a room, and earlier when something else is amiss with its transactions.
func TestLostInvitationsAreFound(t *testing.T) {
	invited(t, func(t *testing.T, r *kittest.Rig, g *guestbook) {
		alice := r.User("alice")
		r.Settle()
		r.Break(kittest.Faults{Lose: 1})
		room := alice.CreateRoom(r.Bot())
		r.Settle()
		g.is(t, r, room, false, 0)
		r.Pass(62 * time.Minute)
		g.is(t, r, room, true, 1)
		alice.Kick(room, r.Bot())
		r.Settle()
		alice.Invite(room, r.Bot())
		r.Pass(62 * time.Minute)
		g.is(t, r, room, true, 2)

		third := alice.CreateRoom(r.Bot())
		err := r.Service().(*kit.Service).Do(t.Context(), func(tx *kit.Tx) error {
			tx.Say(room, "psst") // which does not come back
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		r.Pass(5 * time.Minute)
		g.is(t, r, third, true, 1)

		other := alice.CreateRoom(r.Bot())
		for _, txn := range []string{"1000", "1"} {
			if code := r.Put(txn, `{"events":[]}`); code != 200 {
				t.Fatal("the transaction is answered with", code)
			}
		}
		r.Settle()
		r.Pass(time.Second)
		g.is(t, r, other, true, 1)
		r.Pass(5 * time.Hour)
		g.is(t, r, room, true, 2)
		g.is(t, r, other, true, 1)
	})
}

// What was found is not handled again when the homeserver tells of it after all, and
// what is told afterwards is.
func TestInvitationsThatComeLate(t *testing.T) {
	invited(t, func(t *testing.T, r *kittest.Rig, g *guestbook) {
		alice := r.User("alice")
		r.Settle()
		r.Break(kittest.Faults{Refuse: 1})
		room := alice.CreateRoom(r.Bot())
		r.Kill() // at its start it looks
		r.Pass(time.Minute)
		g.is(t, r, room, true, 1)
		r.Heal()
		r.Pass(2 * time.Hour)
		g.is(t, r, room, true, 1)
		for n := range 2 {
			alice.Kick(room, r.Bot())
			alice.Invite(room, r.Bot())
			r.Settle()
			g.is(t, r, room, true, 2+n)
		}
		r.Kill()
		r.Pass(2 * time.Hour)
		g.is(t, r, room, true, 3)
	})
}

// An invitation that the homeserver tells of is the next one if what happened between
// was never told, too.
func TestInvitationsAfterSilence(t *testing.T) {
	invited(t, func(t *testing.T, r *kittest.Rig, g *guestbook) {
		alice := r.User("alice")
		r.Settle()
		r.Break(kittest.Faults{Refuse: 1})
		room := alice.CreateRoom(r.Bot())
		r.Pass(62 * time.Minute)
		g.is(t, r, room, true, 1)
		r.Heal()
		r.Forget(func() { alice.Kick(room, r.Bot()) })
		alice.Invite(room, r.Bot())
		r.Settle()
		g.is(t, r, room, true, 2)
	})
}

// What comes late is not taken for more than what was found.
func TestInvitationsInARow(t *testing.T) {
	invited(t, func(t *testing.T, r *kittest.Rig, g *guestbook) {
		alice := r.User("alice")
		r.Settle()
		r.Break(kittest.Faults{Refuse: 1})
		room := alice.CreateRoom(r.Bot())
		for n := range 3 {
			if n > 0 {
				alice.Kick(room, r.Bot())
				alice.Invite(room, r.Bot())
			}
			r.Kill()
			r.Pass(time.Minute)
			g.is(t, r, room, true, 1+n)
		}
		r.Heal()
		r.Pass(2 * time.Hour)
		g.is(t, r, room, true, 3)
	})
}

// Who was thrown out before it could come, and is invited again, comes.
func TestInvitationsTakenBack(t *testing.T) {
	invited(t, func(t *testing.T, r *kittest.Rig, g *guestbook) {
		alice := r.User("alice")
		r.Settle()
		r.Break(kittest.Faults{Fail: 1})
		room := alice.CreateRoom(r.Bot())
		r.Pass(time.Second)
		alice.Kick(room, r.Bot())
		r.Pass(time.Second)
		r.Break(kittest.Faults{Lose: 1})
		r.Settle() // the first invitation is given up
		alice.Invite(room, r.Bot())
		r.Kill()
		r.Pass(time.Minute)
		g.is(t, r, room, true, 2)
	})
}
