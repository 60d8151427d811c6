package joining_test

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/teahouse-chat/teahouse/federation/transport"
	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/internal/testrig"
)

// FuzzDoors hands anything in, properly signed as a request: it is refused or
// taken, and the server has no trouble of its own.
func FuzzDoors(f *testing.F) {
	n := testrig.NewNetwork()
	s := testrig.Start(f, testrig.Options{Name: "here", Network: n, Federate: true})
	bob, p := s.Register("bob"), testrig.NewPeer(f, n, "evil")
	paths := []string{"/v1/send_join", "/v2/send_join", "/v1/send_leave", "/v2/send_leave", "/v1/send_knock", "/v1/invite", "/v2/invite",
		"/v1/exchange_third_party_invite"}
	var rooms []matrix.RoomID
	for _, version := range []string{"1", "6", "12"} {
		room := bob.CreateRoom(object{"preset": "public_chat", "room_version": version})
		rooms = append(rooms, room)
		_, ev := p.TryJoin("here", room, p.User("eve"))
		invite, err := json.Marshal(object{"room_version": version, "event": json.RawMessage(ev.JSON), "invite_room_state": []any{json.RawMessage(ev.JSON)}})
		if err != nil {
			f.Fatal(err)
		}
		for door := range paths {
			body := ev.JSON
			if strings.HasSuffix(paths[door], "invite") {
				body = invite
			}
			f.Add(uint8(door), uint8(len(rooms)-1), string(ev.ID), body)
		}
	}
	f.Fuzz(func(t *testing.T, door, room uint8, id string, body []byte) {
		if !json.Valid(body) || body[0] != '{' {
			return // it cannot be signed
		}
		_, err := p.Client.Do(t.Context(), transport.Request{
			Destination: "here", Method: "PUT", Timeout: time.Minute, Content: body,
			Path: federation + paths[int(door)%len(paths)] + testrig.Path(rooms[int(room)%len(rooms)], id),
		})
		if refused, ok := errors.AsType[*transport.RemoteError](err); ok && refused.Status >= 500 {
			t.Errorf("%s: %v", body, refused)
		}
	})
}
