package joining_test

import (
	"testing"

	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/internal/testrig"
)

// TestInvitesAreUnwanted lets a user want no invitations: neither of their own
// server's users nor of others'.
func TestInvitesAreUnwanted(t *testing.T) {
	each(t, two, func(t *testing.T, s []*testrig.Server) {
		alice, bob, carol := s[0].Register("alice"), s[1].Register("bob"), s[1].Register("carol")
		want := func(action any) {
			bob.Must("PUT", "/v3/user"+testrig.Path(bob.User, "account_data", "m.invite_permission_config"), object{"default_action": action})
		}
		want("block")
		for _, c := range []*testrig.Client{alice, carol} {
			room := c.CreateRoom(object{})
			member := "/v3/rooms" + testrig.Path(room, "state", "m.room.member", bob.User)
			c.Fails(403, matrix.CodeInviteBlocked, "POST", "/v3/rooms"+testrig.Path(room, "invite"), object{"user_id": bob.User})
			c.Fails(403, matrix.CodeInviteBlocked, "PUT", member, object{"membership": "invite"})
			if got := membership(c, room, bob.User); got != "" {
				t.Errorf("%s sees bob's membership %s", c.User, got)
			}
		}
		carol.Fails(403, matrix.CodeInviteBlocked, "POST", "/v3/createRoom", object{"invite": []any{bob.User}})
		want([]any{"block"})
		for _, c := range []*testrig.Client{alice, carol} {
			room := c.CreateRoom(object{})
			member := "/v3/rooms" + testrig.Path(room, "state", "m.room.member", bob.User)
			id := c.Must("PUT", member, object{"membership": "invite", "reason": "by state"})["event_id"]
			ev := c.Must("GET", "/v3/rooms"+testrig.Path(room, "event", id.(string)), nil)
			if ev["content"].(object)["reason"] != "by state" {
				t.Errorf("the invitation is %v", ev)
			}
			if state := shown(bob, "invite", "invite_state", room); state["m.room.member"] == nil {
				t.Errorf("bob is not shown the invitation of %s: %v", c.User, state)
			}
			bob.Join(room)
		}
	})
}

// TestDenied keeps servers out by a room's ACL, wherever they ask (F15).
func TestDenied(t *testing.T) {
	s, bob, p := here(t, "sqlite")
	alice := s.Register("alice")
	i := newIdentity(t)
	room := alice.CreateRoom(object{"preset": "public_chat", "room_version": "10"})
	i.invites(alice, room, "token")
	p.Join("here", room, p.User("member"))
	h := newHost(t, p, "10")
	alice.Must("PUT", "/v3/rooms"+testrig.Path(room, "state", "m.room.server_acl", ""), object{"allow": []any{"*"}, "deny": []any{"E?il"}})
	for _, path := range []string{"make_join", "make_leave", "make_knock"} {
		status, answer := p.Ask(t.Context(), "here", "GET", federation+"/v1/"+path+testrig.Path(room, p.User("member"))+"?ver=10", nil)
		if status != 403 || answer["errcode"] != "M_FORBIDDEN" {
			t.Errorf("%s: %d %v", path, status, answer)
		}
	}
	status, code := put(t, p, "here", federation+"/v1/exchange_third_party_invite"+testrig.Path(room), object{
		"type": "m.room.member", "room_id": room, "sender": alice.User, "state_key": p.User("eve"), "content": object{
			"membership": "invite", "third_party_invite": object{"display_name": "x", "signed": i.binds(t, p.User("eve"), "token")},
		},
	})
	if status != 403 || code != matrix.CodeForbidden {
		t.Errorf("exchange: %d %s", status, code)
	}
	key := string(bob.User)
	d := h.Draft(p.User("member"), matrix.TypeMember, &key, object{"membership": "invite"})
	d.RoomID = room
	invite := h.Build(d)
	if status, code := put(t, p, "here", federation+"/v2/invite"+testrig.Path(room, invite.ID),
		object{"room_version": "10", "event": asObject(t, invite.JSON), "invite_room_state": []any{}}); status != 403 || code != matrix.CodeForbidden {
		t.Errorf("invite: %d %s", status, code)
	}
}
