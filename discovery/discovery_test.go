package discovery

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/teahouse-chat/teahouse/internal/httpx"
	"github.com/teahouse-chat/teahouse/internal/matrix"
)

type tokens struct{}

func (tokens) Authenticate(_ context.Context, _ *http.Request, token string) (*httpx.Caller, error) {
	return &httpx.Caller{User: matrix.NewUserID(token, "x")}, nil
}

func handler(t *testing.T, d Deps) http.Handler {
	t.Helper()
	if d.DefaultRoomVersion == "" {
		d.DefaultRoomVersion = "12"
	}
	s, err := New(d)
	if err != nil {
		t.Fatal(err)
	}
	edge := httpx.New(httpx.Options{Auth: tokens{}})
	edge.Add("client", s.Routes()...)
	edge.Add("wellknown", s.WellKnown()...)
	return edge.Handler("client")
}

func ask(h http.Handler, token, method, path, body string) (int, string) {
	r := httptest.NewRequest(method, path, strings.NewReader(body))
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w.Code, strings.TrimSpace(w.Body.String())
}

func TestVersions(t *testing.T) {
	h := handler(t, Deps{})
	for _, token := range []string{"", "alice"} {
		code, body := ask(h, token, "GET", "/_matrix/client/versions", "")
		var a versionsAnswer
		if err := json.Unmarshal([]byte(body), &a); err != nil || code != 200 {
			t.Fatalf("%d %s", code, body)
		}
		for _, needed := range []string{"r0.6.1", "v1.1", "v1.4", "v1.7", "v1.10", "v1.11", "v1.13", "v1.16", "v1.19"} {
			if !slices.Contains(a.Versions, needed) {
				t.Errorf("%s is not listed", needed)
			}
		}
		if len(a.Versions) != 20 || !a.Unstable["uk.tcpip.msc4133"] {
			t.Errorf("%s", body)
		}
	}
}

func TestCapabilities(t *testing.T) {
	h := handler(t, Deps{DefaultRoomVersion: "11", PasswordChanges: true})
	if code, body := ask(h, "", "GET", "/_matrix/client/v3/capabilities", ""); code != 401 {
		t.Errorf("without a token: %d %s", code, body)
	}
	code, body := ask(h, "alice", "GET", "/_matrix/client/r0/capabilities", "")
	const want = `{"capabilities":{"m.3pid_changes":{"enabled":false},"m.change_password":{"enabled":true},` +
		`"m.forget_forced_upon_leave":{"enabled":false},"m.get_login_token":{"enabled":false},"m.profile_fields":{"enabled":true},` +
		`"m.room_versions":{"default":"11","available":{"1":"stable","10":"stable","11":"stable","12":"stable","2":"stable","3":"stable",` +
		`"4":"stable","5":"stable","6":"stable","7":"stable","8":"stable","9":"stable"}},` +
		`"m.set_avatar_url":{"enabled":true},"m.set_displayname":{"enabled":true}}}`
	if code != 200 || body != want {
		t.Errorf("%d %s", code, body)
	}
}

func TestWellKnown(t *testing.T) {
	full := Deps{
		PublicURL: "https://matrix.example.org", FederationName: "matrix.example.org:443",
		Support: Support{Page: "https://example.org/help", Contacts: []Contact{
			{MatrixID: "@admin:example.org", Role: "m.role.admin"}, {Email: "security@example.org", Role: "m.role.security"},
		}},
	}
	for _, c := range []struct {
		deps Deps
		name string
		code int
		has  string
	}{
		{full, "client", 200, `{"m.homeserver":{"base_url":"https://matrix.example.org"}}`},
		{full, "server", 200, `{"m.server":"matrix.example.org:443"}`},
		{full, "support", 200, `{"contacts":[{"matrix_id":"@admin:example.org","role":"m.role.admin"},` +
			`{"email_address":"security@example.org","role":"m.role.security"}],"support_page":"https://example.org/help"}`},
		{Deps{}, "client", 404, "M_NOT_FOUND"},
		{Deps{}, "server", 404, "M_NOT_FOUND"},
		{Deps{}, "support", 404, "M_NOT_FOUND"},
		{full, "else", 404, "M_UNRECOGNIZED"},
	} {
		code, body := ask(handler(t, c.deps), "", "GET", "/.well-known/matrix/"+c.name, "")
		if code != c.code || !strings.Contains(body, c.has) {
			t.Errorf("%s: %d %s", c.name, code, body)
		}
	}
}

func TestNewRefuses(t *testing.T) {
	for name, d := range map[string]Deps{
		"unknown room version": {DefaultRoomVersion: "99"},
		"no URL":               {DefaultRoomVersion: "12", PublicURL: "matrix.example.org"},
		"another scheme":       {DefaultRoomVersion: "12", PublicURL: "ftp://example.org"},
		"a URL for a name":     {DefaultRoomVersion: "12", FederationName: "https://example.org"},
		"nobody":               {DefaultRoomVersion: "12", Support: Support{Contacts: []Contact{{Role: "m.role.admin"}}}},
		"no role":              {DefaultRoomVersion: "12", Support: Support{Contacts: []Contact{{Email: "a@b"}}}},
		"no user id":           {DefaultRoomVersion: "12", Support: Support{Contacts: []Contact{{MatrixID: "admin", Role: "m.role.admin"}}}},
	} {
		if _, err := New(d); err == nil {
			t.Errorf("%s was accepted", name)
		}
	}
}

func TestWhatIsNotHere(t *testing.T) {
	h := handler(t, Deps{})
	const (
		session  = `"client_secret":"s","sid":"1"`
		identity = `"id_server":"id.example","id_access_token":"t"`
	)
	for _, c := range []struct {
		token, method, path, body string
		code                      int
		has                       string
	}{
		{"alice", "GET", "v3/voip/turnServer", "", 200, `{}`},
		{"", "GET", "v3/voip/turnServer", "", 401, `M_MISSING_TOKEN`},
		{"", "GET", "v1/auth_metadata", "", 404, `M_UNRECOGNIZED`},
		{"", "GET", "unstable/org.matrix.msc2965/auth_metadata", "", 404, `M_UNRECOGNIZED`},
		{"", "POST", "v1/auth_metadata", "", 405, `M_UNRECOGNIZED`},
		{"alice", "GET", "unstable/org.matrix.msc4143/rtc/transports", "", 404, `M_UNRECOGNIZED`},

		{"alice", "GET", "v3/account/3pid", "", 200, `{"threepids":[]}`},
		{"", "GET", "v3/account/3pid", "", 401, `M_MISSING_TOKEN`},
		{"alice", "POST", "v3/account/3pid", `{"three_pid_creds":{` + session + `,` + identity + `}}`, 403, `M_THREEPID_AUTH_FAILED`},
		{"alice", "POST", "v3/account/3pid", `{"three_pid_creds":{` + session + `}}`, 400, `M_MISSING_PARAM`},
		{"alice", "POST", "v3/account/3pid", `{}`, 400, `M_MISSING_PARAM`},
		{"alice", "POST", "v3/account/3pid/add", `{` + session + `}`, 403, `M_THREEPID_DENIED`},
		{"alice", "POST", "v3/account/3pid/add", `{"sid":"1"}`, 400, `M_MISSING_PARAM`},
		{"alice", "POST", "v3/account/3pid/add", `{"client_secret":1,"sid":"1"}`, 400, `M_BAD_JSON`},
		{"alice", "POST", "v3/account/3pid/bind", `{` + session + `,` + identity + `}`, 403, `M_THREEPID_DENIED`},
		{"alice", "POST", "v3/account/3pid/bind", `{` + session + `}`, 400, `M_MISSING_PARAM`},
		{"alice", "POST", "v3/account/3pid/bind", `{` + identity + `}`, 400, `M_MISSING_PARAM`},
		{"alice", "POST", "v3/account/3pid/delete", `{"medium":"email","address":"a@b"}`, 200, `{"id_server_unbind_result":"no-support"}`},
		{"alice", "POST", "v3/account/3pid/unbind", `{"medium":"email","address":"a@b"}`, 200, `{"id_server_unbind_result":"no-support"}`},
		{"alice", "POST", "v3/account/3pid/delete", `{"medium":"email"}`, 400, `M_MISSING_PARAM`},
		{"", "POST", "v3/account/3pid/email/requestToken", `{"client_secret":"s","send_attempt":1,"email":"a@b"}`, 400, `M_THREEPID_MEDIUM_NOT_SUPPORTED`},
		{"", "POST", "v3/account/3pid/email/requestToken", `{"client_secret":"s","send_attempt":1}`, 400, `M_MISSING_PARAM`},
		{"", "POST", "v3/account/3pid/email/requestToken", `{"send_attempt":1,"email":"a@b"}`, 400, `M_MISSING_PARAM`},
		{"", "POST", "v3/account/3pid/email/requestToken", `{"client_secret":"s","send_attempt":"1","email":"a@b"}`, 400, `M_BAD_JSON`},
		{"", "POST", "v3/account/3pid/email/requestToken", `{"client_secret":"s","email":"a@b"}`, 400, `M_MISSING_PARAM`},
		{"", "POST", "r0/account/3pid/msisdn/requestToken", `{"client_secret":"s","send_attempt":1,"country":"GB","phone_number":"1"}`, 400, `M_THREEPID_MEDIUM_NOT_SUPPORTED`},
		{"", "POST", "v3/account/3pid/msisdn/requestToken", `{"client_secret":"s","send_attempt":1,"country":"GB"}`, 400, `M_MISSING_PARAM`},
		{"", "POST", "v3/account/3pid/msisdn/requestToken", ``, 400, `M_NOT_JSON`},
		{"", "POST", "v3/account/password/email/requestToken", `{"client_secret":"s","send_attempt":1,"email":"a@b"}`, 400, `M_THREEPID_NOT_FOUND`},
		{"", "POST", "v3/account/password/msisdn/requestToken", `{"client_secret":"s","send_attempt":1,"country":"GB","phone_number":"1"}`, 400, `M_THREEPID_NOT_FOUND`},
		{"", "POST", "v3/register/email/requestToken", `{"client_secret":"s","send_attempt":1,"email":"a@b"}`, 403, `M_THREEPID_DENIED`},
		{"", "POST", "v3/register/msisdn/requestToken", `{"client_secret":"s","send_attempt":1,"country":"GB","phone_number":"1"}`, 403, `M_THREEPID_DENIED`},
	} {
		code, body := ask(h, c.token, c.method, "/_matrix/client/"+c.path, c.body)
		if code != c.code || !strings.Contains(body, c.has) {
			t.Errorf("%s %s %s: %d %s", c.method, c.path, c.body, code, body)
		}
	}
}
