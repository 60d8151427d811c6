package encryption

import (
	"fmt"
	"slices"
	"testing"

	"github.com/teahouse-chat/teahouse/internal/db"
	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms/roomstest"
)

// THREATS A4: users are told of the devices of those whom they share a room with, and
// of nobody else; that they do not share one any more is the last that they are told.
func TestDeviceLists(t *testing.T) {
	each(t, func(t *testing.T, g *rig) {
		alice, bob, carol := g.login("alice", "A1"), g.login("bob", "B1"), g.login("carol", "C1")
		check := func(what string, c *client, after int64, changed, left []matrix.UserID) {
			t.Helper()
			gotChanged, gotLeft := c.lists(after)
			if !slices.Equal(gotChanged, changed) || !slices.Equal(gotLeft, left) {
				t.Errorf("%s: %s is told of %v and %v, want %v and %v", what, c.name, gotChanged, gotLeft, changed, left)
			}
			a := want[changesAnswer](c, "GET", fmt.Sprintf("/v3/keys/changes?from=%d&to=%d", after, g.DB.Position()), "")
			if !slices.Equal(a.Changed, changed) || !slices.Equal(a.Left, left) {
				t.Errorf("%s: /keys/changes has %+v", what, a)
			}
		}
		only := func(u ...matrix.UserID) []matrix.UserID { return u }
		r := g.Room("alice")
		start := g.DB.Position()
		g.Join(r, "bob")
		check("bob joins", alice, start, only(bob.user), nil)
		check("bob joins", bob, start, only(alice.user, bob.user), nil)
		check("bob joins elsewhere", carol, start, nil, nil)

		at := g.DB.Position()
		bob.upload(1)
		check("new device", alice, at, only(bob.user), nil)
		check("own device", bob, at, only(bob.user), nil)
		check("stranger's device", carol, at, nil, nil)
		at = g.DB.Position()
		want[object](bob, "POST", "/v3/keys/upload", `{"device_keys":`+bob.deviceKeys()+`,"one_time_keys":{`+bob.oneTime(1)+`}}`)
		check("nothing new", alice, at, nil, nil)

		// Only what makes or ends company counts.
		at = g.DB.Position()
		g.Send(r, "bob", roomstest.State(matrix.TypeMember, string(bob.user), `{"membership":"join","displayname":"Bobby"}`))
		g.Say(r, "bob", "hello")
		check("another name", alice, at, nil, nil)
		check("another name", bob, at, nil, nil)

		r2 := g.Room("alice")
		g.Join(r2, "bob", "carol")
		at = g.DB.Position()
		g.Member(r, "bob", "bob", matrix.MembershipLeave)
		check("still together elsewhere", alice, at, nil, nil)
		check("still together elsewhere", bob, at, nil, nil)
		g.Member(r2, "bob", "bob", matrix.MembershipLeave)
		check("bob leaves", alice, at, nil, only(bob.user))
		check("bob leaves", bob, at, nil, only(alice.user, carol.user))
		check("bob leaves", carol, at, nil, only(bob.user))

		// What happens while they are apart is heard of when they meet again.
		apart := g.DB.Position()
		g.login("bob", "B2").upload(1)
		check("apart", alice, apart, nil, nil)
		at = g.DB.Position()
		g.Join(r, "bob")
		check("together again", alice, at, only(bob.user), nil)
		check("left and back", alice, start, only(alice.user, bob.user, carol.user), nil)

		// A server that starts anew says the same.
		g.Reload()
		check("after a restart", alice, at, only(bob.user), nil)
		check("after a restart", carol, apart, nil, nil)
	})
}

// Whoever may hear of a change is woken by it, also if they come while it is
// written.
func TestChangesWake(t *testing.T) {
	g := newRig(t, urlOf(t))
	alice, bob := g.login("alice", "A1"), g.login("bob", "B1")
	r := g.Room("alice")
	g.Join(r, "bob")
	woken := map[matrix.UserID]int{}
	g.DB.Subscribe(func(b db.Batch) {
		for _, c := range b.Changes {
			for _, u := range g.e.Changed(c) {
				woken[u]++
			}
		}
	})
	bob.upload(1)
	if woken[alice.user] != 1 || woken[bob.user] != 1 || len(woken) != 2 {
		t.Errorf("woken: %v", woken)
	}
	// Carol joins after those who are told were found.
	g.login("carol", "C1")
	err := g.e.change(t.Context(), alice.user, true, func(tx *db.Tx) ([]matrix.DeviceID, error) {
		return []matrix.DeviceID{"A1"}, nil
	})
	if err != nil || woken["@carol:test"] != 0 {
		t.Errorf("carol is told of what is not hers: %v", err)
	}
	g.Join(r, "carol")
	if err := g.e.tellLate(t.Context(), alice.user, []matrix.UserID{alice.user, bob.user}); err != nil {
		t.Fatal(err)
	}
	if woken["@carol:test"] != 1 {
		t.Errorf("carol is not told: %v", woken)
	}
}
