package accounts

import (
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/teahouse-chat/teahouse/internal/db"
	"github.com/teahouse-chat/teahouse/internal/httpx"
	"github.com/teahouse-chat/teahouse/internal/matrix"
)

func (r *rig) refresh(token string) *reply {
	r.t.Helper()
	return r.do("POST", v3+"refresh", "", obj{"refresh_token": token})
}

// pair is an access token and its refresh token.
type pair struct{ access, refresh string }

func tokens(p *reply) pair {
	p.t.Helper()
	return pair{p.str("access_token"), p.str("refresh_token")}
}

func (r *rig) loginToRefresh(l login, device string) pair {
	r.t.Helper()
	p := r.do("POST", v3+"login", "", obj{
		"type": "m.login.password", "user": l.user, "password": l.password, "device_id": device, "refresh_token": true,
	}).want(200).shape("user_id", "access_token", "device_id", "home_server", "refresh_token", "expires_in_ms")
	if p.body["expires_in_ms"] != 3_600_000.0 {
		r.t.Errorf("lifetime: %s", p.raw)
	}
	return tokens(p)
}

func TestRefresh(t *testing.T) {
	each(t, nil, func(t *testing.T, r *rig) {
		alice := r.register("alice")
		ended := 0
		r.a.OnLogout(func(matrix.UserID, matrix.DeviceID) { ended++ })
		one := r.loginToRefresh(alice, "D")
		r.whoami(one.access).want(200)

		// Until the new tokens are used the old ones are good, and the answer
		// that got lost is void once it is asked for again.
		lost := tokens(r.refresh(one.refresh).want(200).shape("access_token", "refresh_token", "expires_in_ms"))
		two := tokens(r.refresh(one.refresh).want(200))
		r.whoami(lost.access).want(401, matrix.CodeUnknownToken)
		r.refresh(lost.refresh).want(401, matrix.CodeUnknownToken)
		r.whoami(one.access).want(200)

		// Using the new access token ends the old ones.
		if p := r.whoami(two.access).want(200); p.str("device_id") != "D" {
			t.Error(p.raw)
		}
		r.whoami(one.access).want(401, matrix.CodeUnknownToken)
		if p := r.refresh(one.refresh).want(401, matrix.CodeUnknownToken); p.body["soft_logout"] != nil {
			t.Errorf("a used token: %s", p.raw)
		}

		// So does using the new refresh token.
		three := tokens(r.refresh(two.refresh).want(200))
		four := tokens(r.refresh(three.refresh).want(200))
		r.refresh(two.refresh).want(401, matrix.CodeUnknownToken)
		r.whoami(two.access).want(401, matrix.CodeUnknownToken)
		r.whoami(three.access).want(200)
		r.whoami(four.access).want(200)
		r.whoami(three.access).want(401, matrix.CodeUnknownToken)
		if ended != 0 {
			t.Errorf("a refresh ended %d sessions", ended)
		}

		// An access token is no refresh token, nor the other way round.
		r.refresh(four.access).want(401, matrix.CodeUnknownToken)
		r.whoami(four.refresh).want(401, matrix.CodeUnknownToken)
		r.refresh("").want(401, matrix.CodeUnknownToken)
		r.do("POST", v3+"refresh", "", "{}").want(400, matrix.CodeMissingParam)
	})
}

func TestExpiry(t *testing.T) {
	each(t, nil, func(t *testing.T, r *rig) {
		alice := r.register("alice")
		one := r.loginToRefresh(alice, "D")
		r.whoami(one.access).want(200)
		r.advance(time.Hour)
		// A soft logout, from the cache as from the database.
		if p := r.whoami(one.access).want(401, matrix.CodeUnknownToken); p.body["soft_logout"] != true {
			t.Fatalf("not soft: %s", p.raw)
		}
		r.a.cache.evict(matrix.UserID(alice.user))
		if p := r.whoami(one.access).want(401, matrix.CodeUnknownToken); p.body["soft_logout"] != true {
			t.Fatalf("not soft: %s", p.raw)
		}
		r.whoami(alice.token).want(200) // cannot refresh, so does not expire
		two := tokens(r.refresh(one.refresh).want(200))
		r.whoami(two.access).want(200)
		r.advance(90 * 24 * time.Hour)
		if p := r.refresh(two.refresh).want(401, matrix.CodeUnknownToken); p.body["soft_logout"] != true {
			t.Fatalf("not soft: %s", p.raw)
		}
		// After a soft logout the same device goes on.
		three := r.loginToRefresh(alice, "D")
		r.whoami(three.access).want(200)
		r.refresh(two.refresh).want(401, matrix.CodeUnknownToken)
	})
}

func TestLogout(t *testing.T) {
	each(t, nil, func(t *testing.T, r *rig) {
		var ended []string
		r.a.OnLogout(func(u matrix.UserID, d matrix.DeviceID) { ended = append(ended, string(d)) })
		alice, bob := r.register("alice"), r.register("bob")
		phone := r.again(alice, obj{"device_id": "PHONE"})
		desk := r.again(alice, obj{"device_id": "DESK", "refresh_token": true})
		r.do("POST", v3+"logout", phone.token, nil).want(200).shape()
		r.do("POST", v3+"logout", phone.token, nil).want(401, matrix.CodeUnknownToken)
		r.do("POST", v3+"logout", "", nil).want(401, matrix.CodeMissingToken)
		r.do("POST", v3+"logout", "unheard", nil).want(401, matrix.CodeUnknownToken)
		r.do("GET", v3+"devices/PHONE", alice.token, nil).want(404, matrix.CodeNotFound)
		r.do("POST", v3+"logout/all", desk.token, "{}").want(200).shape()
		for _, l := range []login{alice, desk} {
			if p := r.whoami(l.token).want(401, matrix.CodeUnknownToken); p.body["soft_logout"] != nil {
				t.Errorf("a hard logout is soft: %s", p.raw)
			}
		}
		r.whoami(bob.token).want(200)
		if got := strings.Join(ended, " "); got != "PHONE DESK "+alice.device && got != "PHONE "+alice.device+" DESK" {
			t.Errorf("ended: %s", got)
		}
	})
}

// A3: every endpoint that asks for a token, in every state of the account and
// the session, whether the session was in use before or not.
func TestEndpointsByState(t *testing.T) {
	endpoints := []struct{ method, path, body string }{
		{"GET", v3 + "account/whoami", ""},
		{"POST", v3 + "account/password", `{"new_password":"x"}`},
		{"POST", v3 + "account/deactivate", "{}"},
		{"GET", v3 + "devices", ""},
		{"GET", v3 + "devices/D", ""},
		{"PUT", v3 + "devices/D", `{"display_name":"x"}`},
		{"DELETE", v3 + "devices/D", "{}"},
		{"POST", v3 + "delete_devices", `{"devices":["D"]}`},
		{"POST", v1 + "login/get_token", "{}"},
		{"POST", v3 + "logout/all", "{}"},
		{"POST", v3 + "logout", "{}"},
	}
	states := []struct {
		name  string
		enter func(r *rig, l login) error
		code  matrix.Code
		soft  bool
	}{
		{"logged out", func(r *rig, l login) error {
			r.do("POST", v3+"logout", l.token, nil).want(200)
			return nil
		}, matrix.CodeUnknownToken, false},
		{"device deleted", func(r *rig, l login) error {
			r.do("POST", v3+"delete_devices", l.token, obj{"devices": []string{l.device}, "auth": l.auth("")}).want(200)
			return nil
		}, matrix.CodeUnknownToken, false},
		{"deactivated", func(r *rig, l login) error {
			return r.a.Deactivate(r.t.Context(), matrix.UserID(l.user), false)
		}, matrix.CodeUnknownToken, false},
		{"password reset", func(r *rig, l login) error {
			return r.a.SetPassword(r.t.Context(), matrix.UserID(l.user), "other", true)
		}, matrix.CodeUnknownToken, false},
		{"locked", func(r *rig, l login) error {
			return r.a.SetLocked(r.t.Context(), matrix.UserID(l.user), true)
		}, matrix.CodeUserLocked, true},
		{"expired", func(r *rig, l login) error { r.advance(time.Hour); return nil }, matrix.CodeUnknownToken, true},
		{"taken over", func(r *rig, l login) error {
			r.again(l, obj{"device_id": l.device})
			return nil
		}, matrix.CodeUnknownToken, false},
	}
	each(t, nil, func(t *testing.T, r *rig) {
		for i, s := range states {
			for _, warm := range []bool{true, false} {
				name := "user" + string(rune('a'+i)) + map[bool]string{true: "-warm", false: "-cold"}[warm]
				l := r.again(r.register(name), obj{"refresh_token": true, "device_id": "D"})
				if warm {
					r.whoami(l.token).want(200)
				}
				if err := s.enter(r, l); err != nil {
					t.Fatal(err)
				}
				for _, e := range endpoints {
					p := r.do(e.method, e.path, l.token, e.body)
					if s.code == matrix.CodeUserLocked && strings.HasPrefix(e.path, v3+"logout") {
						if p.status != 200 && e.path == v3+"logout/all" {
							t.Errorf("%s, %s: a locked user cannot log out: %d %s", s.name, e.path, p.status, p.raw)
						}
						continue
					}
					if p.status != 401 || p.body["errcode"] != string(s.code) || (p.body["soft_logout"] == true) != s.soft {
						t.Errorf("%s, %s %s, warm=%v: %d %s", s.name, e.method, e.path, warm, p.status, p.raw)
					}
				}
			}
		}
	})
}

// The list above is every route that needs a token.
func TestEndpointListIsComplete(t *testing.T) {
	open := map[string]bool{"register": true, "register/available": true, "login": true, "refresh": true, "register/m.login.registration_token/validity": true, "auth/{stage}/fallback/web": true}
	d, _ := db.Open(t.Context(), "sqlite://"+t.TempDir()+"/x.db", db.Options{})
	defer d.Close()
	r := newRig(t, d, nil, nil)
	n := 0
	for _, rt := range r.a.Routes() {
		path := strings.TrimPrefix(strings.TrimPrefix(rt.Path, v3), v1)
		if open[path] {
			continue
		}
		n++
		path = strings.ReplaceAll(rt.Path, "{deviceId}", "D")
		r.do(rt.Method, path, "", "{}").want(401, matrix.CodeMissingToken)
	}
	if n != 11 {
		t.Fatalf("%d routes need a token; the table of states has 11", n)
	}
}

func TestLocked(t *testing.T) {
	each(t, nil, func(t *testing.T, r *rig) {
		var ended []string
		r.a.OnLogout(func(u matrix.UserID, d matrix.DeviceID) { ended = append(ended, string(u)+"/"+string(d)) })
		alice := r.register("alice")
		p := r.loginToRefresh(alice, "D")
		lock := func(on bool) {
			if err := r.a.SetLocked(t.Context(), matrix.UserID(alice.user), on); err != nil {
				t.Fatal(err)
			}
		}
		lock(true)
		if strings.Join(ended, " ") != "@alice:tea.example/" {
			t.Fatalf("the polls do not end: %v", ended)
		}
		r.do("POST", v3+"login", "", obj{"type": "m.login.password", "user": "alice", "password": alice.password}).want(401, matrix.CodeUserLocked)
		r.do("POST", v3+"login", "", obj{"type": "m.login.password", "user": "alice", "password": "wrong"}).want(403, matrix.CodeForbidden)
		r.refresh(p.refresh).want(401, matrix.CodeUserLocked)
		lock(false)
		r.whoami(alice.token).want(200) // the session was kept
		tokens(r.refresh(p.refresh).want(200))
		lock(true)
		r.do("POST", v3+"logout", alice.token, nil).want(200)
		lock(false)
		r.whoami(alice.token).want(401, matrix.CodeUnknownToken)
		if err := r.a.SetLocked(t.Context(), "@nobody:tea.example", true); !matrix.HasCode(err, matrix.CodeNotFound) {
			t.Fatal(err)
		}
	})
}

// A warm request reads nothing: it is served with the database closed.
func TestWarmRequestReadsNothing(t *testing.T) {
	d, err := db.Open(t.Context(), "sqlite://"+t.TempDir()+"/x.db", db.Options{})
	if err != nil {
		t.Fatal(err)
	}
	r := newRig(t, d, nil, nil)
	alice := r.register("alice")
	r.whoami(alice.token).want(200)
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		r.whoami(alice.token).want(200)
		r.advance(time.Minute)
	}
	if p := r.whoami("unheard"); p.status != 500 {
		t.Fatalf("the database is not closed: %d", p.status)
	}
}

// Sessions that end while they are being read for the first time stay ended.
func TestCacheNeverOutlivesTheRow(t *testing.T) {
	each(t, nil, func(t *testing.T, r *rig) {
		alice := r.register("alice")
		var wg sync.WaitGroup
		for round := range 10 {
			l := r.again(alice, nil)
			h := hashToken(l.token)
			stop := make(chan struct{})
			for range 4 {
				wg.Go(func() {
					for {
						select {
						case <-stop:
							return
						default:
							_, _ = r.a.session(t.Context(), h)
						}
					}
				})
			}
			err := r.a.change(t.Context(), matrix.UserID(alice.user), func(tx *db.Tx, u User) error {
				return removeDevices(tx, u.ID, u.nid, []matrix.DeviceID{matrix.DeviceID(l.device)})
			})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := r.a.session(t.Context(), h); !matrix.HasCode(err, matrix.CodeUnknownToken) {
				t.Errorf("round %d: the session is still there: %v", round, err)
			}
			close(stop)
			wg.Wait()
			if s, _ := r.a.cache.get(h); s != nil {
				t.Errorf("round %d: the session came back", round)
			}
		}
	})
}

func TestCacheIsBounded(t *testing.T) {
	c := newSessionCache()
	for i := range maxCachedSessions + 10 {
		s := &session{}
		s.caller.User = matrix.UserID(rune('a' + i%5))
		var h tokenHash
		h[0], h[1], h[2] = byte(i), byte(i>>8), byte(i>>16)
		if !c.offer(h, s, 0) {
			t.Fatal("refused")
		}
	}
	n := 0
	for _, of := range c.byUser {
		n += len(of)
	}
	if len(c.byToken) != maxCachedSessions || n != maxCachedSessions {
		t.Fatalf("%d by token, %d by user", len(c.byToken), n)
	}
	if c.evict("a"); c.offer(tokenHash{}, &session{}, 0) {
		t.Fatal("an offer from before an eviction was taken")
	}
}

func TestLastSeen(t *testing.T) {
	each(t, nil, func(t *testing.T, r *rig) {
		alice := r.register("alice")
		stored := func() (ts int64, ip string) {
			t.Helper()
			list, err := r.a.Devices(t.Context(), matrix.UserID(alice.user))
			if err != nil || len(list) != 1 {
				t.Fatalf("%v %v", list, err)
			}
			return list[0].LastSeenTS, list[0].LastSeenIP
		}
		before, _ := stored()
		r.advance(time.Hour)
		r.whoami(alice.token).want(200)
		if ts, _ := stored(); ts != before {
			t.Fatal("a request writes")
		}
		// What is not written yet is seen already.
		p := r.do("GET", v3+"devices/"+alice.device, alice.token, nil).want(200)
		if p.body["last_seen_ts"] != float64(r.a.nowMS()) || p.str("last_seen_ip") != "127.0.0.1" {
			t.Fatal(p.raw)
		}
		if err := r.a.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		if ts, ip := stored(); ts != r.a.nowMS() || ip != "127.0.0.1" {
			t.Fatalf("%d %s", ts, ip)
		}
		// Within half a minute nothing new is noted.
		r.advance(time.Second)
		r.whoami(alice.token).want(200)
		if len(r.a.seen.take()) != 0 {
			t.Fatal("noted too often")
		}
	})
}

func TestDeactivateIsFinishedAfterAFailure(t *testing.T) {
	each(t, nil, func(t *testing.T, r *rig) {
		alice := r.register("alice")
		r.rooms.fail = errors.New("no room engine yet")
		if err := r.a.Deactivate(t.Context(), matrix.UserID(alice.user), true); err != nil {
			t.Fatal(err)
		}
		r.whoami(alice.token).want(401, matrix.CodeUnknownToken)
		if err := r.a.resumeDepartures(t.Context()); err == nil {
			t.Fatal("no error")
		}
		r.rooms.fail = nil
		for range 2 {
			if err := r.a.resumeDepartures(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if len(r.rooms.left) != 1 {
			t.Fatalf("left %v", r.rooms.left)
		}
	})
}

func TestAlive(t *testing.T) {
	each(t, nil, func(t *testing.T, r *rig) {
		alice := r.register("alice")
		s, err := r.a.session(t.Context(), hashToken(alice.token))
		if err != nil {
			t.Fatal(err)
		}
		caller := s.caller
		alive := func(want bool) {
			t.Helper()
			if got, err := r.a.Alive(t.Context(), &caller); got != want || err != nil {
				t.Fatalf("alive: %v %v, want %v", got, err, want)
			}
		}
		alive(true)
		for _, on := range []bool{true, false} {
			if err := r.a.SetLocked(t.Context(), caller.User, on); err != nil {
				t.Fatal(err)
			}
			alive(!on)
		}
		r.do("POST", v3+"logout", alice.token, nil).want(200)
		alive(false)
		if _, err := r.a.Alive(t.Context(), &httpx.Caller{User: caller.User, Token: "nonsense"}); err == nil {
			t.Fatal("nonsense is taken")
		}
	})
}
