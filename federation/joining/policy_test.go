package joining_test

import (
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/internal/testrig"
	"github.com/teahouse-chat/teahouse/rooms/event"
)

// judges makes a peer the policy server of a room of version 12, who signs what
// has no spam in it.
func judges(t *testing.T, judge *testrig.Peer, c *testrig.Client, room matrix.RoomID) {
	t.Helper()
	v, _ := event.Lookup("12")
	judge.Handle("POST /_matrix/policy/v1/sign", func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		ev, err := event.Parse(v, body)
		if err != nil || strings.Contains(string(ev.Content), "spam") {
			testrig.WriteJSON(w, 400, object{"errcode": "M_FORBIDDEN", "error": "no"})
			return
		}
		signed, err := ev.Sign(judge.Name, event.SigningKey{ID: "ed25519:policy_server", Private: judge.Key.Private})
		if err != nil {
			t.Error(err)
		}
		testrig.WriteJSON(w, 200, object{string(judge.Name): asObject(t, signed.JSON)["signatures"].(object)[string(judge.Name)]})
	})
	c.Must("PUT", "/v3/rooms"+testrig.Path(room, "state", "m.room.policy", ""), object{
		"via": judge.Name, "public_keys": object{"ed25519": base64.RawStdEncoding.EncodeToString(judge.Key.Private.Public().(ed25519.PublicKey))},
	})
}

// TestPolicyServers lets in whom the room's policy server lets in.
func TestPolicyServers(t *testing.T) {
	s, alice, p := here(t, "sqlite")
	judge := testrig.NewPeer(t, s.Network, "judge")
	agrees(t, p)
	room := alice.CreateRoom(object{"preset": "public_chat"})
	judge.Join("here", room, judge.User("judge"))
	judges(t, judge, alice, room)

	_, answer := askToJoin(t, p, room, p.User("eve"), "")
	if !strings.Contains(string(answer.Event), "ed25519:policy_server") {
		t.Errorf("the join comes back as %s", answer.Event)
	}
	if got := membership(alice, room, p.User("eve")); got != "join" {
		t.Errorf("eve's membership is %s", got)
	}
	r, ev := p.TryJoin("here", room, p.User("spammer"))
	d := r.Like(ev)
	d.Content = []byte(`{"membership":"join","displayname":"spam"}`)
	spam := r.Build(d)
	if status, code := put(t, p, "here", federation+"/v2/send_join"+testrig.Path(room, spam.ID), json.RawMessage(spam.JSON)); status != 403 {
		t.Errorf("a spammer: %d %s", status, code)
	}
	alice.Must("POST", "/v3/rooms"+testrig.Path(room, "invite"), object{"user_id": p.User("guest")})
	alice.Fails(403, matrix.CodeForbidden, "POST", "/v3/rooms"+testrig.Path(room, "invite"), object{"user_id": p.User("other"), "reason": "spam"})
	if got := membership(alice, room, p.User("guest")) + membership(alice, room, p.User("other")); got != "invite" {
		t.Errorf("the guests' memberships are %s", got)
	}
}

// TestJoinUnderPolicy joins a room with a policy server at a server that asks it
// for nothing, comes back after leaving, too.
func TestJoinUnderPolicy(t *testing.T) {
	_, bob, p := here(t, "sqlite")
	h := newHost(t, p, "12")
	h.Set(h.user, "m.room.policy", "", object{
		"via": p.Name, "public_keys": object{"ed25519": base64.RawStdEncoding.EncodeToString(p.Key.Private.Public().(ed25519.PublicKey))},
	})
	joinVia(bob, h.ID, "evil")
	if got := membership(bob, h.ID, bob.User); got != "join" {
		t.Errorf("bob's membership is %s", got)
	}
}
