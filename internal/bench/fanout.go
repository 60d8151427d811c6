package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// listeners are connected clients, each on its own connection in a long poll of
// which it counts the marked events.
type listeners struct {
	b     *bench
	polls sync.WaitGroup
	stop  context.CancelFunc

	mu      sync.Mutex
	changed *sync.Cond
	seen    map[string]int       // by mark: how many clients have it
	last    map[string]time.Time // by mark: when the last client got it
	failed  error
}

const filter = "&filter=%7B%22room%22%3A%7B%22timeline%22%3A%7B%22limit%22%3A500%7D%7D%7D"

// listen lets every user wait for what happens. mark is what messages to count
// begin with; a number follows it.
func (b *bench) listen(ctx context.Context, users []user, mark string) (*listeners, error) {
	since := make([]string, len(users))
	if _, err := b.all(ctx, len(users), func(c *conn, i int) error {
		answer, err := c.do("GET", "/_matrix/client/v3/sync?timeout=0"+filter, users[i].token, nil)
		since[i] = text(answer, "next_batch")
		return err
	}); err != nil {
		return nil, err
	}
	ctx, stop := context.WithCancel(ctx)
	l := &listeners{b: b, stop: stop, seen: make(map[string]int), last: make(map[string]time.Time)}
	l.changed = sync.NewCond(&l.mu)
	context.AfterFunc(ctx, l.changed.Broadcast)
	for i, u := range users {
		l.polls.Go(func() { l.poll(ctx, u, since[i], []byte(mark)) })
	}
	time.Sleep(200 * time.Millisecond) // until all of them wait
	return l, nil
}

func (l *listeners) poll(ctx context.Context, u user, since string, mark []byte) {
	c := &conn{address: l.b.server.address}
	defer c.close()
	n, err := c.dial()
	if err != nil {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.failed = err
		return
	}
	defer context.AfterFunc(ctx, func() { _ = n.Close() })()
	for {
		answer, err := c.do("GET", "/_matrix/client/v3/sync?timeout=30000&since="+since+filter, u.token, nil)
		now := time.Now()
		if ctx.Err() != nil {
			return
		}
		if err == nil {
			if since = text(answer, "next_batch"); since == "" {
				err = errors.New("/sync has no next_batch")
			}
		}
		l.mu.Lock()
		l.failed = errors.Join(l.failed, err)
		for rest := answer; err == nil; {
			i := bytes.Index(rest, mark)
			if i < 0 {
				break
			}
			rest = rest[i:]
			end := bytes.IndexByte(rest, ':')
			l.seen[string(rest[:end])]++
			l.last[string(rest[:end])] = now
			rest = rest[end:]
		}
		l.mu.Unlock()
		l.changed.Broadcast()
		if err != nil {
			return
		}
	}
}

// wait returns once so many clients have the message, with when the last got it.
func (l *listeners) wait(ctx context.Context, mark string, clients int) (time.Time, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for l.seen[mark] < clients && l.failed == nil && ctx.Err() == nil {
		l.changed.Wait()
	}
	return l.last[mark], errors.Join(l.failed, ctx.Err())
}

func (l *listeners) close() {
	l.stop()
	l.polls.Wait()
}

// fanout has 100 members wait for messages, which come one by one at first and
// then all at once.
func fanout(ctx context.Context, b *bench) error {
	users, err := b.people(ctx, b.n(100, 20))
	if err != nil {
		return err
	}
	place, err := b.place(ctx, users)
	if err != nil {
		return err
	}
	l, err := b.listen(ctx, users, "fanout-")
	if err != nil {
		return err
	}
	defer l.close()
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	context.AfterFunc(ctx, l.changed.Broadcast)
	paced, err := b.one(ctx, b.n(100, 10), func(c *conn, i int) error {
		mark := fmt.Sprintf("fanout-p%d", i)
		if err := b.say(c, place, users[i%len(users)], mark); err != nil {
			return err
		}
		_, err := l.wait(ctx, mark, len(users))
		return err
	})
	if err != nil {
		return err
	}
	burst := b.n(400, 20)
	began := time.Now()
	cpu := b.server.cpu()
	if _, err := b.all(ctx, burst, func(c *conn, i int) error {
		return b.say(c, place, users[i%len(users)], fmt.Sprintf("fanout-b%d", i))
	}); err != nil {
		return err
	}
	var end time.Time
	for i := range burst {
		last, err := l.wait(ctx, fmt.Sprintf("fanout-b%d", i), len(users))
		if err != nil {
			return err
		}
		if last.After(end) {
			end = last
		}
	}
	deliveries := float64(burst * len(users))
	b.note("until all have a message, median", paced.p(50), "ms")
	b.cost("until all have a message, p95", paced.p(95), "ms", 20)
	b.note("server CPU a paced message", paced.cpuMS(), "ms")
	b.rate("deliveries of a burst", deliveries/end.Sub(began).Seconds(), "/s", 10000)
	b.note("server CPU a delivery of a burst", ms(b.server.cpu()-cpu)/deliveries, "ms")
	return nil
}

// large compares a message in a room of 10,000 local members, of whom 100 are
// connected, with one in a room of those 100 alone.
func large(ctx context.Context, b *bench) error {
	big, err := b.crowd(ctx, b.n(10000, 600))
	if err != nil {
		return err
	}
	// Members of the middle: the first were there when the room was small.
	connected := b.n(100, 20)
	users := big.members[len(big.members)/2:][:connected]
	small, err := b.place(ctx, users)
	if err != nil {
		return err
	}
	l, err := b.listen(ctx, users, "large-")
	if err != nil {
		return err
	}
	defer l.close()
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	context.AfterFunc(ctx, l.changed.Broadcast)
	cost := func(place *room, name string) (float64, error) {
		r, err := b.one(ctx, b.n(50, 10), func(c *conn, i int) error {
			mark := fmt.Sprintf("large-%s%d", name, i)
			if err := b.say(c, place, users[i%len(users)], mark); err != nil {
				return err
			}
			_, err := l.wait(ctx, mark, len(users))
			return err
		})
		return r.cpuMS(), err
	}
	var among, alone float64
	rounds := b.n(5, 2) // in turns, since the machine is not the same all the time
	for round := range rounds + 1 {
		x, err := cost(big, fmt.Sprintf("a%d-", round))
		if err != nil {
			return err
		}
		y, err := cost(small, fmt.Sprintf("b%d-", round))
		if err != nil {
			return err
		}
		if round > 0 { // the first warms up
			among, alone = among+x/float64(rounds), alone+y/float64(rounds)
		}
	}
	b.note(fmt.Sprintf("server CPU a message, %d connected", connected), alone, "ms")
	b.note(fmt.Sprintf("server CPU a message, among %d", len(big.members)), among, "ms")
	b.cost("ratio of the two", among/alone, "", 2)
	return nil
}
