package accounts

import (
	"strings"
	"testing"

	"github.com/teahouse-chat/teahouse/internal/matrix"
)

// bridges is two services: irc owns @_irc_… alone, news shares @news_….
type bridges struct{}

func (bridges) ByToken(token string) (Appservice, bool) {
	switch token {
	case "as irc":
		return Appservice{ID: "irc", Sender: "@_irc_bot:tea.example", Exempt: true}, true
	case "as news":
		return Appservice{ID: "news", Sender: "@news_bot:tea.example"}, true
	}
	return Appservice{}, false
}

func (bridges) Covers(id string, user matrix.UserID) bool {
	return strings.HasPrefix(string(user), map[string]string{"irc": "@_irc_", "news": "@news_"}[id])
}

func (bridges) Exclusive(user matrix.UserID) (string, bool) {
	return "irc", strings.HasPrefix(string(user), "@_irc_") || strings.HasPrefix(string(user), "@irc.")
}

func TestAppservices(t *testing.T) {
	each(t, func(d *Deps) { d.Appservices = bridges{}; d.Config.Registration = ModeClosed }, func(t *testing.T, r *rig) {
		const service = "m.login.application_service"
		register := func(token, name string) *reply {
			return r.do("POST", v3+"register", token, obj{"type": service, "username": name})
		}
		p := register("as irc", "_irc_ann").want(200).shape("user_id", "access_token", "device_id", "home_server")
		r.whoami(p.str("access_token")).want(200)
		register("as irc", "_irc_ann").want(400, matrix.CodeUserInUse)
		register("as irc", "ann").want(400, matrix.CodeExclusive)
		register("as news", "_irc_bob").want(400, matrix.CodeExclusive)
		register("as irc", "_irc_BOB").want(400, matrix.CodeInvalidUsername)
		register("as irc", "").want(400, matrix.CodeMissingParam)
		register("", "_irc_bob").want(401, matrix.CodeMissingToken)
		register("unheard", "_irc_bob").want(401, matrix.CodeUnknownToken)
		register("as news", "news_one").want(200)

		login := func(token, user string) *reply {
			return r.do("POST", v3+"login", token, obj{"type": service, "identifier": obj{"type": "m.id.user", "user": user}})
		}
		login("as irc", "_irc_ann").want(200).shape("user_id", "access_token", "device_id", "home_server")
		login("as irc", "@_irc_ann:tea.example").want(200)
		login("as irc", "_irc_nobody").want(403, matrix.CodeForbidden)
		login("as irc", "news_one").want(403, matrix.CodeExclusive)
		login("", "_irc_ann").want(401, matrix.CodeMissingToken)
		login(p.str("access_token"), "_irc_ann").want(401, matrix.CodeUnknownToken)

		// A13: a service acts as its own, and nobody else.
		who := func(token, query string) *reply { return r.do("GET", v3+"account/whoami"+query, token, nil) }
		if p := who("as irc", "").want(200).shape("user_id", "is_guest"); p.str("user_id") != "@_irc_bot:tea.example" {
			t.Error(p.raw)
		}
		if p := who("as irc", "?user_id=@_irc_ann:tea.example").want(200); p.str("user_id") != "@_irc_ann:tea.example" {
			t.Error(p.raw)
		}
		if p := who("as irc", "?user_id=@_irc_ann:tea.example&device_id="+p.str("device_id")).want(200); p.str("device_id") == "" {
			t.Error(p.raw)
		}
		who("as irc", "?user_id=@_irc_ann:tea.example&device_id=UNKNOWN").want(400, codeUnknownDevice)
		who("as irc", "?user_id=@news_one:tea.example").want(403, matrix.CodeForbidden)
		who("as irc", "?user_id=@_irc_ann:elsewhere").want(403, matrix.CodeForbidden)
		who("as irc", "?user_id=@_irc_nobody:tea.example").want(403, matrix.CodeForbidden)
		who("as irc", "?user_id=nonsense").want(400, matrix.CodeInvalidParam)
		// Bridges make a user while they act as this user already.
		made := r.do("POST", v3+"register?user_id=@_irc_new:tea.example", "as irc",
			obj{"type": "m.login.application_service", "username": "_irc_new", "inhibit_login": true}).want(200)
		if made.str("user_id") != "@_irc_new:tea.example" {
			t.Error(made.raw)
		}
		r.do("POST", v3+"register?user_id=@news_one:tea.example", "as irc",
			obj{"type": "m.login.application_service", "username": "_irc_newer"}).want(403, matrix.CodeForbidden)
		// A user's token does not masquerade.
		if p := who(p.str("access_token"), "?user_id=@news_one:tea.example").want(200); p.str("user_id") != "@_irc_ann:tea.example" {
			t.Error(p.raw)
		}

		// Devices without a login.
		const ann = "?user_id=@_irc_ann:tea.example"
		r.do("PUT", v3+"devices/MADE"+ann, "as irc", obj{"display_name": "x"}).want(201).shape()
		r.do("PUT", v3+"devices/MADE"+ann, "as irc", obj{"display_name": "y"}).want(200).shape()
		r.do("GET", v3+"devices/MADE"+ann, "as irc", nil).want(200).shape("device_id", "display_name", "last_seen_ip") // it was never used
		r.do("DELETE", v3+"devices/MADE"+ann, "as irc", nil).want(200)
		r.do("GET", v3+"devices/MADE"+ann, "as irc", nil).want(404, matrix.CodeNotFound)
		r.do("POST", v3+"logout", "as irc", nil).want(403, matrix.CodeForbidden)
		r.do("POST", v1+"login/get_token"+ann, "as irc", nil).want(403, matrix.CodeForbidden)

		if err := r.a.SetLocked(t.Context(), "@_irc_ann:tea.example", true); err != nil {
			t.Fatal(err)
		}
		who("as irc", ann).want(401, matrix.CodeUserLocked)
		if err := r.a.Deactivate(t.Context(), "@_irc_ann:tea.example", false); err != nil {
			t.Fatal(err)
		}
		who("as irc", ann).want(403, matrix.CodeForbidden)
	})
}

// What a service claims for itself is not for people.
func TestExclusiveNames(t *testing.T) {
	each(t, func(d *Deps) { d.Appservices = bridges{} }, func(t *testing.T, r *rig) {
		r.do("POST", v3+"register", "", obj{"username": "irc.x", "password": "p", "auth": obj{"type": StageDummy}}).want(400, matrix.CodeExclusive)
		r.do("GET", v3+"register/available?username=irc.x", "", nil).want(400, matrix.CodeExclusive)
		r.register("news_two") // shared
	})
}

// Without application services their way in is closed.
func TestNoAppservices(t *testing.T) {
	each(t, nil, func(t *testing.T, r *rig) {
		alice := r.register("alice")
		r.do("POST", v3+"register", alice.token, obj{"type": "m.login.application_service", "username": "x"}).want(401, matrix.CodeUnknownToken)
		r.do("POST", v3+"login", alice.token, obj{"type": "m.login.application_service", "user": "alice"}).want(401, matrix.CodeUnknownToken)
	})
}
