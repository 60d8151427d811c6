package joining_test

import (
	"fmt"
	"testing"

	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/internal/testrig"
)

// TestJoin joins a room of another server, in every version: the state is the
// same, and both can go on.
func TestJoin(t *testing.T) {
	each(t, two, func(t *testing.T, s []*testrig.Server) {
		alice, bob := s[0].Register("alice"), s[1].Register("bob")
		for _, v := range some(t) {
			room := alice.CreateRoom(object{"preset": "public_chat", "room_version": v, "name": "Room " + v})
			bob.Must("POST", "/v3/join"+testrig.Path(room)+"?via=a", object{"reason": "hello", "org.example": 1})
			for _, c := range []*testrig.Client{alice, bob} {
				if got := fmt.Sprint(member(c, room, bob.User)); got != "map[displayname:bob membership:join org.example:1 reason:hello]" {
					t.Errorf("version %s: %s sees %v", v, c.User, got)
				}
			}
			name := bob.Must("GET", "/v3/rooms"+testrig.Path(room, "state", "m.room.name", ""), nil)["name"]
			if name != "Room "+v || membership(bob, room, alice.User) != "join" {
				t.Errorf("version %s: bob sees the name %v", v, name)
			}
			bob.Join(room) // again
			// One who comes later need not ask anybody.
			carol := s[1].Register("carol" + v)
			carol.Join(room)
			if got := membership(bob, room, carol.User); got != "join" {
				t.Errorf("version %s: carol's membership is %s", v, got)
			}
		}
	})
}

// shown is what a user is shown of a room that they are invited to, or
// knock at, by type.
func shown(c *testrig.Client, section, name string, room matrix.RoomID) map[string]object {
	sync := c.Sync("", 0)
	rooms, _ := sync["rooms"].(object)
	list, _ := rooms[section].(object)
	one, _ := list[string(room)].(object)
	state, _ := one[name].(object)
	events, _ := state["events"].([]any)
	byType := map[string]object{}
	for _, raw := range events {
		ev := raw.(object)
		byType[ev["type"].(string)] = ev
	}
	return byType
}

// TestInvite invites a user of another server, who comes.
func TestInvite(t *testing.T) {
	each(t, two, func(t *testing.T, s []*testrig.Server) {
		alice, bob := s[0].Register("alice"), s[1].Register("bob")
		for _, v := range some(t) {
			room := alice.CreateRoom(object{"room_version": v, "name": "Room " + v, "topic": "tea"})
			since := bob.Sync("", 0)["next_batch"].(string)
			alice.Must("POST", "/v3/rooms"+testrig.Path(room, "invite"), object{"user_id": bob.User, "reason": "come"})
			if got := membership(alice, room, bob.User); got != "invite" {
				t.Errorf("version %s: bob's membership is %s", v, got)
			}
			news := bob.Sync(since, 30_000)["rooms"].(object)["invite"]
			if news == nil || news.(object)[string(room)] == nil {
				t.Errorf("version %s: bob hears nothing: %v", v, news)
			}
			state := shown(bob, "invite", "invite_state", room)
			for _, typ := range []string{"m.room.create", "m.room.join_rules", "m.room.name", "m.room.topic", "m.room.member"} {
				if state[typ] == nil {
					t.Errorf("version %s: bob is not shown %s: %v", v, typ, state)
				}
			}
			if state["m.room.name"]["content"].(object)["name"] != "Room "+v || state["m.room.member"]["content"].(object)["reason"] != "come" {
				t.Errorf("version %s: bob is shown %v", v, state)
			}
			bob.Join(room) // without a word where: whoever invited is asked
			for _, c := range []*testrig.Client{alice, bob} {
				if got := membership(c, room, bob.User); got != "join" {
					t.Errorf("version %s: %s sees bob's membership %s", v, c.User, got)
				}
			}
		}
	})
}

// TestInviteAtOnce creates rooms with guests from elsewhere, of whom one does not
// exist and another's server is down.
func TestInviteAtOnce(t *testing.T) {
	each(t, three, func(t *testing.T, s []*testrig.Server) {
		alice, bob, carol := s[0].Register("alice"), s[1].Register("bob"), s[2].Register("carol")
		s[2].Stop()
		for _, v := range some(t) {
			room := alice.CreateRoom(object{"room_version": v, "preset": "trusted_private_chat", "is_direct": true, "invite": []any{bob.User, "@nobody:b", carol.User}})
			if m := member(alice, room, bob.User); m["membership"] != "invite" || m["is_direct"] != true {
				t.Errorf("version %s: %v", v, m)
			}
			if m := membership(alice, room, "@nobody:b") + membership(alice, room, carol.User); m != "" {
				t.Errorf("version %s: who cannot be invited has a membership: %s", v, m)
			}
			bob.Join(room)
			alice.Fails(403, matrix.CodeForbidden, "POST", "/v3/rooms"+testrig.Path(room, "invite"), object{"user_id": "@nobody:b"})
			alice.Fails(502, matrix.CodeUnknown, "POST", "/v3/rooms"+testrig.Path(room, "invite"), object{"user_id": carol.User})
			alice.Fails(403, matrix.CodeForbidden, "POST", "/v3/rooms"+testrig.Path(room, "invite"), object{"user_id": bob.User})
		}
	})
}

// TestDecline rejects invitations, be the other server there or not.
func TestDecline(t *testing.T) {
	each(t, two, func(t *testing.T, s []*testrig.Server) {
		alice, bob := s[0].Register("alice"), s[1].Register("bob")
		var last matrix.RoomID
		for _, v := range some(t) {
			room := alice.CreateRoom(object{"room_version": v, "invite": []any{bob.User}})
			bob.Must("POST", "/v3/rooms"+testrig.Path(room, "leave"), object{"reason": "busy"})
			if m := member(alice, room, bob.User); m["membership"] != "leave" || m["reason"] != "busy" {
				t.Errorf("version %s: bob's membership is %v", v, m)
			}
			if state := shown(bob, "invite", "invite_state", room); len(state) > 0 {
				t.Errorf("version %s: bob is still invited: %v", v, state)
			}
			bob.Must("POST", "/v3/rooms"+testrig.Path(room, "leave"), object{}) // again
			bob.Must("POST", "/v3/rooms"+testrig.Path(room, "forget"), object{})
			bob.Fails(403, matrix.CodeForbidden, "POST", "/v3/rooms"+testrig.Path(room, "join"), object{})
			// Whoever has declined can be invited again, and come.
			alice.Must("POST", "/v3/rooms"+testrig.Path(room, "invite"), object{"user_id": bob.User})
			bob.Join(room)
			last = alice.CreateRoom(object{"room_version": v, "invite": []any{bob.User}})
		}
		s[0].Stop()
		bob.Must("POST", "/v3/rooms"+testrig.Path(last, "leave"), object{})
		if state := shown(bob, "invite", "invite_state", last); len(state) > 0 {
			t.Errorf("bob is still invited: %v", state)
		}
		s[0] = s[0].Restart()
		// The other server was not told, so for the room the invitation stands.
		if got := membership(alice, last, bob.User); got != "invite" {
			t.Errorf("bob's membership is %s", got)
		}
		bob.Join(last)
	})
}

// TestKnock knocks at a room of another server; one knock is taken back, one
// answered with an invitation, one with a refusal.
func TestKnock(t *testing.T) {
	each(t, two, func(t *testing.T, s []*testrig.Server) {
		alice, bob := s[0].Register("alice"), s[1].Register("bob")
		for _, v := range []string{"7", "10", "12"} {
			room := alice.CreateRoom(object{"room_version": v, "name": "Room " + v, "initial_state": []any{
				object{"type": "m.room.join_rules", "state_key": "", "content": object{"join_rule": "knock"}},
			}})
			knock := func() {
				t.Helper()
				bob.Must("POST", "/v3/knock"+testrig.Path(room)+"?via=a", object{"reason": "please"})
				if m := member(alice, room, bob.User); m["membership"] != "knock" || m["reason"] != "please" {
					t.Errorf("version %s: bob's membership is %v", v, m)
				}
			}
			knock()
			state := shown(bob, "knock", "knock_state", room)
			if state["m.room.create"] == nil || state["m.room.name"] == nil || state["m.room.member"] == nil {
				t.Errorf("version %s: bob is shown %v", v, state)
			}
			bob.Must("POST", "/v3/rooms"+testrig.Path(room, "leave"), object{})
			if got := membership(alice, room, bob.User); got != "leave" {
				t.Errorf("version %s: after he took it back, bob's membership is %s", v, got)
			}
			bob.Fails(403, matrix.CodeForbidden, "POST", "/v3/join"+testrig.Path(room)+"?via=a", object{})
			knock()
			alice.Must("POST", "/v3/rooms"+testrig.Path(room, "invite"), object{"user_id": bob.User})
			bob.Join(room)
			if got := membership(alice, room, bob.User); got != "join" {
				t.Errorf("version %s: bob's membership is %s", v, got)
			}
			bob.Must("POST", "/v3/rooms"+testrig.Path(room, "leave"), object{})
		}
		closed := alice.CreateRoom(object{"room_version": "6", "preset": "public_chat"})
		bob.Fails(400, matrix.CodeIncompatibleRoom, "POST", "/v3/knock"+testrig.Path(closed)+"?via=a", object{})
		closed = alice.CreateRoom(object{})
		bob.Fails(403, matrix.CodeForbidden, "POST", "/v3/knock"+testrig.Path(closed)+"?via=a", object{})
	})
}

// TestRestricted lets members of spaces into a room through another server: into
// a room that is new, and into one in which nobody local may let anyone in.
func TestRestricted(t *testing.T) {
	each(t, two, func(t *testing.T, s []*testrig.Server) {
		alice := s[0].Register("alice")
		guests := []*testrig.Client{s[1].Register("bob"), s[1].Register("carol")}
		for version, rule := range map[string]string{"8": "restricted", "10": "knock_restricted", "12": "restricted"} {
			var spaces []matrix.RoomID
			var allow []any
			for range guests {
				space := alice.CreateRoom(object{"preset": "public_chat", "room_version": version})
				spaces, allow = append(spaces, space), append(allow, object{"type": "m.room_membership", "room_id": space})
			}
			room := alice.CreateRoom(object{"room_version": version, "initial_state": []any{object{
				"type": "m.room.join_rules", "state_key": "", "content": object{"join_rule": rule, "allow": allow},
			}}, "power_level_content_override": object{"invite": 50}})
			for i, c := range guests {
				c.Fails(403, matrix.CodeForbidden, "POST", "/v3/join"+testrig.Path(room)+"?via=a", object{})
				joinVia(c, spaces[i], "a")
				joinVia(c, room, "a")
				for _, reader := range []*testrig.Client{alice, c} {
					m := member(reader, room, c.User)
					if m["membership"] != "join" || m["join_authorised_via_users_server"] != string(alice.User) {
						t.Errorf("version %s: %s sees %v", version, reader.User, m)
					}
				}
			}
		}
	})
}

// TestDeadServers has the first servers that are named be down, not exist, or
// know nothing.
func TestDeadServers(t *testing.T) {
	each(t, three, func(t *testing.T, s []*testrig.Server) {
		alice, bob := s[0].Register("alice"), s[1].Register("bob")
		s[2].Stop()
		room := alice.CreateRoom(object{"preset": "public_chat"})
		bob.Fails(404, matrix.CodeNotFound, "POST", "/v3/join"+testrig.Path(room), object{})
		bob.Fails(502, matrix.CodeUnknown, "POST", "/v3/join"+testrig.Path(room)+"?via=c&via=nowhere", object{})
		bob.Must("POST", "/v3/join"+testrig.Path(room)+"?server_name=c&via=nowhere&via=b&server_name=a", object{})
		closed := alice.CreateRoom(object{})
		answer := bob.Fails(403, matrix.CodeForbidden, "POST", "/v3/join"+testrig.Path(closed)+"?via=c&via=a&via=nowhere", object{})
		if answer["error"] == "" {
			t.Error("bob is not told why")
		}
		bob.Fails(404, matrix.CodeNotFound, "POST", "/v3/join/%21nowhere:a?via=a", object{})
	})
}

// TestLeftAndBack leaves a room and comes back, in every version; nobody local is
// in it meanwhile.
func TestLeftAndBack(t *testing.T) {
	each(t, two, func(t *testing.T, s []*testrig.Server) {
		alice, bob := s[0].Register("alice"), s[1].Register("bob")
		for _, v := range some(t) {
			room := alice.CreateRoom(object{"preset": "public_chat", "room_version": v})
			joinVia(bob, room, "a")
			bob.Must("POST", "/v3/rooms"+testrig.Path(room, "leave"), object{})
			alice.Must("PUT", "/v3/rooms"+testrig.Path(room, "state", "m.room.topic", ""), object{"topic": "missed"})
			bob.Join(room) // through the server that was in the room when bob was
			if topic := bob.Must("GET", "/v3/rooms"+testrig.Path(room, "state", "m.room.topic", ""), nil)["topic"]; topic != "missed" {
				t.Errorf("version %s: the topic is %v", v, topic)
			}
		}
	})
}

// TestAlone joins, as in a server that does not federate, a room that everybody
// has left and no other server was in.
func TestAlone(t *testing.T) {
	s := testrig.StartMany(t, "sqlite", "a")[0]
	alice := s.Register("alice")
	room := alice.CreateRoom(object{"preset": "public_chat"})
	alice.Must("POST", "/v3/rooms"+testrig.Path(room, "leave"), object{})
	alice.Join(room)
}

// TestDeactivated leaves what a user was only invited to elsewhere.
func TestDeactivated(t *testing.T) {
	each(t, two, func(t *testing.T, s []*testrig.Server) {
		alice, bob := s[0].Register("alice"), s[1].Register("bob")
		room := alice.CreateRoom(object{"invite": []any{bob.User}})
		if err := s[1].Accounts.Deactivate(t.Context(), bob.User, false); err != nil {
			t.Fatal(err)
		}
		if got := membership(alice, room, bob.User); got != "leave" {
			t.Errorf("bob's membership is %s", got)
		}
		alice.Fails(403, matrix.CodeForbidden, "POST", "/v3/rooms"+testrig.Path(room, "invite"), object{"user_id": bob.User})
	})
}

// TestGuestsStay keeps guests out of rooms of other servers.
func TestGuestsStay(t *testing.T) {
	s := testrig.StartMany(t, "sqlite", "a", "b")
	alice, guest := s[0].Register("alice"), s[1].Guest()
	room := alice.CreateRoom(object{"preset": "public_chat"})
	guest.Fails(403, matrix.CodeGuestAccessForbidden, "POST", "/v3/join"+testrig.Path(room)+"?via=a", object{})
}
