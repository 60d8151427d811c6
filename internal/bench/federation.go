package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"time"
)

func joinPath(r *room) string { return "/_matrix/client/v3/join/" + url.PathEscape(r.id) }

// fedJoin joins rooms of another server's, of different sizes.
func fedJoin(ctx context.Context, b *bench) (err error) {
	p, err := b.newPair(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.close()) }()
	small, err := p.join(ctx, 100, b.n(20, 3))
	if err != nil {
		return err
	}
	b.cost("join of a room of 100, median", small.p(50), "ms", 60)
	size := b.n(10000, 400)
	large, err := p.join(ctx, size, 1)
	if err != nil {
		return err
	}
	b.cost(fmt.Sprintf("join of a room of %d", size), large.elapsed.Seconds(), "s", 5)
	b.note("CPU of the joining server", large.cpu.Seconds(), "s")
	if !b.opts.long || b.opts.short {
		return nil
	}
	huge, err := p.join(ctx, 50000, 1)
	if err != nil {
		return err
	}
	b.cost("join of a room of 50000", huge.elapsed.Seconds(), "s", 20)
	b.note("CPU of the joining server", huge.cpu.Seconds(), "s")
	mb, err := p.there.server.peak()
	if err != nil {
		return err
	}
	b.cost("resident of the joining server at its peak", mb, "MB", 400)
	return nil
}

// join measures so many joins, each of a room of its own with so many members.
func (p *pair) join(ctx context.Context, members, joins int) (run, error) {
	users, err := p.here.people(ctx, members)
	if err != nil {
		return run{}, err
	}
	places := make([]*room, joins)
	for i := range places {
		if places[i], err = p.here.place(ctx, users); err != nil {
			return run{}, err
		}
	}
	for _, c := range p.there.conns { // the server has closed them if that took long
		c.close()
	}
	visitors, err := p.there.people(ctx, joins)
	if err != nil {
		return run{}, err
	}
	return p.there.one(ctx, joins, func(_ *conn, i int) error { return p.enter(places[i], visitors[i]) })
}

// fedSend sends messages that somebody on another server waits for.
func fedSend(ctx context.Context, b *bench) (err error) {
	p, err := b.newPair(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.close()) }()
	users, err := p.here.people(ctx, b.n(20, 5))
	if err != nil {
		return err
	}
	place, err := p.here.place(ctx, users)
	if err != nil {
		return err
	}
	visitor, err := p.visitor(ctx, place)
	if err != nil {
		return err
	}
	l, err := p.there.listen(ctx, []user{visitor}, "fed-")
	if err != nil {
		return err
	}
	defer l.close()
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	context.AfterFunc(ctx, l.changed.Broadcast)
	cpu := p.there.server.cpu()
	paced, err := p.here.one(ctx, b.n(200, 10), func(c *conn, i int) error {
		mark := fmt.Sprintf("fed-p%d", i)
		if err := p.here.say(c, place, users[i%len(users)], mark); err != nil {
			return err
		}
		_, err := l.wait(ctx, mark, 1)
		return err
	})
	if err != nil {
		return err
	}
	b.cost("until the other server's user has it, median", paced.p(50), "ms", 10)
	b.note("until the other server's user has it, p95", paced.p(95), "ms")
	b.note("CPU of the sending server", paced.cpuMS(), "ms")
	b.note("CPU of the receiving server", ms(p.there.server.cpu()-cpu)/float64(paced.count), "ms")
	return p.burst(ctx, b, l, place, users)
}

// burst sends many messages at once and waits for the last of them.
func (p *pair) burst(ctx context.Context, b *bench, l *listeners, place *room, users []user) error {
	count := b.n(3000, 50)
	cpu, other, began := p.here.server.cpu(), p.there.server.cpu(), time.Now()
	if _, err := p.here.all(ctx, count, func(c *conn, i int) error {
		return p.here.say(c, place, users[i%len(users)], fmt.Sprintf("fed-b%d", i))
	}); err != nil {
		return err
	}
	var end time.Time
	for i := range count {
		at, err := l.wait(ctx, fmt.Sprintf("fed-b%d", i), 1)
		if err != nil {
			return err
		}
		if at.After(end) {
			end = at
		}
	}
	b.rate("events of a burst", float64(count)/end.Sub(began).Seconds(), "/s", 1000)
	b.note("CPU of the sending server an event", ms(p.here.server.cpu()-cpu)/float64(count), "ms")
	b.note("CPU of the receiving server an event", ms(p.there.server.cpu()-other)/float64(count), "ms")
	return nil
}

// fedCatchUp stops the other server, sends events that it misses, and sees how
// fast it gets them once it is back.
func fedCatchUp(ctx context.Context, b *bench) (err error) {
	p, err := b.newPair(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.close()) }()
	users, err := p.here.people(ctx, 20)
	if err != nil {
		return err
	}
	place, err := p.here.place(ctx, users)
	if err != nil {
		return err
	}
	visitor, err := p.visitor(ctx, place)
	if err != nil {
		return err
	}
	if err := p.there.server.stop(); err != nil {
		return err
	}
	for _, c := range p.there.conns {
		c.close()
	}
	count := b.n(10000, 100)
	if _, err := p.here.all(ctx, count, func(c *conn, i int) error {
		return p.here.say(c, place, users[i%len(users)], fmt.Sprintf("missed%d", i))
	}); err != nil {
		return err
	}
	if err := p.here.say(p.here.conns[0], place, users[0], "caught-up"); err != nil {
		return err
	}
	if _, err := p.there.server.start(ctx); err != nil {
		return err
	}
	l, err := p.there.listen(ctx, []user{visitor}, "caught-")
	if err != nil {
		return err
	}
	defer l.close()
	cpu, other, began := p.here.server.cpu(), p.there.server.cpu(), time.Now()
	// A sign of life, which the sender does not have to wait for then.
	if err := p.there.say(p.there.conns[0], place, visitor, "back"); err != nil {
		return err
	}
	limited, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	context.AfterFunc(limited, l.changed.Broadcast)
	end, err := l.wait(limited, "caught-up", 1)
	if err != nil {
		return err
	}
	b.rate(fmt.Sprintf("events after an outage, of %d", count), float64(count)/end.Sub(began).Seconds(), "/s", 1000)
	b.note("CPU of the sending server an event", ms(p.here.server.cpu()-cpu)/float64(count), "ms")
	b.note("CPU of the receiving server an event", ms(p.there.server.cpu()-other)/float64(count), "ms")
	return nil
}
