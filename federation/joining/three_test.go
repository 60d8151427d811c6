package joining_test

import (
	"slices"
	"testing"
	"time"

	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/internal/testrig"
)

// eventually waits for what other servers have to be sent first. The user's
// /sync is the clock.
func eventually(t *testing.T, c *testrig.Client, what string, is func() bool) {
	t.Helper()
	for since, deadline := "", time.Now().Add(2*time.Minute); !is(); {
		if time.Now().After(deadline) {
			t.Fatalf("%s: %s does not come about", c.User, what)
		}
		since = c.Sync(since, 500)["next_batch"].(string)
	}
}

// sees waits for a membership that a user sees.
func sees(t *testing.T, c *testrig.Client, room matrix.RoomID, of matrix.UserID, want string) {
	t.Helper()
	eventually(t, c, "that "+string(of)+" has the membership "+want, func() bool { return membership(c, room, of) == want })
}

// TestThreeServers comes and goes between three servers, in every version: what
// happens at one is known to all.
func TestThreeServers(t *testing.T) {
	each(t, three, func(t *testing.T, s []*testrig.Server) {
		alice, bob, carol := s[0].Register("alice"), s[1].Register("bob"), s[2].Register("carol")
		all := []*testrig.Client{alice, bob, carol}
		everybody := func(room matrix.RoomID, of matrix.UserID, want string, but ...*testrig.Client) {
			t.Helper()
			for _, c := range all {
				if !slices.Contains(but, c) {
					sees(t, c, room, of, want)
				}
			}
		}
		for _, v := range some(t) {
			room := alice.CreateRoom(object{"preset": "public_chat", "room_version": v, "power_level_content_override": object{"invite": 0}})
			joinVia(bob, room, "a")
			joinVia(carol, room, "b") // who was not there from the start
			everybody(room, carol.User, "join")
			everybody(room, bob.User, "join")
			carol.Say(room, "hello-"+v, "hello")

			bob.Must("POST", "/v3/rooms"+testrig.Path(room, "leave"), object{})
			everybody(room, bob.User, "leave", bob)
			carol.Must("POST", "/v3/rooms"+testrig.Path(room, "invite"), object{"user_id": bob.User})
			everybody(room, bob.User, "invite", bob)
			bob.Join(room)
			everybody(room, bob.User, "join")
			alice.Must("POST", "/v3/rooms"+testrig.Path(room, "kick"), object{"user_id": bob.User})
			everybody(room, bob.User, "leave")
			joinVia(bob, room, "c")
			everybody(room, bob.User, "join")
			alice.Must("POST", "/v3/rooms"+testrig.Path(room, "ban"), object{"user_id": bob.User})
			everybody(room, bob.User, "ban")
			bob.Fails(403, matrix.CodeForbidden, "POST", "/v3/join"+testrig.Path(room)+"?via=c&via=a", object{})
		}
	})
}

// TestWithdrawn takes invitations back, and turns a knock away: the user hears of
// it though their server is not in the room.
func TestWithdrawn(t *testing.T) {
	each(t, two, func(t *testing.T, s []*testrig.Server) {
		alice, bob := s[0].Register("alice"), s[1].Register("bob")
		for _, v := range []string{"7", "12"} {
			room := alice.CreateRoom(object{"room_version": v, "invite": []any{bob.User}, "initial_state": []any{
				object{"type": "m.room.join_rules", "state_key": "", "content": object{"join_rule": "knock"}},
			}})
			kick := func() { alice.Must("POST", "/v3/rooms"+testrig.Path(room, "kick"), object{"user_id": bob.User}) }
			invited := func() bool { return len(shown(bob, "invite", "invite_state", room)) > 0 }
			knocking := func() bool { return len(shown(bob, "knock", "knock_state", room)) > 0 }
			if !invited() {
				t.Errorf("version %s: bob is not invited", v)
			}
			kick()
			eventually(t, bob, "that the invitation is gone", func() bool { return !invited() })
			bob.Must("POST", "/v3/knock"+testrig.Path(room)+"?via=a", object{})
			if !knocking() {
				t.Errorf("version %s: bob does not knock", v)
			}
			kick()
			eventually(t, bob, "that the knock is turned away", func() bool { return !knocking() })
			alice.Must("POST", "/v3/rooms"+testrig.Path(room, "invite"), object{"user_id": bob.User})
			bob.Join(room)
			sees(t, bob, room, bob.User, "join")
		}
	})
}

// TestChoiceOfServers joins a room for members of another one: where the server
// that the client names is in no place to decide, nobody else is asked.
func TestChoiceOfServers(t *testing.T) {
	each(t, three, func(t *testing.T, s []*testrig.Server) {
		alice, bob, carol := s[0].Register("alice"), s[1].Register("bob"), s[2].Register("carol")
		club := alice.CreateRoom(object{"preset": "public_chat"})
		room := alice.CreateRoom(object{"preset": "public_chat", "initial_state": []any{
			object{"type": "m.room.join_rules", "state_key": "", "content": object{
				"join_rule": "restricted", "allow": []any{object{"type": "m.room_membership", "room_id": club}},
			}},
		}, "power_level_content_override": object{"invite": 100}})
		for _, c := range []*testrig.Client{bob, carol} {
			joinVia(c, club, "a")
			joinVia(c, room, "a")
		}
		sees(t, bob, room, carol.User, "join")
		carol.Must("POST", "/v3/rooms"+testrig.Path(room, "leave"), object{})
		sees(t, alice, room, carol.User, "leave")
		sees(t, bob, room, carol.User, "leave")

		carol.Fails(400, matrix.CodeUnableToGrantJoin, "POST", "/v3/join"+testrig.Path(room)+"?via=b", object{})
		joinVia(carol, room, "b&via=a")
		sees(t, bob, room, carol.User, "join")

		// Without a choice all that were in the room are asked.
		carol.Must("POST", "/v3/rooms"+testrig.Path(room, "leave"), object{})
		sees(t, alice, room, carol.User, "leave")
		sees(t, bob, room, carol.User, "leave")
		carol.Join(room)
		sees(t, bob, room, carol.User, "join")
	})
}
