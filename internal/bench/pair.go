package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/teahouse-chat/teahouse/internal/testca"
)

// pair are two servers that federate with each other, over TLS on this machine.
type pair struct{ here, there *bench }

// newPair starts two servers on empty databases.
func (b *bench) newPair(ctx context.Context) (p *pair, err error) {
	ca, err := testca.New()
	if err != nil {
		return nil, err
	}
	p = &pair{}
	defer func() {
		if err != nil {
			err = errors.Join(err, p.close())
		}
	}()
	if p.here, err = b.federated(ctx, ca); err != nil {
		return p, err
	}
	p.there, err = b.federated(ctx, ca)
	return p, err
}

// federated starts a server whose name is where others find it.
func (b *bench) federated(ctx context.Context, ca *testca.CA) (*bench, error) {
	dir, database, err := b.home("")
	if err != nil {
		return nil, err
	}
	p := &process{binary: b.opts.binary, dir: dir, database: database}
	if p.address, err = freeAddress(); err != nil {
		return nil, err
	}
	if p.name, err = freeAddress(); err != nil {
		return nil, err
	}
	authority, err := ca.Write(dir)
	if err != nil {
		return nil, err
	}
	cert, key, err := ca.Issue(dir, "127.0.0.1")
	if err != nil {
		return nil, err
	}
	p.listeners = fmt.Sprintf(`, {address: %q, serves: [federation], tls: {cert: %q, key: %q}}`, p.name, cert, key)
	if err := p.configure(fmt.Sprintf("federation: {allow_private_addresses: true, ca_file: %q}\n", authority)); err != nil {
		return nil, err
	}
	if _, err := p.start(ctx); err != nil {
		return nil, err
	}
	other := &bench{opts: b.opts, server: p, scenario: b.scenario, dir: filepath.Dir(dir)}
	for range b.connections() {
		other.conns = append(other.conns, &conn{address: p.address})
	}
	return other, nil
}

func (p *pair) close() error {
	var err error
	for _, b := range []*bench{p.here, p.there} {
		if b == nil {
			continue
		}
		for _, c := range b.conns {
			c.close()
		}
		err = errors.Join(err, b.server.stop())
	}
	return err
}

// visitor brings one user of the other server into a room, and returns them.
func (p *pair) visitor(ctx context.Context, r *room) (user, error) {
	users, err := p.there.people(ctx, 1)
	if err != nil {
		return user{}, err
	}
	return users[0], p.enter(r, users[0])
}

// enter lets a user of the other server join a room that this one is in.
func (p *pair) enter(r *room, u user) error {
	path := joinPath(r) + "?via=" + p.here.server.name
	_, err := p.there.conns[0].do("POST", path, u.token, []byte("{}"))
	return err
}
