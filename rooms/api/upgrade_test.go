package api_test

import (
	"testing"

	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/internal/testrig"
)

func TestUpgrade(t *testing.T) {
	testrig.Each(t, func(t *testing.T, s *testrig.Server) {
		alice, bob, mallory := s.Register("alice"), s.Register("bob"), s.Register("mallory")
		for _, c := range [][2]string{{"1", "12"}, {"9", "10"}, {"11", "12"}, {"12", "11"}, {"12", "12"}} {
			from, to := c[0], c[1]
			old := alice.CreateRoom(object{
				"room_version": from, "preset": "public_chat", "name": "Tea", "topic": "Leaves", "room_alias_name": "tea" + from + to,
				"creation_content":             object{"type": "m.space"},
				"power_level_content_override": object{"events": object{"m.room.topic": 60}},
			})
			bob.Join(old)
			alice.Must("POST", "/v3/rooms"+testrig.Path(old, "ban"), object{"user_id": mallory.User})
			upgrade := "/v3/rooms" + testrig.Path(old, "upgrade")
			bob.Fails(403, matrix.CodeForbidden, "POST", upgrade, object{"new_version": to})
			alice.Fails(400, matrix.CodeUnsupportedRoomVersion, "POST", upgrade, object{"new_version": "99"})
			next := matrix.RoomID(alice.Must("POST", upgrade, object{"new_version": to})["replacement_room"].(string))

			create := content(alice, next, "m.room.create", "")
			if p, _ := create["predecessor"].(object); create["room_version"] != to || create["type"] != "m.space" || p["room_id"] != string(old) {
				t.Errorf("%s to %s: the new room begins with %v", from, to, create)
			}
			if got := content(bob, old, "m.room.tombstone", "")["replacement_room"]; got != string(next) {
				t.Errorf("%s to %s: the tombstone points to %v", from, to, got)
			}
			if content(alice, next, "m.room.topic", "")["topic"] != "Leaves" || membership(alice, next, mallory.User) != "ban" {
				t.Errorf("%s to %s: state is missing", from, to)
			}
			levels := content(alice, next, "m.room.power_levels", "")
			if levels["events"].(object)["m.room.topic"] != 60.0 {
				t.Errorf("%s to %s: the levels are %v", from, to, levels)
			}
			bob.Fails(403, matrix.CodeForbidden, "PUT", "/v3/rooms"+testrig.Path(old, "send", "m.room.message", "1"), object{"body": "?"})
			if got := bob.Must("GET", "/v3/directory/room"+testrig.Path("#tea"+from+to+":test"), nil)["room_id"]; got != string(next) {
				t.Errorf("%s to %s: the alias points to %v", from, to, got)
			}
			bob.Join(next)
			bob.Say(next, "1", "here I am")
			alice.Must("PUT", "/v3/rooms"+testrig.Path(next, "state", "m.room.topic", ""), object{"topic": "again"})
		}
	})
}
