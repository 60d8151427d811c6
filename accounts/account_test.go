package accounts

import (
	"context"
	"crypto/hmac"
	"crypto/sha1"
	"encoding/hex"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/teahouse-chat/teahouse/internal/db"
	"github.com/teahouse-chat/teahouse/internal/matrix"
)

func TestChangePassword(t *testing.T) {
	each(t, nil, func(t *testing.T, r *rig) {
		alice := r.register("alice")
		other := r.again(alice, nil)
		change := func(l login, body obj) *reply { return r.do("POST", v3+"account/password", l.token, body) }
		change(alice, obj{"auth": alice.auth("")}).want(400, matrix.CodeMissingParam)
		change(alice, obj{"new_password": "", "auth": alice.auth("")}).want(400, matrix.CodeWeakPassword)
		change(alice, obj{"new_password": "n"}).want(401).shape("session", "flows", "params", "completed")

		change(alice, obj{"new_password": "second", "logout_devices": false, "auth": alice.auth("")}).want(200).shape()
		r.whoami(other.token).want(200)
		r.do("POST", v3+"login", "", obj{"type": "m.login.password", "user": "alice", "password": alice.password}).want(403, matrix.CodeForbidden)
		alice.password = "second"
		change(alice, obj{"new_password": "third", "auth": alice.auth("")}).want(200)
		r.whoami(other.token).want(401, matrix.CodeUnknownToken)
		r.whoami(alice.token).want(200)
		r.do("GET", v3+"devices/"+other.device, alice.token, nil).want(404, matrix.CodeNotFound)
		alice.password = "third"
		r.again(alice, nil)
	})
}

func TestDeactivate(t *testing.T) {
	type call struct {
		user  matrix.UserID
		erase bool
	}
	var hook []call
	each(t, func(d *Deps) {
		hook = nil
		d.Hooks.Deactivated = func(_ context.Context, user matrix.UserID, erase bool) error {
			hook = append(hook, call{user, erase})
			return nil
		}
	}, func(t *testing.T, r *rig) {
		alice, bob := r.register("alice"), r.register("bob")
		phone := r.loginToRefresh(alice, "PHONE")
		r.do("POST", v3+"account/deactivate", alice.token, nil).want(401).shape("session", "flows", "params", "completed")
		wrong := alice
		wrong.password = "wrong"
		r.do("POST", v3+"account/deactivate", alice.token, obj{"auth": wrong.auth("")}).want(401, matrix.CodeForbidden)
		p := r.do("POST", v3+"account/deactivate", alice.token, obj{"auth": alice.auth(""), "erase": true}).want(200).shape("id_server_unbind_result")
		if p.str("id_server_unbind_result") != "success" {
			t.Error(p.raw)
		}
		for _, token := range []string{alice.token, phone.access} {
			r.whoami(token).want(401, matrix.CodeUnknownToken)
		}
		r.refresh(phone.refresh).want(401, matrix.CodeUnknownToken)
		r.do("POST", v3+"login", "", obj{"type": "m.login.password", "user": "alice", "password": alice.password}).want(403, matrix.CodeForbidden)
		// Nobody gets the name again.
		r.do("POST", v3+"register", "", obj{"username": "alice", "password": "p", "auth": obj{"type": StageDummy}}).want(400, matrix.CodeUserInUse)
		if err := r.a.SetPassword(t.Context(), "@alice:tea.example", "back", false); !matrix.HasCode(err, matrix.CodeForbidden) {
			t.Errorf("a password for a deactivated account: %v", err)
		}
		r.do("POST", v3+"account/deactivate", bob.token, obj{"auth": bob.auth("")}).want(200)

		if len(r.rooms.left) != 2 || r.rooms.left[0] != "@alice:tea.example" {
			t.Errorf("left: %v", r.rooms.left)
		}
		if len(hook) != 2 || hook[0] != (call{"@alice:tea.example", true}) || hook[1] != (call{"@bob:tea.example", false}) {
			t.Errorf("hook: %v", hook)
		}
		erased, err := r.a.Erased(t.Context(), []matrix.UserID{"@alice:tea.example", "@bob:tea.example", "@eve:elsewhere"})
		if err != nil || len(erased) != 1 || !erased["@alice:tea.example"] {
			t.Errorf("erased: %v %v", erased, err)
		}
	})
}

func TestDevices(t *testing.T) {
	var renamed []string
	each(t, func(d *Deps) {
		renamed = nil
		d.Hooks.Renamed = func(_ *db.Tx, user matrix.UserID, device matrix.DeviceID) error {
			renamed = append(renamed, string(user)+" "+string(device))
			return nil
		}
	}, func(t *testing.T, r *rig) {
		alice, bob := r.register("alice"), r.register("bob")
		odd := "a/b c%é"
		r.again(alice, obj{"device_id": odd, "initial_device_display_name": "Kettle"})
		path := v3 + "devices/" + url.PathEscape(odd)
		p := r.do("GET", v3+"devices", alice.token, nil).want(200).shape("devices")
		if list := p.body["devices"].([]any); len(list) != 2 {
			t.Fatal(p.raw)
		}
		r.do("GET", path, alice.token, nil).want(200).shape("device_id", "display_name", "last_seen_ts", "last_seen_ip")
		r.do("GET", path, bob.token, nil).want(404, matrix.CodeNotFound)
		r.do("PUT", path, bob.token, obj{"display_name": "Mine"}).want(404, matrix.CodeNotFound)
		r.do("PUT", path, alice.token, obj{"display_name": "Pot"}).want(200).shape()
		r.do("PUT", path, alice.token, obj{"display_name": "Pot"}).want(200).shape()
		r.do("PUT", path, alice.token, obj{}).want(200).shape()
		if len(renamed) != 1 || renamed[0] != "@alice:tea.example "+odd {
			t.Errorf("renamed: %v", renamed)
		}
		r.do("PUT", path, alice.token, "{}").want(200)
		if p := r.do("GET", path, alice.token, nil).want(200); p.str("display_name") != "Pot" || p.str("device_id") != odd {
			t.Fatal(p.raw)
		}
		r.do("PUT", path, alice.token, obj{"display_name": "a\x00b"}).want(400, matrix.CodeBadJSON)
		r.do("PUT", path, alice.token, obj{"display_name": strings.Repeat("n", 600)}).want(400, matrix.CodeInvalidParam)
		r.do("PUT", path, alice.token, obj{"display_name": 7}).want(400, matrix.CodeBadJSON)
		r.do("GET", v3+"devices/a%00b", alice.token, nil).want(400, matrix.CodeInvalidParam)

		r.do("DELETE", path, alice.token, nil).want(401).shape("session", "flows", "params", "completed")
		// Bob's devices cannot be deleted by Alice, whatever their ids.
		r.again(bob, obj{"device_id": "SHARED"})
		r.do("DELETE", v3+"devices/SHARED", alice.token, obj{"auth": alice.auth("")}).want(200).shape()
		r.do("GET", v3+"devices/SHARED", bob.token, nil).want(200)
		r.do("DELETE", path, alice.token, obj{"auth": alice.auth("")}).want(200).shape()
		r.do("GET", path, alice.token, nil).want(404, matrix.CodeNotFound)
		r.do("DELETE", path, alice.token, obj{"auth": alice.auth("")}).want(200) // gone already

		one, two := r.again(alice, nil), r.again(alice, nil)
		r.do("POST", v3+"delete_devices", alice.token, obj{"auth": alice.auth("")}).want(400, matrix.CodeMissingParam)
		r.do("POST", v3+"delete_devices", alice.token, obj{"devices": []string{one.device, two.device, "UNKNOWN"}, "auth": alice.auth("")}).want(200).shape()
		r.whoami(one.token).want(401, matrix.CodeUnknownToken)
		r.whoami(two.token).want(401, matrix.CodeUnknownToken)
		r.whoami(alice.token).want(200)
	})
}

// macOf signs as the existing tools do.
func macOf(secret string, fields ...string) string {
	h := hmac.New(sha1.New, []byte(secret))
	for i, f := range fields {
		if i > 0 {
			h.Write([]byte{0})
		}
		h.Write([]byte(f))
	}
	return hex.EncodeToString(h.Sum(nil))
}

func TestSharedSecret(t *testing.T) {
	each(t, func(d *Deps) { d.Config.Registration = ModeClosed }, func(t *testing.T, r *rig) {
		const path = "/_synapse/admin/v1/register"
		nonce := func() string { return r.do("GET", path, "", nil).want(200).shape("nonce").str("nonce") }
		register := func(name, role string, more obj) *reply {
			n := nonce()
			body := obj{"nonce": n, "username": name, "password": "p", "admin": role == "admin", "mac": macOf("the shared secret", n, name, "p", role)}
			for k, v := range more {
				body[k] = v
			}
			return r.do("POST", path, "", body)
		}
		p := register("user-UPPER", "notadmin", nil).want(200).shape("user_id", "access_token", "device_id", "home_server")
		if p.str("user_id") != "@user-upper:tea.example" {
			t.Error(p.raw)
		}
		r.whoami(p.str("access_token")).want(200)
		register("root", "admin", obj{"inhibit_login": true}).want(200).shape("user_id", "home_server")
		if u, found, err := r.a.User(t.Context(), "@root:tea.example"); err != nil || !found || !u.Admin {
			t.Errorf("%+v %v", u, err)
		}
		register("us,er", "notadmin", nil).want(400, matrix.CodeInvalidUsername)
		register("root", "notadmin", nil).want(400, matrix.CodeUserInUse)
		// What is signed cannot be changed.
		for _, change := range []obj{{"admin": true}, {"username": "eve"}, {"password": "q"}, {"user_type": "bot"}, {"mac": strings.Repeat("0", 40)}, {"mac": "no"}} {
			register("x", "notadmin", change).want(403, matrix.CodeForbidden)
		}
		n := nonce()
		register("x", "notadmin", obj{"nonce": n}).want(403, matrix.CodeForbidden)
		// A nonce is good once, also for one that failed, and for a minute.
		signed := obj{"nonce": n, "username": "x", "password": "p", "mac": macOf("the shared secret", n, "x", "p", "notadmin")}
		r.do("POST", path, "", signed).want(400, matrix.CodeUnknown)
		late := nonce()
		r.advance(nonceLifetime)
		register("x", "notadmin", obj{"nonce": late}).want(400, matrix.CodeUnknown)
		r.do("POST", path, "", "{}").want(400, matrix.CodeBadJSON)
		register("x", "notadmin", nil).want(200)
	})
}

// The MAC as the tools make it, computed apart.
func TestSharedSecretMAC(t *testing.T) {
	q := sharedSecretRequest{Nonce: "abcd", Username: "pepper_roni", Password: "pizza", Admin: true}
	if got := q.sign("shared_secret"); got != macOf("shared_secret", "abcd", "pepper_roni", "pizza", "admin") || got != "78611d3e2889563feeeed118aef1842146be1efa" {
		t.Fatal(got)
	}
}

func TestSharedSecretOff(t *testing.T) {
	each(t, func(d *Deps) { d.Config.SharedSecret = "" }, func(t *testing.T, r *rig) {
		const path = "/_synapse/admin/v1/register"
		r.do("GET", path, "", nil).want(400, matrix.CodeUnknown)
		r.do("POST", path, "", obj{"nonce": "n", "username": "x", "password": "p", "mac": macOf("", "n", "x", "p", "notadmin")}).want(400, matrix.CodeUnknown)
	})
}

func TestNoncesAreBounded(t *testing.T) {
	n := newNonces()
	now := time.Unix(0, 0)
	for i := range maxNonces * 2 {
		n.add(string(rune('a'+i%26))+strings.Repeat("x", i%977)+time.Unix(int64(i), 0).String(), now)
	}
	if len(n.until) != maxNonces || len(n.order) != maxNonces {
		t.Fatalf("%d, %d", len(n.until), len(n.order))
	}
}

func TestAdmin(t *testing.T) {
	each(t, nil, func(t *testing.T, r *rig) {
		alice := r.register("alice")
		admin := func() bool {
			t.Helper()
			s, err := r.a.session(t.Context(), hashToken(alice.token))
			if err != nil {
				t.Fatal(err)
			}
			return s.caller.Admin
		}
		if admin() {
			t.Fatal("born an administrator")
		}
		for _, on := range []bool{true, false} {
			if err := r.a.SetAdmin(t.Context(), matrix.UserID(alice.user), on); err != nil {
				t.Fatal(err)
			}
			if admin() != on {
				t.Fatalf("admin is not %v at once", on)
			}
		}
		for _, name := range []string{"b", "c", "d"} {
			r.register(name)
		}
		page, err := r.a.Users(t.Context(), "@alice:tea.example", 2)
		if err != nil || len(page) != 2 || page[0].ID != "@b:tea.example" || page[1].ID != "@c:tea.example" {
			t.Fatalf("%v %v", page, err)
		}
	})
}

// A7: no secret is stored or logged in the clear.
func TestSecretsAreNotKept(t *testing.T) {
	dir := t.TempDir()
	d, err := db.Open(t.Context(), "sqlite://"+filepath.Join(dir, "x.db"), db.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	r := newRig(t, d, nil, nil)
	alice := r.register("alice")
	p := r.loginToRefresh(alice, "D")
	q := tokens(r.refresh(p.refresh).want(200))
	s := r.do("POST", v1+"login/get_token", alice.token, obj{"auth": alice.auth("")}).want(200).str("login_token")
	r.do("GET", v3+"account/whoami?access_token="+alice.token, "", nil).want(200)
	r.do("POST", v3+"login", "", obj{"type": "m.login.password", "user": "alice", "password": "wrong secret"})
	files, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil || len(files) == 0 {
		t.Fatal(err)
	}
	kept := r.logs.String()
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		kept += string(b)
	}
	if !strings.Contains(kept, "alice") {
		t.Fatal("this looks in the wrong place")
	}
	for name, secret := range map[string]string{
		"password": alice.password, "access token": alice.token, "refresh token": p.refresh, "refreshed": q.access,
		"login token": s, "wrong password": "wrong secret", "shared secret": "the shared secret",
	} {
		if strings.Contains(kept, secret) {
			t.Errorf("the %s is kept in the clear", name)
		}
		// At least 256 bits after the prefix.
		if strings.HasPrefix(secret, "th") && strings.Contains(name, "token") && len(secret) < 4+43 {
			t.Errorf("the %s is short: %s", name, secret)
		}
	}
}
