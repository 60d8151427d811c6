package joining_test

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"testing"

	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/internal/testrig"
	"github.com/teahouse-chat/teahouse/rooms/event"
)

// identity is an identity server, as far as its key goes.
type identity struct{ key event.SigningKey }

func newIdentity(t *testing.T) *identity {
	t.Helper()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return &identity{event.SigningKey{ID: "ed25519:0", Private: private}}
}

// invites stands in a room for an identifier that was invited.
func (i *identity) invites(c *testrig.Client, room matrix.RoomID, token string) {
	c.Must("PUT", "/v3/rooms"+testrig.Path(room, "state", "m.room.third_party_invite", token), object{
		"display_name": "t...@example.org", "key_validity_url": "https://identity.example.org/isvalid",
		"public_key": base64.RawStdEncoding.EncodeToString(i.key.Private.Public().(ed25519.PublicKey)),
	})
}

// binds signs that an identifier is a user's.
func (i *identity) binds(t *testing.T, user matrix.UserID, token string) json.RawMessage {
	t.Helper()
	raw, err := json.Marshal(object{"mxid": user, "token": token, "sender": "@somebody:here"})
	if err != nil {
		t.Fatal(err)
	}
	signed, err := event.SignJSON(raw, "identity.example.org", i.key)
	if err != nil {
		t.Fatal(err)
	}
	return signed
}

// agrees lets a peer agree to every invitation.
func agrees(t *testing.T, p *testrig.Peer) {
	p.Handle("PUT /_matrix/federation/v2/invite/{room}/{event}", func(w http.ResponseWriter, r *http.Request) {
		var q struct {
			Version string          `json:"room_version"`
			Event   json.RawMessage `json:"event"`
		}
		if err := json.NewDecoder(r.Body).Decode(&q); err != nil {
			t.Error(err)
			return
		}
		v, _ := event.Lookup(q.Version)
		ev, err := event.Parse(v, q.Event)
		if err != nil {
			t.Error(err)
			return
		}
		if ev, err = ev.Sign(p.Name, p.Key); err != nil {
			t.Error(err)
			return
		}
		testrig.WriteJSON(w, 200, object{"event": json.RawMessage(ev.JSON)})
	})
}

// TestExchange redeems invitations of identifiers for users of another server,
// and refuses to for anybody else (F20).
func TestExchange(t *testing.T) {
	for _, kind := range []string{"sqlite", "postgres"} {
		s, bob, p := here(t, kind)
		alice, other := s.Register("alice"), testrig.NewPeer(t, s.Network, "other")
		agrees(t, p)
		agrees(t, other)
		i, eve := newIdentity(t), p.User("eve")
		for _, version := range some(t) {
			room := alice.CreateRoom(object{"room_version": version})
			i.invites(alice, room, "token")
			path := federation + "/v1/exchange_third_party_invite" + testrig.Path(room)
			request := func() (q, content, third object) {
				third = object{"display_name": "Mallory", "signed": i.binds(t, eve, "token")}
				content = object{"membership": "invite", "third_party_invite": third, "displayname": "Mallory"}
				return object{"type": "m.room.member", "room_id": room, "sender": alice.User, "state_key": eve, "content": content}, content, third
			}
			for name, change := range map[string]func(q, content, third object){
				"another room":       func(q, _, _ object) { q["room_id"] = "!other:here" },
				"another type":       func(q, _, _ object) { q["type"] = "m.room.topic" },
				"another membership": func(_, c, _ object) { c["membership"] = "join" },
				"another sender":     func(q, _, _ object) { q["sender"] = bob.User },
				"a sender of theirs": func(q, _, _ object) { q["sender"] = eve },
				"somebody else":      func(q, _, _ object) { q["state_key"] = p.User("other") },
				"somebody of ours":   func(q, _, third object) { q["state_key"], third["signed"] = bob.User, i.binds(t, bob.User, "token") },
				"one of others": func(q, _, third object) {
					q["state_key"], third["signed"] = "@x:other", i.binds(t, "@x:other", "token")
				},
				"another token":      func(_, _, third object) { third["signed"] = i.binds(t, eve, "other") },
				"no token":           func(_, _, third object) { third["signed"] = i.binds(t, eve, "") },
				"not signed":         func(_, _, third object) { delete(third, "signed") },
				"signed by somebody": func(_, _, third object) { third["signed"] = newIdentity(t).binds(t, eve, "token") },
				"no invite":          func(_, c, _ object) { delete(c, "third_party_invite") },
			} {
				q, content, third := request()
				change(q, content, third)
				if status, code := put(t, p, "here", path, q); status < 400 || status > 404 || code == "" {
					t.Errorf("%s, version %s, %s: %d %s", kind, version, name, status, code)
				}
			}
			q, _, _ := request()
			if status, _ := put(t, other, "here", path, q); status != 400 {
				t.Errorf("%s, version %s: another server's request: %d", kind, version, status)
			}
			if m := member(alice, room, eve); len(m) > 0 {
				t.Errorf("%s, version %s: eve has a membership: %v", kind, version, m)
			}
			if status, code := put(t, p, "here", path, q); status != 200 {
				t.Errorf("%s, version %s: %d %s", kind, version, status, code)
			}
			m := member(alice, room, eve)
			third, _ := m["third_party_invite"].(object)
			if m["membership"] != "invite" || third["display_name"] != "t...@example.org" || m["displayname"] != nil {
				t.Errorf("%s, version %s: eve's membership is %v", kind, version, m)
			}
			p.Join("here", room, eve)
		}
	}
}

// TestBound hears from an identity server whose an identifier is.
func TestBound(t *testing.T) {
	s, bob, p := here(t, "sqlite")
	alice := s.Register("alice")
	i := newIdentity(t)
	room := alice.CreateRoom(object{})
	i.invites(alice, room, "token")
	asked := make(chan object, 10)
	p.Handle("PUT /_matrix/federation/v1/exchange_third_party_invite/{room}", func(w http.ResponseWriter, r *http.Request) {
		q := object{}
		if err := json.NewDecoder(r.Body).Decode(&q); err != nil {
			t.Error(err)
		}
		asked <- q
		testrig.WriteJSON(w, 200, object{})
	})
	onbind := func(user matrix.UserID, invites ...any) object {
		return object{"medium": "email", "address": "bob@example.org", "mxid": user, "invites": invites}
	}
	invite := func(room matrix.RoomID, sender matrix.UserID, user matrix.UserID) object {
		return object{"medium": "email", "address": "bob@example.org", "mxid": user, "room_id": room, "sender": sender, "signed": i.binds(t, user, "token")}
	}
	anyone := s.Anonymous()
	const path = "/_matrix/federation/v1/3pid/onbind"
	anyone.Fails(404, matrix.CodeNotFound, "PUT", path, onbind("@nobody:here", invite(room, alice.User, "@nobody:here")))
	anyone.Fails(404, matrix.CodeNotFound, "PUT", path, onbind("@eve:evil"))
	anyone.Fails(400, matrix.CodeInvalidParam, "PUT", path, onbind("bob"))
	anyone.Fails(400, matrix.CodeInvalidParam, "PUT", path, onbind(bob.User, make([]any, 21)...))
	anyone.Must("PUT", path, onbind(bob.User, invite(room, alice.User, alice.User), invite("!nowhere:here", alice.User, bob.User), object{}))
	if got := membership(alice, room, bob.User); got != "" {
		t.Errorf("bob's membership is %s", got)
	}
	anyone.Must("PUT", path, onbind(bob.User, invite(room, alice.User, bob.User), invite("!theirs:evil", "@x:evil", bob.User)))
	if got := membership(alice, room, bob.User); got != "invite" {
		t.Errorf("bob's membership is %s", got)
	}
	if q := <-asked; q["state_key"] != string(bob.User) || q["room_id"] != "!theirs:evil" || q["sender"] != "@x:evil" {
		t.Errorf("asked for %v", q)
	}
}
