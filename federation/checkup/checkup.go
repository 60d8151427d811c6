package checkup

import (
	"context"
	"crypto/ed25519"
	"crypto/x509"
	"fmt"
	"time"

	"github.com/teahouse-chat/teahouse/federation/discovery"
	"github.com/teahouse-chat/teahouse/internal/dialer"
	"github.com/teahouse-chat/teahouse/internal/matrix"
)

// Deps are what a checkup is made with.
type Deps struct {
	Discovery *discovery.Resolver
	Dialer    *dialer.Dialer
	RootCAs   *x509.CertPool // nil: the system's
	Now       func() time.Time
}

// Level says how bad a finding is.
type Level int

// The levels of findings.
const (
	Good Level = iota
	Note       // may be meant
	Bad        // other servers stumble over it
)

// Finding is one thing that was looked at.
type Finding struct {
	Level  Level
	What   string
	Remedy string // what to do about it, "" if there is nothing
}

// Report is what a checkup found, in the order of the steps.
type Report []Finding

// OK tells whether other servers get through.
func (r Report) OK() bool {
	for _, f := range r {
		if f.Level == Bad {
			return false
		}
	}
	return true
}

func (r *Report) add(l Level, remedy, format string, args ...any) {
	*r = append(*r, Finding{l, fmt.Sprintf(format, args...), remedy})
}

// Key is the key that a server should publish.
type Key struct {
	ID     string
	Public ed25519.PublicKey
}

// Run looks at a server. own is the key that it should sign with, if that is
// known: for the server that one runs oneself.
func Run(ctx context.Context, d Deps, server matrix.ServerName, own *Key) Report {
	var r Report
	t := d.Discovery.Trace(ctx, server)
	r.found(server, &t)
	reached := 0
	for _, target := range t.Targets {
		if d.target(ctx, &r, server, target, own) {
			reached++
		}
	}
	if n := len(t.Targets); n > 1 && reached > 0 && reached < n {
		r.add(Note, "take the targets that do not answer out of the SRV records", "%d of %d targets answer; other servers try them one after the other", reached, n)
	}
	return r
}

// found tells how the name led to addresses.
func (r *Report) found(server matrix.ServerName, t *discovery.Trace) {
	switch {
	case t.Fixed:
		r.add(Good, "", "the name %s says where the server is", server)
	case t.NoWellKnown != nil && t.Err == nil:
		r.add(Note, fmt.Sprintf("this is fine unless https://%s/.well-known/matrix/server is meant to delegate to another host; then it must be JSON like {\"m.server\": \"matrix.example.org:443\"}, served with a valid certificate", server),
			"no delegation by .well-known: %v", t.NoWellKnown)
	case t.NoWellKnown == nil && t.Delegated != "":
		r.add(Good, "", ".well-known delegates to %s", t.Delegated)
	}
	switch {
	case t.NoService != nil:
		r.add(Note, "other servers may fail in the same way; look at the name servers of the domain", "SRV records cannot be looked up: %v", t.NoService)
	case len(t.Records) > 0:
		level, remedy := Good, ""
		if t.Service == "matrix" {
			level, remedy = Note, "rename the record to _matrix-fed._tcp; the old name is deprecated"
		}
		r.add(level, remedy, "%d SRV records of _%s._tcp", len(t.Records), t.Service)
	}
	if t.Err != nil {
		r.add(Bad, "correct the name, the .well-known document or the SRV record", "the server cannot be found: %v", t.Err)
	}
}
