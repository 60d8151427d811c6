package encryption

import (
	"crypto/ed25519"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/teahouse-chat/teahouse/internal/matrix"
)

// identity are the private cross-signing keys of a user.
type identity struct {
	*client
	master, self, other ed25519.PrivateKey
}

func (c *client) identity() *identity {
	return &identity{c, c.signingKey(), c.signingKey(), c.signingKey()}
}

func (i *identity) bare(usage string, k ed25519.PrivateKey) string {
	return fmt.Sprintf(`{"user_id":%q,"usage":[%q],"keys":{"ed25519:%s":%q}}`, i.user, usage, public(k), public(k))
}

func (i *identity) byMaster(usage string, k ed25519.PrivateKey) string {
	return sign(i, i.bare(usage, k), i.user, public(i.master), i.master)
}

func (i *identity) body(more string) string {
	return `{"master_key":` + sign(i, i.bare(usageMaster, i.master), i.user, string(i.id), i.private) +
		`,"self_signing_key":` + i.byMaster(usageSelfSigning, i.self) +
		`,"user_signing_key":` + i.byMaster(usageUserSigning, i.other) + more + `}`
}

const crossPath = "/v3/keys/device_signing/upload"

func TestCrossSigningUpload(t *testing.T) {
	each(t, func(t *testing.T, g *rig) {
		alice, bob := g.login("alice", "A1"), g.login("bob", "B1")
		alice.upload(1)
		id := alice.identity()
		want[object](alice, "POST", crossPath, id.body(""))
		want[object](alice, "POST", crossPath, id.body("")) // the answer was lost
		if g.uia.asked != 0 {
			t.Errorf("UIA was asked for %d times", g.uia.asked)
		}
		own, theirs := alice.query(alice.user), bob.query(alice.user)
		if own.Master[alice.user] == nil || own.SelfSigning[alice.user] == nil || own.UserSigning[alice.user] == nil {
			t.Errorf("alice's own keys: %s", own)
		}
		if theirs.Master[alice.user] == nil || theirs.SelfSigning[alice.user] == nil || theirs.UserSigning[alice.user] != nil {
			t.Errorf("alice's keys for bob: %s", theirs)
		}
		if k, err := parseCrossKey("x", usageMaster, theirs.Master[alice.user], alice.user); err != nil || !k.verify(alice.user, "ed25519:A1", alice.private.Public().(ed25519.PublicKey)) {
			t.Errorf("the device's signature on the master key: %v in %s", err, theirs.Master[alice.user])
		}

		// Everything else needs authentication; what a reset replaces is gone.
		next := alice.identity()
		if code, text := alice.do("POST", crossPath, next.body("")); code != 401 || text != `{"flows":[]}` {
			t.Errorf("a reset without authentication: %d %s", code, text)
		}
		if code, _ := alice.do("POST", crossPath, `{"self_signing_key":`+id.byMaster(usageSelfSigning, next.self)+`}`); code != 401 {
			t.Errorf("another self-signing key without authentication: %d", code)
		}
		sign := signDevice(id, alice)
		want[object](alice, "POST", "/v3/keys/signatures/upload", sign)
		if !strings.Contains(string(bob.query(alice.user).Devices[alice.user]["A1"]), public(id.self)) {
			t.Error("the device is not signed")
		}
		want[object](alice, "POST", crossPath, `{"master_key":`+next.bare(usageMaster, next.master)+`,"auth":{"ok":true}}`)
		after := alice.query(alice.user)
		if !strings.Contains(string(after.Master[alice.user]), public(next.master)) || after.SelfSigning[alice.user] != nil || after.UserSigning[alice.user] != nil {
			t.Errorf("after a reset: %s", after)
		}
		if strings.Contains(string(after.Devices[alice.user]["A1"]), public(id.self)) {
			t.Error("the former self-signing key still vouches for the device")
		}
	})
}

func signDevice(id *identity, c *client) string {
	signed := sign(c, c.bareKeys(), c.user, public(id.self), id.self)
	return fmt.Sprintf(`{%q:{%q:%s}}`, c.user, c.id, signed)
}

// THREATS A6: cross-signing keys are stored only with the signatures that they need,
// each verified.
func TestWrongCrossSigningUploads(t *testing.T) {
	g := newRig(t, urlOf(t))
	alice := g.login("alice", "A1")
	alice.upload(0)
	id, forger := alice.identity(), alice.identity()
	bob := g.login("bob", "B1").identity()
	clash := alice.identity()
	g.login("alice", public(clash.master))
	for name, c := range map[string]struct {
		body   string
		status int
		code   matrix.Code
	}{
		"no master key":         {`{"self_signing_key":` + id.byMaster(usageSelfSigning, id.self) + `}`, 400, matrix.CodeMissingParam},
		"signed by another":     {`{"master_key":` + id.bare(usageMaster, id.master) + `,"self_signing_key":` + forger.byMaster(usageSelfSigning, id.self) + `}`, 400, codeInvalidSignature},
		"not signed":            {`{"master_key":` + id.bare(usageMaster, id.master) + `,"user_signing_key":` + id.bare(usageUserSigning, id.other) + `}`, 400, codeInvalidSignature},
		"forged by a device":    {`{"master_key":` + sign(t, id.bare(usageMaster, id.master), alice.user, "A1", id.self) + `}`, 400, codeInvalidSignature},
		"one key twice":         {`{"master_key":` + id.bare(usageMaster, id.master) + `,"self_signing_key":` + id.byMaster(usageSelfSigning, id.master) + `}`, 400, matrix.CodeInvalidParam},
		"another user's":        {`{"master_key":` + bob.bare(usageMaster, bob.master) + `}`, 400, matrix.CodeInvalidParam},
		"wrong usage":           {`{"master_key":` + id.bare(usageSelfSigning, id.master) + `}`, 400, matrix.CodeInvalidParam},
		"two keys":              {`{"master_key":` + strings.Replace(id.bare(usageMaster, id.master), `"keys":{`, `"keys":{"ed25519:x":"y",`, 1) + `}`, 400, matrix.CodeInvalidParam},
		"name is not the key":   {`{"master_key":` + strings.Replace(id.bare(usageMaster, id.master), `"ed25519:`, `"ed25519:x`, 1) + `}`, 400, matrix.CodeInvalidParam},
		"a device has that id":  {`{"master_key":` + clash.bare(usageMaster, clash.master) + `}`, 403, matrix.CodeForbidden},
		"not even an object":    {`{"master_key":7}`, 400, matrix.CodeBadJSON},
		"numbers with fraction": {`{"master_key":{"x":1.5,` + id.bare(usageMaster, id.master)[1:] + `}`, 400, matrix.CodeBadJSON},
	} {
		t.Run(name, func(t *testing.T) { alice.refused("POST", crossPath, c.body, c.status, c.code) })
	}
	if k := alice.query(alice.user); len(k.Master)+len(k.SelfSigning)+len(k.UserSigning) != 0 {
		t.Errorf("something was stored: %s", k)
	}
}

// THREATS A6: every signature is verified before it is stored.
func TestSignatures(t *testing.T) {
	each(t, func(t *testing.T, g *rig) {
		a1, a2, bob, carol := g.login("alice", "A1"), g.login("alice", "A2"), g.login("bob", "B1"), g.login("carol", "C1")
		for _, c := range []*client{a1, a2, bob} {
			c.upload(0)
		}
		id, his := a1.identity(), bob.identity()
		want[object](a1, "POST", crossPath, id.body(""))
		want[object](bob, "POST", crossPath, his.body(""))
		r := g.Room("alice")
		g.Join(r, "bob", "carol")
		post := func(c *client, body string) map[string]map[string]struct {
			Code matrix.Code `json:"errcode"`
		} {
			t.Helper()
			a := want[struct {
				Failures map[string]map[string]struct {
					Code matrix.Code `json:"errcode"`
				} `json:"failures"`
			}](c, "POST", "/v3/keys/signatures/upload", body)
			return a.Failures
		}
		has := func(asker *client, user matrix.UserID, key string) bool {
			k := asker.query(user)
			text, _ := json.Marshal(k)
			return strings.Contains(string(text), `"ed25519:`+key+`":"`) && strings.Count(string(text), key) > 0
		}

		// The own device, by the self-signing key: everybody sees it.
		before := g.DB.Position()
		if f := post(a1, signDevice(id, a2)); len(f) != 0 {
			t.Errorf("failures: %v", f)
		}
		if !strings.Contains(string(carol.query(a1.user).Devices[a1.user]["A2"]), public(id.self)) {
			t.Error("carol does not see that A2 is signed")
		}
		for _, c := range []*client{a1, a2, bob, carol} {
			if changed, _ := c.lists(before); !slices.Equal(changed, []matrix.UserID{a1.user}) {
				t.Errorf("%s is told of %v", c.name, changed)
			}
		}

		// The own master key, by a device.
		master := sign(t, id.bare(usageMaster, id.master), a2.user, "A2", a2.private)
		if f := post(a2, fmt.Sprintf(`{%q:{%q:%s}}`, a1.user, public(id.master), master)); len(f) != 0 {
			t.Errorf("failures: %v", f)
		}
		if !strings.Contains(string(bob.query(a1.user).Master[a1.user]), `"ed25519:A2"`) {
			t.Error("the master key is not signed by A2")
		}

		// Another's master key, by the user-signing key: only the signer sees it.
		before = g.DB.Position()
		verified := fmt.Sprintf(`{%q:{%q:%s}}`, bob.user, public(his.master),
			sign(t, his.bare(usageMaster, his.master), a1.user, public(id.other), id.other))
		if f := post(a1, verified); len(f) != 0 {
			t.Errorf("failures: %v", f)
		}
		if !has(a2, bob.user, public(id.other)) || has(bob, bob.user, public(id.other)) || has(carol, bob.user, public(id.other)) {
			t.Error("the wrong users see the signature")
		}
		if changed, _ := a2.lists(before); !slices.Equal(changed, []matrix.UserID{bob.user}) {
			t.Errorf("alice is told of %v", changed)
		}
		if changed, _ := carol.lists(before); len(changed) != 0 {
			t.Errorf("carol is told of %v", changed)
		}

		// What must not be stored.
		forged := strings.Replace(signDevice(id, a1), `"signatures":{"@alice:test":{`, `"signatures":{"@alice:test":{"x":"y",`, 1)
		wrong := sign(t, a1.bareKeys(), a1.user, public(id.self), his.self)
		mallory := sign(t, his.bare(usageMaster, his.master), carol.user, public(id.other), id.other)
		for name, c := range map[string]struct {
			by         *client
			user       matrix.UserID
			id, object string
			code       matrix.Code
		}{
			"by another key":       {a1, a1.user, "A1", wrong, codeInvalidSignature},
			"no signature":         {a1, a1.user, "A1", a1.bareKeys(), codeInvalidSignature},
			"changed":              {a1, a1.user, "A1", strings.Replace(forged, "megolm", "megalm", 1)[len(`{"@alice:test":{"A1":`) : len(forged)-2], matrix.CodeInvalidParam},
			"unknown device":       {a1, a1.user, "A9", a1.deviceKeys(), matrix.CodeNotFound},
			"another's device":     {a1, bob.user, "B1", sign(t, bob.bareKeys(), a1.user, public(id.other), id.other), matrix.CodeNotFound},
			"device by other key":  {a1, a1.user, "A1", sign(t, a1.bareKeys(), a1.user, public(id.other), id.other), codeInvalidSignature},
			"by no key at all":     {carol, bob.user, public(his.master), mallory, codeInvalidSignature},
			"master by a stranger": {bob, a1.user, public(id.master), sign(t, id.bare(usageMaster, id.master), bob.user, "B1", bob.private), codeInvalidSignature},
		} {
			f := post(c.by, fmt.Sprintf(`{%q:{%q:%s}}`, c.user, c.id, c.object))
			if f[string(c.user)][c.id].Code != c.code {
				t.Errorf("%s: %v, want %s", name, f, c.code)
			}
		}
		if strings.Contains(string(a1.query(a1.user).Devices[a1.user]["A1"]), public(id.self)) {
			t.Error("a wrong signature was stored")
		}
	})
}

// A signature is stored only if the key that it is on is still there when it is.
func TestKeysChangeWhileSignaturesAreVerified(t *testing.T) {
	each(t, func(t *testing.T, g *rig) {
		alice := g.login("alice", "A1")
		alice.upload(0)
		id := alice.identity()
		want[object](alice, "POST", crossPath, id.body(""))
		s, err := g.e.signer(t.Context(), g.DB, alice.user, nil)
		if err != nil {
			t.Fatal(err)
		}
		signed := sign(alice, alice.bareKeys(), alice.user, public(id.self), id.self)
		good, err := s.check(alice.user, string(alice.id), json.RawMessage(signed))
		if err != nil || len(good) != 1 {
			t.Fatalf("%v: %v", good, err)
		}
		store := func() bool {
			if err := g.e.addChecked(t.Context(), s, good, nil); err != nil {
				t.Fatal(err)
			}
			return strings.Contains(string(alice.query(alice.user).Devices[alice.user]["A1"]), public(id.self))
		}
		old := alice.curve
		alice.curve = alice.key32()
		alice.upload(0)
		if store() {
			t.Error("other keys than those that were signed have the signature")
		}
		alice.curve = old
		alice.upload(0)
		next := alice.identity()
		want[object](alice, "POST", crossPath, next.body(`,"auth":{"ok":true}`))
		if store() {
			t.Error("the signature of a key that is gone is kept")
		}
		want[object](alice, "POST", crossPath, id.body(`,"auth":{"ok":true}`))
		if !store() {
			t.Error("a good signature is not kept")
		}
	})
}
