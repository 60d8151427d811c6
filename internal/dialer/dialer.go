package dialer

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"
)

const (
	connectTimeout = 10 * time.Second // for one address
	stagger        = 300 * time.Millisecond
	maxAddresses   = 8 // of one name; more are ignored
)

// Options are what a Dialer is made of; the zero value dials the public
// internet.
type Options struct {
	AllowPrivate bool           // loopback, private and shared networks too
	Allow        []netip.Prefix // goes before everything that refuses
	Deny         []netip.Prefix // refused beside what always is

	// Resolve finds the addresses of a host name; nil asks the system.
	Resolve func(ctx context.Context, host string) ([]netip.Addr, error)
	// Dial connects to an address, "192.0.2.1:443"; nil asks the system.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
}

// Dialer connects to addresses that it may connect to. It is safe for
// concurrent use.
type Dialer struct{ o Options }

// New makes a dialer.
func New(o Options) *Dialer {
	if o.Resolve == nil {
		o.Resolve = func(ctx context.Context, host string) ([]netip.Addr, error) {
			return net.DefaultResolver.LookupNetIP(ctx, "ip", host)
		}
	}
	if o.Dial == nil {
		o.Dial = (&net.Dialer{KeepAlive: 30 * time.Second}).DialContext
	}
	return &Dialer{o}
}

// DeniedError says that an address must not be connected to.
type DeniedError struct {
	Addr netip.Addr
	Why  string // "loopback", "private", "denied by the configuration" ...
}

func (e *DeniedError) Error() string {
	return fmt.Sprintf("dialer: connections to %s are not allowed: %s", e.Addr, e.Why)
}

// Check tells whether an address may be connected to: nil or a *DeniedError.
func (d *Dialer) Check(addr netip.Addr) error {
	if !addr.IsValid() {
		return &DeniedError{addr, "not an address"}
	}
	// A prefix contains no address with a zone, so zones go first.
	a := addr.WithZone("").Unmap()
	switch {
	case contains(d.o.Allow, a):
		return nil
	case contains(d.o.Deny, a):
		return &DeniedError{addr, "denied by the configuration"}
	}
	if v4, only, ok := embedded(a); ok {
		if err := d.Check(v4); err != nil || only {
			return err
		}
	}
	if b, ok := special(a); ok && !(b.private && d.o.AllowPrivate) {
		return &DeniedError{addr, b.what}
	}
	return nil
}

func contains(list []netip.Prefix, a netip.Addr) bool {
	return slices.ContainsFunc(list, func(p netip.Prefix) bool {
		if p.Addr().Is4In6() && p.Bits() >= 96 { // as operators may write IPv4
			p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
		}
		return p.Contains(a)
	})
}

// DialContext connects to "host:port" over TCP. It fits http.Transport. When no
// address of the host may be connected to, the error is a *DeniedError.
func (d *Dialer) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	switch network {
	case "tcp", "tcp4", "tcp6":
	default:
		return nil, fmt.Errorf("dialer: %s is no network to dial", network)
	}
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, fmt.Errorf("dialer: %w", err)
	}
	addrs, err := d.resolve(ctx, network, host)
	if err != nil {
		return nil, err
	}
	return d.race(ctx, network, addrs, port)
}

// resolve gives the addresses of a host that may be connected to.
func (d *Dialer) resolve(ctx context.Context, network, host string) ([]netip.Addr, error) {
	all := make([]netip.Addr, 1)
	var err error
	if all[0], err = netip.ParseAddr(host); err != nil {
		limited, cancel := context.WithTimeout(ctx, connectTimeout)
		defer cancel()
		if all, err = d.o.Resolve(limited, host); err != nil {
			return nil, fmt.Errorf("dialer: %w", err)
		}
	}
	err = fmt.Errorf("dialer: %s has no address for %s", host, network)
	var good []netip.Addr
	for _, a := range all {
		a = a.Unmap()
		if network == "tcp4" && !a.Is4() || network == "tcp6" && !a.Is6() {
			continue
		}
		if denied := d.Check(a); denied != nil {
			err = denied
		} else if len(good) < maxAddresses {
			good = append(good, a.WithZone(""))
		}
	}
	if len(good) == 0 {
		return nil, err
	}
	return good, nil
}

// race dials the addresses one after the other, each a moment after the one
// before or when that has failed, and keeps the first connection.
func (d *Dialer) race(ctx context.Context, network string, addrs []netip.Addr, port string) (net.Conn, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	type result struct {
		conn net.Conn
		err  error
	}
	results := make(chan result) // unbuffered: a late connection finds nobody and is closed
	begin := func(a netip.Addr) {
		limited, cancel := context.WithTimeout(ctx, connectTimeout)
		defer cancel()
		conn, err := d.o.Dial(limited, network, net.JoinHostPort(a.String(), port))
		select {
		case results <- result{conn, err}:
		case <-ctx.Done():
			if conn != nil {
				_ = conn.Close()
			}
		}
	}
	timer := time.NewTimer(0)
	defer timer.Stop()
	var errs []error
	for begun := 0; len(errs) < len(addrs); {
		next := timer.C
		if begun == len(addrs) {
			next = nil
		}
		select {
		case <-next:
			go begin(addrs[begun])
			begun++
			timer.Reset(stagger)
		case r := <-results:
			if r.err == nil {
				return r.conn, nil
			}
			errs = append(errs, r.err)
			timer.Reset(0)
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	return nil, fmt.Errorf("dialer: %w", errors.Join(errs...))
}
