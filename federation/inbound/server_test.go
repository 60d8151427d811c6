package inbound_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/internal/testrig"
)

// What another server sends is shown to the clients of a whole server.
func TestWholeServer(t *testing.T) {
	n := testrig.NewNetwork()
	s := testrig.Start(t, testrig.Options{Name: "here", Network: n, Federate: true})
	p := testrig.NewPeer(t, n, "there")
	user := s.Register("user")
	room := matrix.RoomID(user.Must("POST", "/_matrix/client/v3/createRoom", testrig.JSON{"preset": "public_chat"})["room_id"].(string))
	r := p.Join("here", room, p.User("alice"))
	hello := r.Say(p.User("alice"), "hello from there")
	if status, answer := p.Send("here", "1", hello); status != 200 {
		t.Fatalf("%d %v", status, answer)
	}
	var since string
	for range 20 {
		path := "/_matrix/client/v3/sync?timeout=10000"
		if since != "" {
			path += "&since=" + since
		}
		answer := user.Must("GET", path, nil)
		since = answer["next_batch"].(string)
		if strings.Contains(fmt.Sprint(answer), "hello from there") {
			return
		}
	}
	t.Error("the message does not show")
}
