package accounts

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/teahouse-chat/teahouse/internal/matrix"
)

func TestRegister(t *testing.T) {
	each(t, nil, func(t *testing.T, r *rig) {
		challenge := r.do("POST", v3+"register", "", "{}").want(401).shape("session", "flows", "params", "completed")
		if !strings.Contains(challenge.raw, `"params":{}`) || !strings.Contains(challenge.raw, `"completed":[]`) ||
			!strings.Contains(challenge.raw, `"flows":[{"stages":["m.login.dummy"]}]`) {
			t.Fatalf("a challenge of the wrong shape: %s", challenge.raw)
		}

		// In two steps, as the specification has it, by the r0 alias.
		body := obj{"username": "Two-STEPS", "password": "übers3kr1t", "device_id": "xyzzy", "initial_device_display_name": "Kettle"}
		body["auth"] = obj{"type": StageDummy, "session": r.do("POST", "/_matrix/client/r0/register", "", body).want(401).str("session")}
		p := r.do("POST", "/_matrix/client/r0/register", "", body).want(200).shape("user_id", "access_token", "device_id", "home_server")
		if p.str("user_id") != "@two-steps:tea.example" || p.str("device_id") != "xyzzy" {
			t.Fatalf("wrong user or device: %s", p.raw)
		}
		r.do("GET", v3+"devices/xyzzy", p.str("access_token"), nil).want(200).
			shape("device_id", "display_name", "last_seen_ts", "last_seen_ip")

		// A client may ask for the flows before its user has chosen anything.
		s := r.do("POST", v3+"register", "", obj{}).want(401).shape("session", "flows", "params", "completed").str("session")
		body = obj{"username": "later", "password": "p", "initial_device_display_name": "Web", "auth": obj{"session": s}}
		r.do("POST", v3+"register", "", body).want(401)
		body["auth"] = obj{"type": StageDummy, "session": s}
		r.do("POST", v3+"register", "", body).want(200)
		// Of one session one account is made.
		body["username"], body["auth"] = "another", obj{"session": s}
		s = r.do("POST", v3+"register", "", body).want(401).str("session")
		// Now the name counts, and nothing else.
		body["username"], body["auth"] = "different", obj{"type": StageDummy, "session": s}
		r.do("POST", v3+"register", "", body).want(403, matrix.CodeForbidden)
		body["username"], body["password"], body["inhibit_login"] = "another", "q", true
		r.do("POST", v3+"register", "", body).want(200)

		// In one step, and with refresh.
		dummy := obj{"type": StageDummy}
		r.do("POST", v3+"register", "", obj{"username": "one", "password": "p", "auth": dummy, "refresh_token": true}).want(200).
			shape("user_id", "access_token", "device_id", "home_server", "refresh_token", "expires_in_ms")
		r.do("POST", v3+"register", "", obj{"username": "quiet", "password": "p", "auth": dummy, "inhibit_login": true}).want(200).
			shape("user_id", "home_server")

		// A name is made up where none is given.
		p = r.do("POST", v3+"register", "", obj{"password": "p", "auth": dummy}).want(200)
		if _, err := r.a.newUserID(matrix.UserID(p.str("user_id")).Localpart()); err != nil {
			t.Fatalf("a generated name is not valid: %v", err)
		}
	})
}

func TestRegisterRefuses(t *testing.T) {
	each(t, nil, func(t *testing.T, r *rig) {
		r.register("taken")
		long := strings.Repeat("x", 256-len("@:tea.example"))
		for _, c := range []struct {
			name string
			body obj
			code matrix.Code
		}{
			{"taken", obj{"username": "taken"}, matrix.CodeUserInUse},
			{"taken in capitals", obj{"username": "TAKEN"}, matrix.CodeUserInUse},
			{"digits", obj{"username": "12345"}, matrix.CodeInvalidUsername},
			{"underscore", obj{"username": "_bridge"}, matrix.CodeInvalidUsername},
			{"too long", obj{"username": long}, matrix.CodeInvalidUsername},
			{"bang", obj{"username": "user-!-x"}, matrix.CodeInvalidUsername},
			{"colon", obj{"username": "a:b"}, matrix.CodeInvalidUsername},
			{"full id", obj{"username": "@a:tea.example"}, matrix.CodeInvalidUsername},
			{"not ASCII", obj{"username": "é"}, matrix.CodeInvalidUsername},
			{"Kelvin sign", obj{"username": "\u212a"}, matrix.CodeInvalidUsername},
			{"newline", obj{"username": "a\n"}, matrix.CodeInvalidUsername},
			{"NUL in the name", obj{"username": "a\x00"}, ""},
			{"NUL in the password", obj{"username": "nul1", "password": "a\x00b"}, ""},
			{"NUL in the device", obj{"username": "nul2", "device_id": "a\x00b"}, ""},
			{"NUL in the device's name", obj{"username": "nul3", "initial_device_display_name": "a\x00b"}, ""},
			{"long device", obj{"username": "dev", "device_id": strings.Repeat("d", 256)}, matrix.CodeInvalidParam},
			{"empty password", obj{"username": "weak", "password": ""}, matrix.CodeWeakPassword},
			{"long password", obj{"username": "weak", "password": strings.Repeat("p", 2000)}, matrix.CodeInvalidParam},
			{"no password", obj{"username": "weak", "password": nil}, matrix.CodeMissingParam},
			{"auth of another type", obj{"username": "weak", "auth": 7}, matrix.CodeBadJSON},
			{"name of another type", obj{"username": 7}, matrix.CodeBadJSON},
		} {
			body := obj{"password": "p", "auth": obj{"type": StageDummy}}
			for k, v := range c.body {
				body[k] = v
			}
			p := r.do("POST", v3+"register", "", body)
			if c.code == "" {
				c.code = matrix.Code(p.str("errcode"))
			}
			if p.status != 400 || p.body["errcode"] != string(c.code) {
				t.Errorf("%s: %d %s, want 400 %s", c.name, p.status, p.raw, c.code)
			}
		}
		r.do("POST", v3+"register?kind=pirate", "", "{}").want(400, matrix.CodeInvalidParam)
		r.do("POST", v3+"register", "", "").want(400, matrix.CodeNotJSON)
		// Nothing was stored but the first.
		users, err := r.a.Users(t.Context(), "", 100)
		if err != nil || len(users) != 1 {
			t.Fatalf("%d users, want 1: %v", len(users), err)
		}
		// Each character that is allowed, is.
		for _, ch := range "q3._=-/+" {
			r.register("chars" + string(ch))
		}
	})
}

func TestAvailable(t *testing.T) {
	each(t, nil, func(t *testing.T, r *rig) {
		r.register("taken")
		r.do("GET", v3+"register/available?username=free", "", nil).want(200).shape("available")
		r.do("GET", v3+"register/available?username=taken", "", nil).want(400, matrix.CodeUserInUse)
		r.do("GET", v3+"register/available?username=a%20b", "", nil).want(400, matrix.CodeInvalidUsername)
		r.do("GET", v3+"register/available", "", nil).want(400, matrix.CodeMissingParam)
	})
}

func TestRegistrationClosed(t *testing.T) {
	each(t, func(d *Deps) { d.Config.Registration, d.Config.Guests = "", false }, func(t *testing.T, r *rig) {
		r.do("POST", v3+"register", "", "{}").want(403, matrix.CodeForbidden)
		r.do("POST", v3+"register", "", obj{"username": "a", "password": "p", "auth": obj{"type": StageDummy}}).want(403, matrix.CodeForbidden)
		r.do("POST", v3+"register?kind=guest", "", "{}").want(403, matrix.CodeForbidden)
		r.do("GET", v3+"register/available?username=a", "", nil).want(403, matrix.CodeForbidden)
		r.do("GET", v1+"register/m.login.registration_token/validity?token=a", "", nil).want(403, matrix.CodeForbidden)
	})
}

func TestRegistrationToken(t *testing.T) {
	each(t, func(d *Deps) { d.Config.Registration = ModeToken }, func(t *testing.T, r *rig) {
		ctx := t.Context()
		if _, err := r.a.CreateRegistrationToken(ctx, RegistrationToken{Token: "twice", Uses: 2}); err != nil {
			t.Fatal(err)
		}
		if _, err := r.a.CreateRegistrationToken(ctx, RegistrationToken{Token: "soon.gone", Uses: Unlimited, Expires: r.clock().Add(time.Hour)}); err != nil {
			t.Fatal(err)
		}
		if _, err := r.a.CreateRegistrationToken(ctx, RegistrationToken{Token: "twice", Uses: 1}); !matrix.HasCode(err, matrix.CodeInvalidParam) {
			t.Fatalf("a token was made again: %v", err)
		}
		for _, bad := range []string{"has space", strings.Repeat("x", 65), "é"} {
			if _, err := r.a.CreateRegistrationToken(ctx, RegistrationToken{Token: bad, Uses: 1}); !matrix.HasCode(err, matrix.CodeInvalidParam) {
				t.Errorf("token %q was taken: %v", bad, err)
			}
		}
		drawn, err := r.a.CreateRegistrationToken(ctx, RegistrationToken{Uses: 1})
		if err != nil || !validTokenText(drawn) {
			t.Fatalf("drawn token %q: %v", drawn, err)
		}

		register := func(name, token string) *reply {
			return r.do("POST", v3+"register", "", obj{"username": name, "password": "p", "auth": obj{"type": StageRegistrationToken, "token": token}})
		}
		valid := func(token string, want bool) {
			t.Helper()
			p := r.do("GET", v1+"register/m.login.registration_token/validity?token="+token, "", nil).want(200).shape("valid")
			if p.body["valid"] != want {
				t.Fatalf("token %s: %s", token, p.raw)
			}
		}
		r.do("POST", v3+"register", "", obj{"username": "a", "password": "p", "auth": obj{"type": StageDummy}}).want(401, matrix.CodeForbidden)
		p := register("a", "wrong").want(401, matrix.CodeUnauthorized).shape("errcode", "error", "session", "flows", "params", "completed")
		if !strings.Contains(p.raw, `"stages":["m.login.registration_token"]`) {
			t.Fatalf("wrong flows: %s", p.raw)
		}
		valid("twice", true)
		register("a", "twice").want(200)
		register("b", "twice").want(200)
		valid("twice", false)
		valid("unheard", false)
		register("c", "twice").want(401, matrix.CodeUnauthorized)

		valid("soon.gone", true)
		r.advance(time.Hour)
		valid("soon.gone", false)
		register("c", "soon.gone").want(401, matrix.CodeUnauthorized)

		list, err := r.a.RegistrationTokens(ctx)
		if err != nil || len(list) != 3 {
			t.Fatalf("%d tokens: %v", len(list), err)
		}
		if err := r.a.DeleteRegistrationToken(ctx, drawn); err != nil {
			t.Fatal(err)
		}
		if err := r.a.DeleteRegistrationToken(ctx, drawn); !matrix.HasCode(err, matrix.CodeNotFound) {
			t.Fatalf("deleted twice: %v", err)
		}
	})
}

// Two sessions may both pass the stage with the last use of a token; one of
// them gets the account.
func TestRegistrationTokenIsCountedWhenTheAccountIsMade(t *testing.T) {
	each(t, func(d *Deps) {
		d.Config.Registration = ModeToken
		d.Config.Terms = []Policy{{ID: "tos", Version: "1", Documents: map[string]Document{"en": {"Terms", "https://tea.example/tos"}}}}
	}, func(t *testing.T, r *rig) {
		if _, err := r.a.CreateRegistrationToken(t.Context(), RegistrationToken{Token: "once", Uses: 1}); err != nil {
			t.Fatal(err)
		}
		sessions := map[string]string{}
		for _, name := range []string{"a", "b"} {
			p := r.do("POST", v3+"register", "", obj{"username": name, "password": "p", "auth": obj{"type": StageRegistrationToken, "token": "once"}}).want(401)
			sessions[name] = p.str("session")
		}
		finish := func(name string) *reply {
			return r.do("POST", v3+"register", "", obj{"username": name, "password": "p", "auth": obj{"type": StageTerms, "session": sessions[name]}})
		}
		finish("a").want(200)
		finish("b").want(403, matrix.CodeForbidden)
	})
}

func TestTerms(t *testing.T) {
	each(t, func(d *Deps) {
		d.Config.Registration = ModeToken
		d.Config.Terms = []Policy{{ID: "tos", Version: "1.2", Documents: map[string]Document{"en": {"Terms", "https://tea.example/tos"}}}}
	}, func(t *testing.T, r *rig) {
		if _, err := r.a.CreateRegistrationToken(t.Context(), RegistrationToken{Token: "tok", Uses: 1}); err != nil {
			t.Fatal(err)
		}
		body := obj{"username": "a", "password": "p"}
		p := r.do("POST", v3+"register", "", body).want(401)
		if !strings.Contains(p.raw, `"m.login.terms":{"policies":{"tos":{"en":{"name":"Terms","url":"https://tea.example/tos"},"version":"1.2"}}}`) {
			t.Fatalf("wrong params: %s", p.raw)
		}
		session := p.str("session")
		// Out of order.
		body["auth"] = obj{"type": StageTerms, "session": session}
		r.do("POST", v3+"register", "", body).want(401, matrix.CodeForbidden)
		body["auth"] = obj{"type": StageRegistrationToken, "token": "tok", "session": session}
		p = r.do("POST", v3+"register", "", body).want(401)
		if !strings.Contains(p.raw, `"completed":["m.login.registration_token"]`) || p.str("session") != session {
			t.Fatalf("the stage did not count: %s", p.raw)
		}
		// A stage that is done is not done again, nor does it fail.
		body["auth"] = obj{"type": StageRegistrationToken, "token": "wrong", "session": session}
		r.do("POST", v3+"register", "", body).want(401)
		body["auth"] = obj{"type": StageTerms, "session": session}
		r.do("POST", v3+"register", "", body).want(200)
	})
}

func TestGuests(t *testing.T) {
	each(t, nil, func(t *testing.T, r *rig) {
		p := r.do("POST", v3+"register?kind=guest", "", obj{"username": "me", "device_id": "MINE", "initial_device_display_name": "x"}).want(200).
			shape("user_id", "access_token", "device_id", "home_server")
		local := matrix.UserID(p.str("user_id")).Localpart()
		if strings.Trim(local, "0123456789") != "" || p.str("device_id") == "MINE" {
			t.Fatalf("a guest chose: %s", p.raw)
		}
		token := p.str("access_token")
		if who := r.whoami(token).want(200).shape("user_id", "device_id", "is_guest"); who.body["is_guest"] != true {
			t.Fatalf("not a guest: %s", who.raw)
		}
		r.do("GET", v3+"devices", token, nil).want(200)
		r.do("PUT", v3+"devices/"+p.str("device_id"), token, obj{"display_name": "Saucer"}).want(200)
		r.do("GET", v3+"devices/"+p.str("device_id"), token, nil).want(200)
		for _, e := range [][2]string{
			{"POST", v3 + "account/password"}, {"POST", v3 + "account/deactivate"}, {"POST", v3 + "delete_devices"},
			{"DELETE", v3 + "devices/x"}, {"POST", v1 + "login/get_token"},
		} {
			r.do(e[0], e[1], token, obj{"new_password": "x", "devices": []string{}}).want(403, matrix.CodeGuestAccessForbidden)
		}
		r.do("POST", v3+"logout", token, nil).want(200)
		r.whoami(token).want(401, matrix.CodeUnknownToken)
	})
}

func TestRegisteredHook(t *testing.T) {
	var got []string
	each(t, func(d *Deps) {
		got = nil
		d.Hooks.Registered = func(_ context.Context, user matrix.UserID, name string) error {
			got = append(got, string(user)+"="+name)
			return nil
		}
	}, func(t *testing.T, r *rig) {
		r.register("a")
		r.do("POST", v3+"register?kind=guest", "", "{}").want(200)
		if _, err := r.a.AddUser(t.Context(), NewAccount{Name: "b", Password: "p", DisplayName: "Bea"}); err != nil {
			t.Fatal(err)
		}
		if strings.Join(got, " ") != "@a:tea.example= @b:tea.example=Bea" {
			t.Fatalf("hooks: %v", got)
		}
	})
}
