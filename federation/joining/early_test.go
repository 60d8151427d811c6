package joining_test

import (
	"net/http"
	"sync/atomic"
	"testing"

	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/internal/testrig"
)

// TestRestrictedTooEarly joins a room for the members of a space before the only
// server that can let the user in has heard that they are one: the server is asked
// again, and so is ours, which hears meanwhile that it may let people in itself.
func TestRestrictedTooEarly(t *testing.T) {
	s := testrig.StartMany(t, "sqlite", "here")[0]
	there := testrig.NewPeer(t, s.Network, "there")
	alice, bob := s.Register("alice"), s.Register("bob")
	eve := there.User("eve")
	space := alice.CreateRoom(object{"preset": "public_chat"})
	room := alice.CreateRoom(object{"preset": "public_chat", "room_version": "10"})
	set := func(typ string, content any) {
		alice.Must("PUT", "/v3/rooms"+testrig.Path(room, "state", typ)+"/", content)
	}
	users := object{string(alice.User): 50, string(eve): 100}
	set("m.room.power_levels", object{"invite": 100, "state_default": 50, "users": users})
	resident := there.Join("here", room, eve)
	set("m.room.join_rules", object{"join_rule": "restricted", "allow": []any{object{"type": "m.room_membership", "room_id": space}}})
	bob.Join(space)

	var asked atomic.Int32
	helps := int32(3)
	there.Handle("GET /_matrix/federation/v1/make_join/{room}/{user}", func(w http.ResponseWriter, _ *http.Request) {
		if asked.Add(1) == helps {
			powers := resident.Set(eve, matrix.TypePowerLevels, "", object{"invite": 0, "users": users})
			if status, answer := there.Send("here", "powers", powers); status != 200 {
				t.Errorf("%d %v", status, answer)
			}
		}
		w.WriteHeader(http.StatusForbidden)
		_, _ = w.Write([]byte(`{"errcode": "M_FORBIDDEN", "error": "bob is in no room whose members may join"}`))
	})
	bob.Join(room)
	if n := asked.Load(); n < helps {
		t.Errorf("the other server was asked %d times", n)
	}
	if got := member(alice, room, bob.User)["join_authorised_via_users_server"]; got != string(alice.User) {
		t.Errorf("bob was let in by %v", got)
	}
	carol := s.Register("carol")
	carol.Fails(403, matrix.CodeForbidden, "POST", "/v3/join"+testrig.Path(room), object{}) // she is in no space
}
