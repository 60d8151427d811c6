package testrig_test

import (
	"crypto/ed25519"
	"testing"

	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/internal/testrig"
	"github.com/teahouse-chat/teahouse/rooms/auth"
	"github.com/teahouse-chat/teahouse/rooms/event"
)

// What a peer builds is what other servers must accept, unless the test wants
// otherwise.
func TestPeer(t *testing.T) {
	n := testrig.NewNetwork()
	s := testrig.Start(t, testrig.Options{Name: "here", Network: n, Federate: true})
	p := testrig.NewPeer(t, n, "there")
	answer := s.Anonymous().Must("GET", "/_matrix/key/v2/query/there", nil)
	if len(answer["server_keys"].([]any)) != 1 {
		t.Errorf("the peer's keys cannot be had: %v", answer)
	}
	if status, answer := p.Ask(t.Context(), "here", "GET", "/_matrix/federation/v1/version", nil); status != 200 {
		t.Errorf("%d %v", status, answer)
	}
	for _, v := range event.Versions() {
		alice := p.User("alice")
		r := p.Create(v.ID, alice)
		r.Say(alice, "hello")
		fork := r.Fork()
		fork.Set(alice, "m.room.topic", "", testrig.JSON{"topic": "theirs"})
		r.Set(alice, "m.room.topic", "", testrig.JSON{"topic": "ours"})
		for _, ev := range append(r.Events, fork.Events...) {
			parsed, err := event.Parse(v, ev.JSON)
			if err != nil || parsed.ID != ev.ID || parsed.RoomID != r.ID {
				t.Fatalf("version %s: %s arrives as %+v, %v", v.ID, ev.ID, parsed, err)
			}
			if err := parsed.Verify("there", p.Key.ID, p.Key.Private.Public().(ed25519.PublicKey)); err != nil {
				t.Errorf("version %s: %s: %v", v.ID, ev.Type, err)
			}
			if why := auth.Check(ev, view(r.State)); why != nil && ev.Type != matrix.TypeCreate {
				t.Errorf("version %s: %s: %v", v.ID, ev.Type, why)
			}
		}
	}
}

type view map[auth.Key]*event.Event

func (v view) Event(typ, key string) *event.Event { return v[auth.Key{Type: typ, StateKey: key}] }
