package httpx

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/teahouse-chat/teahouse/internal/matrix"
)

// tokens is an Authenticator over a table.
type tokens map[string]*Caller

func (t tokens) Authenticate(_ context.Context, _ *http.Request, token string) (*Caller, error) {
	if c := t[token]; c != nil {
		return c, nil
	}
	return nil, matrix.UnknownToken(false)
}

var people = tokens{
	"alice-secret": {User: "@alice:here", Device: "A"},
	"bob-secret":   {User: "@bob:here"},
	"guest-secret": {User: "@1:here", Guest: true},
	"root-secret":  {User: "@root:here", Admin: true},
	"bridge":       {User: "@bridge:here", Appservice: "bridge", Exempt: true},
}

// clock is a hand-turned clock.
type clock struct {
	mu sync.Mutex
	t  time.Time
}

func newClock() *clock { return &clock{t: time.Unix(1_700_000_000, 0)} }

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.t
}

func (c *clock) pass(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.t = c.t.Add(d)
}

// logBuffer is a log that can be read while it is written.
type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func (l *logBuffer) logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(l, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

// answer is what a request got.
type answer struct {
	*httptest.ResponseRecorder
	t *testing.T
}

func (a answer) code() string {
	a.t.Helper()
	var e struct {
		Code string `json:"errcode"`
		Text string `json:"error"`
	}
	if err := json.Unmarshal(a.Body.Bytes(), &e); err != nil || e.Text == "" {
		a.t.Fatalf("status %d with a body that is no standard error: %s", a.Code, a.Body)
	}
	return e.Code
}

func (a answer) want(status int, code matrix.Code) answer {
	a.t.Helper()
	if a.Code != status {
		a.t.Fatalf("status %d, want %d: %s", a.Code, status, a.Body)
	}
	if code != "" && a.code() != string(code) {
		a.t.Fatalf("errcode %s, want %s: %s", a.code(), code, a.Body)
	}
	return a
}

func (a answer) wantBody(body string) answer {
	a.t.Helper()
	if a.want(200, ""); a.Body.String() != body {
		a.t.Fatalf("body %s, want %s", a.Body, body)
	}
	return a
}

type change func(r *http.Request)

func header(k, v string) change { return func(r *http.Request) { r.Header.Set(k, v) } }
func from(addr string) change   { return func(r *http.Request) { r.RemoteAddr = addr } }

var asAlice = header("Authorization", "Bearer alice-secret")

func ask(t *testing.T, h http.Handler, method, target, body string, changes ...change) answer {
	t.Helper()
	r := httptest.NewRequest(method, target, strings.NewReader(body))
	for _, c := range changes {
		c(r)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return answer{w, t}
}

func serving(o Options, routes ...Route) http.Handler {
	if o.Log == nil {
		o.Log = quiet()
	}
	if o.Auth == nil {
		o.Auth = people
	}
	e := New(o)
	e.Add("client", routes...)
	return e.Handler("client")
}
