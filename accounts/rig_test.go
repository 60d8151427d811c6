package accounts

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/teahouse-chat/teahouse/internal/db"
	"github.com/teahouse-chat/teahouse/internal/db/dbtest"
	"github.com/teahouse-chat/teahouse/internal/httpx"
	"github.com/teahouse-chat/teahouse/internal/matrix"
)

const (
	v1 = "/_matrix/client/v1/"
	v3 = "/_matrix/client/v3/"
)

// rig is the feature behind a whole edge, with a clock that the test moves.
type rig struct {
	t     *testing.T
	a     *Accounts
	url   string
	logs  *lockedBuffer
	rooms *fakeRooms

	mu  sync.Mutex
	now time.Time
}

func (r *rig) clock() time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.now
}

func (r *rig) advance(d time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.now = r.now.Add(d)
}

type lockedBuffer struct {
	mu sync.Mutex
	bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.Buffer.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.Buffer.String()
}

// fakeRooms notes who left, or fails.
type fakeRooms struct {
	mu   sync.Mutex
	left []matrix.UserID
	fail error
}

func (f *fakeRooms) LeaveAll(_ context.Context, user matrix.UserID) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.fail == nil {
		f.left = append(f.left, user)
	}
	return f.fail
}

// cheap are argon2id's least costs, so that tests are fast.
var cheap = PasswordParams{Time: 1, MemoryKiB: 8, Threads: 1}

// each runs a test on both databases, with registration open unless the test
// says otherwise.
func each(t *testing.T, tune func(*Deps), test func(t *testing.T, r *rig)) {
	dbtest.Each(t, func(t *testing.T, d *db.DB) { test(t, newRig(t, d, tune, nil)) })
}

func newRig(t *testing.T, d *db.DB, tune func(*Deps), limits *httpx.Limiter) *rig {
	t.Helper()
	r := &rig{t: t, logs: &lockedBuffer{}, rooms: &fakeRooms{}, now: time.Unix(1_700_000_000, 0)}
	log := slog.New(slog.NewJSONHandler(r.logs, &slog.HandlerOptions{Level: slog.LevelDebug}))
	deps := Deps{
		DB: d, ServerName: "tea.example", Now: r.clock, Rand: rand.Reader, Log: log, Rooms: r.rooms,
		Config: Config{Registration: ModeOpen, Guests: true, SharedSecret: "the shared secret", Passwords: cheap},
	}
	if tune != nil {
		tune(&deps)
	}
	a, err := New(deps)
	if err != nil {
		t.Fatal(err)
	}
	r.a = a
	edge := httpx.New(httpx.Options{Auth: a, Log: log, Limits: limits, Now: r.clock})
	edge.Add("client", a.Routes()...)
	edge.Add("admin", a.AdminRoutes()...)
	server := httptest.NewServer(edge.Handler("client"))
	t.Cleanup(server.Close)
	r.url = server.URL
	return r
}

// obj is a JSON object.
type obj = map[string]any

// reply is an answer taken apart.
type reply struct {
	t      *testing.T
	what   string
	status int
	header http.Header
	raw    string
	body   obj
}

func (r *rig) do(method, path, token string, body any) *reply {
	r.t.Helper()
	var in io.Reader
	switch b := body.(type) {
	case nil:
	case string:
		in = strings.NewReader(b)
	default:
		encoded, err := json.Marshal(b)
		if err != nil {
			r.t.Fatal(err)
		}
		in = bytes.NewReader(encoded)
	}
	req, err := http.NewRequest(method, r.url+path, in)
	if err != nil {
		r.t.Fatal(err)
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		r.t.Fatal(err)
	}
	defer res.Body.Close()
	raw, err := io.ReadAll(res.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	rep := &reply{t: r.t, what: method + " " + path, status: res.StatusCode, header: res.Header, raw: string(raw)}
	if strings.HasPrefix(res.Header.Get("Content-Type"), "application/json") {
		if err := json.Unmarshal(raw, &rep.body); err != nil {
			r.t.Fatalf("%s %s: %v in %s", method, path, err, raw)
		}
	}
	return rep
}

func (p *reply) want(status int, code ...matrix.Code) *reply {
	p.t.Helper()
	if p.status != status {
		p.t.Fatalf("%s: status %d, want %d: %s", p.what, p.status, status, p.raw)
	}
	if len(code) > 0 && p.body["errcode"] != string(code[0]) {
		p.t.Fatalf("%s: errcode %v, want %s: %s", p.what, p.body["errcode"], code[0], p.raw)
	}
	if len(code) == 0 && p.body["errcode"] != nil {
		p.t.Fatalf("%s: unexpected errcode: %s", p.what, p.raw)
	}
	return p
}

// shape checks the member names of the answer: the golden shape.
func (p *reply) shape(names ...string) *reply {
	p.t.Helper()
	var got []string
	for name := range p.body {
		got = append(got, name)
	}
	slices.Sort(got)
	slices.Sort(names)
	if !slices.Equal(got, names) {
		p.t.Fatalf("%s: members %v, want %v", p.what, got, names)
	}
	return p
}

func (p *reply) str(name string) string {
	p.t.Helper()
	s, ok := p.body[name].(string)
	if !ok || s == "" {
		p.t.Fatalf("%s: no text %q in %s", p.what, name, p.raw)
	}
	return s
}

// login is a logged-in client.
type login struct{ user, token, device, password string }

// register makes a user by the API, as a client that sends the dummy stage at
// once.
func (r *rig) register(name string) login {
	r.t.Helper()
	pw := "secret of " + name
	p := r.do("POST", v3+"register", "", obj{"username": name, "password": pw, "auth": obj{"type": StageDummy}}).want(200)
	return login{p.str("user_id"), p.str("access_token"), p.str("device_id"), pw}
}

// again logs a user in once more.
func (r *rig) again(l login, extra obj) login {
	r.t.Helper()
	body := obj{"type": "m.login.password", "identifier": obj{"type": "m.id.user", "user": l.user}, "password": l.password}
	for k, v := range extra {
		body[k] = v
	}
	p := r.do("POST", v3+"login", "", body).want(200)
	return login{l.user, p.str("access_token"), p.str("device_id"), l.password}
}

// auth is the auth dict of the password stage.
func (l login) auth(session string) obj {
	d := obj{"type": StagePassword, "identifier": obj{"type": "m.id.user", "user": l.user}, "password": l.password}
	if session != "" {
		d["session"] = session
	}
	return d
}

func (r *rig) whoami(token string) *reply {
	r.t.Helper()
	return r.do("GET", v3+"account/whoami", token, nil)
}
