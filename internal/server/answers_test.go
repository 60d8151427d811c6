package server_test

import (
	"fmt"
	"net/url"
	"testing"

	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/internal/testrig"
)

// Clients learn from their own server what only another one knows: aliases,
// published rooms, profiles, spaces.
func TestAskingOtherServers(t *testing.T) {
	for _, kind := range []string{"sqlite", "postgres"} {
		t.Run(kind, func(t *testing.T) {
			s := testrig.StartMany(t, kind, "a", "b")
			alice, bob := s[0].Register("alice"), s[1].Register("bob")
			bob.Must("PUT", "/v3/profile"+testrig.Path(bob.User, "displayname"), object{"displayname": "Bob of b"})
			far := bob.CreateRoom(object{"name": "far", "preset": "public_chat", "visibility": "public", "room_alias_name": "far"})

			if got := alice.Must("GET", "/v3/profile"+testrig.Path(bob.User), nil); got["displayname"] != "Bob of b" {
				t.Errorf("%v", got)
			}
			alice.Fails(404, "M_NOT_FOUND", "GET", "/v3/profile"+testrig.Path("@nobody:b"), nil)
			alice.Fails(502, "M_UNKNOWN", "GET", "/v3/profile"+testrig.Path("@nobody:nowhere"), nil)
			found := alice.Must("GET", "/v3/directory/room"+testrig.Path("#far:b"), nil)
			if found["room_id"] != string(far) || fmt.Sprint(found["servers"]) != "[b]" {
				t.Errorf("%v", found)
			}
			list := alice.Must("POST", "/v3/publicRooms?server=b", object{"filter": object{"generic_search_term": "FAR"}})
			if chunk := list["chunk"].([]any); len(chunk) != 1 || chunk[0].(object)["name"] != "far" {
				t.Errorf("%v", list)
			}
			if got := alice.Must("GET", "/v1/room_summary"+testrig.Path("#far:b"), nil); got["name"] != "far" || got["room_version"] == nil {
				t.Errorf("%v", got)
			}
			space := alice.CreateRoom(object{"name": "space", "preset": "public_chat", "creation_content": object{"type": "m.space"}})
			alice.Must("PUT", "/v3/rooms"+testrig.Path(space, "state", "m.space.child", far), object{"via": []string{"b"}})
			tree := alice.Must("GET", "/v1/rooms"+testrig.Path(space, "hierarchy"), nil)["rooms"].([]any)
			if len(tree) != 2 || tree[1].(object)["name"] != "far" {
				t.Errorf("%v", tree)
			}
			token := bob.Must("POST", "/v3/user"+testrig.Path(bob.User, "openid", "request_token"), object{})["access_token"].(string)
			got := s[1].Anonymous().Must("GET", "/_matrix/federation/v1/openid/userinfo?access_token="+url.QueryEscape(token), nil)
			if got["sub"] != string(bob.User) {
				t.Errorf("%v", got)
			}
		})
	}
}

// Servers that are in a room read it, over signed requests; all others are sent
// away at every door.
func TestServersReadRooms(t *testing.T) {
	for _, kind := range []string{"sqlite", "postgres"} {
		t.Run(kind, func(t *testing.T) {
			s := testrig.StartMany(t, kind, "a")[0]
			alice := s.Register("alice")
			room := alice.CreateRoom(object{"preset": "public_chat"})
			in, left, denied := testrig.NewPeer(t, s.Network, "in"), testrig.NewPeer(t, s.Network, "left"), testrig.NewPeer(t, s.Network, "denied")
			never := testrig.NewPeer(t, s.Network, "never")
			in.Join("a", room, in.User("u"))
			denied.Join("a", room, denied.User("u"))
			left.Join("a", room, left.User("u"))
			alice.Must("POST", "/v3/rooms"+testrig.Path(room, "kick"), object{"user_id": left.User("u")})
			alice.Must("PUT", "/v3/rooms"+testrig.Path(room, "state", "m.room.server_acl", ""), object{"allow": []string{"*"}, "deny": []string{"DENIED"}})
			id := alice.Say(room, "1", "hello")
			for path, body := range map[string]any{
				"/event" + testrig.Path(id): nil,
				"/state" + testrig.Path(room) + "?event_id=" + url.QueryEscape(string(id)):     nil,
				"/state_ids" + testrig.Path(room) + "?event_id=" + url.QueryEscape(string(id)): nil,
				"/backfill" + testrig.Path(room) + "?limit=5&v=" + url.QueryEscape(string(id)): nil,
				"/event_auth" + testrig.Path(room, id):                                         nil,
				"/timestamp_to_event" + testrig.Path(room) + "?ts=0&dir=f":                     nil,
				"/get_missing_events" + testrig.Path(room):                                     object{"earliest_events": []string{}, "latest_events": []matrix.EventID{id}},
			} {
				method := "GET"
				if body != nil {
					method = "POST"
				}
				for peer, want := range map[*testrig.Peer]int{in: 200, left: 403, denied: 403, never: 403} {
					if status, answer := peer.Ask(t.Context(), "a", method, "/_matrix/federation/v1"+path, body); status != want {
						t.Errorf("%s: %s %d %v", peer.Name, path, status, answer)
					}
				}
			}
		})
	}
}
