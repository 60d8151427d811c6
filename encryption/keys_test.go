package encryption

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/teahouse-chat/teahouse/internal/matrix"
)

func TestUploadQueryClaim(t *testing.T) {
	each(t, func(t *testing.T, g *rig) {
		alice, bob := g.login("alice", "A1"), g.login("bob", "B1")
		if n := alice.upload(3); n != 3 {
			t.Errorf("%d one-time keys are counted, want 3", n)
		}
		keys := bob.query(alice.user, bob.user, "@nobody:test")
		var got struct {
			UserID     matrix.UserID                `json:"user_id"`
			Signatures map[string]map[string]string `json:"signatures"`
			Unsigned   struct {
				Name string `json:"device_display_name"`
			} `json:"unsigned"`
		}
		if err := json.Unmarshal(keys.Devices[alice.user]["A1"], &got); err != nil {
			t.Fatal(err)
		}
		if got.UserID != alice.user || got.Unsigned.Name != "alice's A1" || len(got.Signatures[string(alice.user)]) != 1 {
			t.Errorf("keys of alice: %s", keys.Devices[alice.user]["A1"])
		}
		if k, err := parseDeviceKeys(keys.Devices[alice.user]["A1"], device{alice.user, "A1"}); err != nil || !k.verify(alice.user, "ed25519:A1", k.ed25519()) {
			t.Errorf("the signature does not survive: %v", err)
		}
		if devices, there := keys.Devices[bob.user]; !there || len(devices) != 0 {
			t.Errorf("bob has a device without keys, but the answer has %v", keys.Devices)
		}
		if devices, there := keys.Devices["@nobody:test"]; !there || len(devices) != 0 {
			t.Errorf("nobody has %v", devices)
		}
		for i := range 3 {
			if id := bob.claim(alice); id != fmt.Sprintf("signed_curve25519:K%06d", i) {
				t.Errorf("claim %d gave %q", i, id)
			}
		}
		if id := bob.claim(alice); id != "" {
			t.Errorf("a fourth key was claimed: %q", id)
		}
	})
}

// THREATS A15: a device cannot fill the server with one-time keys.
func TestOneTimeKeysAreBounded(t *testing.T) {
	each(t, func(t *testing.T, g *rig) {
		alice := g.login("alice", "A1")
		for range maxOneTime / 1000 {
			alice.upload(1000)
		}
		alice.refused("POST", "/v3/keys/upload", `{"one_time_keys":{`+alice.oneTime(1)+`}}`, 400, matrix.CodeInvalidParam)
		if n := alice.upload(0); n != maxOneTime {
			t.Errorf("%d keys are counted", n)
		}
	})
}

// Batches are given out in the order of their upload, whatever their ids.
func TestClaimOrder(t *testing.T) {
	each(t, func(t *testing.T, g *rig) {
		alice, bob := g.login("alice", "A1"), g.login("bob", "B1")
		for _, id := range []string{"Z", "M", "A"} {
			want[object](alice, "POST", "/v3/keys/upload", `{"one_time_keys":{`+alice.oneTimeKey(id)+`}}`)
		}
		for _, id := range []string{"Z", "M", "A"} {
			if got := bob.claim(alice); got != "signed_curve25519:"+id {
				t.Errorf("got %q, want %q", got, id)
			}
		}
	})
}

func TestUploadAgain(t *testing.T) {
	each(t, func(t *testing.T, g *rig) {
		alice, bob := g.login("alice", "A1"), g.login("bob", "B1")
		k := [4]string{}
		for i := range k {
			k[i] = alice.oneTimeKey(fmt.Sprint("K", i))
		}
		put := func(keys ...string) int {
			return want[uploadAnswer](alice, "POST", "/v3/keys/upload", `{"one_time_keys":{`+strings.Join(keys, ",")+`}}`).Counts[signedCurve25519]
		}
		if n := put(k[0], k[1], k[2]); n != 3 {
			t.Errorf("%d, want 3", n)
		}
		if n := put(k[0], k[1], k[2]); n != 3 {
			t.Errorf("the same again: %d, want 3", n)
		}
		if n := put(k[1], k[2], k[3]); n != 4 {
			t.Errorf("overlapping: %d, want 4", n)
		}
		alice.refused("POST", "/v3/keys/upload", `{"one_time_keys":{`+alice.oneTimeKey("K1")+`}}`, 400, matrix.CodeInvalidParam)
		// What was claimed does not come back.
		if id := bob.claim(alice); id != "signed_curve25519:K0" {
			t.Fatal(id)
		}
		if n := put(k[0]); n != 3 {
			t.Errorf("after a claimed key came again: %d, want 3", n)
		}
		if id := bob.claim(alice); id != "signed_curve25519:K1" {
			t.Errorf("%q was claimed", id)
		}
	})
}

func TestFallbackKeys(t *testing.T) {
	each(t, func(t *testing.T, g *rig) {
		alice, bob := g.login("alice", "A1"), g.login("bob", "B1")
		first := alice.oneTimeKey("F1")
		types := func() string {
			_, list, err := g.e.Keys(t.Context(), alice.user, alice.id)
			if err != nil {
				t.Fatal(err)
			}
			return strings.Join(list, " ")
		}
		if types() != "" {
			t.Errorf("before: %q", types())
		}
		want[object](alice, "POST", "/v3/keys/upload", `{"one_time_keys":{`+alice.oneTime(1)+`},"fallback_keys":{`+first+`}}`)
		if types() != signedCurve25519 {
			t.Errorf("unused: %q", types())
		}
		for _, id := range []string{"K000000", "F1", "F1"} {
			if got := bob.claim(alice); got != "signed_curve25519:"+id {
				t.Errorf("%q was claimed, want %s", got, id)
			}
		}
		if types() != "" {
			t.Errorf("used: %q", types())
		}
		want[object](alice, "POST", "/v3/keys/upload", `{"fallback_keys":{`+first+`}}`)
		if types() != "" {
			t.Error("the same key again is as used as it was")
		}
		want[object](alice, "POST", "/v3/keys/upload", `{"fallback_keys":{`+alice.oneTimeKey("F2")+`}}`)
		if types() != signedCurve25519 {
			t.Error("a new key is not used")
		}
		if got := bob.claim(alice); got != "signed_curve25519:F2" {
			t.Errorf("%q", got)
		}
	})
}

// THREATS F11, F13: what is malformed is refused, with NULs and without, and nothing
// of it is stored.
func TestMalformedUploads(t *testing.T) {
	g := newRig(t, urlOf(t))
	alice, bob := g.login("alice", "A1"), g.login("bob", "B1")
	good := alice.deviceKeys()
	nul := `\u0000`
	for name, c := range map[string]struct {
		body string
		code matrix.Code
	}{
		"another user":       {`{"device_keys":` + bob.deviceKeys() + `}`, matrix.CodeInvalidParam},
		"another device":     {`{"device_keys":` + g.login("alice", "A2").deviceKeys() + `}`, matrix.CodeInvalidParam},
		"nothing in it":      {`{"device_keys":{"user_id":"@alice:test","device_id":"A1"}}`, matrix.CodeBadJSON},
		"not an object":      {`{"device_keys":[]}`, matrix.CodeBadJSON},
		"short key":          {`{"device_keys":` + strings.Replace(good, public(alice.private), "abc", 1) + `}`, matrix.CodeInvalidParam},
		"wrong signature":    {`{"device_keys":` + strings.Replace(good, alice.curve, g.key32(), 1) + `}`, codeInvalidSignature},
		"no signing key":     {`{"device_keys":{"user_id":"@alice:test","device_id":"A1","algorithms":[],"keys":{},"signatures":{}}}`, matrix.CodeInvalidParam},
		"numbers as keys":    {`{"device_keys":{"user_id":"@alice:test","device_id":"A1","algorithms":[],"keys":{"ed25519:A1":1},"signatures":{}}}`, matrix.CodeBadJSON},
		"duplicate members":  {`{"device_keys":{"user_id":"@bob:test",` + good[1:] + `}`, matrix.CodeBadJSON},
		"large":              {`{"device_keys":{"x":"` + strings.Repeat("x", maxKeysBytes) + `",` + good[1:] + `}`, matrix.CodeTooLarge},
		"key without a name": {`{"one_time_keys":{"signed_curve25519":{}}}`, matrix.CodeInvalidParam},
		"unsigned key":       {`{"one_time_keys":{"signed_curve25519:A":{"key":"` + g.key32() + `"}}}`, matrix.CodeInvalidParam},
		"bad signature":      {`{"one_time_keys":{"signed_curve25519:A":{"key":"` + g.key32() + `","signatures":{"@alice:test":{"ed25519:A1":"?"}}}}}`, matrix.CodeInvalidParam},
		"text for an object": {`{"one_time_keys":{"signed_curve25519:A":"` + g.key32() + `"}}`, matrix.CodeInvalidParam},
		"NUL in an id":       {`{"one_time_keys":{"curve25519:A` + nul + `":"` + g.key32() + `"}}`, matrix.CodeBadJSON},
		"number as a key":    {`{"one_time_keys":{"other:A":1}}`, matrix.CodeInvalidParam},
		"two fallback keys":  {`{"fallback_keys":{` + alice.oneTime(2) + `}}`, matrix.CodeInvalidParam},
		"keys in a list":     {`{"one_time_keys":[]}`, matrix.CodeBadJSON},
	} {
		t.Run(name, func(t *testing.T) {
			status := 400
			if c.code == matrix.CodeTooLarge {
				status = 413
			}
			alice.refused("POST", "/v3/keys/upload", c.body, status, c.code)
		})
	}
	if keys := bob.query(alice.user); len(keys.Devices[alice.user]) != 0 {
		t.Errorf("something was stored: %s", keys.Devices)
	}
	// The edge of what is taken: no signature, unknown algorithms, NUL inside.
	want[object](alice, "POST", "/v3/keys/upload", `{"device_keys":{"signatures":{},"note":"`+nul+`",`+alice.bareKeys()[1:]+
		`,"one_time_keys":{"curve25519:A":"`+g.key32()+`","other:B":{"anything":1}}}`)
}

func urlOf(t testing.TB) string { return "sqlite://" + t.TempDir() + "/test.db" }

// A device that comes with other identity keys is another device: nothing of the
// former counts.
func TestNewIdentity(t *testing.T) {
	each(t, func(t *testing.T, g *rig) {
		alice, bob := g.login("alice", "A1"), g.login("bob", "B1")
		alice.upload(5)
		again := g.login("alice", "A1")
		if n := again.upload(0); n != 0 {
			t.Errorf("%d one-time keys of the former identity are left", n)
		}
		if id := bob.claim(alice); id != "" {
			t.Errorf("%q was claimed", id)
		}
		if got := string(bob.query(alice.user).Devices[alice.user]["A1"]); !strings.Contains(got, again.curve) || strings.Contains(got, alice.curve) {
			t.Errorf("keys: %s", got)
		}
	})
}

// THREATS A3: a device that was logged out is gone for everybody at once.
func TestLogoutRemovesKeys(t *testing.T) {
	each(t, func(t *testing.T, g *rig) {
		a1, a2, bob := g.login("alice", "A1"), g.login("alice", "A2"), g.login("bob", "B1")
		a1.upload(5)
		a2.upload(5)
		r := g.Room("alice")
		g.Join(r, "bob")
		want[object](bob, "PUT", "/v3/sendToDevice/m.x/1", `{"messages":{"@alice:test":{"*":{}}}}`)
		before := g.DB.Position()
		a1.logout()
		if devices := bob.query(a1.user).Devices[a1.user]; len(devices) != 1 {
			t.Errorf("devices: %v", devices)
		}
		if id := bob.claim(a1); id != "" {
			t.Errorf("%q was claimed of a device that is gone", id)
		}
		g.eventually("bob is told", func() bool {
			changed, _ := bob.lists(before)
			return slices.Contains(changed, a1.user)
		})
		a1.refused("POST", "/v3/keys/upload", `{"one_time_keys":{`+a1.oneTime(1)+`}}`, 401, matrix.CodeUnknownToken)
		for _, table := range []string{"device_keys", "one_time_keys", "to_device"} {
			if n := g.rows(table, a1); n != 0 {
				t.Errorf("%d rows of %s are left", n, table)
			}
			if n := g.rows(table, a2); n == 0 {
				t.Errorf("%s of the other device are gone, too", table)
			}
		}
	})
}

// A crash between the removal of a device and the clearing up is made up for.
func TestResume(t *testing.T) {
	each(t, func(t *testing.T, g *rig) {
		a1, a2, bob := g.login("alice", "A1"), g.login("alice", "A2"), g.login("bob", "B1")
		a1.upload(2)
		a2.upload(2)
		before := g.DB.Position()
		delete(g.devices.all[a1.user], a1.id)
		g.Reload()
		if devices := bob.query(a1.user).Devices[a1.user]; len(devices) != 1 {
			t.Errorf("devices: %v", devices)
		}
		if err := g.e.Resume(t.Context()); err != nil {
			t.Fatal(err)
		}
		if g.rows("device_keys", a1) != 0 || g.rows("one_time_keys", a1) != 0 || g.rows("device_keys", a2) != 1 {
			t.Error("the wrong rows are left")
		}
		if changed, _ := a2.lists(before); !slices.Contains(changed, a1.user) {
			t.Errorf("changed: %v", changed)
		}
	})
}
