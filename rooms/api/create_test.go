package api_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/internal/testrig"
	"github.com/teahouse-chat/teahouse/rooms/event"
)

type object = testrig.JSON

// content reads a state event's content.
func content(c *testrig.Client, room matrix.RoomID, typ, key string) object {
	return c.Must("GET", "/v3/rooms"+testrig.Path(room, "state", typ, key), nil)
}

func TestCreateRoomPresets(t *testing.T) {
	testrig.Each(t, func(t *testing.T, s *testrig.Server) {
		alice := s.Register("alice")
		for preset, want := range map[string][3]string{
			"private_chat":         {"invite", "shared", "can_join"},
			"trusted_private_chat": {"invite", "shared", "can_join"},
			"public_chat":          {"public", "shared", "forbidden"},
		} {
			room := alice.CreateRoom(object{"preset": preset})
			got := [3]string{
				content(alice, room, "m.room.join_rules", "")["join_rule"].(string),
				content(alice, room, "m.room.history_visibility", "")["history_visibility"].(string),
				"forbidden", // as it is in a room without the event
			}
			if want[2] == "forbidden" {
				alice.Fails(404, matrix.CodeNotFound, "GET", "/v3/rooms"+testrig.Path(room, "state", "m.room.guest_access", ""), nil)
			} else {
				got[2] = content(alice, room, "m.room.guest_access", "")["guest_access"].(string)
			}
			if got != want {
				t.Errorf("%s: %v, not %v", preset, got, want)
			}
		}
		// Without a preset the visibility decides.
		if got := content(alice, alice.CreateRoom(object{"visibility": "public"}), "m.room.join_rules", "")["join_rule"]; got != "public" {
			t.Errorf("a public room's join rule is %v", got)
		}
	})
}

func TestCreateRoomInEveryVersion(t *testing.T) {
	s := testrig.Start(t, testrig.Options{})
	alice, bob := s.Register("alice"), s.Register("bob")
	for _, v := range event.Versions() {
		room := alice.CreateRoom(object{
			"room_version": v.ID, "preset": "trusted_private_chat", "invite": []any{bob.User}, "name": "Tea", "topic": "Leaves",
			"creation_content": object{"type": "m.space", "m.federate": false},
			"initial_state":    []any{object{"type": "org.example", "state_key": "a", "content": object{"b": 1}}},
		})
		create := content(alice, room, "m.room.create", "")
		if create["room_version"] != v.ID || create["type"] != "m.space" || create["m.federate"] != false {
			t.Errorf("version %s: the create event says %v", v.ID, create)
		}
		if _, named := create["creator"]; named != v.CreatorInContent {
			t.Errorf("version %s: creator in the content: %v", v.ID, named)
		}
		users := content(alice, room, "m.room.power_levels", "")["users"].(object)
		if v.CreatorPower {
			if len(users) != 0 || fmt.Sprint(create["additional_creators"]) != "[@bob:test]" {
				t.Errorf("version %s: levels %v, creators %v", v.ID, users, create["additional_creators"])
			}
		} else if users["@alice:test"] != 100.0 || users["@bob:test"] != 100.0 {
			t.Errorf("version %s: levels are %v", v.ID, users)
		}
		if content(alice, room, "org.example", "a")["b"] != 1.0 || content(alice, room, "m.room.name", "")["name"] != "Tea" {
			t.Errorf("version %s: state is missing", v.ID)
		}
		bob.Join(room)
		bob.Say(room, "1", "hello")
	}
}

func TestCreateRoomRefusals(t *testing.T) {
	testrig.Each(t, func(t *testing.T, s *testrig.Server) {
		alice := s.Register("alice")
		alice.CreateRoom(object{"room_alias_name": "taken"})
		for name, c := range map[string]struct {
			status int
			code   matrix.Code
			body   object
		}{
			"version":         {400, matrix.CodeUnsupportedRoomVersion, object{"room_version": "99"}},
			"version type":    {400, matrix.CodeBadJSON, object{"room_version": 12}},
			"preset":          {400, matrix.CodeInvalidParam, object{"preset": "party"}},
			"visibility":      {400, matrix.CodeInvalidParam, object{"visibility": "hidden"}},
			"invite":          {400, matrix.CodeInvalidParam, object{"invite": []any{"bob"}}},
			"e-mail":          {403, matrix.CodeThreepidDenied, object{"invite_3pid": []any{object{"medium": "email"}}}},
			"alias":           {400, matrix.CodeRoomInUse, object{"room_alias_name": "taken"}},
			"levels":          {400, matrix.CodeBadJSON, object{"power_level_content_override": object{"users": 5}}},
			"level":           {403, matrix.CodeForbidden, object{"power_level_content_override": object{"ban": "high"}}},
			"creator's level": {400, matrix.CodeInvalidParam, object{"room_version": "12", "power_level_content_override": object{"users": object{"@alice:test": 100}}}},
			"create again":    {400, matrix.CodeBadJSON, object{"initial_state": []any{object{"type": "m.room.create", "content": object{}}}}},
			"creators":        {400, matrix.CodeInvalidParam, object{"creation_content": object{"additional_creators": []any{"x"}}}},
			"no content":      {400, matrix.CodeBadJSON, object{"initial_state": []any{object{"type": "a"}}}},
			"state too large": {413, matrix.CodeTooLarge, object{"initial_state": []any{object{"type": "a", "content": object{"b": string(slices.Repeat([]byte("x"), 70000))}}}}},
		} {
			if got := alice.Fails(c.status, c.code, "POST", "/v3/createRoom", c.body); got["error"] == "" {
				t.Errorf("%s: no text", name)
			}
		}
		if rooms := alice.Must("GET", "/v3/joined_rooms", nil)["joined_rooms"].([]any); len(rooms) != 1 {
			t.Errorf("refused rooms were made: %v", rooms)
		}
	})
}

// TestCreateRoomAtItsLimits: as many events as one request may ask for.
func TestCreateRoomAtItsLimits(t *testing.T) {
	testrig.Each(t, func(t *testing.T, s *testrig.Server) {
		alice := s.Register("alice")
		var initial, invite []any
		for i := range 200 {
			initial = append(initial, object{"type": "org.example", "state_key": fmt.Sprint(i), "content": object{}})
		}
		for i := range 100 {
			invite = append(invite, fmt.Sprintf("@guest%d:test", i))
		}
		room := alice.CreateRoom(object{"initial_state": initial, "invite": invite})
		if got := membership(alice, room, "@guest99:test"); got != "invite" {
			t.Errorf("the last guest's membership is %s", got)
		}
		alice.Fails(400, matrix.CodeInvalidParam, "POST", "/v3/createRoom", object{"invite": append(invite, "@one:too.many")})
	})
}

// TestCreatorMayBeGivenALevel: clients that know older room versions do so.
func TestCreatorMayBeGivenALevel(t *testing.T) {
	s := testrig.Start(t, testrig.Options{})
	alice := s.Register("alice")
	room := alice.CreateRoom(object{"power_level_content_override": object{
		"users": object{"@alice:test": 100, "@bob:test": 50}, "users_default": 10,
	}})
	levels := content(alice, room, "m.room.power_levels", "")
	if got := fmt.Sprint(levels["users"], levels["users_default"]); got != "map[@bob:test:50] 10" {
		t.Errorf("levels are %s", got)
	}
	alice.Fails(400, matrix.CodeInvalidParam, "PUT", "/v3/rooms"+testrig.Path(room, "state", "m.room.power_levels", ""), object{
		"users": object{"@alice:test": 100},
	})
}
