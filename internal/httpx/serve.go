package httpx

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"sync"
	"time"
)

const (
	headerTimeout  = 10 * time.Second // for a client to send a request's header
	idleTimeout    = 3 * time.Minute  // of a connection between requests
	maxHeaderBytes = 64 << 10
)

// Listener is a socket and what is served on it.
type Listener struct {
	net.Listener
	Serves []string // names of surfaces, as Handler takes them
	TLS    *tls.Config
}

// Serve answers on the listeners until ctx ends or one of them fails. Then it
// tells the long polls to end, takes no new connections, and waits up to grace
// for the requests it has taken; those that take longer have their contexts
// cancelled. It returns nil when every request was finished. The listeners are
// closed in any case.
func (e *Edge) Serve(ctx context.Context, grace time.Duration, listeners ...Listener) error {
	base, cut := context.WithCancel(context.WithoutCancel(ctx))
	defer cut()
	servers := make([]*http.Server, len(listeners))
	failed := make(chan error, len(listeners))
	var running sync.WaitGroup
	for i, l := range listeners {
		srv := &http.Server{
			Handler:           e.Handler(l.Serves...),
			TLSConfig:         l.TLS,
			ReadHeaderTimeout: headerTimeout,
			IdleTimeout:       idleTimeout,
			MaxHeaderBytes:    maxHeaderBytes,
			BaseContext:       func(net.Listener) context.Context { return base },
			ErrorLog:          slog.NewLogLogger(e.log.Handler(), slog.LevelDebug),
		}
		servers[i] = srv
		running.Go(func() {
			serve := srv.Serve
			if l.TLS != nil {
				serve = func(nl net.Listener) error { return srv.ServeTLS(nl, "", "") }
			}
			if err := serve(l.Listener); !errors.Is(err, http.ErrServerClosed) {
				failed <- fmt.Errorf("serving on %s: %w", l.Addr(), err)
			}
		})
	}
	var err error
	select {
	case <-ctx.Done():
	case err = <-failed:
	}
	e.Drain()
	return errors.Join(err, shutdown(servers, grace, cut, &running))
}

func shutdown(servers []*http.Server, grace time.Duration, cut func(), running *sync.WaitGroup) error {
	limit, cancel := context.WithTimeout(context.Background(), grace)
	defer cancel()
	errs := make([]error, len(servers))
	var stopping sync.WaitGroup
	for i, srv := range servers {
		stopping.Go(func() { errs[i] = srv.Shutdown(limit) })
	}
	stopping.Wait()
	err := errors.Join(errs...)
	if err != nil {
		cut()
		err = fmt.Errorf("requests were cut off after %v: %w", grace, err)
	}
	for _, srv := range servers {
		_ = srv.Close()
	}
	running.Wait()
	return err
}

// recheck is how often certificate files are looked at.
const recheck = time.Minute

// TLSFiles makes a TLS configuration from PEM files. The files are read again
// when they change, so that a renewed certificate needs no restart; while the
// new ones cannot be read, the old ones stay.
func TLSFiles(cert, key string, now func() time.Time) (*tls.Config, error) {
	f := &certFiles{cert: cert, key: key, now: now}
	if err := f.load(); err != nil {
		return nil, err
	}
	return &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: f.get}, nil
}

type certFiles struct {
	cert, key string
	now       func() time.Time

	mu      sync.Mutex
	pair    *tls.Certificate
	stamp   [2]time.Time // when the files were changed
	checked time.Time
}

func (f *certFiles) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.now().Sub(f.checked) >= recheck {
		if err := f.load(); err != nil {
			slog.Error("The TLS files cannot be read again; the certificate loaded before stays in use", "error", err)
		}
	}
	return f.pair, nil
}

func (f *certFiles) load() error {
	f.checked = f.now()
	var stamp [2]time.Time
	for i, name := range []string{f.cert, f.key} {
		info, err := os.Stat(name)
		if err != nil {
			return err
		}
		stamp[i] = info.ModTime()
	}
	if f.pair != nil && stamp == f.stamp {
		return nil
	}
	pair, err := tls.LoadX509KeyPair(f.cert, f.key)
	if err != nil {
		return fmt.Errorf("%s and %s: %w", f.cert, f.key, err)
	}
	f.pair, f.stamp = &pair, stamp
	return nil
}
