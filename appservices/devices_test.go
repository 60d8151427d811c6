package appservices_test

import (
	"encoding/base64"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/teahouse-chat/teahouse/internal/testrig"
)

const encrypted = "org.matrix.msc3202: true"

// key is 32 bytes that nobody looks into.
func key(n byte) string {
	return base64.RawStdEncoding.EncodeToString(slices.Repeat([]byte{n}, 32))
}

// upload gives a device keys of its own and two one-time keys.
func upload(c *testrig.Client, user, device, query string) {
	c.Must("POST", "/v3/keys/upload"+query, testrig.JSON{
		"device_keys": testrig.JSON{
			"user_id": user, "device_id": device, "algorithms": []string{"m.olm.v1.curve25519-aes-sha2"},
			"keys":       testrig.JSON{"ed25519:" + device: key(1), "curve25519:" + device: key(2)},
			"signatures": testrig.JSON{},
		},
		"one_time_keys": testrig.JSON{"curve25519:A": key(3), "curve25519:B": key(4)},
	})
}

// makeDevice makes a device without a login.
func makeDevice(t *testing.T, c *testrig.Client, device string) {
	t.Helper()
	if status, answer, err := c.Do(t.Context(), "PUT", "/v3/devices/"+device, testrig.JSON{}); err != nil || status != 201 {
		t.Fatal(status, answer, err)
	}
}

// post sends a message to all devices of a user.
func post(c *testrig.Client, user, txn, text string) {
	c.Must("PUT", "/v3/sendToDevice/m.test"+testrig.Path(txn), testrig.JSON{"messages": testrig.JSON{user: testrig.JSON{"*": testrig.JSON{"text": text}}}})
}

// messages lists the texts that a service was sent for a device. b.mu is held.
func (b *bridge) messages(of, user, device string) []string {
	var texts []string
	for _, ev := range b.beside(of) {
		if ev["to_user_id"] == user && ev["to_device_id"] == device && ev["type"] == "m.test" {
			texts = append(texts, ev["content"].(testrig.JSON)["text"].(string))
		}
	}
	return texts
}

// left tells how many one-time keys the service was told last that a device has; -1
// if it was not told. b.mu is held.
func (b *bridge) left(user, device string) float64 {
	n := -1.0
	for _, txn := range b.order {
		users, _ := txn["org.matrix.msc3202.device_one_time_keys_count"].(testrig.JSON)
		devices, _ := users[user].(testrig.JSON)
		counts, there := devices[device].(testrig.JSON)
		if there {
			n, _ = counts["curve25519"].(float64)
		}
	}
	return n
}

// looksAt tells whether the service was told that somebody's devices changed, or, as
// "left", that it has nothing to do with them any more. b.mu is held.
func (b *bridge) looksAt(what, user string) bool {
	return slices.ContainsFunc(b.order, func(txn testrig.JSON) bool {
		lists, _ := txn["org.matrix.msc3202.device_lists"].(testrig.JSON)
		return slices.Contains(list(lists[what]), any(user))
	})
}

// TestMessagesToDevices: a service that asks for it gets the messages to its users'
// devices, in order, each once, also if it or the server was away, and is told how
// many keys are left; then they are deleted. Messages to others are theirs.
func TestMessagesToDevices(t *testing.T) {
	testrig.Each(t, func(t *testing.T, s *testrig.Server) {
		irc, plain, nosy := newBridge(t, s.Network, "irc"), newBridge(t, s.Network, "plain"), newBridge(t, s.Network, "nosy")
		register(t, s, irc.registration(irc.mine(), encrypted))
		register(t, s, plain.registration(plain.mine(), ephemeral))
		register(t, s, nosy.registration(`{users: [{regex: '.*', exclusive: false}]}`, encrypted, ephemeral))
		alice := s.Register("alice")
		const bob, device = "@_irc_bob:test", "BRIDGE"
		as := "?user_id=" + bob
		bot := irc.client(s)
		bot.Must("POST", "/v3/register", testrig.JSON{"type": "m.login.application_service", "username": "_irc_bob", "inhibit_login": true})
		makeDevice(t, bot, device+as)
		upload(bot, bob, device, as+"&device_id="+device)
		irc.until("the keys are counted", func() bool { return irc.left(bob, device) == 2 })
		alice.Must("POST", "/v3/keys/claim", testrig.JSON{"one_time_keys": testrig.JSON{bob: testrig.JSON{device: "curve25519"}}})
		irc.until("a key is gone", func() bool { return irc.left(bob, device) == 1 })

		own := plain.client(s)
		makeDevice(t, own, "OWN")
		post(alice, "@_plain:test", "plain", "by sync")
		post(alice, string(alice.User), "self", "to myself")
		var want []string
		for i := range 3 {
			want = append(want, fmt.Sprint(i))
			post(alice, bob, want[i], want[i])
		}
		for _, key := range []string{"to_device", "de.sorunome.msc2409.to_device"} {
			irc.until("the messages arrive", func() bool { return slices.Equal(irc.messages(key, bob, device), want) })
		}
		irc.answers(status(503))
		for i := 3; i < 250; i++ {
			want = append(want, fmt.Sprint(i))
			post(alice, bob, want[i], want[i])
		}
		token := alice.Token
		s = s.Restart()
		alice = s.Anonymous()
		alice.Token = token
		irc.answers(nil)
		if err := s.Appservices.Retry(t.Context(), "irc"); err != nil {
			t.Fatal(err)
		}
		irc.until("the others arrive", func() bool { return len(irc.messages("to_device", bob, device)) >= len(want) })
		irc.mu.Lock()
		if got := irc.messages("to_device", bob, device); !slices.Equal(got, want) {
			t.Errorf("the device gets %v", got)
		}
		irc.mu.Unlock()
		bot, own = irc.client(s), plain.client(s)
		for c, n := range map[*testrig.Client]int{bot: 0, own: 1, alice: 1} {
			query := map[*testrig.Client]string{bot: as + "&device_id=" + device, own: "?device_id=OWN"}[c]
			box, _ := c.Must("GET", "/v3/sync"+query, nil)["to_device"].(testrig.JSON)
			if got := list(box["events"]); len(got) != n {
				t.Errorf("by sync come %v", got)
			}
		}
		for _, b := range []*bridge{plain, nosy} {
			b.hasNone(t, "to_device")
		}
	})
}

// TestDeviceLists: a service that asks for it is told whose devices it has to look
// at anew: of those in rooms with its users, and who comes into an encrypted one; and
// who goes.
func TestDeviceLists(t *testing.T) {
	testrig.Each(t, func(t *testing.T, s *testrig.Server) {
		irc := newBridge(t, s.Network, "irc")
		register(t, s, irc.registration(irc.mine(), encrypted))
		alice, carol, dave := s.Register("alice"), s.Register("carol"), s.Register("dave")
		room, _ := shared(t, s, irc, alice)
		upload(dave, string(dave.User), string(dave.Device), "")
		upload(alice, string(alice.User), string(alice.Device), "")
		irc.until("alice's devices changed", func() bool { return irc.looksAt("changed", string(alice.User)) })
		carol.Join(room)
		dave.Join(room)
		alice.Must("PUT", "/v3/rooms"+testrig.Path(room, "state", "m.room.encryption")+"/", testrig.JSON{"algorithm": "m.megolm.v1.aes-sha2"})
		irc.until("all are looked at", func() bool {
			return irc.looksAt("changed", string(carol.User)) && irc.looksAt("changed", string(dave.User))
		})
		carol.Must("POST", "/v3/rooms"+testrig.Path(room, "leave"), testrig.JSON{})
		irc.until("carol is gone", func() bool { return irc.looksAt("left", string(carol.User)) })
		irc.mu.Lock()
		irc.order = nil
		irc.mu.Unlock()
		alice.Must("PUT", "/v3/profile"+testrig.Path(alice.User, "displayname"), testrig.JSON{"displayname": "Alice"})
		carol.Join(room)
		irc.until("carol is back", func() bool { return irc.looksAt("changed", string(carol.User)) })
		irc.mu.Lock()
		defer irc.mu.Unlock()
		if irc.looksAt("changed", string(alice.User)) || irc.looksAt("left", string(alice.User)) {
			t.Error("a name is taken for a change of devices")
		}
		if strings.Contains(fmt.Sprint(irc.order), "device_lists:map[changed:[] left:[]]") {
			t.Error("nothing is told")
		}
	})
}
