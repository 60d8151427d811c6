package server

import (
	"context"
	"net"
	"net/http"
	"strings"
	"sync"
)

// inside is a network within the process, on which the homeserver and a service that
// runs in the same program talk to one another as they would over any other. Nobody
// else is on it.
type inside struct {
	conns chan net.Conn
	once  sync.Once
	done  chan struct{}
}

func newInside() *inside { return &inside{conns: make(chan net.Conn), done: make(chan struct{})} }

// Accept, Close and Addr make it a listener.
func (i *inside) Accept() (net.Conn, error) {
	select {
	case c := <-i.conns:
		return c, nil
	case <-i.done:
		return nil, net.ErrClosed
	}
}

func (i *inside) Close() error {
	i.once.Do(func() { close(i.done) })
	return nil
}

func (i *inside) Addr() net.Addr { return insideAddr{} }

type insideAddr struct{}

func (insideAddr) Network() string { return "inside" }
func (insideAddr) String() string  { return "inside" }

// dial connects to it.
func (i *inside) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	near, far := net.Pipe()
	select {
	case i.conns <- far:
		return near, nil
	case <-i.done:
		return nil, net.ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// transport is HTTP over it.
func (i *inside) transport() *http.Transport {
	return &http.Transport{DialContext: i.dial, MaxIdleConnsPerHost: 16}
}

// insideHosts are the names of services within the process, in their registrations.
const insideSuffix = ".inside"

// reach dials services within the process by their names, and all else as before.
func (s *Server) reach(t *http.Transport) *http.Transport {
	outside := t.DialContext
	t.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
		host, _, _ := net.SplitHostPort(address)
		if name, ok := strings.CutSuffix(host, insideSuffix); ok && name == "news" && s.news != nil {
			return s.news.events.dial(ctx, network, address)
		}
		return outside(ctx, network, address)
	}
	return t
}
