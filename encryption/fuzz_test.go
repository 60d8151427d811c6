package encryption

import (
	"bytes"
	"encoding/json"
	"testing"

	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms/event"
)

// Whatever a client or a server calls keys: it is refused, or has a form that
// can be stored, signed and sent on.
func FuzzKeys(f *testing.F) {
	for _, s := range []string{
		`{"user_id":"@a:b","device_id":"D","algorithms":["m"],"keys":{"ed25519:D":"` + key43 + `","curve25519:D":"` + key43 + `"},"signatures":{}}`,
		`{"user_id":"@a:b","usage":["master"],"keys":{"ed25519:` + key43 + `":"` + key43 + `"}}`,
		`{"key":"` + key43 + `","signatures":{"@a:b":{"ed25519:D":"x"}}}`,
		`"` + key43 + `"`, `{}`, `null`, `[]`, `{"keys":{"\u0000":"\ud800"}}`, `{"unsigned":{"a":1e9},"signatures":7}`, `{"a":1.0}`,
	} {
		f.Add([]byte(s))
	}
	d := device{"@a:b", "D"}
	f.Fuzz(func(t *testing.T, raw []byte) {
		if k, err := parseDeviceKeys(raw, d); err == nil {
			keeps(t, k)
			name := "name \"\x00"
			renders(t, render(k.bare, []signature{{signer: "@a:b", signerKey: "x\n", text: "y"}, {signer: "@c:d", signerKey: "z", text: "\u2028"}}, &name))
			if _, err := k.bySelf(nil); err == nil && k.ed25519() == nil {
				t.Errorf("no signing key in %s", raw)
			}
		}
		for _, usage := range []string{usageMaster, usageSelfSigning} {
			if k, err := parseCrossKey("x", usage, raw, d.user); err == nil {
				keeps(t, k)
				renders(t, render(k.bare, nil, nil))
			}
		}
		for _, id := range []string{"signed_curve25519:A", "curve25519:A", "x:y", string(raw)} {
			if _, _, key, err := checkOneTime(id, raw, d.user); err == nil {
				renders(t, []byte(key))
			}
		}
	})
}

const key43 = "JGLn/yafz74HB2AbPLYJWIVGnKAtqECOBf11yyXac2Y"

// keeps checks that stored keys are read again as what they were.
func keeps(t *testing.T, k *signedKeys) {
	t.Helper()
	again, err := parseKeys("x", json.RawMessage(k.bare))
	if err != nil || again.bare != k.bare || again.identity() != k.identity() || again.public() != k.public() {
		t.Errorf("%s is read as %+v: %v", k.bare, again, err)
	}
}

func renders(t *testing.T, raw []byte) {
	t.Helper()
	if _, err := event.Canonical(raw); err != nil || bytes.IndexByte(raw, 0) >= 0 {
		t.Errorf("%q is not what can be sent on: %v", raw, err)
	}
}

// Whatever another server sends about its users, and to ours: it is no error, and
// what clients are told is JSON that they can read.
func FuzzEDUs(f *testing.F) {
	w := newWorld(f, "sqlite", "a", "b")
	a, b := w.sites["a"], w.sites["b"]
	alice, bob := a.login("alice", "A1"), b.login("bob", "B1")
	h := a.found("alice")
	w.join(h, bob.user, "a")
	alice.upload(0)
	id := alice.identity()
	for _, s := range []string{
		`{"user_id":"@alice:a","device_id":"A1","stream_id":1,"prev_id":[-1],"device_display_name":"x","keys":` + alice.deviceKeys() + `}`,
		`{"user_id":"@alice:a","device_id":"A1","stream_id":2,"prev_id":[1],"deleted":true}`,
		`{"user_id":"@alice:a","master_key":` + id.bare(usageMaster, id.master) + `,"self_signing_key":` + id.byMaster(usageSelfSigning, id.self) + `}`,
		`{"sender":"@alice:a","type":"m.x","message_id":"1","messages":{"@bob:b":{"*":{"a":1}}}}`,
		`{"sender":"@alice:a","type":"m.x","message_id":"2","messages":{"@bob:b":{"B1":{"\u0000":"\ud800"}}}}`,
		`{"user_id":"@alice:a","stream_id":1e3,"prev_id":[null]}`, `[]`, `null`, `{"user_id":7}`,
	} {
		for kind := range 3 {
			f.Add(byte(kind), []byte(s))
		}
	}
	f.Fuzz(func(t *testing.T, kind byte, content []byte) {
		if !json.Valid(content) {
			return // no transaction would have brought it
		}
		b.TB = t
		typ := []string{EDUDeviceList, EDUSigningKeys, EDUToDevice}[kind%3]
		if err := b.handle("a", typ, content); err != nil {
			t.Errorf("%s %s: %v", typ, content, err)
		}
		stored, err := readRemote(t.Context(), b.DB, []matrix.UserID{alice.user})
		if err != nil {
			t.Fatal(err)
		}
		if l := stored[alice.user]; l != nil {
			for _, text := range l.devices {
				renders(t, []byte(text))
			}
			for _, text := range l.cross {
				renders(t, []byte(text))
			}
		}
		for _, ev := range bob.arrived() {
			if err := event.WellFormed([]byte(ev)); err != nil {
				t.Errorf("%s: %v", ev, err)
			}
		}
		if _, _, err := b.e.ToDevice(t.Context(), bob.user, bob.id, b.DB.Position(), 0); err != nil {
			t.Fatal(err)
		}
	})
}
