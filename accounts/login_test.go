package accounts

import (
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"

	"github.com/teahouse-chat/teahouse/internal/db"
	"github.com/teahouse-chat/teahouse/internal/db/dbtest"
	"github.com/teahouse-chat/teahouse/internal/httpx"
	"github.com/teahouse-chat/teahouse/internal/matrix"
)

func TestLoginFlows(t *testing.T) {
	each(t, nil, func(t *testing.T, r *rig) {
		p := r.do("GET", v3+"login", "", nil).want(200)
		if p.raw != `{"flows":[{"type":"m.login.password"},{"type":"m.login.token","get_login_token":true},{"type":"m.login.application_service"}]}` {
			t.Fatal(p.raw)
		}
	})
}

// insertHistorical stores a user as an older server may have made it.
func (r *rig) insertHistorical(id, encoded string) {
	r.t.Helper()
	nid := r.a.userNIDs.Next()
	if err := r.a.db.Write(r.t.Context(), func(tx *db.Tx) error {
		return tx.Exec(insertUser, nid, id, encoded, 0, false, false, "", "")
	}); err != nil {
		r.t.Fatal(err)
	}
}

func TestLoginByPassword(t *testing.T) {
	each(t, nil, func(t *testing.T, r *rig) {
		alice := r.register("alice")
		r.insertHistorical("@Old User:tea.example", r.a.hasher.encode("old secret"))
		r.insertHistorical("@ALICE:tea.example", r.a.hasher.encode("shouted"))
		try := func(password string, who obj) *reply {
			body := obj{"type": "m.login.password", "password": password}
			for k, v := range who {
				body[k] = v
			}
			return r.do("POST", v3+"login", "", body)
		}
		id := func(user string) obj { return obj{"identifier": obj{"type": "m.id.user", "user": user}} }

		try(alice.password, id("alice")).want(200).shape("user_id", "access_token", "device_id", "home_server")
		for name, who := range map[string]obj{
			"full id": id(alice.user), "localpart": id("alice"), "capitals": id("Alice"), "full with capitals": id("@aliCe:tea.example"),
			"deprecated": {"user": "alice"}, "deprecated full": {"user": alice.user},
		} {
			if p := try(alice.password, who).want(200); p.str("user_id") != alice.user {
				t.Errorf("%s: logged in as %s", name, p.str("user_id"))
			}
		}
		// Historical ids can log in, and ids compare exactly where both are there.
		if p := try("old secret", id("Old User")).want(200); p.str("user_id") != "@Old User:tea.example" {
			t.Error(p.raw)
		}
		if p := try("shouted", id("ALICE")).want(200); p.str("user_id") != "@ALICE:tea.example" {
			t.Error(p.raw)
		}
		for name, c := range map[string]struct {
			who    obj
			status int
			code   matrix.Code
		}{
			"wrong password":     {id("alice"), 403, matrix.CodeForbidden},
			"nobody":             {id("nobody"), 403, matrix.CodeForbidden},
			"another server":     {id("@alice:elsewhere"), 403, matrix.CodeForbidden},
			"no id":              {id("@@@"), 403, matrix.CodeForbidden},
			"long":               {id(strings.Repeat("x", 1000)), 403, matrix.CodeForbidden},
			"mail":               {obj{"identifier": obj{"type": "m.id.thirdparty", "medium": "email", "address": "a@b"}}, 403, matrix.CodeForbidden},
			"mail without type":  {obj{"identifier": obj{"medium": "email", "address": "a@b"}}, 403, matrix.CodeForbidden},
			"mail, deprecated":   {obj{"medium": "email", "address": "a@b"}, 403, matrix.CodeForbidden},
			"phone":              {obj{"identifier": obj{"type": "m.id.phone", "country": "GB", "phone": "1"}}, 403, matrix.CodeForbidden},
			"no identifier":      {obj{}, 400, matrix.CodeMissingParam},
			"no user":            {obj{"identifier": obj{"type": "m.id.user"}}, 400, matrix.CodeMissingParam},
			"unknown identifier": {obj{"identifier": obj{"type": "org.example"}}, 400, matrix.CodeInvalidParam},
			"identifier's type":  {obj{"identifier": "alice"}, 400, matrix.CodeBadJSON},
		} {
			if p := try("wrong", c.who); p.status != c.status || p.body["errcode"] != string(c.code) {
				t.Errorf("%s: %d %s", name, p.status, p.raw)
			}
		}
		r.do("POST", v3+"login", "", obj{"type": "org.example.unheard"}).want(400, matrix.CodeUnknown)
		r.do("POST", v3+"login", "", "{}").want(400, matrix.CodeMissingParam)
		r.do("POST", v3+"login", "", "[]").want(400, matrix.CodeBadJSON)
		// A token that is lost does not keep anyone from logging in.
		r.do("POST", v3+"login", "lost token", obj{"type": "m.login.password", "user": "alice", "password": alice.password}).want(200)
	})
}

// A14: what is wrong does not show.
func TestFailedLoginsLookAlike(t *testing.T) {
	each(t, nil, func(t *testing.T, r *rig) {
		r.register("alice")
		gone := r.register("gone")
		if err := r.a.Deactivate(t.Context(), matrix.UserID(gone.user), false); err != nil {
			t.Fatal(err)
		}
		if _, err := r.a.AddUser(t.Context(), NewAccount{Name: "keyless"}); err != nil {
			t.Fatal(err)
		}
		answers := map[string]bool{}
		for _, who := range []string{"alice", "nobody", "gone", "keyless", "@alice:elsewhere"} {
			p := r.do("POST", v3+"login", "", obj{"type": "m.login.password", "user": who, "password": gone.password}).want(403, matrix.CodeForbidden)
			answers[p.raw] = true
		}
		if len(answers) != 1 {
			t.Fatalf("the answers differ: %v", answers)
		}
	})
}

// A15: an account's password cannot be tried for ever, whether the account
// exists or not.
func TestFailedLoginsAreLimited(t *testing.T) {
	each(t, func(d *Deps) { d.Config.FailedLogin = httpx.Rate{PerSecond: 0.1, Burst: 3} }, func(t *testing.T, r *rig) {
		alice := r.register("alice")
		try := func(who, password string) *reply {
			return r.do("POST", v3+"login", "", obj{"type": "m.login.password", "user": who, "password": password})
		}
		for range 10 { // success costs nothing
			try("alice", alice.password).want(200)
		}
		for _, who := range []string{"alice", "nobody"} {
			for _, spelling := range []string{who, strings.ToUpper(who), "@" + who + ":tea.example"} {
				try(spelling, "wrong").want(403, matrix.CodeForbidden)
			}
			p := try(who, alice.password).want(429, matrix.CodeLimitExceeded)
			if ms, _ := p.body["retry_after_ms"].(float64); ms != 10_000 || p.header.Get("Retry-After") != "10" {
				t.Fatalf("wrong wait: %s %v", p.raw, p.header)
			}
		}
		// Who holds a token is not kept out by strangers' failures.
		r.do("POST", v3+"delete_devices", alice.token, obj{"devices": []string{}, "auth": alice.auth("")}).want(200)
		r.advance(10 * time.Second)
		try("alice", alice.password).want(200)
		try("alice", "wrong").want(403, matrix.CodeForbidden)
		try("alice", "wrong").want(429, matrix.CodeLimitExceeded)
		// The stage of UIA has its own limit.
		wrong := alice
		wrong.password = "wrong"
		for range 3 {
			r.do("POST", v3+"delete_devices", alice.token, obj{"devices": []string{}, "auth": wrong.auth("")}).want(401, matrix.CodeForbidden)
		}
		r.do("POST", v3+"delete_devices", alice.token, obj{"devices": []string{}, "auth": alice.auth("")}).want(429, matrix.CodeLimitExceeded)
	})
}

// The routes that strangers reach are in a rate-limit class.
func TestRateLimitClasses(t *testing.T) {
	one := httpx.Rate{PerSecond: 0.1, Burst: 1}
	d := dbtest.Open(t, "sqlite")
	for _, c := range []struct{ method, path, body string }{
		{"POST", v3 + "login", "{}"},
		{"POST", v3 + "refresh", `{"refresh_token":"x"}`},
		{"POST", v3 + "register", "{}"},
		{"GET", v3 + "register/available?username=a", ""},
		{"GET", v1 + "register/m.login.registration_token/validity?token=a", ""},
		{"POST", "/_synapse/admin/v1/register", "{}"},
		{"POST", v3 + "auth/m.login.dummy/fallback/web", ""},
	} {
		now := time.Unix(1_700_000_000, 0)
		limits := httpx.NewLimiter(map[string]httpx.Rate{LimitLogin: one, LimitRegistration: one}, func() time.Time { return now })
		r := newRig(t, d, nil, limits)
		if p := r.do(c.method, c.path, "", c.body); p.status == 429 {
			t.Errorf("%s: the first is refused", c.path)
		}
		p := r.do(c.method, c.path, "", c.body).want(429, matrix.CodeLimitExceeded)
		if p.header.Get("Retry-After") == "" || p.body["retry_after_ms"] == nil {
			t.Errorf("%s: no Retry-After: %v %s", c.path, p.header, p.raw)
		}
	}
}

func TestDeviceReuse(t *testing.T) {
	each(t, nil, func(t *testing.T, r *rig) {
		alice := r.register("alice")
		var ended []string
		r.a.OnLogout(func(u matrix.UserID, d matrix.DeviceID) { ended = append(ended, string(u)+" "+string(d)) })
		first := r.again(alice, obj{"device_id": "KETTLE", "initial_device_display_name": "Kettle"})
		second := r.again(alice, obj{"device_id": "KETTLE", "initial_device_display_name": "Ignored"})
		r.whoami(first.token).want(401, matrix.CodeUnknownToken)
		r.whoami(second.token).want(200)
		r.whoami(alice.token).want(200)
		if p := r.do("GET", v3+"devices/KETTLE", second.token, nil).want(200); p.str("display_name") != "Kettle" {
			t.Error(p.raw)
		}
		if strings.Join(ended, ",") != "@alice:tea.example KETTLE" {
			t.Errorf("ended: %v", ended)
		}
		// An id belongs to its user.
		bob := r.register("bob")
		r.again(bob, obj{"device_id": "KETTLE"})
		r.whoami(second.token).want(200)
	})
}

func TestLoginToken(t *testing.T) {
	each(t, nil, func(t *testing.T, r *rig) {
		alice := r.register("alice")
		get := func() string {
			s := r.do("POST", v1+"login/get_token", alice.token, "{}").want(401).str("session")
			p := r.do("POST", v1+"login/get_token", alice.token, obj{"auth": alice.auth(s)}).want(200).shape("login_token", "expires_in_ms")
			if p.body["expires_in_ms"] != 120000.0 {
				t.Error(p.raw)
			}
			return p.str("login_token")
		}
		use := func(token string) *reply {
			return r.do("POST", v3+"login", "", obj{"type": "m.login.token", "token": token, "device_id": "NEW"})
		}
		token := get()
		p := use(token).want(200).shape("user_id", "access_token", "device_id", "home_server")
		if p.str("user_id") != alice.user || p.str("device_id") != "NEW" {
			t.Error(p.raw)
		}
		use(token).want(403, matrix.CodeForbidden)
		use("unheard").want(403, matrix.CodeForbidden)
		use("").want(403, matrix.CodeForbidden)
		late := get()
		r.advance(2 * time.Minute)
		use(late).want(403, matrix.CodeForbidden)
		// A new password and a lock void what was given out.
		void := get()
		if err := r.a.SetLocked(t.Context(), matrix.UserID(alice.user), true); err != nil {
			t.Fatal(err)
		}
		use(void).want(401, matrix.CodeUserLocked)
		if err := r.a.SetLocked(t.Context(), matrix.UserID(alice.user), false); err != nil {
			t.Fatal(err)
		}
		if err := r.a.SetPassword(t.Context(), matrix.UserID(alice.user), "new", false); err != nil {
			t.Fatal(err)
		}
		use(void).want(403, matrix.CodeForbidden)
	})
}

func TestOldHashesAreRenewed(t *testing.T) {
	each(t, nil, func(t *testing.T, r *rig) {
		old, err := bcrypt.GenerateFromPassword([]byte("from another server"), bcrypt.MinCost)
		if err != nil {
			t.Fatal(err)
		}
		r.insertHistorical("@b:tea.example", string(old))
		try := func(password string) *reply {
			return r.do("POST", v3+"login", "", obj{"type": "m.login.password", "user": "b", "password": password})
		}
		try("wrong").want(403, matrix.CodeForbidden)
		try("from another server").want(200)
		u, _, err := r.a.User(t.Context(), "@b:tea.example")
		if err != nil || !strings.HasPrefix(u.password, "$argon2id$v=19$m=8,t=1,p=1$") {
			t.Fatalf("%s %v", u.password, err)
		}
		try("wrong").want(403, matrix.CodeForbidden)
		try("from another server").want(200)
	})
}
