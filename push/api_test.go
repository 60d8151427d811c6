package push

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/teahouse-chat/teahouse/internal/httpx"
)

// anyone takes every token for that of @u:x.
type anyone struct{}

func (anyone) Authenticate(context.Context, *http.Request, string) (*httpx.Caller, error) {
	return &httpx.Caller{User: "@u:x"}, nil
}

func ask(t *testing.T, method, path, body string) (int, string) {
	t.Helper()
	p, err := New()
	if err != nil {
		t.Fatal(err)
	}
	edge := httpx.New(httpx.Options{Auth: anyone{}})
	edge.Add("client", p.Routes()...)
	r := httptest.NewRequest(method, "/_matrix/client"+path, strings.NewReader(body))
	r.Header.Set("Authorization", "Bearer t")
	w := httptest.NewRecorder()
	edge.Handler("client").ServeHTTP(w, r)
	answer, _ := io.ReadAll(w.Result().Body)
	return w.Code, string(answer)
}

func TestReadingRules(t *testing.T) {
	const master = `"rule_id":".m.rule.master"`
	for _, c := range []struct {
		path string
		code int
		has  string
	}{
		{"/v3/pushrules/", 200, `{"global":{"override":[{` + master},
		{"/v3/pushrules", 200, `{"global":{"override":[{` + master},
		{"/r0/pushrules/", 200, `{"global":{"override":[{` + master},
		{"/v3/pushrules/global/", 200, `{"override":[{` + master},
		{"/v3/pushrules/global", 200, `{"override":[{` + master},
		{"/v3/pushrules/global/override/", 200, `[{` + master},
		{"/v3/pushrules/global/sender", 200, `[]`},
		{"/v3/pushrules/global/underride/.m.rule.message", 200, `"actions":["notify"]`},
		{"/v3/pushrules/global/override/.m.rule.master/enabled", 200, `{"enabled":false}`},
		{"/v3/pushrules/global/override/.m.rule.tombstone/actions", 200, `{"actions":["notify",{"set_tweak":"highlight"}]}`},
		{"/v3/pushrules/global/override/.m.rule.message", 404, `M_NOT_FOUND`},
		{"/v3/pushrules/global/content/%2Fetc", 404, `M_NOT_FOUND`},
		{"/v3/pushrules/global/device/x", 404, `M_NOT_FOUND`},
		{"/v3/pushrules/global/device", 404, `M_NOT_FOUND`},
		{"/v3/pushrules/local", 404, `M_UNRECOGNIZED`},
		{"/v3/pushers", 200, `{"pushers":[]}`},
	} {
		code, body := ask(t, "GET", c.path, "")
		if code != c.code || !strings.Contains(body, c.has) {
			t.Errorf("GET %s: %d %s", c.path, code, body)
		}
	}
}

func TestSettingPushers(t *testing.T) {
	for _, c := range []struct {
		body string
		code int
		has  string
	}{
		{`{"kind":null,"app_id":"a","pushkey":"k"}`, 200, `{}`},
		{`{"kind":"http","app_id":"a","pushkey":"k","data":{"url":"https://push.example/_matrix/push/v1/notify"}}`, 400, `M_INVALID_PARAM`},
		{`{"kind":null,"pushkey":"k"}`, 400, `M_MISSING_PARAM`},
		{`{"kind":null,"app_id":"a"}`, 400, `M_MISSING_PARAM`},
		{`{"kind":5,"app_id":"a","pushkey":"k"}`, 400, `M_BAD_JSON`},
		{`{"kind":null,"app_id":"` + strings.Repeat("a", 65) + `","pushkey":"k"}`, 400, `M_INVALID_PARAM`},
		{`{"kind":null,"app_id":"a","pushkey":"` + strings.Repeat("k", 513) + `"}`, 400, `M_INVALID_PARAM`},
		{`[`, 400, `M_NOT_JSON`},
	} {
		code, body := ask(t, "POST", "/v3/pushers/set", c.body)
		if code != c.code || !strings.Contains(body, c.has) {
			t.Errorf("%s: %d %s", c.body, code, body)
		}
	}
}
