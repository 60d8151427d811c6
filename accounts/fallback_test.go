package accounts

import (
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/teahouse-chat/teahouse/internal/matrix"
)

// submit posts a fallback page's form.
func (r *rig) submit(stage string, form url.Values) (status int, body string) {
	r.t.Helper()
	res, err := http.PostForm(r.url+v3+"auth/"+stage+"/fallback/web", form)
	if err != nil {
		r.t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	return res.StatusCode, string(b)
}

func TestFallback(t *testing.T) {
	each(t, func(d *Deps) {
		d.Config.Registration = ModeToken
		d.Config.Terms = []Policy{{ID: "tos", Version: "1", Documents: map[string]Document{
			"en": {"Terms <b>", "https://tea.example/?a=1&b=\"2\""}, "fr": {"Conditions", "javascript:alert(1)"},
		}}}
	}, func(t *testing.T, r *rig) {
		if _, err := r.a.CreateRegistrationToken(t.Context(), RegistrationToken{Token: "tok", Uses: 1}); err != nil {
			t.Fatal(err)
		}
		body := obj{"username": "a", "password": "p"}
		s := r.do("POST", v3+"register", "", body).want(401).str("session")
		page := func(stage string) *reply {
			return r.do("GET", v3+"auth/"+stage+"/fallback/web?session="+url.QueryEscape(s), "", nil)
		}
		page(StageTerms).want(400, matrix.CodeInvalidParam) // not yet
		page("m.login.password").want(404, matrix.CodeNotFound)
		r.do("GET", v3+"auth/"+StageTerms+"/fallback/web?session=%22%3E%3Cscript%3E", "", nil).want(404, matrix.CodeNotFound)

		p := page(StageRegistrationToken).want(200)
		for name, want := range map[string]string{
			"Content-Security-Policy": "frame-ancestors 'none'", "X-Frame-Options": "DENY", "Cache-Control": "no-store",
			"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer", "Content-Type": "text/html",
		} {
			if !strings.Contains(p.header.Get(name), want) {
				t.Errorf("%s: %s", name, p.header.Get(name))
			}
		}
		if strings.Contains(p.raw, "<script") || !strings.Contains(p.raw, `name="token"`) {
			t.Errorf("wrong page: %s", p.raw)
		}
		if status, b := r.submit(StageRegistrationToken, url.Values{"session": {s}, "token": {"<wrong>"}}); status != 401 || !strings.Contains(b, "not valid") || strings.Contains(b, "authDone") {
			t.Errorf("%d %s", status, b)
		}
		if status, b := r.submit(StageRegistrationToken, url.Values{"session": {s}, "token": {"tok"}}); status != 200 || !strings.Contains(b, `postMessage("authDone", "*")`) {
			t.Errorf("%d %s", status, b)
		}
		if status, _ := r.submit(StageRegistrationToken, url.Values{"session": {"other"}, "token": {"tok"}}); status != 404 {
			t.Errorf("an unknown session: %d", status)
		}
		// The client asks again with the session alone.
		body["auth"] = obj{"session": s}
		r.do("POST", v3+"register", "", body).want(401)

		p = page(StageTerms).want(200)
		if !strings.Contains(p.raw, "Terms &lt;b&gt;") || strings.Contains(p.raw, "javascript:") || !strings.Contains(p.raw, "I accept") {
			t.Errorf("wrong page: %s", p.raw)
		}
		if status, b := r.submit(StageTerms, url.Values{"session": {s}}); status != 200 || !strings.Contains(b, "authDone") {
			t.Errorf("%d %s", status, b)
		}
		if p := page(StageTerms).want(200); !strings.Contains(p.raw, "authDone") {
			t.Errorf("a completed stage asks again: %s", p.raw)
		}
		// The body still counts.
		r.do("POST", v3+"register", "", obj{"username": "b", "password": "p", "auth": obj{"session": s}}).want(403, matrix.CodeForbidden)
		r.do("POST", v3+"register", "", body).want(200)
		r.do("POST", v3+"auth/"+StageTerms+"/fallback/web", "", `{"session":"x"}`).want(400, matrix.CodeInvalidParam)
	})
}

func TestFallbackDummy(t *testing.T) {
	each(t, nil, func(t *testing.T, r *rig) {
		body := obj{"username": "a", "password": "p"}
		s := r.do("POST", v3+"register", "", body).want(401).str("session")
		if status, b := r.submit(StageDummy, url.Values{"session": {s}}); status != 200 || !strings.Contains(b, "authDone") {
			t.Fatalf("%d %s", status, b)
		}
		body["auth"] = obj{"session": s}
		r.do("POST", v3+"register", "", body).want(200)
	})
}
