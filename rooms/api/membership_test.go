package api_test

import (
	"testing"

	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/internal/testrig"
)

func membership(c *testrig.Client, room matrix.RoomID, of matrix.UserID) string {
	return content(c, room, "m.room.member", string(of))["membership"].(string)
}

func TestComingAndGoing(t *testing.T) {
	testrig.Each(t, func(t *testing.T, s *testrig.Server) {
		alice, bob := s.Register("alice"), s.Register("bob")
		room := alice.CreateRoom(object{})
		path := func(what string) string { return "/v3/rooms" + testrig.Path(room, what) }
		is := func(want string) {
			t.Helper()
			if got := membership(alice, room, bob.User); got != want {
				t.Fatalf("bob's membership is %s, not %s", got, want)
			}
		}
		bob.Fails(403, matrix.CodeForbidden, "POST", path("join"), object{})
		alice.Must("POST", path("invite"), object{"user_id": bob.User, "reason": "tea"})
		is("invite")
		bob.Must("POST", path("leave"), object{})
		is("leave")
		alice.Must("POST", path("invite"), object{"user_id": bob.User})
		bob.Must("POST", path("join"), object{"reason": "thirsty", "org.example": "kept"})
		if c := content(alice, room, "m.room.member", string(bob.User)); c["reason"] != "thirsty" || c["org.example"] != "kept" || c["displayname"] != "bob" {
			t.Errorf("bob's join says %v", c)
		}
		bob.Join(room) // once more changes nothing
		if c := content(alice, room, "m.room.member", string(bob.User)); c["reason"] != "thirsty" {
			t.Errorf("after joining twice bob's event says %v", c)
		}
		bob.Fails(403, matrix.CodeForbidden, "POST", path("kick"), object{"user_id": alice.User})
		alice.Must("POST", path("kick"), object{"user_id": bob.User, "reason": "spilled"})
		is("leave")
		alice.Fails(403, matrix.CodeForbidden, "POST", path("kick"), object{"user_id": bob.User})
		alice.Must("POST", path("ban"), object{"user_id": bob.User})
		is("ban")
		alice.Fails(403, matrix.CodeForbidden, "POST", path("invite"), object{"user_id": bob.User})
		alice.Must("POST", path("unban"), object{"user_id": bob.User})
		is("leave")
		alice.Fails(403, matrix.CodeForbidden, "POST", path("unban"), object{"user_id": bob.User})
		alice.Fails(400, matrix.CodeMissingParam, "POST", path("invite"), object{})
		alice.Fails(400, matrix.CodeInvalidParam, "POST", path("ban"), object{"user_id": "bob"})
		alice.Fails(403, matrix.CodeThreepidDenied, "POST", path("invite"), object{"medium": "email", "address": "a@b.c", "id_server": "x", "id_access_token": "y"})
		bob.Must("POST", path("forget"), object{})
		alice.Fails(400, matrix.CodeUnknown, "POST", path("forget"), object{})
		bob.Fails(404, matrix.CodeNotFound, "POST", "/v3/rooms/%21nowhere:test/join", object{})
	})
}

func TestKnocking(t *testing.T) {
	testrig.Each(t, func(t *testing.T, s *testrig.Server) {
		alice, bob := s.Register("alice"), s.Register("bob")
		room := alice.CreateRoom(object{"initial_state": []any{object{"type": "m.room.join_rules", "state_key": "", "content": object{"join_rule": "knock"}}}})
		if got := bob.Must("POST", "/v3/knock"+testrig.Path(room), object{"reason": "please"})["room_id"]; got != string(room) {
			t.Errorf("knocked on %v", got)
		}
		if got := membership(alice, room, bob.User); got != "knock" {
			t.Errorf("bob's membership is %s", got)
		}
		bob.Fails(403, matrix.CodeForbidden, "POST", "/v3/join"+testrig.Path(room), object{})
		alice.Must("POST", "/v3/rooms"+testrig.Path(room, "invite"), object{"user_id": bob.User})
		bob.Join(room)
		closed := alice.CreateRoom(object{})
		bob.Fails(403, matrix.CodeForbidden, "POST", "/v3/knock"+testrig.Path(closed), object{})
	})
}

func TestRestrictedJoins(t *testing.T) {
	testrig.Each(t, func(t *testing.T, s *testrig.Server) {
		alice, bob, carol := s.Register("alice"), s.Register("bob"), s.Register("carol")
		space := alice.CreateRoom(object{"preset": "public_chat"})
		for version, rule := range map[string]string{"8": "restricted", "10": "knock_restricted", "12": "restricted"} {
			room := alice.CreateRoom(object{"room_version": version, "initial_state": []any{object{
				"type": "m.room.join_rules", "state_key": "",
				"content": object{"join_rule": rule, "allow": []any{object{"type": "m.room_membership", "room_id": space}}},
			}}})
			carol.Fails(403, matrix.CodeForbidden, "POST", "/v3/rooms"+testrig.Path(room, "join"), object{})
			bob.Join(space)
			bob.Join(room)
			if c := content(alice, room, "m.room.member", string(bob.User)); c["join_authorised_via_users_server"] != string(alice.User) {
				t.Errorf("version %s: bob's join says %v", version, c)
			}
			// A new profile does not claim the authorisation again.
			bob.Must("PUT", "/v3/profile"+testrig.Path(bob.User, "displayname"), object{"displayname": "Bob " + version})
			c := content(alice, room, "m.room.member", string(bob.User))
			if c["displayname"] != "Bob "+version || c["join_authorised_via_users_server"] != nil {
				t.Errorf("version %s: after the change bob's event says %v", version, c)
			}
		}
	})
}

func TestGuestsMayJoinWhereTheyAreLet(t *testing.T) {
	s := testrig.Start(t, testrig.Options{})
	alice := s.Register("alice")
	guest := s.Anonymous()
	answer := guest.Must("POST", "/v3/register?kind=guest", object{})
	guest.Token = answer["access_token"].(string)
	open := alice.CreateRoom(object{"preset": "public_chat", "initial_state": []any{
		object{"type": "m.room.guest_access", "state_key": "", "content": object{"guest_access": "can_join"}},
	}})
	guest.Join(open)
	guest.Say(open, "1", "hello")
	closed := alice.CreateRoom(object{"preset": "public_chat"})
	guest.Fails(403, matrix.CodeGuestAccessForbidden, "POST", "/v3/rooms"+testrig.Path(closed, "join"), object{})
	guest.Fails(403, matrix.CodeGuestAccessForbidden, "POST", "/v3/createRoom", object{})
}

// TestDeactivationLeavesEverything: a person who is gone is in no room.
func TestDeactivationLeavesEverything(t *testing.T) {
	testrig.Each(t, func(t *testing.T, s *testrig.Server) {
		alice, bob := s.Register("alice"), s.Register("bob")
		joined := alice.CreateRoom(object{"preset": "public_chat"})
		invited := alice.CreateRoom(object{"invite": []any{bob.User}})
		bob.Join(joined)
		if err := s.Accounts.Deactivate(t.Context(), bob.User, false); err != nil {
			t.Fatal(err)
		}
		for _, room := range []matrix.RoomID{joined, invited} {
			if got := membership(alice, room, bob.User); got != "leave" {
				t.Errorf("bob's membership is %s", got)
			}
		}
	})
}
