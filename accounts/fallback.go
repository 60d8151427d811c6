package accounts

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"html/template"
	"mime"
	"net/http"

	"github.com/teahouse-chat/teahouse/internal/httpx"
	"github.com/teahouse-chat/teahouse/internal/matrix"
)

// A fallback page completes one stage in a browser, for clients that do not
// know it. The session id in its address is the secret that admits the user.
// spec: client-server#fallback
var fallbackHTML = template.Must(template.New("fallback").Parse(`<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{.Title}}</title>
<style nonce="{{.Nonce}}">
body { font: 1rem/1.5 system-ui, sans-serif; max-width: 32rem; margin: 3rem auto; padding: 0 1rem; }
button, input { font: inherit; padding: .4rem .8rem; }
.failure { color: #a00; }
</style>
</head>
<body>
<h1>{{.Title}}</h1>
{{- if .Done}}
<p>Thank you. You can close this page and go back to your client.</p>
<script nonce="{{.Nonce}}">
if (window.onAuthDone) {
	window.onAuthDone();
} else if (window.opener && window.opener.postMessage) {
	window.opener.postMessage("authDone", "*");
}
</script>
{{- else}}
{{- with .Failure}}
<p class="failure">{{.}}</p>
{{- end}}
<form method="post">
<input type="hidden" name="session" value="{{.Session}}">
{{- if .Policies}}
<p>Please read and accept:</p>
<ul>
{{- range .Policies}}
<li>{{range $language, $d := .Documents}}<a href="{{$d.URL}}" lang="{{$language}}" target="_blank" rel="noopener noreferrer">{{$d.Name}}</a> {{end}}</li>
{{- end}}
</ul>
{{- end}}
{{- if .AsksToken}}
<p><label>Registration token<br><input name="token" autocomplete="off" required maxlength="64"></label></p>
{{- end}}
<p><button type="submit">{{if .Policies}}I accept{{else}}Continue{{end}}</button></p>
</form>
{{- end}}
</body>
</html>
`))

// fallbackData is what a page shows.
type fallbackData struct {
	Title     string
	Nonce     string
	Session   string
	Failure   string
	Done      bool
	AsksToken bool
	Policies  []Policy
}

// fallbackStages are the stages that need no account and so have a page.
var fallbackStages = map[string]string{
	StageDummy:             "Continue",
	StageTerms:             "Terms of service",
	StageRegistrationToken: "Registration token",
}

func (a *Accounts) fallbackPage(w http.ResponseWriter, r *http.Request, c *httpx.Caller) error {
	page, _, err := a.fallback(r, r.URL.Query().Get("session"))
	if err != nil {
		return err
	}
	return a.showFallback(w, http.StatusOK, page)
}

// fallbackSubmit completes the stage.
func (a *Accounts) fallbackSubmit(w http.ResponseWriter, r *http.Request, c *httpx.Caller) error {
	if kind, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type")); kind != "application/x-www-form-urlencoded" {
		return matrix.InvalidParam("The form is to be sent as application/x-www-form-urlencoded")
	}
	if err := r.ParseForm(); err != nil {
		return matrix.InvalidParam("The form cannot be read").Because(err)
	}
	page, s, err := a.fallback(r, r.PostForm.Get("session"))
	if err != nil {
		return err
	}
	auth, err := json.Marshal(map[string]string{"token": r.PostForm.Get("token")})
	if err != nil {
		return err
	}
	stageErr := a.UIA.attempt(r.Context(), c, s, r.PathValue("stage"), auth)
	switch e := matrix.AsError(stageErr); {
	case stageErr == nil:
		page.Done = true
		return a.showFallback(w, http.StatusOK, page)
	case e.Status == http.StatusUnauthorized:
		page.Failure = e.Text
		return a.showFallback(w, http.StatusUnauthorized, page)
	}
	return stageErr
}

// fallback finds the session and what its page shows.
func (a *Accounts) fallback(r *http.Request, session string) (fallbackData, *uiaSession, error) {
	name := r.PathValue("stage")
	title, ok := fallbackStages[name]
	if !ok {
		return fallbackData{}, nil, matrix.NotFound("There is no page for this stage")
	}
	s := a.UIA.find(session)
	if s == nil {
		return fallbackData{}, nil, matrix.NotFound("This authentication session has run out; go back to your client and begin anew")
	}
	done, next := a.UIA.due(s, name)
	if !done && !next {
		return fallbackData{}, nil, matrix.InvalidParam("This stage is not the next one of the session")
	}
	page := fallbackData{Title: title, Session: session, Done: done, AsksToken: name == StageRegistrationToken}
	if name == StageTerms {
		page.Policies = a.cfg.Terms
	}
	return page, s, nil
}

// showFallback writes a page that no other may frame and that runs no script
// but its own.
func (a *Accounts) showFallback(w http.ResponseWriter, status int, page fallbackData) error {
	page.Nonce = base64.RawURLEncoding.EncodeToString(a.secrets.bytes(16))
	var b bytes.Buffer
	if err := fallbackHTML.Execute(&b, page); err != nil {
		return err
	}
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Security-Policy", "default-src 'none'; script-src 'nonce-"+page.Nonce+"'; style-src 'nonce-"+page.Nonce+
		"'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'")
	h.Set("X-Frame-Options", "DENY")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, err := w.Write(b.Bytes())
	return err
}
