package server

import (
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/teahouse-chat/teahouse/encryption"
	"github.com/teahouse-chat/teahouse/federation/checkup"
	"github.com/teahouse-chat/teahouse/federation/discovery"
	"github.com/teahouse-chat/teahouse/federation/fetch"
	"github.com/teahouse-chat/teahouse/federation/gather"
	"github.com/teahouse-chat/teahouse/federation/inbound"
	"github.com/teahouse-chat/teahouse/federation/joining"
	"github.com/teahouse-chat/teahouse/federation/keys"
	"github.com/teahouse-chat/teahouse/federation/outbound"
	"github.com/teahouse-chat/teahouse/federation/past"
	"github.com/teahouse-chat/teahouse/federation/transport"
	"github.com/teahouse-chat/teahouse/internal/config"
	"github.com/teahouse-chat/teahouse/internal/dialer"
	"github.com/teahouse-chat/teahouse/internal/httpx"
	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms/api"
	"github.com/teahouse-chat/teahouse/rooms/history"
)

// reach is how other servers are found and connected to.
type reach struct {
	dialer    *dialer.Dialer
	discovery *discovery.Resolver
	roots     *x509.CertPool
}

func newReach(cfg *config.Federation, deps *Deps) (*reach, error) {
	r := &reach{dialer: dialer.New(dialer.Options{
		AllowPrivate: cfg.AllowPrivateAddresses, Allow: prefixes(cfg.AllowAddresses), Deny: prefixes(cfg.DenyAddresses),
		Resolve: deps.Resolve, Dial: deps.Dial,
	})}
	var err error
	if r.roots, err = authorities(cfg.CAFile); err != nil {
		return nil, err
	}
	wellKnown := discovery.ClientOptions()
	wellKnown.TLS = r.secure(cfg)
	r.discovery, err = discovery.New(discovery.Options{
		HTTP: r.dialer.Client(wellKnown), LookupSRV: deps.LookupSRV, Now: deps.Now, Log: deps.Log,
	})
	return r, err
}

// secure is how the web servers of other homeservers are recognised.
func (r *reach) secure(cfg *config.Federation) *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: r.roots, InsecureSkipVerify: !cfg.VerifyTLS}
}

// Checkup looks at a server as other servers do; "" is the configured one, which
// should be running.
func Checkup(ctx context.Context, cfg *config.Config, deps Deps, name matrix.ServerName) (checkup.Report, error) {
	deps.complete()
	r, err := newReach(&cfg.Federation, &deps)
	if err != nil {
		return nil, err
	}
	var own *checkup.Key
	if name == "" || name == cfg.ServerName {
		name = cfg.ServerName
		file, err := Keys(cfg, deps.Rand)
		if err != nil {
			return nil, err
		}
		own = &checkup.Key{ID: file.Current.ID, Public: file.Current.Private.Public().(ed25519.PublicKey)}
	}
	return checkup.Run(ctx, checkup.Deps{Discovery: r.discovery, Dialer: r.dialer, RootCAs: r.roots, Now: deps.Now}, name, own), nil
}

// outside is what talks to other servers, and recognises them.
type outside struct {
	*reach
	client *transport.Client
	ring   *keys.Ring
	auth   *transport.Authenticator
	// The parts of federation that need rooms; nil where there is no federation.
	joining  *joining.Joining
	inbound  *inbound.Inbound
	outbound *outbound.Queues
	past     *past.Past
	devices  *encryption.Encryption
}

// connect makes what the parts of federation share.
func (s *Server) connect(file keys.File) (*outside, error) {
	cfg := s.cfg.Federation
	r, err := newReach(&cfg, &s.deps)
	if err != nil {
		return nil, err
	}
	o := &outside{reach: r}
	policy := &transport.Policy{Closed: !cfg.Enabled, Allow: cfg.Allow, Deny: cfg.Deny}
	o.client = transport.New(transport.Options{
		Server: s.cfg.ServerName, Key: file.Current, Discovery: r.discovery, Dialer: r.dialer, RootCAs: r.roots,
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

// federate makes the parts of federation that need rooms.
func (s *Server) federate(users *users, invites api.Invites) error {
	if !s.cfg.Federation.Enabled {
		return nil
	}
	o := s.outside
	var err error
	if o.outbound, err = outbound.New(outbound.Deps{
		DB: s.db, ServerName: s.cfg.ServerName, Rooms: s.rooms, Sender: o.client, Now: s.deps.Now, Rand: s.deps.Rand,
		Log: s.deps.Log, Metrics: s.deps.registerer(),
	}); err != nil {
		return err
	}
	gatherer := gather.New(s.rooms, fetch.New(o.client, o.ring, s.deps.Log))
	if o.past, err = past.New(gatherer, o.client, s.deps.Now, s.deps.Log); err != nil {
		return err
	}
	o.joining = joining.New(joining.Deps{
		DB: s.db, Engine: s.rooms, Client: o.client, Keys: o.ring, Auth: o.auth, Users: newcomers{users, s.Appservices}, Invites: invites,
		Seen: o.seen, Now: s.deps.Now, Log: s.deps.Log,
	})
	o.inbound, err = inbound.New(inbound.Deps{
		Gatherer: gatherer, DB: s.db, Auth: o.auth, EDUs: s.edus(), Joining: o.joining.Wait, Now: s.deps.Now, Log: s.deps.Log,
		Metrics: s.deps.registerer(),
	})
	return err
}

// history reaches history that only other servers have; nil if there are none.
func (o *outside) history() history.Remote {
	if o.past == nil {
		return nil
	}
	return o.past
}

// start begins to send, after all that is to be told of the stream has been made.
func (o *outside) start(ctx context.Context) error {
	if o.outbound == nil {
		return nil
	}
	return o.outbound.Start(ctx)
}

// remote reaches rooms on other servers; nil if there are none.
func (o *outside) remote() api.Remote {
	if o.joining == nil {
		return nil
	}
	return o.joining
}

// run does the work in the background, beginning with what was left over when the
// server stopped last.
func (o *outside) run(ctx context.Context) {
	if o.joining == nil {
		return
	}
	var parts sync.WaitGroup
	parts.Go(func() { o.joining.Run(ctx) })
	parts.Go(func() { o.inbound.Run(ctx) })
	parts.Wait()
}

// seen notes that another server has shown that it is there.
func (o *outside) seen(server matrix.ServerName) {
	o.ring.Retry(server)
	if o.outbound != nil {
		o.outbound.Wake(server)
	}
	if o.inbound != nil {
		o.inbound.Alive(server)
	}
	if o.devices != nil {
		o.devices.Reachable(server)
	}
}

// close ends what runs in the background, before the database is closed.
func (o *outside) close() error {
	var err error
	if o.outbound != nil {
		limited, cancel := context.WithTimeout(context.Background(), closeTime)
		defer cancel()
		err = o.outbound.Close(limited)
	}
	if o.joining != nil {
		o.joining.Close()
	}
	o.ring.Close()
	o.client.Close()
	return err
}

// closeTime is how long what is being sent to other servers is waited for.
const closeTime = 5 * time.Second

// routes are what other servers ask.
func (o *outside) routes(version string) []httpx.Route {
	return slices.Concat([]httpx.Route{transport.VersionRoute("Teahouse", version)}, o.joining.Routes(), o.inbound.Routes())
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
