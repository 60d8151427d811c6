package httpx

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/teahouse-chat/teahouse/internal/matrix"
)

func TestRateLimit(t *testing.T) {
	c := newClock()
	limits := NewLimiter(map[string]Rate{"login": {PerSecond: 0.5, Burst: 2}, "off": {}}, c.now)
	h := serving(Options{Limits: limits, Now: c.now},
		who(me+"/login", NoAuth, Limit("login")), who(me+"/user", Limit("login")),
		who(me+"/free", NoAuth), who(me+"/off", NoAuth, Limit("off")), who(me+"/nowhere", NoAuth, Limit("nowhere")))

	home, away := from("192.0.2.1:1"), from("192.0.2.2:1")
	for range 2 {
		ask(t, h, "GET", me+"/login", "", home).want(200, "")
	}
	a := ask(t, h, "GET", me+"/login", "", home).want(429, matrix.CodeLimitExceeded)
	if a.Header().Get("Retry-After") != "2" || !strings.Contains(a.Body.String(), `"retry_after_ms":2000`) {
		t.Fatalf("%v %s", a.Header(), a.Body)
	}
	ask(t, h, "GET", me+"/login", "", away).want(200, "") // another address
	c.pass(1999 * time.Millisecond)
	ask(t, h, "GET", me+"/login", "", home).want(429, "") // a refusal costs nothing, so the time stands
	c.pass(time.Millisecond)
	ask(t, h, "GET", me+"/login", "", home).want(200, "")
	ask(t, h, "GET", me+"/login", "", home).want(429, "")

	bob, bridge := header("Authorization", "Bearer bob-secret"), header("Authorization", "Bearer bridge")
	for range 2 { // users have buckets of their own, wherever they are
		ask(t, h, "GET", me+"/user", "", asAlice, home).want(200, "")
		ask(t, h, "GET", me+"/user", "", bob, home).want(200, "")
	}
	ask(t, h, "GET", me+"/user", "", asAlice, away).want(429, "")
	for range 20 {
		ask(t, h, "GET", me+"/user", "", bridge, home).want(200, "")
		for _, p := range []string{"/free", "/off", "/nowhere"} {
			ask(t, h, "GET", me+p, "", home).want(200, "")
		}
	}
}

func TestRateLimitsOff(t *testing.T) {
	h := serving(Options{}, who(me, NoAuth, Limit("login")))
	for range 100 {
		ask(t, h, "GET", me, "").want(200, "")
	}
}

// A customer with an IPv6 network is one caller.
func TestRateLimitIPv6(t *testing.T) {
	l := NewLimiter(map[string]Rate{"x": {PerSecond: 1, Burst: 1}}, newClock().now)
	take := func(a string) error { return l.Take("x", &Caller{Addr: netip.MustParseAddr(a)}) }
	if take("2001:db8::1") != nil || take("2001:db8::2") == nil || take("2001:db8:0:1::1") != nil {
		t.Fatal("buckets are not by /64")
	}
}

// The limiter forgets the idle and never grows past its bound; whoever is kept
// waiting is not forgotten too early.
func TestRateLimitMemory(t *testing.T) {
	c := newClock()
	l := NewLimiter(map[string]Rate{"x": {PerSecond: 0.1, Burst: 1}}, c.now)
	class := l.classes["x"]
	for i := range 3 * maxBuckets {
		_ = l.TakeFor("x", fmt.Sprint(i))
		if n := len(class.current) + len(class.previous); n > 2*maxBuckets {
			t.Fatalf("%d buckets", n)
		}
	}
	c.pass(time.Minute)
	_ = l.TakeFor("x", "a")
	c.pass(9 * time.Second)
	_ = l.TakeFor("x", "b")
	c.pass(time.Second - 1)
	if l.TakeFor("x", "a") == nil {
		t.Fatal("forgotten before the bucket was full")
	}
	c.pass(time.Minute)
	_ = l.TakeFor("x", "c")
	c.pass(time.Minute)
	_ = l.TakeFor("x", "d")
	if n := len(class.current) + len(class.previous); n > 2 {
		t.Fatalf("%d buckets are kept for the idle", n)
	}
}

func TestLimitBeforeBody(t *testing.T) {
	c := newClock()
	h := serving(Options{Limits: NewLimiter(map[string]Rate{"x": {PerSecond: 1, Burst: 1}}, c.now)},
		JSON("POST", me, func(context.Context, *Caller, *nested) (*struct{}, error) { return nil, nil }, NoAuth, Limit("x")))
	ask(t, h, "POST", me, "rubbish").want(400, matrix.CodeNotJSON)
	ask(t, h, "POST", me, "rubbish").want(429, "")
}
