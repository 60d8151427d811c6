package server

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/netip"

	"github.com/teahouse-chat/teahouse/federation/discovery"
	"github.com/teahouse-chat/teahouse/federation/keys"
	"github.com/teahouse-chat/teahouse/federation/transport"
	"github.com/teahouse-chat/teahouse/internal/config"
	"github.com/teahouse-chat/teahouse/internal/dialer"
	"github.com/teahouse-chat/teahouse/internal/httpx"
	"github.com/teahouse-chat/teahouse/internal/matrix"
)

// outside is how other servers are reached, and how they are recognised.
type outside struct {
	dialer    *dialer.Dialer
	discovery *discovery.Resolver
	client    *transport.Client
	ring      *keys.Ring
	auth      *transport.Authenticator
}

// connect makes what the parts of federation share.
func (s *Server) connect(file keys.File) (*outside, error) {
	cfg := s.cfg.Federation
	o := &outside{dialer: dialer.New(dialer.Options{
		AllowPrivate: cfg.AllowPrivateAddresses, Allow: prefixes(cfg.AllowAddresses), Deny: prefixes(cfg.DenyAddresses),
		Resolve: s.deps.Resolve, Dial: s.deps.Dial,
	})}
	roots, err := authorities(cfg.CAFile)
	if err != nil {
		return nil, err
	}
	wellKnown := discovery.ClientOptions()
	wellKnown.TLS = &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots, InsecureSkipVerify: !cfg.VerifyTLS}
	if o.discovery, err = discovery.New(discovery.Options{
		HTTP: o.dialer.Client(wellKnown), LookupSRV: s.deps.LookupSRV, Now: s.deps.Now, Log: s.deps.Log,
	}); err != nil {
		return nil, err
	}
	policy := &transport.Policy{Closed: !cfg.Enabled, Allow: cfg.Allow, Deny: cfg.Deny}
	o.client = transport.New(transport.Options{
		Server: s.cfg.ServerName, Key: file.Current, Discovery: o.discovery, Dialer: o.dialer, RootCAs: roots,
		Insecure: !cfg.VerifyTLS, Policy: policy, UserAgent: "Teahouse/" + s.deps.Version,
	})
	if o.ring, err = keys.New(keys.Options{
		DB: s.db, Server: s.cfg.ServerName, Keys: file, Fetcher: o.client, Notaries: cfg.Notaries, Now: s.deps.Now, Log: s.deps.Log,
	}); err != nil {
		return nil, err
	}
	o.auth = transport.NewAuthenticator(transport.AuthOptions{
		Server: s.cfg.ServerName, Keys: o.ring, Policy: policy, Now: s.deps.Now, Seen: o.seen,
	})
	return o, nil
}

// seen notes that another server has shown that it is there.
func (o *outside) seen(server matrix.ServerName) { o.ring.Retry(server) }

// close ends what runs in the background, before the database is closed.
func (o *outside) close() {
	o.ring.Close()
	o.client.Close()
}

// routes are what other servers ask.
func (o *outside) routes(version string) []httpx.Route {
	return []httpx.Route{transport.VersionRoute("Teahouse", version)}
}

func authorities(file string) (*x509.CertPool, error) {
	if file == "" {
		return nil, nil // the system's
	}
	pool, err := transport.Authorities(file)
	if err != nil {
		return nil, fmt.Errorf("federation.ca_file: %w", err)
	}
	return pool, nil
}

func prefixes(list []config.Network) []netip.Prefix {
	all := make([]netip.Prefix, len(list))
	for i, n := range list {
		all[i] = n.Prefix
	}
	return all
}
