package syncapi

import (
	"context"
	"maps"
	"math"
	"slices"
	"sync"

	"github.com/teahouse-chat/teahouse/internal/db"
	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms"
)

// counts tells how much of a room a user has not read. Every event carries the
// running count of its thread or, if it is in none, of the room's main timeline;
// what is unread is the difference between the newest and the one where the user
// stands: at their receipts, at their own last message, or where they joined.
// Nothing is kept per member but their receipts; where an event means more or less
// to a user than to others, the push rules know.
type counts struct {
	db       *db.DB
	engine   *rooms.Engine
	receipts *receipts
	rules    Rules

	mu      sync.Mutex
	threads map[rooms.RoomNID]map[matrix.EventID]latest // rooms whose threads were asked for
	bases   map[threadAt]int64
}

// latest is the newest event of a thread.
type latest struct{ position, unread int64 }

type threadAt struct {
	room     rooms.RoomNID
	root     matrix.EventID
	position int64
}

// What is kept in memory; what goes beyond is dropped as a whole.
const (
	threadRooms = 2_000
	roomThreads = 1_000
	threadBases = 50_000
)

func newCounts(d Deps, r *receipts) *counts {
	return &counts{
		db: d.DB, engine: d.Rooms, receipts: r, rules: d.Rules,
		threads: map[rooms.RoomNID]map[matrix.EventID]latest{}, bases: map[threadAt]int64{},
	}
}

// unread is what a user has not read of a room.
type unread struct {
	main    tally
	threads map[matrix.EventID]tally // those with a count
}

type tally struct{ notifications, highlights int64 }

// publish brings what is known of threads up to a commit; it runs on the
// database's writer.
func (c *counts) publish(b db.Batch) {
	for _, change := range b.Changes {
		done, ok := change.(*rooms.Committed)
		if !ok {
			continue
		}
		for _, ev := range done.Events {
			if ev.Position > 0 && ev.Served() && ev.Thread != "" {
				c.extend(ev)
			}
		}
	}
}

// extend brings a room's threads up to an event, if they are in memory.
func (c *counts) extend(ev *rooms.Stored) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if threads, ok := c.threads[ev.Room]; ok {
		threads[ev.Thread] = latest{ev.Position, ev.Unread}
	}
}

// judged reads, in bulk, what the rules say about rooms beyond the running
// counts. It waits until the rules were held against all events up to a position.
// What was read is forgotten there, so receipts are to be looked at afterwards.
func (c *counts) judged(ctx context.Context, user matrix.UserID, in []rooms.RoomNID, upTo int64) (map[rooms.RoomNID]Judged, error) {
	if c.rules == nil || len(in) == 0 {
		return nil, nil
	}
	if err := c.rules.Wait(ctx, upTo); err != nil {
		return nil, err
	}
	return c.rules.Judged(ctx, user, in)
}

// place is where a user stands in a room.
type place struct {
	room   *rooms.Room
	view   *rooms.View
	user   matrix.UserID
	joined *rooms.Stored // their member event
	own    []Receipt
	judged Judged // nil: the running counts say all
	upTo   int64
	hidden []*rooms.Stored // see Judged.Hidden
}

// standing is up to where one thread, or the main timeline, is read: position,
// and the running count there if it is known.
type standing struct {
	position int64
	count    int64
	known    bool
}

func (s *standing) raise(position, count int64, known bool) {
	s.position = max(s.position, position)
	if known {
		s.count, s.known = max(s.count, count), true
	}
}

// of counts what the user has not read. The room must have been prepared.
func (c *counts) of(ctx context.Context, p place) (unread, error) {
	main := standing{position: p.joined.Position, count: p.joined.Unread, known: true}
	all := p.joined.Position // up to where everything is read, threads too
	threads := map[matrix.EventID]*standing{}
	thread := func(root matrix.EventID) *standing {
		if threads[root] == nil {
			threads[root] = &standing{position: math.MinInt64}
		}
		return threads[root]
	}
	for _, r := range p.own {
		switch r.Thread {
		case "":
			main.raise(r.EventPosition, r.unread, true)
			all = max(all, r.EventPosition)
		case threadMain:
			main.raise(r.EventPosition, r.unread, true)
		default:
			thread(matrix.EventID(r.Thread)).raise(r.EventPosition, r.unread, true)
		}
	}
	var err error
	if p.hidden, err = c.hidden(ctx, &p, all); err != nil {
		return unread{}, err
	}
	newest := standing{position: math.MinInt64}
	active := map[matrix.EventID]latest{} // threads with events above all
	for _, ev := range p.view.Recent {
		if ev.Position > p.upTo {
			break
		}
		mine := ev.Sender == p.user && reads(ev)
		switch {
		case ev.Thread == "":
			newest.raise(ev.Position, ev.Unread, true)
			if mine { // whoever writes has read
				main.raise(ev.Position, ev.Unread, true)
			}
		case mine:
			thread(ev.Thread).raise(ev.Position, ev.Unread, true)
		}
		if ev.Thread != "" && ev.Position > all {
			active[ev.Thread] = latest{ev.Position, ev.Unread}
		}
	}
	if all < p.view.RecentFrom {
		older, err := c.threadsAbove(ctx, p.room, all)
		if err != nil {
			return unread{}, err
		}
		var later []matrix.EventID // went on since
		for root, l := range older {
			if _, ok := active[root]; ok {
				continue
			}
			if active[root] = l; l.position > p.upTo {
				later = append(later, root)
			}
		}
		then, err := c.basesAt(ctx, p.room, later, p.upTo)
		if err != nil {
			return unread{}, err
		}
		for _, root := range later {
			active[root] = latest{p.upTo, then[root]}
		}
	}
	if !newest.known && len(p.view.Recent) > 0 {
		n, err := c.mainAt(ctx, p.room, p.upTo)
		if err != nil {
			return unread{}, err
		}
		newest.raise(p.upTo, n, true)
	}
	u := unread{main: p.between("", main.position, main.count, p.upTo, max(newest.count, main.count))}
	bases, err := c.basesAt(ctx, p.room, slices.Collect(maps.Keys(active)), all)
	if err != nil {
		return unread{}, err
	}
	for root, l := range active {
		s := thread(root)
		s.raise(all, bases[root], true)
		if l.position <= s.position {
			continue
		}
		if t := p.between(root, s.position, s.count, p.upTo, l.unread); t != (tally{}) {
			if u.threads == nil {
				u.threads = map[matrix.EventID]tally{}
			}
			u.threads[root] = t
		}
	}
	return u, nil
}

// between counts the events of a thread between two places.
func (p *place) between(thread matrix.EventID, after, from, upTo, to int64) tally {
	if p.judged == nil {
		return tally{notifications: max(to-from, 0)}
	}
	n, h := p.judged.Between(thread, after, from, upTo, to)
	for _, ev := range p.hidden {
		if ev.Thread == thread && ev.Position > after && ev.Position <= upTo {
			n--
		}
	}
	return tally{max(n, 0), h}
}
