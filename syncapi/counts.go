package syncapi

import (
	"bytes"
	"context"
	"encoding/json"
	"math"
	"slices"
	"sync"

	"github.com/teahouse-chat/teahouse/internal/db"
	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms"
	"github.com/teahouse-chat/teahouse/rooms/state"
)

// counts tells how much of a room a user has not read. Every event carries the
// running count of its thread or, if it is in none, of the room's main timeline;
// what is unread is the difference between the newest and the one where the user
// stands: at their receipts, at their own last message, or where they joined.
// Nothing is kept per member but their receipts.
//
// Highlights are rows, written only where an event mentions somebody.
type counts struct {
	db       *db.DB
	engine   *rooms.Engine
	receipts *receipts

	mu         sync.Mutex
	highlights map[rooms.RoomNID]*roomHighlights
	threads    map[rooms.RoomNID]map[matrix.EventID]latest // rooms whose threads were asked for
	bases      map[threadAt]int64
	allowed    map[int64]bool // room-wide mentions by event number: may the sender do that
}

// roomHighlights are those of a room, by position. Before they are read from the
// database only what came since is there.
type roomHighlights struct {
	read bool
	list []highlight
}

// latest is the newest event of a thread.
type latest struct{ position, unread int64 }

type threadAt struct {
	root     matrix.EventID
	position int64
}

// What is kept in memory; what goes beyond is dropped as a whole.
const (
	highlightRooms = 20_000
	threadRooms    = 2_000
	roomThreads    = 1_000
	threadBases    = 50_000
)

func newCounts(d Deps, r *receipts) *counts {
	return &counts{
		db: d.DB, engine: d.Rooms, receipts: r,
		highlights: map[rooms.RoomNID]*roomHighlights{}, threads: map[rooms.RoomNID]map[matrix.EventID]latest{},
		bases: map[threadAt]int64{}, allowed: map[int64]bool{},
	}
}

// unread is what a user has not read of a room.
type unread struct {
	main    tally
	threads map[matrix.EventID]tally // those with a count
}

type tally struct{ notifications, highlights int64 }

// publish takes note of mentions and threads; it runs on the database's writer.
func (c *counts) publish(b db.Batch) {
	var fresh []highlight
	for _, change := range b.Changes {
		done, ok := change.(*rooms.Committed)
		if !ok {
			continue
		}
		for _, ev := range done.Events {
			if ev.Position <= 0 || !ev.Served() {
				continue
			}
			if ev.Thread != "" {
				c.extend(ev)
			}
			fresh = append(fresh, mentions(ev, done.Room.IsLocalMember)...)
		}
	}
	if len(fresh) == 0 {
		return
	}
	c.mu.Lock()
	for _, h := range fresh {
		c.keep(h.room).list = append(c.keep(h.room).list, h)
	}
	c.mu.Unlock()
	c.db.Submit(func(tx *db.Tx) error {
		for _, h := range fresh {
			if err := tx.Exec(insertHighlight, h.room, h.user, h.position, h.thread, h.sender, h.event); err != nil {
				return err
			}
		}
		return nil
	})
}

// keep returns the room's highlights to add to; c.mu is held.
func (c *counts) keep(nid rooms.RoomNID) *roomHighlights {
	rh := c.highlights[nid]
	if rh == nil {
		rh = &roomHighlights{}
		c.highlights[nid] = rh
	}
	return rh
}

// extend brings a room's threads up to an event, if they are in memory.
func (c *counts) extend(ev *rooms.Stored) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if threads, ok := c.threads[ev.Room]; ok {
		threads[ev.Thread] = latest{ev.Position, ev.Unread}
	}
}

// mentions lists whom an event should stand out to, by the rules that are in
// force for everybody who has not changed them.
// spec: client-server#default-override-rules
func mentions(ev *rooms.Stored, local func(matrix.UserID) bool) []highlight {
	at := highlight{room: ev.Room, position: ev.Position, thread: ev.Thread, sender: ev.Sender, event: int64(ev.NID)}
	if ev.Is(matrix.TypeTombstone, "") {
		return []highlight{at}
	}
	if ev.Relation.Type == "m.replace" || !bytes.Contains(ev.Content, []byte(`"m.mentions"`)) {
		return nil
	}
	var content struct {
		Mentions struct {
			Users []matrix.UserID `json:"user_ids"`
			Room  bool            `json:"room"`
		} `json:"m.mentions"`
	}
	if json.Unmarshal(ev.Content, &content) != nil {
		return nil
	}
	var found []highlight
	if content.Mentions.Room {
		found = append(found, at)
	}
	users := content.Mentions.Users
	slices.Sort(users)
	for _, u := range slices.Compact(users) {
		if u != ev.Sender && local(u) {
			at.user = u
			found = append(found, at)
		}
	}
	return found
}

// prepare reads, in bulk, what counting in these rooms needs.
func (c *counts) prepare(ctx context.Context, in []rooms.RoomNID) error {
	var cold []rooms.RoomNID
	c.mu.Lock()
	for _, nid := range in {
		if rh := c.highlights[nid]; rh == nil || !rh.read {
			cold = append(cold, nid)
		}
	}
	c.mu.Unlock()
	if len(cold) == 0 {
		return nil
	}
	stored, err := db.All(ctx, c.db, highlightsIn, scanHighlight, cold)
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.highlights)+len(cold) > highlightRooms {
		for nid, rh := range c.highlights {
			if rh.read {
				delete(c.highlights, nid)
			}
		}
	}
	byRoom := map[rooms.RoomNID][]highlight{}
	for _, h := range stored {
		byRoom[h.room] = append(byRoom[h.room], h)
	}
	for _, nid := range cold {
		rh := c.keep(nid)
		if rh.read {
			continue
		}
		// What came since may be in the database already, or not yet.
		list := append(byRoom[nid], rh.list...)
		slices.SortStableFunc(list, func(a, b highlight) int { return int(a.position - b.position) })
		rh.read = true
		rh.list = slices.CompactFunc(list, func(a, b highlight) bool { return a.position == b.position && a.user == b.user })
	}
	return nil
}

// place is where a user stands in a room.
type place struct {
	room   *rooms.Room
	view   *rooms.View
	user   matrix.UserID
	joined *rooms.Stored // their member event
	own    []Receipt
	upTo   int64
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
	newest := standing{position: math.MinInt64}
	active := map[matrix.EventID]latest{} // threads with events above all
	for _, ev := range p.view.Recent {
		if ev.Position > p.upTo {
			break
		}
		mine := ev.Sender == p.user
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
		for root, l := range older {
			if _, ok := active[root]; !ok && l.position <= p.upTo {
				active[root] = l
			}
		}
	}
	if !newest.known && len(p.view.Recent) > 0 {
		n, err := c.mainAt(ctx, p.room, p.upTo)
		if err != nil {
			return unread{}, err
		}
		newest.raise(p.upTo, n, true)
	}
	u := unread{main: tally{notifications: max(newest.count-main.count, 0)}}
	bases, err := c.basesAt(ctx, active, all)
	if err != nil {
		return unread{}, err
	}
	for root, l := range active {
		s := thread(root)
		s.raise(all, bases[root], true)
		if n := l.unread - s.count; n > 0 && l.position > s.position {
			if u.threads == nil {
				u.threads = map[matrix.EventID]tally{}
			}
			u.threads[root] = tally{notifications: n}
		}
	}
	return u, c.highlight(ctx, p, &u, main.position, all, threads)
}

// highlight adds the highlights to the counts.
func (c *counts) highlight(ctx context.Context, p place, u *unread, main, all int64, threads map[matrix.EventID]*standing) error {
	c.mu.Lock()
	rh := c.highlights[p.room.NID]
	var list []highlight
	if rh != nil && len(rh.list) > 0 {
		list = slices.Clone(rh.list)
	}
	c.mu.Unlock()
	for _, h := range list {
		read := all
		if h.thread == "" {
			read = main
		} else if s := threads[h.thread]; s != nil {
			read = max(read, s.position)
		}
		if h.user != p.user && h.user != "" || h.sender == p.user || h.position <= read || h.position > p.upTo {
			continue
		}
		if h.user == "" {
			ok, err := c.mayMentionRoom(ctx, p.room, h)
			if err != nil {
				return err
			}
			if !ok {
				continue
			}
		}
		if h.thread == "" {
			u.main.highlights++
			u.main.notifications = max(u.main.notifications, u.main.highlights)
			continue
		}
		if u.threads == nil {
			u.threads = map[matrix.EventID]tally{}
		}
		t := u.threads[h.thread]
		t.highlights++
		t.notifications = max(t.notifications, t.highlights)
		u.threads[h.thread] = t
	}
	return nil
}

// mayMentionRoom tells whether the sender of a room-wide highlight had the power
// to call everybody.
// spec: client-server#default-override-rules
func (c *counts) mayMentionRoom(ctx context.Context, r *rooms.Room, h highlight) (bool, error) {
	c.mu.Lock()
	ok, known := c.allowed[h.event]
	c.mu.Unlock()
	if known {
		return ok, nil
	}
	m, err := c.engine.StateAt(ctx, r, h.position)
	if err != nil {
		return false, err
	}
	levels, err := c.engine.Levels(ctx, m)
	if err != nil {
		return false, err
	}
	events, err := c.engine.Events(ctx, []state.EventNID{state.EventNID(h.event)})
	if err != nil {
		return false, err
	}
	ok = events[0].Type == matrix.TypeTombstone || levels.User(h.sender) >= levels.Notification("room")
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.allowed) >= threadBases {
		clear(c.allowed)
	}
	c.allowed[h.event] = ok
	return ok, nil
}
