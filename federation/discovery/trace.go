package discovery

import (
	"context"
	"errors"
	"net"

	"github.com/teahouse-chat/teahouse/internal/matrix"
)

// Trace tells step by step how a server is found, for people who want to know
// why it is not.
type Trace struct {
	Fixed       bool              // the name says all: an address or a port
	Delegated   matrix.ServerName // by the .well-known document; "" if there is none
	NoWellKnown error             // why there is none
	Service     string            // the service whose SRV records were found, "matrix-fed" or "matrix"
	Records     []*net.SRV
	NoService   error // a look-up that failed, other than for want of records
	Targets     []Target
	Err         error // why there are no targets
}

// Trace follows the steps of Resolve anew, whatever is remembered.
// spec: server-server#resolving-server-names
func (r *Resolver) Trace(ctx context.Context, server matrix.ServerName) (t Trace) {
	name, err := ParseName(server)
	if err != nil {
		return Trace{Err: err}
	}
	if t.Targets = name.fixed(); t.Targets != nil {
		t.Fixed = true
		return t
	}
	if t.Delegated, _, t.NoWellKnown = r.fetch(ctx, name.Host); t.NoWellKnown == nil {
		if name, t.Err = ParseName(t.Delegated); t.Err != nil {
			return t
		}
		if t.Targets = name.fixed(); t.Targets != nil {
			return t
		}
	}
	t.Service, t.Records, t.NoService = r.traceServices(ctx, name)
	t.Targets, _, t.Err = r.services(ctx, name)
	return t
}

func (r *Resolver) traceServices(ctx context.Context, name Name) (service string, records []*net.SRV, err error) {
	for _, service = range serviceNames {
		limited, cancel := context.WithTimeout(ctx, lookupTime)
		_, records, err = r.o.LookupSRV(limited, service, "tcp", name.Host)
		cancel()
		if none, ok := errors.AsType[*net.DNSError](err); ok && none.IsNotFound {
			err = nil
		}
		if len(records) > 0 || err != nil {
			return service, records, err
		}
	}
	return "", nil, nil
}
