package main

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// memory looks at a server of its own that has let 500 users into 200 rooms, 10
// in each at least, while all of them wait in a long poll.
func memory(ctx context.Context, b *bench) (err error) {
	fresh, err := b.another("")
	if err != nil {
		return err
	}
	if _, err := fresh.start(ctx); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, fresh.stop()) }()
	other := &bench{opts: b.opts, server: fresh, scenario: b.scenario}
	for range b.connections() {
		other.conns = append(other.conns, &conn{address: fresh.address})
	}
	waiting, places := b.n(500, 50), b.n(200, 20)
	users, err := other.people(ctx, waiting)
	if err != nil {
		return err
	}
	// Each user is in four of the rooms.
	if _, err := other.all(ctx, places, func(c *conn, i int) error {
		r, err := other.found(c, users[i*len(users)/places], fmt.Sprint("Room ", i))
		if err != nil {
			return err
		}
		for k := 1; k < 4*waiting/places; k++ {
			if err := enter(c, r, users[(i*len(users)/places+k)%len(users)]); err != nil {
				return err
			}
		}
		return other.say(c, r, r.members[0], "memory")
	}); err != nil {
		return err
	}
	l, err := other.listen(ctx, users, "none-")
	if err != nil {
		return err
	}
	defer l.close()
	time.Sleep(time.Duration(b.n(10, 1)) * time.Second)
	cpu := fresh.cpu()
	const rest = 3 * time.Second
	time.Sleep(rest)
	used := fresh.cpu() - cpu
	mb, err := fresh.resident()
	if err != nil {
		return err
	}
	b.cost(fmt.Sprintf("%d long polls in %d rooms, resident", waiting, places), mb, "MB", 150)
	b.note("server CPU meanwhile, of one core", 100*used.Seconds()/rest.Seconds(), "%")
	return nil
}
