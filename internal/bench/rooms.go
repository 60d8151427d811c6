package main

import (
	"context"
	"fmt"
)

// create makes rooms, as many users at once.
func create(ctx context.Context, b *bench) error {
	users, err := b.people(ctx, 64)
	if err != nil {
		return err
	}
	r, err := b.all(ctx, b.n(1500, 60), func(c *conn, i int) error {
		_, err := b.found(c, users[i%len(users)], fmt.Sprint("Room ", i))
		return err
	})
	if err != nil {
		return err
	}
	b.rate("rooms created", r.rate(), "/s", 300)
	b.note("latency, median", r.p(50), "ms")
	b.note("server CPU a room", r.cpuMS(), "ms")
	return nil
}

// join measures joins of local users into one room: while it has around 50
// members, in several rooms one after another, and up to 5,000.
func join(ctx context.Context, b *bench) error {
	const from, to = 20, 80
	var small run
	for range b.n(20, 3) {
		users, err := b.people(ctx, to) // new ones each time, as those of the large room are
		if err != nil {
			return err
		}
		place, err := b.place(ctx, users[:from])
		if err != nil {
			return err
		}
		r, err := b.grow(ctx, place, users[from:])
		if err != nil {
			return err
		}
		small.count, small.cpu, small.elapsed = small.count+r.count, small.cpu+r.cpu, small.elapsed+r.elapsed
	}
	size, last := b.n(5000, 400), b.n(1000, 100)
	users, err := b.people(ctx, size)
	if err != nil {
		return err
	}
	place, err := b.place(ctx, users[:1])
	if err != nil {
		return err
	}
	first, err := b.grow(ctx, place, users[1:size-last])
	if err != nil {
		return err
	}
	large, err := b.grow(ctx, place, users[size-last:])
	if err != nil {
		return err
	}
	if b.crowded == nil {
		b.crowded = place
	}
	b.rate("joins into one room", float64(size)/(first.elapsed+large.elapsed).Seconds(), "/s", 1000)
	b.note("latency, median", first.p(50), "ms")
	b.note("server CPU a join, 50 members", small.cpuMS(), "ms")
	b.note(fmt.Sprintf("server CPU a join, %d members", size), large.cpuMS(), "ms")
	b.cost("ratio of the two", large.cpuMS()/small.cpuMS(), "", 1.5)
	return nil
}

// members reads the whole member list of a large room.
func members(ctx context.Context, b *bench) error {
	size := b.n(5000, 400)
	place, err := b.crowd(ctx, size)
	if err != nil {
		return err
	}
	var bytes int
	r, err := b.one(ctx, b.n(20, 3), func(c *conn, _ int) error {
		answer, err := c.do("GET", place.path()+"/members", place.members[0].token, nil)
		bytes = len(answer)
		return err
	})
	if err != nil {
		return err
	}
	// The room may have grown since; the target is for 5,000.
	share := float64(size) / float64(len(place.members))
	b.cost(fmt.Sprintf("/members of %d, median", size), r.p(50)*share, "ms", 30)
	b.note("server CPU", r.cpuMS()*share, "ms")
	b.note("answer", float64(bytes)*share/1024, "KB")
	return nil
}

// stateStorage looks at what the snapshots of a large room's joins take while
// the room doubles, which is as long as the cycle of merging them is.
func stateStorage(ctx context.Context, b *bench) error {
	size := b.n(10000, 600)
	if b.opts.long && !b.opts.short {
		size = 50000
	}
	place, err := b.crowd(ctx, size/2)
	if err != nil {
		return err
	}
	joins := size - len(place.members)
	before, err := b.storedState(ctx)
	if err != nil {
		return err
	}
	if _, err := b.crowd(ctx, size); err != nil {
		return err
	}
	after, err := b.storedState(ctx)
	if err != nil {
		return err
	}
	b.cost(fmt.Sprintf("state a join, the last %d of %d members", joins, size), float64(after-before)/float64(joins), "bytes", 200)
	return nil
}
