package server_test

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha1"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/teahouse-chat/teahouse/internal/config"
	"github.com/teahouse-chat/teahouse/internal/db"
	"github.com/teahouse-chat/teahouse/internal/db/dbtest"
	"github.com/teahouse-chat/teahouse/internal/httpx"
	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/internal/testrig"
)

// THREATS A7: whatever happens, no secret is logged, not even at the level debug
// and not where requests fail; nor does the database hold any as it is.
func TestSecretsAreNotLogged(t *testing.T) {
	for _, kind := range []string{"sqlite", "postgres"} {
		t.Run(kind, func(t *testing.T) {
			log := &testrig.Journal{}
			s := testrig.Start(t, testrig.Options{
				Database: dbtest.URL(t, kind),
				Log:      slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug, AddSource: true}),
				Change:   func(c *config.Config) { c.Registration.SharedSecret = "SharedSecretX" },
			})
			s.Edge().Add("client", httpx.JSON("POST", "/_matrix/client/v3/broken", func(ctx context.Context, _ *httpx.Caller, _ *struct {
				Password string `json:"password"`
			}) (*struct{}, error) {
				return nil, s.DB().Write(ctx, func(*db.Tx) error { return fmt.Errorf("a fault") })
			}))
			secrets := []string{"SharedSecretX", "PasswordOne", "PasswordTwo", "PasswordWrong", "TokenUnknown", "PasswordNUL"}
			keep := func(a object, names ...string) {
				for _, name := range names {
					text, ok := a[name].(string)
					if !ok || len(text) < 8 {
						t.Fatalf("no %s in %v", name, a)
					}
					secrets = append(secrets, text)
				}
			}
			c := s.Anonymous()
			a := c.Must("POST", "/v3/register", object{"username": "alice", "password": "PasswordOne", "refresh_token": true, "auth": object{"type": "m.login.dummy"}})
			keep(a, "access_token", "refresh_token")
			c.Token, c.User = a["access_token"].(string), matrix.UserID(a["user_id"].(string))
			a = c.Must("POST", "/v3/refresh", object{"refresh_token": a["refresh_token"]})
			keep(a, "access_token", "refresh_token")
			c.Token = a["access_token"].(string)
			id := object{"type": "m.id.user", "user": "alice"}
			auth := object{"type": "m.login.password", "identifier": id, "password": "PasswordOne"}
			a = c.Must("POST", "/v1/login/get_token", object{"auth": auth})
			keep(a, "login_token")
			a = s.Anonymous().Must("POST", "/v3/login", object{"type": "m.login.token", "token": a["login_token"]})
			keep(a, "access_token")
			a = s.Anonymous().Must("POST", "/v3/login", object{"type": "m.login.password", "identifier": id, "password": "PasswordOne"})
			keep(a, "access_token")
			s.Anonymous().Fails(403, matrix.CodeForbidden, "POST", "/v3/login", object{"type": "m.login.password", "identifier": id, "password": "PasswordWrong"})
			s.Anonymous().Fails(401, matrix.CodeUnknownToken, "GET", "/v3/sync?access_token=TokenUnknown", nil)
			s.Anonymous().Must("GET", "/v3/account/whoami?access_token="+c.Token, nil)
			s.Anonymous().Fails(404, matrix.CodeUnrecognized, "GET", "/v3/nowhere?access_token="+c.Token, nil)
			c.Fails(500, matrix.CodeUnknown, "POST", "/v3/broken?access_token="+c.Token, object{"password": "PasswordOne"})
			body(t, s, c, "POST", "/v3/login", `{"type":"m.login.password","password":"PasswordWrong`)
			body(t, s, c, "POST", "/v3/login", `{"type":"m.login.password","password":{"PasswordWrong":1}}`)
			body(t, s, c, "POST", "/v3/login", `{"type":"m.login.password","password":"PasswordNUL\u0000","identifier":{"type":"m.id.user","user":"alice"}}`)
			keep(c.Must("POST", "/v3/user"+testrig.Path(c.User, "openid", "request_token"), object{}), "access_token")
			nonce := s.Anonymous().Must("GET", "/_synapse/admin/v1/register", nil)["nonce"].(string)
			mac := hmac.New(sha1.New, []byte("SharedSecretX"))
			fmt.Fprintf(mac, "%s\x00bob\x00PasswordTwo\x00notadmin", nonce)
			a = s.Anonymous().Must("POST", "/_synapse/admin/v1/register", object{"nonce": nonce, "username": "bob", "password": "PasswordTwo",
				"admin": false, "mac": hex.EncodeToString(mac.Sum(nil))})
			keep(a, "access_token")
			c.Must("POST", "/v3/account/password", object{"new_password": "PasswordTwo", "auth": auth})
			c.Must("POST", "/v3/logout/all", object{})
			key, err := os.ReadFile(filepath.Join(s.Options.DataDir, "signing.key"))
			must(t, err)
			secrets = append(secrets, strings.Fields(string(key))[2])
			s.Stop()

			text := log.String()
			if !strings.Contains(text, "/v3/login") || !strings.Contains(text, "a fault") {
				t.Fatalf("nothing was logged, so nothing was tested:\n%s", text)
			}
			secrets = append(secrets, "$argon2")
			for _, secret := range secrets {
				for _, form := range []string{secret, url.QueryEscape(secret)} {
					if i := strings.Index(text, form); i >= 0 {
						t.Errorf("%s is logged: %s", secret, text[max(0, i-200):min(len(text), i+100)])
					}
				}
			}
			if file, ok := strings.CutPrefix(s.Options.Database, "sqlite://"); ok {
				for _, suffix := range []string{"", "-wal"} {
					raw, _ := os.ReadFile(file + suffix)
					for _, secret := range secrets[:len(secrets)-1] {
						if bytes.Contains(raw, []byte(secret)) {
							t.Errorf("%s is in the database as it is", secret)
						}
					}
				}
			}
		})
	}
}

// from sends a request as if it came over the network from an address.
func from(s *testrig.Server, addr, method, path, send string, header ...string) *httptest.ResponseRecorder {
	req := httptest.NewRequest(method, "/_matrix/client"+path, strings.NewReader(send))
	req.RemoteAddr = addr
	for i := 0; i < len(header); i += 2 {
		req.Header.Add(header[i], header[i+1])
	}
	rec := httptest.NewRecorder()
	s.Handler("client").ServeHTTP(rec, req)
	return rec
}

// THREATS A12: an address that a client makes up neither gets it past a limit
// nor is noted as its own; a trusted proxy's word counts.
func TestForgedAddresses(t *testing.T) {
	limited := func(proxies ...string) *testrig.Server {
		return testrig.Start(t, testrig.Options{Change: func(c *config.Config) {
			c.RateLimits = config.Default().RateLimits
			for _, p := range proxies {
				c.TrustedProxies = append(c.TrustedProxies, config.Network{Prefix: netip.MustParsePrefix(p)})
			}
		}})
	}
	const login = `{"type":"m.login.password","password":"x","identifier":{"type":"m.id.user","user":"u%d"}}`
	tries := func(s *testrig.Server, peer string, forged func(i int) []string) (passed int) {
		for i := range 60 {
			if from(s, peer, "POST", "/v3/login", fmt.Sprintf(login, i), forged(i)...).Code != http.StatusTooManyRequests {
				passed++
			}
		}
		return passed
	}
	another := func(i int) []string {
		return []string{"X-Forwarded-For", fmt.Sprintf("192.0.2.%d", i), "X-Real-IP", fmt.Sprintf("192.0.2.%d", i), "Forwarded", fmt.Sprintf("for=192.0.2.%d", i)}
	}
	behind := func(i int) []string { // what the proxy appends stands last
		return []string{"X-Forwarded-For", fmt.Sprintf("192.0.2.%d, 198.51.100.7", i)}
	}
	direct, proxied := limited(), limited("10.0.0.0/8")
	if n := tries(direct, "203.0.113.1:1", another); n > 25 {
		t.Errorf("%d of 60 logins got past the limit by made-up addresses", n)
	}
	if n := tries(proxied, "203.0.113.1:1", another); n > 25 {
		t.Errorf("%d of 60 logins got past the limit by addresses that no proxy vouches for", n)
	}
	if n := tries(proxied, "10.1.1.1:1", behind); n > 25 {
		t.Errorf("%d of 60 logins got past the limit by made-up addresses before a proxy's", n)
	}
	if n := tries(proxied, "10.1.1.1:1", another); n != 60 {
		t.Errorf("only %d of 60 clients of a proxy got through", n)
	}
	alice := direct.Register("alice")
	for _, header := range []string{"X-Forwarded-For", "X-Real-IP", "Forwarded", "True-Client-IP"} {
		from(direct, "203.0.113.9:1", "GET", "/v3/account/whoami", "", "Authorization", "Bearer "+alice.Token, header, "198.51.100.66")
	}
	if text := from(direct, "203.0.113.9:1", "GET", "/v3/devices", "", "Authorization", "Bearer "+alice.Token).Body.String(); strings.Contains(text, "198.51.100.66") {
		t.Errorf("a made-up address is noted: %s", text)
	}
}

// THREATS A13: what only an application service may do does nothing for others.
func TestNobodyActsAsAnApplicationService(t *testing.T) {
	s := testrig.Start(t, testrig.Options{})
	alice, bob := s.Register("alice"), s.Register("bob")
	room := bob.CreateRoom(object{"preset": "public_chat"})
	for _, query := range []string{"?user_id=" + string(bob.User), "?user_id=" + string(bob.User) + "&device_id=" + string(bob.Device)} {
		if a := alice.Must("GET", "/v3/account/whoami"+query, nil); a["user_id"] != string(alice.User) || a["device_id"] != string(alice.Device) {
			t.Errorf("%s: %v", query, a)
		}
	}
	alice.Join(room)
	sent := alice.Must("PUT", "/v3/rooms"+testrig.Path(room, "send", "m.room.message", "1")+"?ts=1000&user_id="+string(bob.User), object{"body": "x"})
	ev := alice.Must("GET", "/v3/rooms"+testrig.Path(room, "event", sent["event_id"]), nil)
	if ev["sender"] != string(alice.User) || ev["origin_server_ts"].(float64) < 1e9 {
		t.Errorf("a user chose sender or time: %v", ev)
	}
	for _, token := range []string{"", alice.Token, "as_token"} {
		c := s.Anonymous()
		c.Token = token
		for path, send := range map[string]object{
			"/v3/register": {"type": "m.login.application_service", "username": "bridge", "inhibit_login": true},
			"/v3/login":    {"type": "m.login.application_service", "identifier": object{"type": "m.id.user", "user": "bob"}},
		} {
			status, answer, err := c.Do(t.Context(), "POST", path, send)
			if must(t, err); status < 400 || answer["access_token"] != nil || answer["user_id"] != nil {
				t.Errorf("%s with %q: %d %v", path, token, status, answer)
			}
		}
	}
}

// THREATS A14: a login takes as long, and fails in the same words, whether or
// not there is such a user.
func TestLoginsDoNotTellWhoIsThere(t *testing.T) {
	s := testrig.Start(t, testrig.Options{Change: func(c *config.Config) { c.Passwords = config.Passwords{Time: 2, MemoryKiB: 8192, Threads: 1} }})
	s.Register("alice")
	gone := s.Register("gone")
	must(t, s.Accounts.Deactivate(t.Context(), gone.User, true))
	measure := func(name string) (least time.Duration, answer string) {
		var took []time.Duration
		for range 9 {
			began := time.Now()
			_, text := body(t, s, s.Anonymous(), "POST", "/v3/login", `{"type":"m.login.password","password":"x","identifier":{"type":"m.id.user","user":"`+name+`"}}`)
			took, answer = append(took, time.Since(began)), text
		}
		slices.Sort(took)
		return took[0], answer
	}
	known, words := measure("alice")
	for _, name := range []string{"nobody", "gone", "@alice:elsewhere.example", "@gone:test"} {
		took, text := measure(name)
		if text != words {
			t.Errorf("%s: %s, not %s", name, text, words)
		}
		if took < known/3 || took > known*3 {
			t.Errorf("a login of %s fails after %v, of a user that there is after %v", name, took, known)
		}
	}
}

// THREATS A14: what strangers may ask tells nothing of who has an account.
func TestStrangersLearnNothingOfUsers(t *testing.T) {
	s := testrig.Start(t, testrig.Options{})
	alice, eve := s.Register("alice"), s.Register("eve")
	alice.CreateRoom(object{"preset": "private_chat"})
	room := eve.CreateRoom(object{"preset": "public_chat"})
	if a := eve.Must("POST", "/v3/user_directory/search", object{"search_term": "alice"}); len(list(a, "results")) != 0 {
		t.Errorf("the directory shows whom eve shares no room with: %v", a)
	}
	for _, target := range []string{"/v3/presence/%s/status", "/v3/admin/whois/%s", "/v1/mutual_rooms?user_id=%s"} {
		there, a := body(t, s, eve, "GET", fmt.Sprintf(target, alice.User), "")
		nobody, b := body(t, s, eve, "GET", fmt.Sprintf(target, "@nobod:test"), "")
		if there != nobody || strings.ReplaceAll(a, "alice", "nobod") != b {
			t.Errorf("%s: %d %s and %d %s", target, there, a, nobody, b)
		}
	}
	for _, u := range []string{"@alice:test", "@nobody:test"} {
		eve.Must("POST", "/v3/rooms"+testrig.Path(room, "invite"), object{"user_id": u})
	}
	for _, target := range []string{"/v3/account/password/email/requestToken", "/v3/register/email/requestToken", "/v3/account/password/msisdn/requestToken"} {
		body(t, s, s.Anonymous(), "POST", target, `{"client_secret":"x","email":"alice@example.org","send_attempt":1}`)
	}
}

// THREATS A16: a panic, wherever it happens, is a 500 for its own request, and
// the server goes on.
func TestPanicsAreContained(t *testing.T) {
	for _, kind := range []string{"sqlite", "postgres"} {
		t.Run(kind, func(t *testing.T) {
			log := &testrig.Journal{}
			s := testrig.Start(t, testrig.Options{Database: dbtest.URL(t, kind), Log: slog.NewTextHandler(log, nil)})
			var nothing *struct{ x int }
			faults := map[string]func(ctx context.Context) error{
				"handler":     func(context.Context) error { panic("oh dear") },
				"nil pointer": func(context.Context) error { nothing.x++; return nil },
				"write": func(ctx context.Context) error {
					return s.DB().Write(ctx, func(*db.Tx) error { panic("oh dear") })
				},
				"submit": func(ctx context.Context) error {
					return s.DB().Submit(func(*db.Tx) error { nothing.x++; return nil }).Wait(ctx)
				},
				"view": func(ctx context.Context) error {
					return s.DB().View(ctx, func(db.Querier) error { panic("oh dear") })
				},
				"after the commit": func(ctx context.Context) error {
					var once sync.Once
					s.DB().Subscribe(func(db.Batch) { once.Do(func() { panic("oh dear") }) })
					return fmt.Errorf("not this time")
				},
			}
			for name, fault := range faults {
				path := "/_matrix/client/v3/fault/" + strings.ReplaceAll(name, " ", "-")
				s.Edge().Add("client", httpx.JSON("GET", path, func(ctx context.Context, _ *httpx.Caller, _ *struct{}) (*struct{}, error) {
					return nil, fault(ctx)
				}))
			}
			alice := s.Register("alice")
			room := alice.CreateRoom(object{"preset": "public_chat"})
			var wg sync.WaitGroup
			for name := range faults {
				path := "/_matrix/client/v3/fault/" + strings.ReplaceAll(name, " ", "-")
				for i := range 5 {
					wg.Go(func() {
						status, answer, err := alice.Do(context.Background(), "GET", path, nil)
						if err != nil || status != 500 || answer["errcode"] != "M_UNKNOWN" {
							t.Errorf("%s: %d %v %v", name, status, answer, err)
						}
						raw, _ := json.Marshal(answer)
						if strings.Contains(string(raw), "oh dear") || strings.Contains(string(raw), "goroutine") {
							t.Errorf("%s tells of the inside: %s", name, raw)
						}
					})
					wg.Go(func() {
						status, answer, err := alice.Do(context.Background(), "PUT",
							"/v3/rooms"+testrig.Path(room, "send", "m.room.message", name+fmt.Sprint(i)), object{"body": name})
						if err != nil || status != 200 {
							t.Errorf("a neighbour of %s: %d %v %v", name, status, answer, err)
						}
					})
				}
			}
			wg.Wait()
			alice.Say(room, "after", "after")
			if !strings.Contains(log.String(), "oh dear") {
				t.Error("the panics are not logged")
			}
			if raw, _ := json.Marshal(alice.Sync("", 0)); !strings.Contains(string(raw), `"after"`) {
				t.Errorf("the server does not go on: %s", raw)
			}
			s = s.Restart()
			alice.Say(room, "later", "later")
		})
	}
}
