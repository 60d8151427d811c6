package checkup_test

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/teahouse-chat/teahouse/federation/checkup"
	"github.com/teahouse-chat/teahouse/federation/discovery"
	"github.com/teahouse-chat/teahouse/federation/keys"
	"github.com/teahouse-chat/teahouse/federation/transport"
	"github.com/teahouse-chat/teahouse/internal/dialer"
	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/internal/testrig"
)

// world is a network with one server that may be set up wrongly.
type world struct {
	t    *testing.T
	n    *testrig.Network
	file keys.File
	ring *keys.Ring
	now  time.Time
}

func newWorld(t *testing.T) *world {
	t.Helper()
	key, err := keys.Generate(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, n: testrig.NewNetwork(), file: keys.File{Current: key}, now: time.Now()}
	if w.ring, err = keys.New(keys.Options{Server: "example.org", Keys: w.file, Now: time.Now}); err != nil {
		t.Fatal(err)
	}
	return w
}

// serve answers at an address with a certificate for names.
func (w *world) serve(address string, h http.HandlerFunc, names ...string) {
	w.t.Helper()
	l, err := w.n.Listen("tcp", address)
	if err != nil {
		w.t.Fatal(err)
	}
	srv := &http.Server{Handler: h, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug)}
	w.t.Cleanup(func() { _ = srv.Close() })
	if len(names) == 0 {
		go func() { _ = srv.Serve(l) }()
		return
	}
	cert, key := w.n.Certificate(w.t, w.t.TempDir(), names...)
	go func() { _ = srv.ServeTLS(l, cert, key) }()
}

// keys publishes the server's keys.
func (w *world) keys(rw http.ResponseWriter, r *http.Request) {
	if r.URL.Path != "/_matrix/key/v2/server" {
		http.NotFound(rw, r)
		return
	}
	answer, err := w.ring.Published()
	if err != nil {
		w.t.Error(err)
	}
	_, _ = rw.Write(answer)
}

func (w *world) run(server matrix.ServerName) checkup.Report {
	w.t.Helper()
	d := dialer.New(dialer.Options{Resolve: w.n.Resolve, Dial: w.n.Dial})
	roots, err := transport.Authorities(w.n.Authority(w.t, w.t.TempDir()))
	if err != nil {
		w.t.Fatal(err)
	}
	o := discovery.ClientOptions()
	o.TLS = &tls.Config{RootCAs: roots}
	resolver, err := discovery.New(discovery.Options{HTTP: d.Client(o), LookupSRV: w.n.LookupSRV, Now: time.Now, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		w.t.Fatal(err)
	}
	public := w.file.Current.Private.Public().(ed25519.PublicKey)
	return checkup.Run(w.t.Context(), checkup.Deps{
		Discovery: resolver, Dialer: d, RootCAs: roots, Now: func() time.Time { return w.now },
	}, server, &checkup.Key{ID: w.file.Current.ID, Public: public})
}

func text(r checkup.Report) string {
	var b strings.Builder
	for _, f := range r {
		fmt.Fprintf(&b, "%d %s | %s\n", f.Level, f.What, f.Remedy)
	}
	return b.String()
}

// Every way to be reached that is set up right is found good.
func TestGood(t *testing.T) {
	delegate := func(to string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintf(w, `{"m.server":%q}`, to) }
	}
	for name, setUp := range map[string]func(w *world){
		"at the name itself": func(w *world) { w.serve("example.org:8448", w.keys, "example.org") },
		"by .well-known": func(w *world) {
			w.serve("example.org:443", delegate("matrix.example.org:443"), "example.org")
			w.serve("matrix.example.org:443", w.keys, "matrix.example.org")
		},
		"by SRV": func(w *world) {
			w.n.Service("matrix-fed", "example.org", &net.SRV{Target: "host.example.net.", Port: 9000})
			w.serve("host.example.net:9000", w.keys, "example.org")
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			setUp(w)
			if r := w.run("example.org"); !r.OK() || !strings.Contains(text(r), "publishes the keys of example.org") {
				t.Errorf("%s", text(r))
			}
		})
	}
}

// What is set up wrongly is named, with a remedy.
func TestBad(t *testing.T) {
	for name, c := range map[string]struct {
		setUp func(w *world)
		want  string
	}{
		"nothing listens":   {func(w *world) {}, "cannot be connected to"},
		"wrong certificate": {func(w *world) { w.serve("example.org:8448", w.keys, "other.example") }, "is for other.example, not for example.org"},
		"certificate of the SRV target": {func(w *world) {
			w.n.Service("matrix-fed", "example.org", &net.SRV{Target: "host.example.net.", Port: 9000})
			w.serve("host.example.net:9000", w.keys, "host.example.net")
		}, "get a certificate for example.org"},
		"no TLS":         {func(w *world) { w.serve("example.org:8448", w.keys) }, "does not speak TLS"},
		"unknown issuer": {func(w *world) { other := newWorld(w.t); other.n = testrig.NewNetwork(); w.foreign(other) }, "not from a known authority"},
		"another page": {func(w *world) {
			w.serve("example.org:8448", func(rw http.ResponseWriter, _ *http.Request) { fmt.Fprint(rw, "<html>") }, "example.org")
		}, "something else than the server's keys"},
		"path not passed on": {func(w *world) { w.serve("example.org:8448", http.NotFound, "example.org") }, "status 404"},
		"another server": {func(w *world) {
			other := newWorld(w.t)
			other.ring, _ = keys.New(keys.Options{Server: "else.example", Keys: other.file, Now: time.Now})
			w.serve("example.org:8448", other.keys, "example.org")
		}, "is the server else.example, not example.org"},
		"another key": {func(w *world) { w.serve("example.org:8448", newWorld(w.t).keys, "example.org") }, "publishes other keys"},
		"clock":       {func(w *world) { w.serve("example.org:8448", w.keys, "example.org"); w.now = w.now.Add(-time.Hour) }, "the clock of example.org:8448 is"},
		"expired":     {func(w *world) { w.serve("example.org:8448", w.keys, "example.org"); w.now = w.now.AddDate(20, 0, 0) }, "is not valid"},
		"delegation to nowhere": {func(w *world) {
			w.serve("example.org:443", func(rw http.ResponseWriter, _ *http.Request) { fmt.Fprint(rw, `{"m.server":"gone.example:1"}`) }, "example.org")
		}, "gone.example:1 cannot be connected to"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			c.setUp(w)
			r := w.run("example.org")
			if r.OK() || !strings.Contains(text(r), c.want) {
				t.Errorf("wanted %q in\n%s", c.want, text(r))
			}
			for _, f := range r {
				if f.Level == checkup.Bad && f.Remedy == "" {
					t.Errorf("no remedy for %q", f.What)
				}
			}
		})
	}
}

// foreign serves with a certificate of another network's authority.
func (w *world) foreign(other *world) {
	w.t.Helper()
	l, err := w.n.Listen("tcp", "example.org:8448")
	if err != nil {
		w.t.Fatal(err)
	}
	cert, key := other.n.Certificate(w.t, w.t.TempDir(), "example.org")
	srv := &http.Server{Handler: http.HandlerFunc(w.keys), ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug)}
	go func() { _ = srv.ServeTLS(l, cert, key) }()
	w.t.Cleanup(func() { _ = srv.Close() })
}

// Addresses that other servers refuse to connect to are named.
func TestPrivateAddress(t *testing.T) {
	r := newWorld(t).run("127.0.0.1:8448")
	if r.OK() || !strings.Contains(text(r), "loopback") {
		t.Errorf("%s", text(r))
	}
}
