package main

import (
	"context"
	"fmt"
)

// rules measures what push rules cost a message: in a room of two, in one of a
// thousand with the predefined rules, and there once all of the thousand have a
// keyword of their own.
func rules(ctx context.Context, b *bench) error {
	big, err := b.crowd(ctx, b.n(1000, 100))
	if err != nil {
		return err
	}
	last := len(big.members) - 1
	small, err := b.place(ctx, big.members[last-1:])
	if err != nil {
		return err
	}
	sender, reader := big.members[last-1], big.members[last]
	cost := func(place *room, rounds int) (float64, error) {
		total := 0.0
		for range rounds {
			r, err := b.one(ctx, b.n(200, 20), func(c *conn, i int) error { return b.say(c, place, sender, "rules") })
			if err != nil {
				return 0, err
			}
			// Counts are not told before all of it is held against the rules.
			after, err := b.one(ctx, 1, func(c *conn, _ int) error {
				_, err := c.do("GET", "/_matrix/client/v3/sync?timeout=0"+filter, reader.token, nil)
				return err
			})
			if err != nil {
				return 0, err
			}
			total += (ms(r.cpu) + ms(after.cpu)) / float64(r.count*rounds)
		}
		return total, nil
	}
	var alone, plain float64
	for round := range 4 { // in turns, the first to warm up
		x, err := cost(small, 1)
		if err != nil {
			return err
		}
		y, err := cost(big, 1)
		if err != nil {
			return err
		}
		if round > 0 {
			alone, plain = alone+x/3, plain+y/3
		}
	}
	if _, err := b.all(ctx, len(big.members), func(c *conn, i int) error {
		body := fmt.Appendf(nil, `{"pattern":"keyword%d","actions":["notify",{"set_tweak":"highlight"}]}`, i)
		_, err := c.do("PUT", "/_matrix/client/v3/pushrules/global/content/mine", big.members[i].token, body)
		return err
	}); err != nil {
		return err
	}
	if _, err := cost(big, 1); err != nil { // everybody's rules come to memory
		return err
	}
	own, err := cost(big, 3)
	if err != nil {
		return err
	}
	b.note("server CPU a message, room of 2", alone, "ms")
	b.cost(fmt.Sprintf("… more among %d with the predefined rules", len(big.members)), plain-alone, "ms", 0.2)
	b.cost(fmt.Sprintf("… more among %d with rules of their own", len(big.members)), own-alone, "ms", 5)
	return nil
}
