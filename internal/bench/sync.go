package main

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// idle asks for what is new when nothing is.
func idle(ctx context.Context, b *bench) error {
	users, err := b.people(ctx, b.n(50, 20))
	if err != nil {
		return err
	}
	if _, err := b.places(ctx, 10, users); err != nil {
		return err
	}
	since := make([]string, len(users))
	// Again after a while: the others are told who is online now.
	for range 2 {
		time.Sleep(500 * time.Millisecond)
		if _, err := b.all(ctx, len(users), func(c *conn, i int) error {
			path := "/_matrix/client/v3/sync?timeout=0"
			if since[i] != "" {
				path += "&since=" + since[i]
			}
			answer, err := c.do("GET", path, users[i].token, nil)
			since[i] = text(answer, "next_batch")
			return err
		}); err != nil {
			return err
		}
	}
	ask := func(c *conn, i int) error {
		i %= len(users)
		answer, err := c.do("GET", "/_matrix/client/v3/sync?timeout=0&since="+since[i], users[i].token, nil)
		if err == nil && len(answer) > 1000 {
			return fmt.Errorf("/sync found something new: %.300s", answer)
		}
		return err
	}
	r, err := b.all(ctx, b.n(20000, 1000), ask)
	if err != nil {
		return err
	}
	b.rate("idle /sync", r.rate(), "/s", 4000)
	b.cost("server CPU", r.cpuMS(), "ms", 0.1)
	return nil
}

// initial asks for everything: of users in 20 rooms with 20 messages each, and
// of one in 1,000 rooms.
func initial(ctx context.Context, b *bench) error {
	users, err := b.people(ctx, 10)
	if err != nil {
		return err
	}
	const messages = 20
	list, err := b.places(ctx, 20, users)
	if err != nil {
		return err
	}
	if _, err := b.all(ctx, len(list)*messages, func(c *conn, i int) error {
		return b.say(c, list[i%len(list)], users[i%len(users)], "initial")
	}); err != nil {
		return err
	}
	ask := func(users []user) func(c *conn, i int) error {
		return func(c *conn, i int) error {
			// A filter of its own each time: an answer that was kept would not do.
			f := fmt.Sprintf("%%7B%%22room%%22%%3A%%7B%%22timeline%%22%%3A%%7B%%22limit%%22%%3A20%%2C%%22not_types%%22%%3A%%5B%%22none.%d%%22%%5D%%7D%%7D%%7D", i)
			_, err := c.do("GET", "/_matrix/client/v3/sync?filter="+f, users[i%len(users)].token, nil)
			return err
		}
	}
	few, err := b.one(ctx, b.n(100, 10), ask(users))
	if err != nil {
		return err
	}
	if users, err = b.people(ctx, 1); err != nil {
		return err
	}
	count := b.n(1000, 50)
	if _, err := b.places(ctx, count, users); err != nil {
		return err
	}
	many, err := b.one(ctx, b.n(10, 2), ask(users))
	if err != nil {
		return err
	}
	b.cost("20 rooms of 20 messages, median", few.p(50), "ms", 10)
	b.note("server CPU", few.cpuMS(), "ms")
	b.cost(fmt.Sprintf("%d rooms, median", count), many.p(50), "ms", 500)
	b.note("server CPU", many.cpuMS(), "ms")
	return nil
}

// messages reads a room backwards to its beginning, several times.
func messages(ctx context.Context, b *bench) error {
	users, err := b.people(ctx, 10)
	if err != nil {
		return err
	}
	place, err := b.place(ctx, users)
	if err != nil {
		return err
	}
	count := b.n(10000, 1000)
	if _, err := b.all(ctx, count, func(c *conn, i int) error { return b.say(c, place, users[i%len(users)], "history") }); err != nil {
		return err
	}
	const limit = 100
	pages := count / limit
	from := ""
	r, err := b.one(ctx, b.n(10, 1)*pages, func(c *conn, i int) error {
		path := fmt.Sprintf("%s/messages?dir=b&limit=%d", place.path(), limit)
		if i%pages == 0 {
			from = ""
		} else if from == "" {
			return errors.New("/messages ended early")
		} else {
			path += "&from=" + from
		}
		answer, err := c.do("GET", path, users[0].token, nil)
		from = text(answer, "end")
		return err
	})
	if err != nil {
		return err
	}
	b.rate("events read", r.rate()*limit, "/s", 50000)
	b.note("page of 100, median", r.p(50), "ms")
	b.note("server CPU of a page", r.cpuMS(), "ms")
	return nil
}
