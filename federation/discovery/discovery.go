package discovery

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"golang.org/x/sync/singleflight"

	"github.com/teahouse-chat/teahouse/internal/matrix"
)

const (
	remembered  = 20_000 // servers, and hosts
	maxTargets  = 8      // of one server
	lookupTime  = 5 * time.Second
	resolveTime = 25 * time.Second
	maxResult   = 10 * time.Minute // DNS does not tell us its own
	minResult   = time.Minute      // when DNS failed
)

// Target is one way to reach a server.
type Target struct {
	Address string // "host:port" to dial; host is a name or an address
	Host    string // the Host header
	TLSName string // the name or address for which the certificate must be valid
}

// Options are what a Resolver is made of.
type Options struct {
	HTTP *http.Client // fetches .well-known documents; see ClientOptions
	// LookupSRV asks for SRV records in the order in which they are to be tried;
	// nil asks the system.
	LookupSRV func(ctx context.Context, service, proto, name string) (string, []*net.SRV, error)
	Now       func() time.Time
	Log       *slog.Logger // nil: slog.Default()
}

// Resolver finds servers. It is safe for concurrent use.
type Resolver struct {
	o           Options
	results     *lru.Cache[matrix.ServerName, result]
	delegations *lru.Cache[string, delegation]
	flights     singleflight.Group
}

type result struct {
	targets []Target
	err     error
	until   time.Time
}

// New makes a resolver that remembers nothing yet.
func New(o Options) (*Resolver, error) {
	if o.HTTP == nil || o.Now == nil {
		return nil, errors.New("discovery: an HTTP client and a clock are needed")
	}
	if o.LookupSRV == nil {
		o.LookupSRV = net.DefaultResolver.LookupSRV
	}
	if o.Log == nil {
		o.Log = slog.Default()
	}
	results, err := lru.New[matrix.ServerName, result](remembered)
	if err != nil {
		return nil, err
	}
	delegations, err := lru.New[string, delegation](remembered)
	if err != nil {
		return nil, err
	}
	return &Resolver{o: o, results: results, delegations: delegations}, nil
}

// Resolve finds the ways to reach a server, the best first. An error means that
// the name is none, or that its owner says that there is no server.
// spec: server-server#resolving-server-names
func (r *Resolver) Resolve(ctx context.Context, server matrix.ServerName) ([]Target, error) {
	if known, ok := r.results.Get(server); ok && r.o.Now().Before(known.until) {
		return known.targets, known.err
	}
	name, err := ParseName(server)
	if err != nil {
		return nil, err
	}
	if targets := name.fixed(); targets != nil {
		return targets, nil
	}
	// Whoever waits for the same server waits for the same look-up, which does not
	// end with the first of them.
	flight := r.flights.DoChan(string(server), func() (any, error) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), resolveTime)
		defer cancel()
		found := r.resolve(ctx, name)
		r.results.Add(server, found)
		return found, nil
	})
	select {
	case done := <-flight:
		found := done.Val.(result)
		return found.targets, found.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Forget drops what DNS told about a server, because none of its targets
// answers. A delegation is remembered for as long as its owner wants.
func (r *Resolver) Forget(server matrix.ServerName) { r.results.Remove(server) }

// fixed gives the target of names that say all by themselves: IP literals and
// explicit ports. Of a delegation it is the same: steps 3.1 and 3.2.
// spec: server-server#resolving-server-names
func (n Name) fixed() []Target {
	if !n.IP.IsValid() && n.Port == "" {
		return nil
	}
	return []Target{{Address: n.join(n.Port), Host: n.header(), TLSName: n.Host}}
}

// resolve follows steps 3 to 6 for a host name without port.
// spec: server-server#resolving-server-names
func (r *Resolver) resolve(ctx context.Context, name Name) result {
	d := r.delegate(ctx, name.Host)
	until := d.until
	if d.to != "" {
		delegated, err := ParseName(d.to)
		if err != nil {
			return result{err: err, until: until}
		}
		if targets := delegated.fixed(); targets != nil {
			return result{targets: targets, until: until}
		}
		name = delegated
	}
	targets, life, err := r.services(ctx, name)
	if next := r.o.Now().Add(life); next.Before(until) {
		until = next
	}
	return result{targets, err, until}
}

// serviceNames are the services that SRV records are looked up for, in this order;
// the second is deprecated.
var serviceNames = []string{"matrix-fed", "matrix"}

// errNoService is the answer of a domain that has no server.
var errNoService = errors.New("discovery: DNS says that there is no server")

// services finds the SRV records of a host name, and the host itself where there
// are none. The certificate's name is never a record's.
// spec: server-server#resolving-server-names
func (r *Resolver) services(ctx context.Context, name Name) ([]Target, time.Duration, error) {
	life := maxResult
	for _, service := range serviceNames {
		limited, cancel := context.WithTimeout(ctx, lookupTime)
		_, records, err := r.o.LookupSRV(limited, service, "tcp", name.Host)
		cancel()
		if none, ok := errors.AsType[*net.DNSError](err); err != nil && !(ok && none.IsNotFound) {
			life = minResult // a look-up that failed may succeed soon
			r.o.Log.Debug("SRV records cannot be looked up", "service", service, "host", name.Host, "error", err)
		}
		targets, gone := name.targets(records)
		switch {
		case len(targets) > 0:
			return targets, life, nil
		case gone:
			return nil, life, fmt.Errorf("%w: %s", errNoService, name.Host)
		}
	}
	return []Target{{Address: name.join(""), Host: name.header(), TLSName: name.Host}}, life, nil
}

// targets makes SRV records into targets. A single record for the root says that
// there is no such service.
func (n Name) targets(records []*net.SRV) (targets []Target, gone bool) {
	for _, rec := range records {
		host := strings.TrimSuffix(rec.Target, ".")
		if host == "" {
			gone = len(records) == 1
			continue
		}
		if rec.Port != 0 && len(targets) < maxTargets {
			targets = append(targets, Target{
				Address: net.JoinHostPort(host, strconv.Itoa(int(rec.Port))), Host: n.header(), TLSName: n.Host,
			})
		}
	}
	return targets, gone
}
