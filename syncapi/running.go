package syncapi

import (
	"context"
	"math"

	"github.com/teahouse-chat/teahouse/internal/db"
	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms"
)

// running is the running count, at an event, of the thread that a receipt is
// for: of the main timeline for "main" and for an unthreaded receipt.
func (c *counts) running(ctx context.Context, r *rooms.Room, ev *rooms.Stored, thread string) (int64, error) {
	switch {
	case thread == "" || thread == threadMain:
		if ev.Thread == "" {
			return ev.Unread, nil
		}
		return c.mainAt(ctx, r, ev.Position)
	case string(ev.Thread) == thread:
		return ev.Unread, nil
	}
	root := matrix.EventID(thread)
	bases, err := c.basesAt(ctx, r, []matrix.EventID{root}, ev.Position)
	return bases[root], err
}

// mainPages bounds how far back an event of the main timeline is looked for.
const (
	mainPages = 20
	mainPage  = 100
	// hiddenPages bounds how far back events of people who are ignored are looked for.
	hiddenPages = 10
)

// mainAt is the running count of the main timeline at a position. If there are
// thousands of events of threads in a row before it, it is 0: too much is
// shown as unread then, rather than too little.
func (c *counts) mainAt(ctx context.Context, r *rooms.Room, position int64) (int64, error) {
	from := position + 1
	for range mainPages {
		events, err := c.engine.Timeline(ctx, rooms.TimelineQuery{Room: r, From: from, Backwards: true, Limit: mainPage})
		if err != nil || len(events) == 0 {
			return 0, err
		}
		for _, ev := range events {
			if ev.Thread == "" {
				return ev.Unread, nil
			}
		}
		from = events[len(events)-1].Position
	}
	return 0, nil
}

// hidden lists the events above a position that are counted though the user ignores
// their senders by now. Of a room that was not read for long it looks at the newest
// events only.
func (c *counts) hidden(ctx context.Context, p *place, after int64) ([]*rooms.Stored, error) {
	if p.judged == nil || !p.judged.Ignoring() {
		return nil, nil
	}
	var found []*rooms.Stored
	add := func(events []*rooms.Stored) {
		for _, ev := range events {
			if ev.Position > after && p.judged.Hidden(ev) {
				found = append(found, ev)
			}
		}
	}
	add(p.view.Recent)
	from := p.view.RecentFrom
	for range hiddenPages {
		if from <= after {
			break
		}
		events, err := c.engine.Timeline(ctx, rooms.TimelineQuery{Room: p.room, From: from, Backwards: true, Limit: mainPage})
		if err != nil || len(events) == 0 {
			return found, err
		}
		add(events)
		from = events[len(events)-1].Position
	}
	return found, nil
}

// threadsAbove lists the room's threads that have events above a position.
func (c *counts) threadsAbove(ctx context.Context, r *rooms.Room, position int64) (map[matrix.EventID]latest, error) {
	above := map[matrix.EventID]latest{}
	pick := func(threads map[matrix.EventID]latest) {
		for root, l := range threads {
			if l.position > position {
				above[root] = l
			}
		}
	}
	c.mu.Lock()
	threads, ok := c.threads[r.NID]
	if ok {
		pick(threads)
	}
	c.mu.Unlock()
	if ok {
		return above, nil
	}
	seen := r.View().Position
	rows, err := c.engine.ThreadsBefore(ctx, r, math.MaxInt64, roomThreads)
	if err != nil {
		return nil, err
	}
	threads = make(map[matrix.EventID]latest, len(rows))
	for _, t := range rows {
		threads[t.Root] = latest{t.Position, t.Unread}
	}
	pick(threads)
	c.mu.Lock()
	defer c.mu.Unlock()
	// Kept only if nothing was committed to the room meanwhile.
	if r.View().Position == seen {
		if len(c.threads) >= threadRooms {
			clear(c.threads)
		}
		c.threads[r.NID] = threads
	}
	return above, nil
}

// basesAt gives the running counts of a room's threads at a position, 0 for those
// that began later.
func (c *counts) basesAt(ctx context.Context, r *rooms.Room, threads []matrix.EventID, position int64) (map[matrix.EventID]int64, error) {
	if len(threads) == 0 {
		return nil, nil
	}
	bases := make(map[matrix.EventID]int64, len(threads))
	var cold []matrix.EventID
	c.mu.Lock()
	for _, root := range threads {
		if n, ok := c.bases[threadAt{r.NID, root, position}]; ok {
			bases[root] = n
		} else {
			cold = append(cold, root)
		}
	}
	c.mu.Unlock()
	if len(cold) == 0 {
		return bases, nil
	}
	err := db.Each(ctx, c.db, threadsUnreadAt, func(s db.Scanner) error {
		var root matrix.EventID
		var n *int64
		err := s.Scan(&root, &n)
		if n != nil {
			bases[root] = *n
		}
		return err
	}, r.NID, cold, position)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.bases)+len(cold) > threadBases {
		clear(c.bases)
	}
	for _, root := range cold {
		c.bases[threadAt{r.NID, root, position}] = bases[root]
	}
	return bases, nil
}
