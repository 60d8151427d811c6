package accounts

import (
	"encoding/json"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/teahouse-chat/teahouse/internal/httpx"
	"github.com/teahouse-chat/teahouse/internal/matrix"
)

// A session that was begun for one user, endpoint and body is of no use for
// another.
func TestUIABinding(t *testing.T) {
	each(t, nil, func(t *testing.T, r *rig) {
		alice, bob := r.register("alice"), r.register("bob")
		r.again(alice, obj{"device_id": "OLD"})
		r.again(alice, obj{"device_id": "OTHER"})
		r.again(bob, obj{"device_id": "OLD"})
		begin := func() string {
			return r.do("DELETE", v3+"devices/OLD", alice.token, "{}").want(401).str("session")
		}
		s := begin()
		refused := func(p *reply) {
			t.Helper()
			p.want(403, matrix.CodeForbidden)
		}
		refused(r.do("DELETE", v3+"devices/OTHER", alice.token, obj{"auth": alice.auth(s)}))
		refused(r.do("DELETE", v3+"devices/OLD", bob.token, obj{"auth": bob.auth(s)}))
		refused(r.do("DELETE", v3+"devices/OLD", alice.token, obj{"auth": alice.auth(s), "more": 1}))
		refused(r.do("POST", v3+"delete_devices", alice.token, obj{"auth": alice.auth(s), "devices": []string{"OLD"}}))
		refused(r.do("POST", v3+"account/deactivate", alice.token, obj{"auth": alice.auth(s)}))
		refused(r.do("POST", v1+"login/get_token", alice.token, obj{"auth": alice.auth(s)}))
		refused(r.do("POST", v3+"account/password", alice.token, obj{"auth": alice.auth(s), "new_password": "mine now"}))
		refused(r.do("POST", v3+"register", "", obj{"username": "c", "password": "p", "auth": obj{"type": StageDummy, "session": s}}))
		for _, d := range []string{"OLD", "OTHER"} {
			r.do("GET", v3+"devices/"+d, alice.token, nil).want(200)
		}
		// For what it was begun, by the alias too, it is good once.
		r.do("DELETE", "/_matrix/client/r0/devices/OLD", alice.token, obj{"auth": alice.auth(s)}).want(200)
		r.again(alice, obj{"device_id": "OLD"})
		r.do("DELETE", v3+"devices/OLD", alice.token, obj{"auth": obj{"session": s}}).want(401)
		r.do("GET", v3+"devices/OLD", alice.token, nil).want(200)
		r.do("GET", v3+"devices/OLD", bob.token, nil).want(200)
	})
}

// The body counts by its members.
func TestUIABody(t *testing.T) {
	each(t, nil, func(t *testing.T, r *rig) {
		alice := r.register("alice")
		s := r.do("POST", v3+"account/password", alice.token, `{"new_password":"n","logout_devices":false}`).want(401).str("session")
		auth, err := json.Marshal(alice.auth(s))
		if err != nil {
			t.Fatal(err)
		}
		for _, other := range []string{
			`{"new_password":"m","logout_devices":false,"auth":%s}`,
			`{"new_password":"n","logout_devices":true,"auth":%s}`,
			`{"new_password":"n","auth":%s}`,
			`{"new_password":"n","logout_devices":false,"auth":%s,"new_password":"m"}`,
		} {
			r.do("POST", v3+"account/password", alice.token, fmt.Sprintf(other, auth)).want(403, matrix.CodeForbidden)
		}
		r.do("POST", v3+"account/password", alice.token, fmt.Sprintf(` { "auth":%s, "logout_devices" : false, "new_password":"\u006e"}`, auth)).want(200)
	})
}

func TestUIAFailures(t *testing.T) {
	each(t, nil, func(t *testing.T, r *rig) {
		alice, bob := r.register("alice"), r.register("bob")
		try := func(auth any) *reply {
			return r.do("POST", v3+"delete_devices", alice.token, obj{"devices": []string{"X"}, "auth": auth})
		}
		wrong := alice
		wrong.password = "wrong"
		p := try(wrong.auth("")).want(401, matrix.CodeForbidden).shape("errcode", "error", "session", "flows", "params", "completed")
		// The same session, then the right password.
		try(alice.auth(p.str("session"))).want(200)

		// The old way to name the user, which tools still use.
		try(obj{"type": StagePassword, "user": alice.user, "password": alice.password}).want(200)
		try(obj{"type": StagePassword, "user": "alice", "password": alice.password}).want(200)

		// Somebody else's password proves nothing.
		try(bob.auth("")).want(403, matrix.CodeForbidden)
		try(obj{"type": StagePassword, "user": "nobody", "password": "x"}).want(403, matrix.CodeForbidden)
		try(obj{"type": StagePassword, "user": "a\x00", "password": "x"}).want(403, matrix.CodeForbidden)
		try(obj{"type": StagePassword, "password": "x"}).want(400, matrix.CodeMissingParam)
		// Nor does a stage that is not asked for, or is not known.
		try(obj{"type": StageDummy}).want(401, matrix.CodeForbidden)
		try(obj{"type": "m.login.recaptcha", "response": "x"}).want(401, matrix.CodeForbidden)
		// A session that is unknown, or ran out, begins anew.
		try(alice.auth("unheard of")).want(401)
		s := try(nil).want(401).str("session")
		r.advance(uiaLifetime)
		if n := try(alice.auth(s)).want(401).str("session"); n == s {
			t.Fatal("a session that ran out goes on")
		}
	})
}

func testUIA(now *time.Time) *UIA {
	a := &Accounts{secrets: secrets{zeros{}}, now: func() time.Time { return *now }, cfg: Config{}}
	u := newUIA(a)
	n := 0
	u.token = func() string { n++; return fmt.Sprint(n) }
	return u
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) { return len(b), nil }

func TestUIASessionsAreBounded(t *testing.T) {
	now := time.Unix(0, 0)
	u := testUIA(&now)
	c := &httpx.Caller{User: "@a:b"}
	for range maxUIASessions + 10 {
		if err := u.Require(t.Context(), c, UIARequest{Endpoint: "x"}, nil, PasswordFlow()); err == nil {
			t.Fatal("no challenge")
		}
	}
	if len(u.sessions) != maxUIASessions || u.order.Len() != maxUIASessions {
		t.Fatalf("%d sessions", len(u.sessions))
	}
	if u.find("1") != nil || u.find(fmt.Sprint(maxUIASessions+10)) == nil {
		t.Fatal("the wrong ones were forgotten")
	}
	now = now.Add(uiaLifetime)
	u.open([32]byte{}, nil)
	if len(u.sessions) != 1 {
		t.Fatalf("%d sessions are left when all but one ran out", len(u.sessions))
	}
}

// Of many requests that complete a session at once, one succeeds.
func TestUIASessionIsSpentOnce(t *testing.T) {
	now := time.Unix(0, 0)
	u := testUIA(&now)
	c := &httpx.Caller{}
	flows := []Flow{{StageDummy}}
	s := u.open(mustBind(t, "", UIARequest{}), flows)
	var wg sync.WaitGroup
	var mu sync.Mutex
	successes := 0
	for range 16 {
		wg.Go(func() {
			if u.Require(t.Context(), c, UIARequest{}, json.RawMessage(`{"type":"m.login.dummy","session":"`+s.id+`"}`), flows) == nil {
				mu.Lock()
				successes++
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if successes != 1 {
		t.Fatalf("%d requests succeeded", successes)
	}
	// Also of those that found the session before it was spent.
	s = u.open(mustBind(t, "", UIARequest{}), flows)
	u.complete(s, StageDummy, proof{})
	if _, done := u.spend(s); !done {
		t.Fatal("a completed session cannot be spent")
	}
	if _, done := u.spend(s); done {
		t.Fatal("a session was spent twice")
	}
}

// The first challenge is not an error to the client.
func TestChallenge(t *testing.T) {
	now := time.Unix(0, 0)
	err := testUIA(&now).Require(t.Context(), &httpx.Caller{User: "@a:b"}, UIARequest{}, nil, PasswordFlow())
	e := matrix.AsError(err)
	body, _ := json.Marshal(e)
	if e.Status != 401 || string(body) != `{"completed":[],"flows":[{"stages":["m.login.password"]}],"params":{},"session":"1"}` {
		t.Fatalf("%d %s", e.Status, body)
	}
}

func mustBind(t testing.TB, user matrix.UserID, r UIARequest) [32]byte {
	t.Helper()
	b, err := bindUIA(user, r)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// The binding tells apart what handlers tell apart, and nothing else.
func FuzzUIABinding(f *testing.F) {
	f.Add(`{"a":1,"auth":{"type":"x"}}`, "b", `"c"`)
	f.Add(`{"a":[1,{"b":null}]}`, "a", `2`)
	f.Add(`{}`, "auth", `0`)
	f.Fuzz(func(t *testing.T, body, name, value string) {
		members := map[string]json.RawMessage{}
		if json.Unmarshal([]byte(body), &members) != nil || members == nil || !json.Valid([]byte(value)) {
			return
		}
		before := mustBind(t, "@u:s", UIARequest{"e", json.RawMessage(body)})
		if before == mustBind(t, "@v:s", UIARequest{"e", json.RawMessage(body)}) || before == mustBind(t, "@u:s", UIARequest{"f", json.RawMessage(body)}) {
			t.Fatal("the user or the endpoint does not count")
		}
		delete(members, "auth")
		same, _ := json.Marshal(members)
		if before != mustBind(t, "@u:s", UIARequest{"e", same}) {
			t.Fatalf("auth or the form counts: %s, %s", body, same)
		}
		if _, there := members[name]; there || name == "auth" {
			return
		}
		key, _ := json.Marshal(name)
		if json.Unmarshal(key, &name); members[name] != nil || name == "auth" { // as it is after its bad UTF-8 is replaced
			return
		}
		members[name] = json.RawMessage(value)
		more, _ := json.Marshal(members)
		if before == mustBind(t, "@u:s", UIARequest{"e", more}) {
			t.Fatalf("a member more does not count: %s, %s", body, more)
		}
	})
}
