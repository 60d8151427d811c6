package transport_test

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/teahouse-chat/teahouse/federation/discovery"
	"github.com/teahouse-chat/teahouse/federation/keys"
	"github.com/teahouse-chat/teahouse/federation/transport"
	"github.com/teahouse-chat/teahouse/internal/db/dbtest"
	"github.com/teahouse-chat/teahouse/internal/dialer"
	"github.com/teahouse-chat/teahouse/internal/httpx"
	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/internal/testrig"
)

// world is a network in memory with names, certificates and servers.
type world struct {
	t       *testing.T
	network *testrig.Network
	pool    *x509.CertPool

	mu    sync.Mutex
	addrs map[string]netip.Addr
	srv   map[string][]*net.SRV
	dials map[string]int
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, network: testrig.NewNetwork(), addrs: map[string]netip.Addr{}, srv: map[string][]*net.SRV{}, dials: map[string]int{}}
	roots, err := transport.Authorities(w.network.Authority(t, t.TempDir()))
	if err != nil {
		t.Fatal(err)
	}
	w.pool = roots
	return w
}

// host gives a name an address.
func (w *world) host(name string) netip.Addr {
	w.mu.Lock()
	defer w.mu.Unlock()
	if _, ok := w.addrs[name]; !ok {
		w.addrs[name] = netip.AddrFrom4([4]byte{9, 0, 0, byte(len(w.addrs) + 1)})
	}
	return w.addrs[name]
}

func (w *world) certificate(names ...string) tls.Certificate {
	w.t.Helper()
	pair, err := tls.LoadX509KeyPair(w.network.Certificate(w.t, w.t.TempDir(), names...))
	if err != nil {
		w.t.Fatal(err)
	}
	return pair
}

// serve answers at "host:port" with certificates for names.
func (w *world) serve(host, port string, h http.Handler, names ...string) *http.Server {
	w.t.Helper()
	l, err := w.network.Listen("tcp", net.JoinHostPort(w.host(host).String(), port))
	if err != nil {
		w.t.Fatal(err)
	}
	srv := &http.Server{Handler: h, TLSConfig: &tls.Config{Certificates: []tls.Certificate{w.certificate(names...)}}, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug)}
	go func() { _ = srv.ServeTLS(l, "", "") }()
	w.t.Cleanup(func() { _ = srv.Close() })
	return srv
}

func (w *world) dialer() *dialer.Dialer {
	return dialer.New(dialer.Options{
		Resolve: func(_ context.Context, host string) ([]netip.Addr, error) {
			w.mu.Lock()
			defer w.mu.Unlock()
			if a, ok := w.addrs[host]; ok {
				return []netip.Addr{a}, nil
			}
			return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
		},
		Dial: func(ctx context.Context, network, address string) (net.Conn, error) {
			w.mu.Lock()
			w.dials[address]++
			w.mu.Unlock()
			return w.network.Dial(ctx, network, address)
		},
	})
}

func (w *world) dialled(address string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.dials[address]
}

func (w *world) discovery() *discovery.Resolver {
	w.t.Helper()
	o := discovery.ClientOptions()
	o.TLS = &tls.Config{RootCAs: w.pool}
	r, err := discovery.New(discovery.Options{
		HTTP: w.dialer().Client(o), Now: time.Now, Log: slog.New(slog.DiscardHandler),
		LookupSRV: func(_ context.Context, service, proto, name string) (string, []*net.SRV, error) {
			w.mu.Lock()
			defer w.mu.Unlock()
			if list := w.srv["_"+service+"._"+proto+"."+name]; list != nil {
				return name, list, nil
			}
			return "", nil, &net.DNSError{Err: "no such host", IsNotFound: true}
		},
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return r
}

// server is one end of federation.
type server struct {
	name   matrix.ServerName
	file   keys.File
	client *transport.Client
	ring   *keys.Ring
	auth   *transport.Authenticator
	edge   *httpx.Edge
	seen   chan matrix.ServerName
	now    func() time.Time
}

// peer makes a server whose routes are still to be added; see open.
func (w *world) peer(name matrix.ServerName, change ...func(*transport.Options)) *server {
	w.t.Helper()
	key, err := keys.Generate(rand.Reader)
	if err != nil {
		w.t.Fatal(err)
	}
	s := &server{name: name, file: keys.File{Current: key}, seen: make(chan matrix.ServerName, 1000), now: time.Now}
	o := transport.Options{Server: name, Key: key, Discovery: w.discovery(), Dialer: w.dialer(), RootCAs: w.pool, UserAgent: "test"}
	for _, c := range change {
		c(&o)
	}
	s.client = transport.New(o)
	w.t.Cleanup(s.client.Close)
	if s.ring, err = keys.New(keys.Options{
		DB: dbtest.Open(w.t, "sqlite"), Server: name, Keys: s.file, Fetcher: s.client, Now: func() time.Time { return s.now() }, Log: slog.New(slog.DiscardHandler),
	}); err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(s.ring.Close)
	s.auth = transport.NewAuthenticator(transport.AuthOptions{
		Server: name, Keys: s.ring, Policy: o.Policy, Now: func() time.Time { return s.now() }, Seen: func(origin matrix.ServerName) { s.seen <- origin },
	})
	s.edge = httpx.New(httpx.Options{Log: slog.New(slog.DiscardHandler)})
	s.edge.Add("keys", s.ring.Routes()...)
	s.edge.Add("federation", transport.VersionRoute("Teahouse", "1.0"))
	return s
}

// open serves a server at port 8448 of its name.
func (w *world) open(s *server) *server {
	w.serve(s.name.Host(), "8448", s.edge.Handler("federation"), s.name.Host())
	return s
}

// echo tells what the handler knows.
func (s *server) echo(method, path string, opts ...httpx.Option) {
	s.edge.Add("federation", s.auth.Route(method, path, func(w http.ResponseWriter, r *http.Request, origin matrix.ServerName, body []byte) error {
		if len(body) == 0 {
			body = []byte("null")
		}
		return transport.Answer(w, map[string]any{
			"origin": origin, "host": r.Host, "proto": r.Proto, "path": r.URL.Path, "body": string(body), "user_agent": r.UserAgent(),
		})
	}, opts...))
}
