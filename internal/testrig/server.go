package testrig

import (
	"context"
	"io"
	"log/slog"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/teahouse-chat/teahouse/internal/config"
	"github.com/teahouse-chat/teahouse/internal/db/dbtest"
	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/internal/server"
)

// Clock is a clock that a test can move. The zero Clock shows the real time.
type Clock struct{ ahead atomic.Int64 }

// Now is the time.
func (c *Clock) Now() time.Time { return time.Now().Add(time.Duration(c.ahead.Load())) }

// Advance moves the clock.
func (c *Clock) Advance(d time.Duration) { c.ahead.Add(int64(d)) }

// Options are what a test changes about a server.
type Options struct {
	Name     matrix.ServerName    // "test" if empty
	Database string               // URL; a new database if empty
	DataDir  string               // a new one if empty
	Network  *Network             // one of its own if nil
	Federate bool                 // talks to the other servers of the network, at port 8448
	Change   func(*config.Config) // the last word on the configuration
	Log      slog.Handler         // warnings go to the test's output if nil
	Rand     io.Reader            // chance itself if nil
	Metrics  *prometheus.Registry // of one server; nothing is measured if nil
	// Dial is how it reaches other servers; the network's if nil.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
}

// Server is a running homeserver.
type Server struct {
	*server.Server
	Name    matrix.ServerName
	Clock   *Clock
	Network *Network
	Options Options // to start it again on the same data

	t    testing.TB
	stop context.CancelFunc
	done chan error
}

// Each runs f with a server on each database.
func Each(t *testing.T, f func(t *testing.T, s *Server)) {
	t.Helper()
	for _, kind := range []string{"sqlite", "postgres"} {
		t.Run(kind, func(t *testing.T) {
			f(t, Start(t, Options{Database: dbtest.URL(t, kind)}))
		})
	}
}

// Start runs a server until the test ends. Registration is open, passwords are
// cheap, nothing is limited.
func Start(t testing.TB, o Options) *Server {
	t.Helper()
	if o.Name == "" {
		o.Name = "test"
	}
	if o.Database == "" {
		o.Database = dbtest.URL(t, "sqlite")
	}
	if o.DataDir == "" {
		o.DataDir = t.TempDir()
	}
	if o.Network == nil {
		o.Network = NewNetwork()
	}
	cfg := config.Default()
	cfg.ServerName, cfg.DataDir, cfg.Database = o.Name, o.DataDir, config.DatabaseURL(o.Database)
	cfg.PublicURL = "http://" + string(o.Name)
	cfg.Listeners = []config.Listener{{Address: string(o.Name) + ":80", Serves: []string{"client", "federation", "media"}}}
	cfg.Registration.Mode, cfg.Registration.Guests = config.RegistrationOpen, true
	cfg.Registration.SharedSecret = "shared secret"
	cfg.Passwords = config.Passwords{Time: 1, MemoryKiB: 8, Threads: 1}
	cfg.RateLimits.Enabled = false
	cfg.Federation.Enabled = o.Federate
	if o.Federate {
		federate(t, cfg, o)
	}
	if o.Change != nil {
		o.Change(cfg)
	}
	s := &Server{Name: o.Name, Clock: &Clock{}, Network: o.Network, Options: o, t: t, done: make(chan error, 1)}
	if o.Log == nil {
		o.Log = slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn})
	}
	if o.Dial == nil {
		o.Dial = o.Network.Dial
	}
	var err error
	s.Server, err = server.New(t.Context(), cfg, server.Deps{
		Now: s.Clock.Now, Rand: o.Rand, Log: slog.New(o.Log), Metrics: o.Metrics,
		Listen: o.Network.Listen, Dial: o.Dial, Resolve: o.Network.Resolve, LookupSRV: o.Network.LookupSRV,
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	s.stop = cancel
	ready := make(chan struct{})
	go func() { s.done <- s.Serve(ctx, func([]net.Addr) { close(ready) }) }()
	select {
	case <-ready:
	case err := <-s.done:
		t.Fatal(err)
	}
	t.Cleanup(s.Stop)
	return s
}

// StartMany runs servers that federate with one another on a network of their
// own, each with a new database of the kind ("sqlite" or "postgres").
func StartMany(t testing.TB, kind string, names ...matrix.ServerName) []*Server {
	t.Helper()
	network := NewNetwork()
	servers := make([]*Server, len(names))
	for i, name := range names {
		servers[i] = Start(t, Options{Name: name, Database: dbtest.URL(t, kind), Network: network, Federate: true})
	}
	return servers
}

// federate opens the port where other servers expect this one.
func federate(t testing.TB, cfg *config.Config, o Options) {
	t.Helper()
	cert, key := o.Network.Certificate(t, o.DataDir, o.Name.Host())
	cfg.Federation.CAFile = o.Network.Authority(t, o.DataDir)
	cfg.Listeners = append(cfg.Listeners, config.Listener{
		Address: o.Name.Host() + ":8448", Serves: []string{"federation"}, TLS: config.TLS{Cert: cert, Key: key},
	})
}

// Stop shuts the server down, at most once.
func (s *Server) Stop() {
	if s.stop == nil {
		return
	}
	s.stop()
	s.stop = nil
	if err := <-s.done; err != nil {
		s.t.Errorf("testrig: serving ended with %v", err)
	}
	if err := s.Server.CheckConsistency(context.Background()); err != nil {
		s.t.Errorf("testrig: the database contradicts itself: %v", err)
	}
	if err := s.Close(); err != nil {
		s.t.Errorf("testrig: closing failed with %v", err)
	}
}

// Restart stops the server and starts one on the same data.
func (s *Server) Restart() *Server {
	s.t.Helper()
	s.Stop()
	return Start(s.t, s.Options)
}
