package discovery

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/teahouse-chat/teahouse/internal/matrix"
)

var day = time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)

// page is what a web server has at /.well-known/matrix/server.
type page struct {
	status int
	body   string
	header http.Header
	err    error
}

// internet is the web and the DNS of a test.
type internet struct {
	mu    sync.Mutex
	now   time.Time
	pages map[string]page
	srv   map[string][]*net.SRV // "_matrix-fed._tcp.host"
	fails map[string]bool
	asked map[string]int
}

func newInternet() *internet {
	return &internet{now: day, pages: map[string]page{}, srv: map[string][]*net.SRV{}, fails: map[string]bool{}, asked: map[string]int{}}
}

func (n *internet) RoundTrip(r *http.Request) (*http.Response, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.asked[r.URL.Host]++
	p, ok := n.pages[r.URL.Host]
	if r.URL.Scheme != "https" || r.URL.Path != "/.well-known/matrix/server" {
		return nil, errors.New("asked for " + r.URL.String())
	}
	if !ok || p.err != nil {
		return nil, errors.Join(errors.New("connection refused"), p.err)
	}
	if p.header == nil {
		p.header = http.Header{}
	}
	if p.status == 0 {
		p.status = 200
	}
	return &http.Response{StatusCode: p.status, Header: p.header, Body: io.NopCloser(strings.NewReader(p.body)), Request: r}, nil
}

func (n *internet) LookupSRV(_ context.Context, service, proto, name string) (string, []*net.SRV, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	key := "_" + service + "._" + proto + "." + name
	n.asked[key]++
	if n.fails[key] {
		return "", nil, &net.DNSError{Err: "server misbehaving", Name: key, IsTemporary: true}
	}
	if records := n.srv[key]; records != nil {
		return key, records, nil
	}
	return "", nil, &net.DNSError{Err: "no such host", Name: key, IsNotFound: true}
}

func (n *internet) count(what string) int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.asked[what]
}

func (n *internet) resolver(t testing.TB) *Resolver {
	t.Helper()
	r, err := New(Options{HTTP: &http.Client{Transport: n}, LookupSRV: n.LookupSRV, Log: slog.New(slog.DiscardHandler), Now: func() time.Time {
		n.mu.Lock()
		defer n.mu.Unlock()
		return n.now
	}})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func (n *internet) pass(d time.Duration) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.now = n.now.Add(d)
}

func told(to string) page { return page{body: fmt.Sprintf(`{"m.server":%q}`, to)} }

func show(targets []Target) string {
	var list []string
	for _, t := range targets {
		list = append(list, t.Address+" Host:"+t.Host+" TLS:"+t.TLSName)
	}
	return strings.Join(list, "; ")
}

// All steps of the specification, and what may come between them.
func TestSteps(t *testing.T) {
	n := newInternet()
	for host, p := range map[string]page{
		"wk-ip.org": told("5.6.7.8"), "wk-ip-port.org": told("5.6.7.8:99"), "wk-ip6.org": told("[2a00::1]"), "wk-ip6-port.org": told("[2a00::1]:99"),
		"wk-port.org": told("d.net:99"), "wk-fed.org": told("fed.net"), "wk-old.org": told("old.net"), "wk-plain.org": told("plain.net"), "wk-chain.org": told("wk-ip.org"),
		"wk-404.org": {status: 404, body: `{"m.server":"d.net:1"}`}, "wk-redirect.org": {status: 302, body: `{"m.server":"d.net:1"}`},
		"wk-html.org": {body: "<html>"}, "wk-empty.org": {body: "{}"}, "wk-number.org": {body: `{"m.server":5}`}, "wk-list.org": {body: `["m.server"]`}, "wk-null.org": {body: `{"m.server":null}`},
		"wk-case.org": {body: `{"M.Server":"d.net:1"}`}, "wk-bad.org": told("d.net:port"), "wk-url.org": told("https://d.net"), "wk-zero.org": told("d.net:0"), "wk-blank.org": told(""),
		"wk-huge.org":   {body: `{"m.server":"d.net:1","pad":"` + strings.Repeat("x", MaxWellKnown) + `"}`},
		"wk-both.org":   told("both.net"),
		"wk-extra.org":  {body: `{"m.server":"d.net:99","more":[1]}`, header: http.Header{"Content-Type": {"text/plain"}}},
		"wk-fedsrv.org": {status: 500},
	} {
		n.pages[host] = p
	}
	for key, records := range map[string][]*net.SRV{
		"_matrix-fed._tcp.fed.net": {{Target: "t1.net.", Port: 1}, {Target: "t2.net", Port: 2}}, "_matrix._tcp.old.net": {{Target: "t.net.", Port: 7}},
		"_matrix-fed._tcp.both.net": {{Target: "new.net.", Port: 1}}, "_matrix._tcp.both.net": {{Target: "old.net.", Port: 1}},
		"_matrix-fed._tcp.srv-fed.org": {{Target: "t.net.", Port: 5}}, "_matrix._tcp.srv-old.org": {{Target: "t.net.", Port: 6}},
		"_matrix-fed._tcp.wk-fedsrv.org": {{Target: "t.net.", Port: 8}}, "_matrix-fed._tcp.gone.org": {{Target: ".", Port: 0}}, "_matrix._tcp.gone.org": {{Target: "t.net.", Port: 1}},
		"_matrix-fed._tcp.port0.org": {{Target: "t.net.", Port: 0}}, "_matrix-fed._tcp.ported.org": {{Target: "wrong.net.", Port: 1}}, "_matrix._tcp.temp.org": {{Target: "t.net.", Port: 3}},
	} {
		n.srv[key] = records
	}
	n.fails["_matrix-fed._tcp.temp.org"], n.fails["_matrix-fed._tcp.temp2.org"], n.fails["_matrix._tcp.temp2.org"] = true, true, true
	r := n.resolver(t)
	for server, want := range map[matrix.ServerName]string{
		// 1: IP literals
		"1.2.3.4": "1.2.3.4:8448 Host:1.2.3.4 TLS:1.2.3.4", "1.2.3.4:99": "1.2.3.4:99 Host:1.2.3.4:99 TLS:1.2.3.4",
		"[2a00::1]": "[2a00::1]:8448 Host:[2a00::1] TLS:2a00::1", "[2a00::1]:99": "[2a00::1]:99 Host:[2a00::1]:99 TLS:2a00::1",
		// 2: explicit ports
		"ported.org:99": "ported.org:99 Host:ported.org:99 TLS:ported.org", "wk-port.org:8448": "wk-port.org:8448 Host:wk-port.org:8448 TLS:wk-port.org",
		// 3: .well-known
		"wk-ip.org": "5.6.7.8:8448 Host:5.6.7.8 TLS:5.6.7.8", "wk-ip-port.org": "5.6.7.8:99 Host:5.6.7.8:99 TLS:5.6.7.8",
		"wk-ip6.org": "[2a00::1]:8448 Host:[2a00::1] TLS:2a00::1", "wk-ip6-port.org": "[2a00::1]:99 Host:[2a00::1]:99 TLS:2a00::1",
		"wk-port.org": "d.net:99 Host:d.net:99 TLS:d.net", "wk-extra.org": "d.net:99 Host:d.net:99 TLS:d.net",
		"wk-fed.org": "t1.net:1 Host:fed.net TLS:fed.net; t2.net:2 Host:fed.net TLS:fed.net", "wk-old.org": "t.net:7 Host:old.net TLS:old.net",
		"wk-both.org": "new.net:1 Host:both.net TLS:both.net", "wk-plain.org": "plain.net:8448 Host:plain.net TLS:plain.net",
		"wk-chain.org": "wk-ip.org:8448 Host:wk-ip.org TLS:wk-ip.org", // a delegation is followed once
		// 4 and 5: SRV records
		"srv-fed.org": "t.net:5 Host:srv-fed.org TLS:srv-fed.org", "srv-old.org": "t.net:6 Host:srv-old.org TLS:srv-old.org",
		"wk-fedsrv.org": "t.net:8 Host:wk-fedsrv.org TLS:wk-fedsrv.org", "temp.org": "t.net:3 Host:temp.org TLS:temp.org",
		// 6: the host itself
		"plain.org": "plain.org:8448 Host:plain.org TLS:plain.org", "temp2.org": "temp2.org:8448 Host:temp2.org TLS:temp2.org", "port0.org": "port0.org:8448 Host:port0.org TLS:port0.org",
		"gone.org": "",
		// no names of servers
		"": "", "1.2.3": "", "1.2.3.256": "", "0x7f.1": "", "127.0x1": "", "2130706433": "", "a..b": "", ".org": "", "org.": "", "-a.org": "", "a.org:0": "", "a.org:65536": "", "a b": "",
		"[::1%25lo]": "", "a.org/x": "", "u@a.org": "", matrix.ServerName(strings.Repeat("a", 64) + ".org"): "",
	} {
		targets, err := r.Resolve(t.Context(), server)
		if got := show(targets); got != want || (err == nil) != (want != "") {
			t.Errorf("%s: %s, want %s (%v)", server, got, want, err)
		}
	}
	for _, host := range []string{"wk-404.org", "wk-redirect.org", "wk-html.org", "wk-empty.org", "wk-number.org", "wk-list.org", "wk-null.org", "wk-case.org", "wk-bad.org", "wk-url.org", "wk-zero.org", "wk-blank.org", "wk-huge.org"} {
		targets, err := r.Resolve(t.Context(), matrix.ServerName(host))
		if want := fmt.Sprintf("%s:8448 Host:%s TLS:%s", host, host, host); show(targets) != want || err != nil {
			t.Errorf("%s: %s, %v", host, show(targets), err)
		}
		if n.count(host) != 1 {
			t.Errorf("%s was asked %d times", host, n.count(host))
		}
	}
	if n.count("ported.org")+n.count("_matrix-fed._tcp.ported.org") != 0 {
		t.Error("an explicit port was looked up")
	}
}

func TestLifetimes(t *testing.T) {
	header := func(pairs ...string) http.Header {
		h := http.Header{}
		for i := 0; i < len(pairs); i += 2 {
			h.Add(pairs[i], pairs[i+1])
		}
		return h
	}
	for _, c := range []struct {
		header http.Header
		want   time.Duration
	}{
		{header(), defaultLife},
		{header("Cache-Control", "max-age=7200"), 2 * time.Hour},
		{header("Cache-Control", "public, MAX-AGE=7200 , must-revalidate"), 2 * time.Hour},
		{header("Cache-Control", `max-age="7200"`), 2 * time.Hour},
		{header("Cache-Control", "public", "Cache-Control", "max-age=600"), 10 * time.Minute},
		{header("Cache-Control", "max-age=1"), minLife},
		{header("Cache-Control", "max-age=0"), minLife},
		{header("Cache-Control", "max-age=99999999"), maxLife},
		{header("Cache-Control", "max-age=99999999999999999999999"), maxLife},
		{header("Cache-Control", "max-age=soon"), defaultLife},
		{header("Cache-Control", "max-age=-5"), defaultLife},
		{header("Cache-Control", "no-store"), minLife},
		{header("Cache-Control", "max-age=7200, no-cache"), minLife},
		{header("Expires", day.Add(3*time.Hour).Format(http.TimeFormat)), 3 * time.Hour},
		{header("Expires", day.Add(-3*time.Hour).Format(http.TimeFormat)), minLife},
		{header("Expires", "0"), minLife},
		{header("Expires", day.Add(3*time.Hour).Format(http.TimeFormat), "Cache-Control", "max-age=7200"), 2 * time.Hour},
	} {
		if got := lifetime(c.header, day); got != c.want {
			t.Errorf("%v: %v, want %v", c.header, got, c.want)
		}
	}
}

func TestDelegationIsRemembered(t *testing.T) {
	n := newInternet()
	n.pages["x.org"] = page{body: `{"m.server":"a.net:1"}`, header: http.Header{"Cache-Control": {"max-age=3600"}}}
	r := n.resolver(t)
	want := func(address string, asked int) {
		t.Helper()
		targets, err := r.Resolve(t.Context(), "x.org")
		if err != nil || targets[0].Address != address || n.count("x.org") != asked {
			t.Fatalf("%s, asked %d times, %v; want %s, %d", show(targets), n.count("x.org"), err, address, asked)
		}
	}
	want("a.net:1", 1)
	n.pages["x.org"] = told("b.net:1")
	n.pass(59 * time.Minute)
	want("a.net:1", 1)
	r.Forget("x.org") // DNS is asked again, the web is not
	want("a.net:1", 1)
	n.pass(time.Minute)
	want("b.net:1", 2)
	// An outage changes nothing for two days, and is not asked about all the time.
	n.pages["x.org"] = page{status: 503}
	n.pass(defaultLife)
	want("b.net:1", 3)
	n.pass(59 * time.Second)
	want("b.net:1", 3)
	n.pass(time.Second)
	want("b.net:1", 4)
	n.pass(23 * time.Hour)
	want("b.net:1", 5)
	n.pass(2 * time.Hour)
	want("x.org:8448", 6)
}

func TestFailuresAreRememberedForLess(t *testing.T) {
	n := newInternet()
	r := n.resolver(t)
	for range 24 * 60 { // a day in minutes
		if _, err := r.Resolve(t.Context(), "x.org"); err != nil {
			t.Fatal(err)
		}
		n.pass(time.Minute)
	}
	if c := n.count("x.org"); c < 24 || c > 32 {
		t.Errorf("asked %d times in a day", c)
	}
	n.pages["x.org"] = told("a.net:1")
	n.pass(maxBackoff)
	if targets, _ := r.Resolve(t.Context(), "x.org"); show(targets) != "a.net:1 Host:a.net:1 TLS:a.net" {
		t.Error(show(targets))
	}
}

func TestDNSIsAskedAgain(t *testing.T) {
	n := newInternet()
	n.pages["x.org"] = told("y.net")
	n.srv["_matrix-fed._tcp.y.net"] = []*net.SRV{{Target: "a.", Port: 1}}
	r := n.resolver(t)
	address := func() string {
		targets, err := r.Resolve(t.Context(), "x.org")
		if err != nil {
			t.Fatal(err)
		}
		return targets[0].Address
	}
	if address() != "a:1" {
		t.Fatal(address())
	}
	n.srv["_matrix-fed._tcp.y.net"] = []*net.SRV{{Target: "b.", Port: 1}}
	if address() != "a:1" {
		t.Error("asked at once")
	}
	r.Forget("x.org")
	if address() != "b:1" {
		t.Error("remembered what was to be forgotten")
	}
	n.srv["_matrix-fed._tcp.y.net"] = []*net.SRV{{Target: "c.", Port: 1}}
	n.pass(maxResult)
	if address() != "c:1" || n.count("x.org") != 1 {
		t.Errorf("%s, asked %d times", address(), n.count("x.org"))
	}
	// An answer that DNS failed to give is asked for again soon.
	n.fails["_matrix-fed._tcp.y.net"] = true
	n.pass(maxResult)
	if address() != "y.net:8448" {
		t.Error(address())
	}
	n.fails["_matrix-fed._tcp.y.net"] = false
	n.pass(minResult)
	if address() != "c:1" {
		t.Error(address())
	}
}

// Many who ask at once cause one look-up, and one who leaves harms nobody.
func TestOneLookupForManyWaiters(t *testing.T) {
	n := newInternet()
	n.pages["x.org"] = told("a.net:1")
	r := n.resolver(t)
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	var all sync.WaitGroup
	for i := range 20 {
		all.Go(func() {
			ctx := t.Context()
			if i == 0 {
				ctx = gone
			}
			if targets, err := r.Resolve(ctx, "x.org"); i > 0 && (err != nil || len(targets) != 1) {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if _, err := r.Resolve(t.Context(), "x.org"); err != nil || n.count("x.org") != 1 {
		t.Errorf("asked %d times, %v", n.count("x.org"), err)
	}
}

func FuzzParseName(f *testing.F) {
	for _, s := range []string{"matrix.org", "matrix.org:8888", "1.2.3.4:1", "[::1]:1", "[1::%lo]", "a..b", "0x7f.1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		n, err := ParseName(matrix.ServerName(s))
		if err != nil {
			return
		}
		if n.header() != s {
			t.Errorf("%q has the Host header %q", s, n.header())
		}
		host, _, err := net.SplitHostPort(n.join(n.Port))
		if err != nil || host != n.Host || strings.ContainsAny(host, "/@%?# []") {
			t.Errorf("%q is dialled as %q", s, n.join(n.Port))
		}
	})
}

func FuzzWellKnown(f *testing.F) {
	f.Add([]byte(`{"m.server":"a.net:1"}`), "max-age=5, no-store", "Thu, 01 Dec 1994 16:00:00 GMT")
	f.Fuzz(func(t *testing.T, text []byte, control, expires string) {
		if to, err := parseWellKnown(text); err == nil {
			if _, err := matrix.ParseServerName(string(to)); err != nil {
				t.Errorf("%q delegates to %q", text, to)
			}
		}
		if life := lifetime(http.Header{"Cache-Control": {control}, "Expires": {expires}}, day); life < minLife || life > maxLife {
			t.Errorf("%q, %q: %v", control, expires, life)
		}
	})
}
