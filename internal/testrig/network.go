package testrig

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"sync"

	"github.com/teahouse-chat/teahouse/internal/testca"
)

// Network connects servers and clients in memory. Host names have addresses on
// it, so that servers find each other as they do on the internet.
type Network struct {
	mu        sync.Mutex
	listeners map[string]*listener // by "host:port" as it was opened
	addrs     map[string]netip.Addr
	hosts     map[netip.Addr]string
	services  map[string][]*net.SRV
	muted     map[string]bool // by the listener's address
	authority *testca.CA
}

// NewNetwork makes a network with nobody on it.
func NewNetwork() *Network {
	return &Network{
		listeners: map[string]*listener{}, addrs: map[string]netip.Addr{}, hosts: map[netip.Addr]string{},
		services: map[string][]*net.SRV{}, muted: map[string]bool{},
	}
}

// Listen opens an address, which may be any text. The host of a "host:port" can
// be resolved from then on.
func (n *Network) Listen(_, address string) (net.Listener, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.listeners[address] != nil {
		return nil, fmt.Errorf("testrig: %s is in use", address)
	}
	if host, _, err := net.SplitHostPort(address); err == nil {
		n.addr(host)
	}
	l := &listener{network: n, address: address, conns: make(chan net.Conn), closed: make(chan struct{})}
	n.listeners[address] = l
	return l, nil
}

// addr is the address of a host, which is given one if need be; n.mu is held.
// It is one of the public internet, so that nothing refuses to dial it.
func (n *Network) addr(host string) netip.Addr {
	if a, err := netip.ParseAddr(host); err == nil {
		return a
	}
	a, ok := n.addrs[host]
	if !ok {
		count := len(n.addrs) + 1
		a = netip.AddrFrom4([4]byte{9, 0, byte(count >> 8), byte(count)})
		n.addrs[host], n.hosts[a] = a, host
	}
	return a
}

// Resolve finds the addresses of a host that somebody has listened at.
func (n *Network) Resolve(_ context.Context, host string) ([]netip.Addr, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if a, ok := n.addrs[host]; ok {
		return []netip.Addr{a}, nil
	}
	return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
}

// Service gives a host SRV records, for LookupSRV.
func (n *Network) Service(service, host string, records ...*net.SRV) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.services["_"+service+"._tcp."+host] = records
}

// LookupSRV finds the records that Service has set.
func (n *Network) LookupSRV(_ context.Context, service, proto, name string) (string, []*net.SRV, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if records := n.services["_"+service+"._"+proto+"."+name]; records != nil {
		return name, records, nil
	}
	return "", nil, &net.DNSError{Err: "no such host", Name: name, IsNotFound: true}
}

// Dial connects to a listener, by the name that it was opened under or by the
// address of its host.
func (n *Network) Dial(ctx context.Context, _, address string) (net.Conn, error) {
	n.mu.Lock()
	l := n.listeners[address]
	if ap, err := netip.ParseAddrPort(address); err == nil && l == nil {
		l = n.listeners[net.JoinHostPort(n.hosts[ap.Addr()], fmt.Sprint(ap.Port()))]
	}
	n.mu.Unlock()
	if l == nil {
		return nil, fmt.Errorf("testrig: nobody listens on %s", address)
	}
	here, there := net.Pipe()
	select {
	case l.conns <- there:
		return newEager(&line{here, n, l.address}), nil
	case <-l.closed:
		return nil, net.ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Mute has whatever a listener says get lost, until it is called again: a request
// over a connection that there is already arrives, but its answer does not; new
// connections come to nothing.
func (n *Network) Mute(address string, muted bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.muted[address] = muted
}

// line is the end of a connection at which somebody asks.
type line struct {
	net.Conn
	network *Network
	address string
}

func (l *line) Read(p []byte) (int, error) {
	n, err := l.Conn.Read(p)
	l.network.mu.Lock()
	muted := l.network.muted[l.address]
	l.network.mu.Unlock()
	if muted {
		_ = l.Close()
		return 0, fmt.Errorf("testrig: what %s said got lost", l.address)
	}
	return n, err
}

// Client makes an HTTP client on the network.
func (n *Network) Client() *http.Client {
	return &http.Client{Transport: &http.Transport{DialContext: n.Dial, MaxIdleConnsPerHost: 64}}
}

type listener struct {
	network *Network
	address string
	conns   chan net.Conn
	closed  chan struct{}
	once    sync.Once
}

func (l *listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *listener) Close() error {
	l.once.Do(func() {
		l.network.mu.Lock()
		defer l.network.mu.Unlock()
		delete(l.network.listeners, l.address)
		close(l.closed)
	})
	return nil
}

func (l *listener) Addr() net.Addr { return address(l.address) }

type address string

func (a address) Network() string { return "memory" }
func (a address) String() string  { return string(a) }
