package main

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"
)

// safeBuffer is output that is read while it is written.
type safeBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *safeBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *safeBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// shell runs commands on a configuration of its own.
type shell struct {
	t      *testing.T
	dir    string
	config string
	env    map[string]string
}

func newShell(t *testing.T, more string) *shell {
	t.Helper()
	s := &shell{t: t, dir: t.TempDir(), env: map[string]string{}}
	s.config = filepath.Join(s.dir, "teahouse.yaml")
	text := "server_name: here.test\nlisteners: [{address: \"127.0.0.1:0\"}]\npasswords: {time: 1, memory_kib: 8}\n" + more
	if err := os.WriteFile(s.config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return s
}

// do runs a command and returns its exit status and what it printed.
func (s *shell) do(stdin string, args ...string) (status int, out, errs string) {
	s.t.Helper()
	var o, e safeBuffer
	con := &console{in: strings.NewReader(stdin), out: &o, err: &e, getenv: func(k string) string { return s.env[k] }, dir: s.dir}
	status = run(s.t.Context(), con, args)
	return status, o.String(), e.String()
}

// good runs a command that must succeed.
func (s *shell) good(stdin string, args ...string) string {
	s.t.Helper()
	status, out, errs := s.do(stdin, append(args, "--config", s.config)...)
	if status != 0 {
		s.t.Fatalf("%v: status %d\n%s%s", args, status, out, errs)
	}
	return out
}

// bad runs a command that must fail and say so.
func (s *shell) bad(want string, args ...string) {
	s.t.Helper()
	status, out, errs := s.do("", append(args, "--config", s.config)...)
	if status != 1 || !strings.Contains(errs, want) {
		s.t.Errorf("%v: status %d, want 1 and %q\n%s%s", args, status, want, out, errs)
	}
}

func TestUsage(t *testing.T) {
	s := newShell(t, "")
	cases := []struct {
		args   string
		status int
		want   string
	}{
		{"", 2, "teahouse serve"},
		{"help", 0, "teahouse serve"},
		{"--help", 0, "teahouse user add"},
		{"brew", 2, `no command "brew"`},
		{"user", 2, "add, password, deactivate or list"},
		{"user remove", 2, "add, password, deactivate or list"},
		{"user add", 2, "1 arguments are needed here, not 0"},
		{"user add a b", 2, "1 arguments are needed here, not 2"},
		{"serve --confg x", 2, "flag provided but not defined"},
		{"serve --help", 0, "local trial"},
		{"version", 0, "teahouse "},
		{"serve --config /nowhere.yaml", 1, "/nowhere.yaml: cannot be read"},
		{"check --config /nowhere.yaml", 1, "/nowhere.yaml: cannot be read"},
	}
	for _, c := range cases {
		t.Run(c.args, func(t *testing.T) {
			status, out, errs := s.do("", strings.Fields(c.args)...)
			if status != c.status || !strings.Contains(out+errs, c.want) {
				t.Errorf("status %d, want %d and %q\n%s%s", status, c.status, c.want, out, errs)
			}
		})
	}
}

func TestUsers(t *testing.T) {
	s := newShell(t, "")
	if out := s.good("", "user", "add", "alice", "--admin"); !regexp.MustCompile(`^@alice:here.test has an account now. Password: \S{20,}\n$`).MatchString(out) {
		t.Errorf("%q", out)
	}
	if out := s.good("hush hush\n", "user", "add", "@bob:here.test", "--password-stdin", "--display-name", "Bob"); strings.Contains(out, "hush") {
		t.Errorf("%q", out)
	}
	s.bad("taken", "user", "add", "bob")
	s.bad("not a user of here.test", "user", "add", "@bob:elsewhere.test")
	s.bad("characters", "user", "add", "b ob")
	s.bad("holds no password", "user", "add", "carol", "--password-stdin")
	s.bad("no account @nobody:here.test", "user", "password", "nobody")
	s.bad("no account @nobody:here.test", "user", "deactivate", "nobody")
	s.good("", "user", "password", "bob", "--keep-sessions")
	s.good("", "user", "deactivate", "bob")
	s.bad("deactivated", "user", "password", "bob")
	list := s.good("", "user", "list")
	for _, want := range []string{`@alice:here.test +\S+ +admin\n`, `@bob:here.test +\S+ +deactivated\n`} {
		if !regexp.MustCompile(want).MatchString(list) {
			t.Errorf("the list lacks %s:\n%s", want, list)
		}
	}
}

func TestTokens(t *testing.T) {
	s := newShell(t, "")
	one := strings.TrimSpace(s.good("", "token", "add"))
	many := strings.TrimSpace(s.good("", "token", "add", "--uses", "0", "--expires", "48h"))
	list := s.good("", "token", "list")
	if !regexp.MustCompile(one+` +0 +1 +for ever`).MatchString(list) || !regexp.MustCompile(many+` +0 +any number +2`).MatchString(list) {
		t.Errorf("%s", list)
	}
	s.good("", "token", "delete", one)
	s.bad("no such registration token", "token", "delete", one)
}

func TestCheck(t *testing.T) {
	s := newShell(t, "registration: {mode: open}\nrate_limits: {enabled: false}\nfederation: {verify_tls: false, allow_private_addresses: true}\n")
	out := s.good("", "check")
	for _, want := range []string{"configuration: good", "note: registration.mode is open", "note: rate_limits", "note: federation.verify_tls",
		"note: federation.allow_private", "database: not there yet"} {
		if !strings.Contains(out, want) {
			t.Errorf("the output lacks %q:\n%s", want, out)
		}
	}
	if _, err := os.Stat(filepath.Join(s.dir, "teahouse-data")); err == nil {
		t.Error("check made a data folder")
	}
	s.good("", "user", "add", "alice")
	if out := s.good("", "check"); !strings.Contains(out, "database: good") {
		t.Errorf("%s", out)
	}
	db := filepath.Join(s.dir, "teahouse-data", "teahouse.db")
	for _, suffix := range []string{"", "-wal", "-shm"} {
		_ = os.Remove(db + suffix)
	}
	if err := os.WriteFile(db, []byte("this is no database, it only looks like a file"), 0o600); err != nil {
		t.Fatal(err)
	}
	s.bad("database: ", "check")
	s.env["TEAHOUSE_DATABASE"] = "postgres://user:hunter2@127.0.0.1:1/none"
	status, out, errs := s.do("", "check", "--config", s.config)
	if status != 1 || strings.Contains(out+errs, "hunter2") {
		t.Errorf("status %d\n%s%s", status, out, errs)
	}
}

// serving runs the server until the test, or the returned function, ends it.
func (s *shell) serving(args ...string) (url string, out *safeBuffer, stop func() (status int)) {
	s.t.Helper()
	var o, e safeBuffer
	ctx, cancel := context.WithCancel(context.Background())
	con := &console{in: strings.NewReader(""), out: &o, err: &e, getenv: func(k string) string { return s.env[k] }, dir: s.dir}
	result := make(chan int, 1)
	go func() { result <- run(ctx, con, append([]string{"serve"}, args...)) }()
	stop = sync.OnceValue(func() int { cancel(); return <-result })
	s.t.Cleanup(func() { stop() })
	ready := regexp.MustCompile(`listening="?([^ ",]+)`)
	for range 1000 {
		if m := ready.FindStringSubmatch(e.String()); m != nil {
			return "http://" + m[1], &o, stop
		}
		select {
		case status := <-result:
			result <- status
			s.t.Fatalf("the server ended with status %d:\n%s%s", status, o.String(), e.String())
		case <-time.After(10 * time.Millisecond):
		}
	}
	s.t.Fatalf("the server is not ready:\n%s%s", o.String(), e.String())
	return "", nil, nil
}

func get(t *testing.T, url string) (int, string) {
	t.Helper()
	res, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, _ := io.ReadAll(res.Body)
	return res.StatusCode, string(b)
}

func TestServe(t *testing.T) {
	s := newShell(t, "metrics: {address: \"127.0.0.1:0\"}\n")
	url, out, stop := s.serving("--config", s.config)
	if status, body := get(t, url+"/health"); status != 200 || body != "OK" {
		t.Errorf("health: %d %s", status, body)
	}
	if status, body := get(t, url+"/_matrix/client/versions"); status != 200 || !strings.Contains(body, "v1.") {
		t.Errorf("versions: %d %s", status, body)
	}
	if status, body := get(t, url+"/metrics"); status != 404 {
		t.Errorf("the metrics are public: %d %s", status, body)
	}
	if out.String() != "" {
		t.Errorf("a real server talks: %s", out)
	}
	s.bad("a server is running on this data folder", "serve")
	s.bad("stop it first", "user", "password", "alice")
	s.bad("stop it first", "user", "deactivate", "alice")
	if out := s.good("", "check"); !strings.Contains(out, "in use by a running server") {
		t.Errorf("%s", out)
	}
	// An account that is made beside the server can be used at once.
	s.good("secret word\n", "user", "add", "alice", "--password-stdin")
	login := `{"type":"m.login.password","identifier":{"type":"m.id.user","user":"alice"},"password":"secret word"}`
	res, err := http.Post(url+"/_matrix/client/v3/login", "application/json", strings.NewReader(login))
	if err != nil {
		t.Fatal(err)
	}
	body, _ := io.ReadAll(res.Body)
	_ = res.Body.Close()
	if res.StatusCode != 200 || !strings.Contains(string(body), "access_token") {
		t.Errorf("login: %d %s", res.StatusCode, body)
	}
	if status := stop(); status != 0 {
		t.Errorf("status %d", status)
	}
	if _, err := http.Get(url + "/health"); err == nil {
		t.Error("the server is still there")
	}
	s.good("", "user", "password", "alice") // the lock is free
}

func TestTrialText(t *testing.T) {
	s := newShell(t, "")
	con := &console{getenv: func(string) string { return "" }, dir: s.dir}
	cfg, err := newFlags(con, "", "", 0).load()
	if err != nil {
		t.Fatal(err)
	}
	text := trialText(cfg)
	for _, want := range []string{"local trial", "Only programs on this machine", "http://localhost:8008", filepath.Join(s.dir, "teahouse-data"),
		"@name:localhost", "server_name: example.org", "teahouse serve --config FILE"} {
		if !strings.Contains(text, want) {
			t.Errorf("the message lacks %q:\n%s", want, text)
		}
	}
	for i, line := range strings.Split(text, "\n") {
		if len(line) > 80+len(s.dir) {
			t.Errorf("line %d is %d wide", i, len(line))
		}
	}
}

// A new key is signed with from then on, and the old one stays published.
func TestRotateKey(t *testing.T) {
	s := newShell(t, "")
	_, before, errs := s.do("", "keys", "show", "--config", s.config)
	first := regexp.MustCompile(`ed25519:\S+`).FindString(before)
	if first == "" {
		t.Fatalf("no key in %q %q", before, errs)
	}
	if status, after, errs := s.do("", "keys", "rotate", "--config", s.config); status != 0 ||
		!strings.HasPrefix(strings.Split(after, "\n")[1], "ed25519:") || strings.Contains(strings.Split(after, "\n")[1], first) {
		t.Errorf("%d %q %q", status, after, errs)
	}
	_, after, _ := s.do("", "keys", "show", "--config", s.config)
	if lines := strings.Split(after, "\n"); len(lines) < 3 || !strings.Contains(lines[2], first) || !strings.Contains(lines[2], "20") {
		t.Errorf("%q", after)
	}
	s.env["TEAHOUSE_SIGNING_KEY"] = "ed25519 x AAAA"
	if status, _, errs := s.do("", "keys", "show", "--config", s.config); status != 1 || !strings.Contains(errs, "line 1 of the signing key's file") {
		t.Errorf("%d %q", status, errs)
	}
}

// Whoever checks a server that nobody reaches is told why.
func TestCheckFederation(t *testing.T) {
	s := newShell(t, "federation: {allow: [a.test]}\n")
	status, out, errs := s.do("", "check", "federation", "--server", "127.0.0.1:1", "--config", s.config)
	if status != 1 || !strings.Contains(out, "BAD") || !strings.Contains(out, "loopback") || !strings.Contains(errs, "do not get through") {
		t.Errorf("%d %q %q", status, out, errs)
	}
	off := newShell(t, "federation: {enabled: false}\n")
	if status, _, errs := off.do("", "check", "federation", "--config", off.config); status != 1 || !strings.Contains(errs, "keeps to itself") {
		t.Errorf("%d %q", status, errs)
	}
}
