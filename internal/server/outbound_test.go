package server_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/teahouse-chat/teahouse/internal/db/dbtest"
	"github.com/teahouse-chat/teahouse/internal/testrig"
)

// sent is what a peer gets.
type sent struct {
	PDUs []object `json:"pdus"`
	EDUs []object `json:"edus"`
}

// mailbox collects what a peer gets in transactions; refuse, if it is not empty,
// has them refused.
func mailbox(p *testrig.Peer, refuse <-chan struct{}) <-chan sent {
	box := make(chan sent, 1000)
	p.Handle("PUT /_matrix/federation/v1/send/{txnId}", func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-refuse:
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		default:
		}
		var s sent
		if err := json.NewDecoder(r.Body).Decode(&s); err != nil {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		box <- s
		testrig.WriteJSON(w, http.StatusOK, object{"pdus": object{}})
	})
	return box
}

// await waits until something that the condition holds for is in a mailbox.
func await(t *testing.T, box <-chan sent, what string, ok func(sent) bool) {
	t.Helper()
	timeout := time.After(time.Minute)
	for {
		select {
		case s := <-box:
			if ok(s) {
				return
			}
		case <-timeout:
			t.Fatalf("%s does not come", what)
		}
	}
}

func says(text string) func(sent) bool {
	return func(s sent) bool {
		for _, pdu := range s.PDUs {
			if pdu["content"].(object)["body"] == text {
				return true
			}
		}
		return false
	}
}

// What happens in a room is sent to the servers in it, by a server that was
// restarted meanwhile, too.
func TestEventsAreSentToOtherServers(t *testing.T) {
	for _, kind := range []string{"sqlite", "postgres"} {
		t.Run(kind, func(t *testing.T) {
			n := testrig.NewNetwork()
			s := testrig.Start(t, testrig.Options{Name: "here", Network: n, Database: dbtest.URL(t, kind), Federate: true})
			p := testrig.NewPeer(t, n, "there")
			refuse := make(chan struct{}, 1)
			box := mailbox(p, refuse)
			alice := s.Register("alice")
			room := alice.CreateRoom(object{"preset": "public_chat"})
			alice.Say(room, "0", "unheard")
			p.Join("here", room, p.User("bob"))
			for i := range 3 {
				alice.Say(room, fmt.Sprint("a", i), fmt.Sprint("a", i))
				await(t, box, "a message", says(fmt.Sprint("a", i)))
			}
			refuse <- struct{}{}
			alice.Say(room, "b", "b")
			for len(refuse) > 0 {
				time.Sleep(time.Millisecond)
			}
			s = s.Restart()
			s.Login("alice").Say(room, "c", "c")
			refused := false
			await(t, box, "what was refused at first, and what came then", func(s sent) bool {
				refused = refused || says("b")(s)
				return refused && says("c")(s)
			})
		})
	}
}
