package server

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/teahouse-chat/teahouse/accounts"
	"github.com/teahouse-chat/teahouse/accounts/profiles"
	"github.com/teahouse-chat/teahouse/appservices"
	"github.com/teahouse-chat/teahouse/encryption"
	"github.com/teahouse-chat/teahouse/internal/config"
	"github.com/teahouse-chat/teahouse/internal/db"
	"github.com/teahouse-chat/teahouse/internal/httpx"
	"github.com/teahouse-chat/teahouse/media"
	"github.com/teahouse-chat/teahouse/push"
	"github.com/teahouse-chat/teahouse/rooms"
	"github.com/teahouse-chat/teahouse/syncapi"
)

// housekeeping is how often what has expired is removed.
const housekeeping = time.Hour

// Deps are what a test replaces; zero values are the real things.
type Deps struct {
	Now     func() time.Time
	Rand    io.Reader
	Log     *slog.Logger
	Metrics *prometheus.Registry // nil: nothing is measured
	Version string               // what other servers are told that this is
	Listen  func(network, address string) (net.Listener, error)
	// How other servers are found and reached.
	Resolve   func(ctx context.Context, host string) ([]netip.Addr, error)
	Dial      func(ctx context.Context, network, address string) (net.Conn, error)
	LookupSRV func(ctx context.Context, service, proto, name string) (string, []*net.SRV, error)
}

// Server is a homeserver.
type Server struct {
	cfg   *config.Config
	deps  Deps
	db    *db.DB
	edge  *httpx.Edge
	rooms *rooms.Engine
	sync  *syncapi.Service

	profiles *profiles.Profiles

	Accounts *accounts.Accounts
	Media    *media.Media

	mediaFolder *os.Root
	Appservices *appservices.Services

	background context.Context // of what happens beside requests
	stop       context.CancelFunc
	worker     sync.WaitGroup

	encryption *encryption.Encryption
	push       *push.Push

	outside *outside
	news    *newsInside // nil while it does not run
}

// New opens the database and makes the features; nothing is served yet. Close
// must be called in the end.
func New(ctx context.Context, cfg *config.Config, deps Deps) (*Server, error) {
	deps.complete()
	if err := os.MkdirAll(cfg.DataDir, 0o700); err != nil {
		return nil, fmt.Errorf("the data folder cannot be made: %w", err)
	}
	file, err := loadKeys(cfg, deps.Rand)
	if err != nil {
		return nil, err
	}
	d, err := db.Open(ctx, string(cfg.Database), db.Options{Log: deps.Log, Metrics: deps.registerer()})
	if err != nil {
		return nil, err
	}
	s := &Server{cfg: cfg, deps: deps, db: d}
	if err := checkName(ctx, d, cfg.ServerName); err != nil {
		return nil, errors.Join(err, d.Close())
	}
	if s.outside, err = s.connect(file); err != nil {
		return nil, errors.Join(err, d.Close())
	}
	if err := s.assemble(ctx, file.Current); err != nil {
		return nil, errors.Join(err, s.outside.close(), d.Close())
	}
	s.background, s.stop = context.WithCancel(context.WithoutCancel(ctx))
	s.start(s.background)
	return s, nil
}

func (d *Deps) complete() {
	if d.Now == nil {
		d.Now = time.Now
	}
	if d.Rand == nil {
		d.Rand = rand.Reader
	}
	if d.Log == nil {
		d.Log = slog.Default()
	}
	if d.Version == "" {
		d.Version = "unknown"
	}
	if d.Listen == nil {
		d.Listen = net.Listen
	}
}

// registerer avoids a nil pointer that is not a nil interface.
func (d *Deps) registerer() prometheus.Registerer {
	if d.Metrics == nil {
		return nil
	}
	return d.Metrics
}

// start runs what has to happen beside requests.
func (s *Server) start(ctx context.Context) {
	s.worker.Go(func() { s.Accounts.Run(ctx) })
	s.worker.Go(func() {
		if err := s.encryption.Resume(ctx); err != nil && ctx.Err() == nil {
			s.deps.Log.Error("keys of removed devices could not be deleted; the next start tries again", "error", err)
		}
	})
	s.worker.Go(func() {
		if err := s.profiles.Resume(ctx); err != nil && ctx.Err() == nil {
			s.deps.Log.Error("changed profiles could not be shown in all rooms; the next change tries again", "error", err)
		}
	})
	s.worker.Go(func() {
		tick := time.NewTicker(housekeeping)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				if err := s.rooms.PruneTxns(ctx); err != nil {
					s.deps.Log.Error("old transaction ids could not be removed", "error", err)
				}
			}
		}
	})
}

// Handler serves the named surfaces; see httpx.Edge.
func (s *Server) Handler(serves ...string) http.Handler { return s.edge.Handler(serves...) }

// Serve opens the configured listeners and answers until ctx ends; then it
// finishes what it has accepted. ready, if not nil, is called with the addresses
// once all are open.
func (s *Server) Serve(ctx context.Context, ready func([]net.Addr)) error {
	var listeners []httpx.Listener
	var addrs []net.Addr
	wanted := s.cfg.Listeners
	if s.cfg.Metrics.Address != "" {
		wanted = append(slices.Clone(wanted), config.Listener{Address: s.cfg.Metrics.Address, Serves: []string{"metrics"}})
	}
	for _, l := range wanted {
		open, err := s.listen(l)
		if err != nil {
			return errors.Join(err, closeAll(listeners))
		}
		listeners, addrs = append(listeners, open), append(addrs, open.Addr())
	}
	// Only who serves talks to other servers and push gateways: a command may run
	// beside a server.
	if err := s.outside.start(s.background); err != nil {
		return errors.Join(err, closeAll(listeners))
	}
	s.worker.Go(func() {
		if err := s.push.Run(s.background); err != nil {
			s.deps.Log.Error("notifications are not counted and pushed any more; restart the server", "error", err)
		}
	})
	s.worker.Go(func() { s.outside.run(s.background) })
	s.worker.Go(func() { s.encryption.Run(s.background) })
	s.worker.Go(func() { s.Media.Run(s.background) })
	if err := s.startNews(ctx); err != nil {
		return errors.Join(err, closeAll(listeners))
	}
	s.worker.Go(func() { s.Appservices.Run(s.background) })
	if ready != nil {
		ready(addrs)
	}
	return s.edge.Serve(ctx, s.cfg.ShutdownGrace, listeners...)
}

func closeAll(listeners []httpx.Listener) error {
	var err error
	for _, l := range listeners {
		err = errors.Join(err, l.Close())
	}
	return err
}

func (s *Server) listen(l config.Listener) (httpx.Listener, error) {
	var secure *tls.Config
	if l.TLS.Cert != "" {
		var err error
		if secure, err = httpx.TLSFiles(l.TLS.Cert, l.TLS.Key, s.deps.Now); err != nil {
			return httpx.Listener{}, err
		}
	}
	n, err := s.deps.Listen("tcp", l.Address)
	if err != nil {
		return httpx.Listener{}, fmt.Errorf("cannot listen on %s: %w; choose another address in listeners, or stop what uses it", l.Address, err)
	}
	return httpx.Listener{Listener: n, Serves: l.Serves, TLS: secure}, nil
}

// CheckConsistency looks for contradictions in the database. Nothing may be
// served meanwhile.
func (s *Server) CheckConsistency(ctx context.Context) error { return s.rooms.CheckConsistency(ctx) }

// Close ends background work and closes the database, after what is under way.
func (s *Server) Close() error {
	s.stop()
	s.worker.Wait()
	s.sync.Close()
	return errors.Join(s.news.close(), s.outside.close(), s.mediaFolder.Close(), s.db.Close())
}
