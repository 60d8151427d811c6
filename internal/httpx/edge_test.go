package httpx

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/teahouse-chat/teahouse/internal/matrix"
)

func who(path string, opts ...Option) Route {
	return JSON("GET", path, func(ctx context.Context, c *Caller, _ *struct{}) (*struct {
		User string `json:"user"`
		Addr string `json:"addr"`
	}, error) {
		if RemoteAddr(ctx) != c.Addr || RequestID(ctx) == "" {
			return nil, errors.New("the context does not know the request")
		}
		return &struct {
			User string `json:"user"`
			Addr string `json:"addr"`
		}{string(c.User), c.Addr.String()}, nil
	}, opts...)
}

const me = "/_matrix/client/v3/me"

func TestTokens(t *testing.T) {
	cases := []struct {
		name   string
		target string
		opts   []Option
		auth   string
		status int
		want   string // user or errcode
	}{
		{"bearer", me, nil, "Bearer alice-secret", 200, "@alice:here"},
		{"scheme in any case", me, nil, "bearer alice-secret", 200, "@alice:here"},
		{"query", me + "?access_token=alice-secret", nil, "", 200, "@alice:here"},
		{"header before query", me + "?access_token=bob-secret", nil, "Bearer alice-secret", 200, "@alice:here"},
		{"none", me, nil, "", 401, "M_MISSING_TOKEN"},
		{"other scheme", me, nil, "Basic alice-secret", 401, "M_MISSING_TOKEN"},
		{"empty", me, nil, "Bearer ", 401, "M_MISSING_TOKEN"},
		{"unknown", me, nil, "Bearer x", 401, "M_UNKNOWN_TOKEN"},
		{"guest", me, nil, "Bearer guest-secret", 403, "M_GUEST_ACCESS_FORBIDDEN"},
		{"guest allowed", me, []Option{GuestsAllowed}, "Bearer guest-secret", 200, "@1:here"},
		{"no administrator", me, []Option{AdminOnly}, "Bearer alice-secret", 403, "M_FORBIDDEN"},
		{"administrator", me, []Option{AdminOnly}, "Bearer root-secret", 200, "@root:here"},
		{"no auth ignores tokens", me, []Option{NoAuth}, "Bearer x", 200, `"user":""`},
		{"optional without", me, []Option{OptionalAuth}, "", 200, `"user":""`},
		{"optional with", me, []Option{OptionalAuth}, "Bearer alice-secret", 200, "@alice:here"},
		{"optional but wrong", me, []Option{OptionalAuth}, "Bearer x", 401, "M_UNKNOWN_TOKEN"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			h := serving(Options{}, who(me, c.opts...))
			var changes []change
			if c.auth != "" {
				changes = append(changes, header("Authorization", c.auth))
			}
			if a := ask(t, h, "GET", c.target, "", changes...).want(c.status, ""); !strings.Contains(a.Body.String(), c.want) {
				t.Fatalf("%s does not hold %s", a.Body, c.want)
			}
		})
	}
	t.Run("query switched off", func(t *testing.T) {
		h := serving(Options{NoQueryToken: true}, who(me))
		ask(t, h, "GET", me+"?access_token=alice-secret", "").want(401, matrix.CodeMissingToken)
	})
}

// The authenticator's caller is shared between requests and must not change.
func TestCallerIsCopied(t *testing.T) {
	ask(t, serving(Options{}, who(me)), "GET", me, "", asAlice).want(200, "")
	if people["alice-secret"].Addr.IsValid() {
		t.Fatal("the edge wrote into the authenticator's caller")
	}
}

func TestUnrecognized(t *testing.T) {
	h := serving(Options{}, who(me, NoAuth), JSON("PUT", me, func(context.Context, *Caller, *struct{}) (*struct{}, error) { return nil, nil }),
		who("/_matrix/client/v3/slash", NoAuth, TrailingSlash), who("/_matrix/client/v3/plain", NoAuth),
		who("/_matrix/client/v3/both", NoAuth, Versions("unstable/org.example")))
	cases := []struct {
		method, target string
		status         int
		allow          string
	}{
		{"GET", "/_matrix/client/v3/nothing", 404, ""},
		{"GET", "/_matrix/client/v3/", 404, ""},
		{"GET", "/", 404, ""},
		{"GET", "/_matrix/federation/v1/version", 404, ""}, // not served here
		{"GET", "/_matrix//client/v3/me", 404, ""},
		{"GET", "/_matrix/client/v3/x/../me", 404, ""},
		{"GET", "/_matrix/client/v3/./me", 404, ""},
		{"POST", me, 405, "GET, PUT, OPTIONS"},
		{"DELETE", "/_matrix/client/r0/me", 405, "GET, PUT, OPTIONS"},
		{"BREW", me, 405, "GET, PUT, OPTIONS"},
		{"GET", "/_matrix/client/v3/slash", 200, ""},
		{"GET", "/_matrix/client/v3/slash/", 200, ""},
		{"GET", "/_matrix/client/v3/plain/", 404, ""},
		{"GET", "/_matrix/client/r0/both", 200, ""},
		{"GET", "/_matrix/client/unstable/org.example/both", 200, ""},
		{"GET", "/health", 200, ""},
	}
	for _, c := range cases {
		t.Run(c.method+" "+c.target, func(t *testing.T) {
			a := ask(t, h, c.method, c.target, "").want(c.status, "")
			if c.status >= 400 && a.code() != "M_UNRECOGNIZED" {
				t.Fatalf("errcode %s", a.code())
			}
			if got := a.Header().Get("Allow"); got != c.allow {
				t.Fatalf("Allow %q, want %q", got, c.allow)
			}
		})
	}
}

func TestCORS(t *testing.T) {
	called := false
	o := Options{Log: quiet()}
	e := New(o)
	e.Add("client", JSON("POST", me, func(context.Context, *Caller, *struct{}) (*struct{}, error) { called = true; return nil, nil }))
	e.Add("federation", who("/_matrix/federation/v1/version", NoAuth))
	h := e.Handler("client", "federation", "media")
	cases := []struct {
		method, target string
		status         int
		open           bool
	}{
		{"OPTIONS", me, 204, true},
		{"OPTIONS", "/_matrix/client/v3/nothing", 204, true},
		{"OPTIONS", "/_matrix/media/v3/upload", 204, true},
		{"OPTIONS", "/.well-known/matrix/client", 204, true},
		{"OPTIONS", "/_synapse/admin/v1/register", 204, true},
		{"OPTIONS", "/elsewhere", 204, true},
		{"POST", me, 401, true},
		{"GET", "/_matrix/client/v3/nothing", 404, true},
		{"GET", "/_matrix/federation/v1/version", 200, false},
		{"OPTIONS", "/_matrix/federation/v1/version", 405, false},
	}
	for _, c := range cases {
		t.Run(c.method+" "+c.target, func(t *testing.T) {
			a := ask(t, h, c.method, c.target, "", header("Origin", "https://app.example")).want(c.status, "")
			want := map[string]string{"Access-Control-Allow-Origin": "*", "Access-Control-Allow-Methods": "GET, POST, PUT, DELETE, OPTIONS",
				"Access-Control-Allow-Headers": "X-Requested-With, Content-Type, Authorization"}
			for k, v := range want {
				if got := a.Header().Get(k); c.open && got != v || !c.open && got != "" {
					t.Errorf("%s: %q", k, got)
				}
			}
		})
	}
	if called {
		t.Error("OPTIONS reached a handler")
	}
}

type teapot struct{ Short bool }

func (teapot) HTTPStatus() int { return 418 }

type stream struct{ fail bool }

func (s *stream) WriteTo(w io.Writer) (int64, error) {
	n, err := io.WriteString(w, `{"a":1}`)
	if s.fail {
		err = errors.New("disk on fire")
	}
	return int64(n), err
}

func give[A any](path string, a *A, err error) Route {
	return JSON("GET", path, func(context.Context, *Caller, *struct{}) (*A, error) { return a, err }, NoAuth)
}

func TestAnswers(t *testing.T) {
	raw := RawJSON(`{"raw":  true}`)
	big := RawJSON(`"` + strings.Repeat("x", 5000) + `"`)
	h := serving(Options{},
		give(me+"/empty", &struct{}{}, nil), give[struct{}](me+"/nil", nil, nil), give(me+"/raw", &raw, nil),
		give(me+"/status", &teapot{true}, nil), give(me+"/stream", &stream{}, nil), give(me+"/torn", &stream{true}, nil),
		give(me+"/html", &struct{ A string }{"<&>"}, nil), give(me+"/big", &big, nil),
		give[struct{}](me+"/fail", nil, fmt.Errorf("reading the secret vault: %w", errors.New("vault"))),
		give[struct{}](me+"/forbidden", nil, fmt.Errorf("x: %w", matrix.Forbidden("No").Because(errors.New("vault")))),
	)
	for path, body := range map[string]string{"/empty": "{}", "/nil": "{}", "/raw": string(raw), "/html": `{"A":"<&>"}`, "/stream": `{"a":1}`, "/big": string(big)} {
		if a := ask(t, h, "GET", me+path, "").wantBody(body); a.Header().Get("Content-Type") != "application/json" {
			t.Errorf("%s: %v", path, a.Header())
		}
	}
	if a := ask(t, h, "GET", me+"/big", ""); a.Header().Get("Content-Length") != "5002" {
		t.Errorf("no length: %v", a.Header())
	}
	ask(t, h, "GET", me+"/status", "").want(418, "")
	a := ask(t, h, "GET", me+"/fail", "").want(500, matrix.CodeUnknown)
	if strings.Contains(a.Body.String(), "vault") || a.Header().Get("X-Request-Id") == "" {
		t.Errorf("%s %v", a.Body, a.Header())
	}
	if a := ask(t, h, "GET", me+"/forbidden", "").want(403, matrix.CodeForbidden); strings.Contains(a.Body.String(), "vault") {
		t.Errorf("%s", a.Body)
	}
	func() {
		defer func() {
			if recover() != http.ErrAbortHandler {
				t.Error("a torn answer looks whole")
			}
		}()
		ask(t, h, "GET", me+"/torn", "")
	}()
}

func TestRaw(t *testing.T) {
	h := serving(Options{}, Raw("POST", "/_matrix/client/v3/raw/{id}", func(w http.ResponseWriter, r *http.Request, c *Caller) error {
		b, err := io.ReadAll(r.Body)
		if err != nil {
			return matrix.TooLarge("Too much").Because(err)
		}
		fmt.Fprintf(w, "%s %s %s %t", c.User, r.PathValue("id"), b, RequestID(r.Context()) != "")
		return nil
	}, MaxBody(10)))
	ask(t, h, "POST", "/_matrix/client/v3/raw/a%2Fb", "hi", asAlice).wantBody("@alice:here a/b hi true")
	ask(t, h, "POST", "/_matrix/client/v3/raw/%2F", "hi", asAlice).wantBody("@alice:here / hi true")
	ask(t, h, "POST", "/_matrix/client/v3/raw/x", "more than ten", asAlice).want(413, matrix.CodeTooLarge)
}

// A panic is a 500 for its request, a line in the log, and nothing more.
func TestPanic(t *testing.T) {
	var log logBuffer
	counted := &counter{}
	h := serving(Options{Log: log.logger(), Metrics: counted}, who(me, NoAuth),
		JSON("GET", me+"/panic", func(context.Context, *Caller, *struct{}) (*struct{}, error) { panic("oh no") }, NoAuth))
	ask(t, h, "GET", me+"/panic?access_token=very-secret", "").want(500, matrix.CodeUnknown)
	for _, want := range []string{"oh no", "edge_test.go", "request_id=", me + "/panic"} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("the log lacks %q:\n%s", want, log.String())
		}
	}
	ask(t, h, "GET", me, "").want(200, "")
	if counted.panics != 1 || counted.flying != 0 || counted.seen[me+"/panic"] != 500 || counted.seen[me] != 200 {
		t.Errorf("%+v", counted)
	}
	ask(t, h, "GET", "/_matrix/client/v3/none", "").want(404, "")
	if counted.seen["unknown"] != 404 || len(counted.seen) != 3 {
		t.Errorf("%+v", counted)
	}
}

type counter struct {
	seen           map[string]int
	flying, panics int
}

func (c *counter) Route(_, _, route string) func(int, time.Duration) {
	if c.seen == nil {
		c.seen = map[string]int{}
	}
	return func(status int, _ time.Duration) { c.seen[route] = status }
}
func (c *counter) InFlight(d int) { c.flying += d }
func (c *counter) Panicked()      { c.panics++ }

// Tokens must not reach the log, whichever way they came and whatever happened.
func TestLogHoldsNoToken(t *testing.T) {
	var log logBuffer
	h := serving(Options{Log: log.logger()}, who(me), give[struct{}](me+"/fail", nil, errors.New("cause")),
		JSON("GET", me+"/panic", func(context.Context, *Caller, *struct{}) (*struct{}, error) { panic("oh no") }))
	for _, target := range []string{me, me + "/fail", me + "/panic", "/nothing", me + "//"} {
		for _, token := range []string{"alice-secret", "wrong-secret"} {
			ask(t, h, "GET", target, "", header("Authorization", "Bearer "+token))
			ask(t, h, "GET", target+"?access_token="+token, "")
		}
	}
	text := log.String()
	if strings.Contains(text, "-secret") || strings.Contains(text, "access_token") {
		t.Fatalf("a token was logged:\n%s", text)
	}
	for _, want := range []string{"level=ERROR msg=\"Request failed\"", "cause", "level=DEBUG msg=Request ", "user=@alice:here", "status=401"} {
		if !strings.Contains(text, want) {
			t.Errorf("the log lacks %q:\n%s", want, text)
		}
	}
}

func TestTrustedProxies(t *testing.T) {
	trusted := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("::1/128")}
	cases := []struct {
		name, remote, forwarded, want string
	}{
		{"straight", "203.0.113.5:1", "", "203.0.113.5"},
		{"forged from outside", "203.0.113.5:1", "1.2.3.4", "203.0.113.5"},
		{"through the proxy", "10.0.0.1:1", "1.2.3.4", "1.2.3.4"},
		{"forged behind the proxy", "10.0.0.1:1", "9.9.9.9, 1.2.3.4", "1.2.3.4"},
		{"two proxies", "10.0.0.1:1", "9.9.9.9,1.2.3.4,10.2.2.2", "1.2.3.4"},
		{"only proxies", "10.0.0.1:1", "10.0.0.9", "10.0.0.9"},
		{"nothing said", "10.0.0.1:1", "", "10.0.0.1"},
		{"rubbish", "10.0.0.1:1", "1.2.3.4, unknown", "10.0.0.1"},
		{"with port", "[::1]:1", "1.2.3.4:55", "1.2.3.4"},
		{"IPv6", "[::1]:1", "[2001:db8::1]:55", "2001:db8::1"},
		{"bare IPv6", "[::1]:1", "2001:db8::1", "2001:db8::1"},
		{"mapped", "[::ffff:10.0.0.1]:1", "::ffff:1.2.3.4", "1.2.3.4"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			h := serving(Options{TrustedProxies: trusted}, who(me, NoAuth))
			changes := []change{from(c.remote)}
			if c.forwarded != "" {
				changes = append(changes, header("X-Forwarded-For", c.forwarded))
			}
			ask(t, h, "GET", me, "", changes...).wantBody(`{"user":"","addr":"` + c.want + `"}`)
		})
	}
	t.Run("no proxies", func(t *testing.T) {
		ask(t, serving(Options{}, who(me, NoAuth)), "GET", me, "", from("10.0.0.1:1"), header("X-Forwarded-For", "1.2.3.4")).
			wantBody(`{"user":"","addr":"10.0.0.1"}`)
	})
}

func TestSurfaces(t *testing.T) {
	e := New(Options{Log: quiet(), Health: func(context.Context) error { return errors.New("sick") }})
	e.Add("client", who("/_matrix/client/v3/x", NoAuth))
	e.Add("media", who("/_matrix/client/v1/media/x", NoAuth), who("/_matrix/media/v3/x", NoAuth))
	e.Add("keys", who("/_matrix/key/v2/server", NoAuth))
	e.Add("admin", who("/_synapse/admin/v1/x", NoAuth))
	e.Add("wellknown", who("/.well-known/matrix/client", NoAuth))
	paths := []string{"/_matrix/client/v3/x", "/_matrix/client/v1/media/x", "/_matrix/media/r0/x", "/_matrix/key/v2/server", "/_synapse/admin/v1/x", "/.well-known/matrix/client"}
	for serves, want := range map[string]string{"client": "200 404 404 404 200 200", "federation": "404 404 404 200 404 200", "media": "404 200 200 404 404 404",
		"admin": "404 404 404 404 200 404", "client federation media": "200 200 200 200 200 200"} {
		h := e.Handler(strings.Fields(serves)...)
		var got []string
		for _, p := range paths {
			got = append(got, fmt.Sprint(ask(t, h, "GET", p, "").Code))
		}
		if s := strings.Join(got, " "); s != want {
			t.Errorf("%s: %s, want %s", serves, s, want)
		}
		ask(t, h, "GET", "/health", "").want(503, matrix.CodeUnknown)
	}
}

func BenchmarkEmptyJSON(b *testing.B) {
	e := New(Options{Log: quiet(), Auth: people})
	e.Add("client", JSON("PUT", "/_matrix/client/v3/rooms/{roomId}/send/{eventType}/{txnId}", func(_ context.Context, _ *Caller, q *struct {
		Room matrix.RoomID `path:"roomId"`
		Type string        `path:"eventType"`
		Txn  string        `path:"txnId"`
		Body string        `json:"body"`
	}) (*struct {
		ID string `json:"event_id"`
	}, error) {
		return &struct {
			ID string `json:"event_id"`
		}{"$x"}, nil
	}, Limit("send")))
	h := e.Handler("client", "federation", "media")
	body := []byte(`{"msgtype":"m.text","body":"` + strings.Repeat("hello ", 20) + `"}`)
	benchmarkHandler(b, h, "/_matrix/client/v3/rooms/!abcdefgh:example.org/send/m.room.message/m123.4", body)
}

// BenchmarkNetHTTP is the floor that BenchmarkEmptyJSON stands on.
func BenchmarkNetHTTP(b *testing.B) {
	m := http.NewServeMux()
	m.HandleFunc("PUT /_matrix/client/v3/rooms/{roomId}/send/{eventType}/{txnId}", func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.ReadAll(r.Body)
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write([]byte(`{"event_id":"$x"}`))
	})
	benchmarkHandler(b, m, "/_matrix/client/v3/rooms/!abcdefgh:example.org/send/m.room.message/m123.4", []byte(`{"msgtype":"m.text","body":"`+strings.Repeat("hello ", 20)+`"}`))
}

type nullWriter struct{ h http.Header }

func (w *nullWriter) SetReadDeadline(time.Time) error { return nil }
func (w *nullWriter) Header() http.Header             { return w.h }
func (w *nullWriter) Write(b []byte) (int, error)     { return len(b), nil }
func (w *nullWriter) WriteHeader(int)                 {}

func benchmarkHandler(b *testing.B, h http.Handler, target string, body []byte) {
	b.ReportAllocs()
	r, _ := http.NewRequest("PUT", target, nil)
	r.Header.Set("Authorization", "Bearer alice-secret")
	r.RemoteAddr = "127.0.0.1:4000"
	w := &nullWriter{http.Header{}}
	rd := bytes.NewReader(body)
	for b.Loop() {
		rd.Reset(body)
		req := *r
		req.Body, req.ContentLength = io.NopCloser(rd), int64(len(body))
		clear(w.h)
		h.ServeHTTP(w, &req)
	}
}
