package main

import (
	"context"
	"errors"
	"time"
)

// start starts servers on empty databases, and one of them again.
func start(ctx context.Context, b *bench) (err error) {
	fresh, err := b.another("")
	if err != nil {
		return err
	}
	first, err := fresh.start(ctx)
	if err != nil {
		return err
	}
	if err := fresh.stop(); err != nil {
		return err
	}
	again, err := fresh.start(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, fresh.stop()) }()
	time.Sleep(time.Second)
	mb, err := fresh.resident()
	if err != nil {
		return err
	}
	b.cost("first start, until it answers", ms(first), "ms", 300)
	b.cost("another start", ms(again), "ms", 300)
	b.cost("resident after it", mb, "MB", 60)
	return nil
}

// million starts the server again when it has a million events.
func million(ctx context.Context, b *bench) error {
	count := b.n(1_000_000, 2000)
	users, err := b.people(ctx, 100)
	if err != nil {
		return err
	}
	list, err := b.places(ctx, 100, users[:10])
	if err != nil {
		return err
	}
	r, err := b.all(ctx, count, func(c *conn, i int) error { return b.say(c, list[i%len(list)], users[i%10], "million") })
	if err != nil {
		return err
	}
	if err := b.server.stop(); err != nil {
		return err
	}
	took, err := b.server.start(ctx)
	if err != nil {
		return err
	}
	mb, err := b.server.resident()
	if err != nil {
		return err
	}
	b.note("events sent", r.rate(), "/s")
	b.cost("start, until it answers", ms(took), "ms", 2000)
	b.note("resident after it", mb, "MB")
	return nil
}
