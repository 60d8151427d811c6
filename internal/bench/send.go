package main

import "context"

// send has users send into 10 rooms of 10.
func send(ctx context.Context, b *bench) error {
	users, err := b.people(ctx, 10)
	if err != nil {
		return err
	}
	list, err := b.places(ctx, 10, users)
	if err != nil {
		return err
	}
	message := func(c *conn, i int) error {
		return b.say(c, list[i%len(list)], users[(i/len(list))%len(users)], "send")
	}
	if _, err := b.all(ctx, b.n(2000, 200), message); err != nil {
		return err
	}
	before, err := b.stored(ctx)
	if err != nil {
		return err
	}
	r, err := b.all(ctx, b.n(20000, 1000), message)
	if err != nil {
		return err
	}
	after, err := b.stored(ctx)
	if err != nil {
		return err
	}
	b.rate("events sent", r.rate(), "/s", 3000)
	b.note("latency, median", r.p(50), "ms")
	b.cost("latency, p99", r.p(99), "ms", 50)
	b.cost("server CPU an event", r.cpuMS(), "ms", b.onSQLite(0.35))
	b.cost("disk an event", float64(after-before)/float64(r.count), "bytes", 1500)
	return nil
}

// hot has 200 members send into one room.
func hot(ctx context.Context, b *bench) error {
	users, err := b.people(ctx, 200)
	if err != nil {
		return err
	}
	place, err := b.place(ctx, users)
	if err != nil {
		return err
	}
	r, err := b.all(ctx, b.n(10000, 500), func(c *conn, i int) error { return b.say(c, place, users[i%len(users)], "hot") })
	if err != nil {
		return err
	}
	b.rate("events sent", r.rate(), "/s", 2000)
	b.note("latency, p99", r.p(99), "ms")
	b.note("server CPU an event", r.cpuMS(), "ms")
	return nil
}

// onSQLite is a target that does not hold where the database is another process.
func (b *bench) onSQLite(target float64) float64 {
	if b.server.postgres() {
		return 0
	}
	return target
}
