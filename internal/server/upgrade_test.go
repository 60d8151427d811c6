package server_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/internal/testrig"
)

// TestSettingsMoveToUpgradedRooms upgrades a room: those who go along keep how they
// are notified of it, its tags and whom they talk to there. What they have set for
// the new room already stays, and strangers to the old one get nothing.
func TestSettingsMoveToUpgradedRooms(t *testing.T) {
	testrig.Each(t, func(t *testing.T, s *testrig.Server) {
		alice, bob, eve := s.Register("alice"), s.Register("bob"), s.Register("eve")
		old := alice.CreateRoom(testrig.JSON{"preset": "public_chat", "room_version": "10"})
		bob.Join(old)
		for _, c := range []*testrig.Client{alice, bob, eve} {
			c.Must("PUT", "/v3/pushrules/global/room"+testrig.Path(old), testrig.JSON{"actions": []any{"dont_notify"}})
			c.Must("PUT", "/v3/pushrules/global/override"+testrig.Path(old), testrig.JSON{"actions": []any{}, "conditions": []any{
				testrig.JSON{"kind": "event_match", "key": "room_id", "pattern": old},
			}})
			c.Must("PUT", "/v3/pushrules/global/override"+testrig.Path(old)+"/enabled", testrig.JSON{"enabled": false})
			c.Must("PUT", "/v3/user"+testrig.Path(c.User, "rooms", old, "tags", "m.favourite"), testrig.JSON{"order": 0.5})
			c.Must("PUT", "/v3/user"+testrig.Path(c.User, "account_data", "m.direct"), testrig.JSON{"@carol:test": []any{old}, "odd": 1})
		}
		room := matrix.RoomID(alice.Must("POST", "/v3/rooms"+testrig.Path(old, "upgrade"), testrig.JSON{"new_version": "11"})["replacement_room"].(string))
		bob.Must("PUT", "/v3/user"+testrig.Path(bob.User, "rooms", room, "tags", "u.own"), testrig.JSON{})
		bob.Join(room)
		eve.Join(room)
		for c, tags := range map[*testrig.Client]string{alice: `{"tags":{"m.favourite":{"order":0.5}}}`, bob: `{"tags":{"u.own":{}}}`} {
			comes(t, c, "/v3/pushrules/global/room"+testrig.Path(room), `"actions":["dont_notify"]`)
			comes(t, c, "/v3/pushrules/global/override"+testrig.Path(room), `"pattern":"`+string(room)+`"`)
			comes(t, c, "/v3/pushrules/global/override"+testrig.Path(room), `"enabled":false`)
			comes(t, c, "/v3/user"+testrig.Path(c.User, "rooms", room, "tags"), tags)
			comes(t, c, "/v3/user"+testrig.Path(c.User, "account_data", "m.direct"), `"@carol:test":["`+string(old)+`","`+string(room)+`"]`)
		}
		// Who comes again keeps what they have changed since.
		bob.Must("DELETE", "/v3/pushrules/global/room"+testrig.Path(room), nil)
		bob.Must("POST", "/v3/rooms"+testrig.Path(room, "leave"), testrig.JSON{})
		bob.Join(room)
		last := s.Register("last")
		last.Must("PUT", "/v3/pushrules/global/room"+testrig.Path(room), testrig.JSON{"actions": []any{}}) // counted behind bob's return
		for _, c := range []*testrig.Client{bob, eve} {
			c.Fails(404, matrix.CodeNotFound, "GET", "/v3/pushrules/global/room"+testrig.Path(room), nil)
		}
	})
}

// comes asks until an answer holds a text.
func comes(t *testing.T, c *testrig.Client, path, want string) {
	t.Helper()
	got := ""
	for began := time.Now(); time.Since(began) < time.Minute; time.Sleep(5 * time.Millisecond) {
		if status, answer, err := c.Do(t.Context(), "GET", path, nil); err == nil && status == 200 {
			text, _ := json.Marshal(answer)
			if got = string(text); strings.Contains(got, want) {
				return
			}
		}
	}
	t.Fatalf("%s: %s has not %s but %s", c.User, path, want, got)
}
