package rooms

import (
	"cmp"
	"context"
	"maps"
	"slices"

	"github.com/teahouse-chat/teahouse/internal/db"
	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms/state"
)

// The past of a room has the positions below zero. It is fetched in parts: the
// newest of it, a stretch that a client jumped to, what was missed in an outage.
// Between parts, and between events, there is room for what is fetched later.
const (
	firstPart  = -1 << 60
	partSpace  = 1 << 32
	eventSpace = 1 << 10
)

var (
	lowestChildren = db.SQL(`SELECT b.prev, MIN(e.position) FROM backward b JOIN events e ON e.event_nid = b.event_nid
		WHERE b.prev IN {texts $1} AND b.room_nid = $2 AND e.position < 0 GROUP BY b.prev`)
	partEnds = db.SQL(`SELECT DISTINCT e.position, e.ts FROM backward b JOIN events e ON e.event_nid = b.event_nid
		WHERE b.room_nid = $1 AND e.position <> 0 ORDER BY e.position LIMIT $2`)
	nextBelow = db.SQL(`SELECT at.value, COALESCE((SELECT e.position FROM events e WHERE e.room_nid = $2
			AND e.position < at.value AND e.position <> 0 ORDER BY e.position DESC LIMIT 1), 0) FROM {ints $1} AS at`)
	nextAbove  = db.SQL(`SELECT position FROM events WHERE room_nid = $1 AND position > $2 AND position <> 0 ORDER BY position LIMIT 1`)
	lowestPast = db.SQL(`SELECT position FROM events WHERE room_nid = $1 AND position < 0 AND position <> 0 ORDER BY position LIMIT 1`)
)

// part tells where in the past an event belongs.
type part int

const (
	joined part = iota // right before what builds on it
	loose              // nothing builds on it; it comes right after what it builds on
	island             // nothing builds on it, and what it builds on is not here
)

// sort decides to which part of the past an admitted event belongs, and above
// which position: above what it builds on, be it through others that come with it.
func (b *olderBuilder) sort(a *arrival, connected bool) {
	belongs, least := island, int64(0)
	for _, st := range a.prevs {
		p, fresh := b.parts[st.NID]
		at := st.Position
		if fresh {
			at = b.least[st.NID]
		}
		if at < 0 && (least == 0 || at > least) {
			least = at
		}
		if !fresh || p != island {
			belongs = loose
		}
		if !connected && (!fresh || p == joined) {
			b.floor = append(b.floor, st)
		}
	}
	if connected {
		belongs = joined
	}
	b.parts[a.st.NID], b.least[a.st.NID] = belongs, least
}

// past is where the events of a room's past lie. Only who holds the room's intake
// changes that.
type past struct {
	low, high int64                    // the lowest and the highest position; 0 if there are none
	children  map[matrix.EventID]int64 // of events that come now: the lowest position of what builds on them
	ends      []partEnd                // of what builds on something that is not here, the lowest first
	floors    map[int64]int64          // what was the next position below that of a child, of an end, and zero; 0 if there was none
	laid      map[int64]bool           // positions that are used now
}

// partEnd is an event behind which the history goes on: where a part of the past,
// or of the present, may end.
type partEnd struct{ position, ts int64 }

// allot gives the events that were admitted their positions.
func (f *filling) allot(ctx context.Context, b *olderBuilder) error {
	parts := map[part][]*Stored{}
	for _, st := range slices.Backward(b.events) {
		if st.Flags&^Held == 0 && st.Position == 0 { // one that is held keeps its place free
			p := b.parts[st.NID]
			parts[p] = append(parts[p], st)
		}
	}
	p, err := f.past(ctx)
	if err != nil {
		return err
	}
	p.join(parts[joined], b.least)
	if events := parts[loose]; len(events) > 0 {
		run, err := f.over(ctx, p, b.floor, len(events))
		if err != nil {
			return err
		}
		p.lay(events, run)
	}
	if events := parts[island]; len(events) > 0 {
		p.lay(events, p.between(events[0].OriginServerTS, len(events)))
	}
	return nil
}

// past reads what decides on the places of the events.
func (f *filling) past(ctx context.Context) (*past, error) {
	p := &past{children: map[matrix.EventID]int64{}, floors: map[int64]int64{}, laid: map[int64]bool{}}
	err := db.Each(ctx, f.e.DB, lowestChildren, func(s db.Scanner) error {
		var id matrix.EventID
		var position int64
		err := s.Scan(&id, &position)
		p.children[id] = position
		return err
	}, f.ids(), f.room.NID)
	if err != nil {
		return nil, err
	}
	p.ends, err = db.All(ctx, f.e.DB, partEnds, func(s db.Scanner) (end partEnd, err error) {
		err = s.Scan(&end.position, &end.ts)
		return end, err
	}, f.room.NID, maxGaps)
	if err != nil {
		return nil, err
	}
	at := append(slices.Collect(maps.Values(p.children)), 0)
	for _, end := range p.ends {
		at = append(at, end.position)
	}
	err = db.Each(ctx, f.e.DB, nextBelow, func(s db.Scanner) error {
		var position, floor int64
		err := s.Scan(&position, &floor)
		p.floors[position] = floor
		return err
	}, at, f.room.NID)
	if err != nil {
		return nil, err
	}
	p.high = p.floors[0]
	p.low, _, err = db.One(ctx, f.e.DB, lowestPast, scanOne[int64], f.room.NID)
	return p, err
}

// free is a run of free positions, from next downwards in steps, above floor.
type free struct{ next, step, floor int64 }

// within is a run for n events below a position and above another one, which may
// be 0 for none; its step is 0 if they have no room there.
func within(below, above int64, n int) free {
	step := int64(eventSpace)
	if above != 0 {
		step = min(step, (below-above)/int64(n+1))
	}
	return free{below - step, step, above}
}

// join lays events, newest first, each below what builds on it and above what it
// builds on.
func (p *past) join(events []*Stored, least map[state.EventNID]int64) {
	var run free
	for i, st := range events {
		child, above := p.children[st.ID], least[st.NID]
		if above >= child { // it cannot be had
			above = 0
		}
		switch n := len(events) - i; {
		case i == 0 && child == 0: // only the present builds on it
			run = p.above(n)
		case i == 0 || child != 0 && run.next >= child || above != 0 && run.next <= above:
			run = p.under(child, above, n)
		}
		run = p.lay(events[i:i+1], run)
		for _, id := range st.PrevEvents {
			if c := p.children[id]; c == 0 || st.Position < c {
				p.children[id] = st.Position
			}
		}
	}
}

// under is room for n events below a child of theirs: right there if they have to
// be above something that is below it, or else at the end of its part.
func (p *past) under(child, above int64, n int) free {
	if above == 0 {
		for _, end := range slices.Backward(p.ends) {
			if end.position > child {
				continue
			}
			if floor := p.floor(end.position); floor == 0 || end.position-floor > eventSpace {
				return within(end.position, floor, n)
			}
		}
	}
	return within(child, p.floor(child), n)
}

// floor is the next position in use below another; 0 if there is none.
func (p *past) floor(position int64) int64 {
	floor := p.floors[position]
	for laid := range p.laid {
		if laid < position && (floor == 0 || laid > floor) {
			floor = laid
		}
	}
	return floor
}

// above is room for n events above all of the past.
func (p *past) above(n int) free {
	if p.high == 0 {
		return p.below()
	}
	return within(min(p.high+partSpace, 0), p.high, n)
}

// between is room for n events in the middle between two parts: the one above is
// the last that is newer than the events, by what they say of when they were sent.
func (p *past) between(ts int64, n int) free {
	at := slices.IndexFunc(p.ends, func(end partEnd) bool { return end.ts > ts })
	if at < 0 || p.ends[at].position > 0 {
		return p.above(n)
	}
	end := p.ends[at].position
	floor := p.floors[end]
	if floor == 0 {
		return free{next: end - partSpace, step: eventSpace}
	}
	return within(end-(end-floor)/2, floor, n)
}

// over is room for n events above those that they build on.
func (f *filling) over(ctx context.Context, p *past, floor []*Stored, n int) (free, error) {
	if len(floor) == 0 {
		return p.above(n), nil
	}
	highest := slices.MaxFunc(floor, func(a, b *Stored) int { return cmp.Compare(a.Position, b.Position) }).Position
	if highest >= 0 {
		return p.above(n), nil
	}
	next, _, err := db.One(ctx, f.e.DB, nextAbove, scanOne[int64], f.room.NID, highest)
	if err != nil {
		return free{}, err
	}
	next = min(next, 0)
	for position := range p.laid {
		if position > highest {
			next = min(next, position)
		}
	}
	return within(highest+(next-highest)/2, highest, n), nil
}

// below is room below all of the past.
func (p *past) below() free {
	if p.low == 0 {
		return free{next: firstPart, step: eventSpace}
	}
	return free{next: p.low - partSpace, step: eventSpace}
}

// lay gives events, newest first, positions of a run, and returns what is left of
// it. Where there is no room they go below all of the past.
func (p *past) lay(events []*Stored, run free) free {
	for _, st := range events {
		if run.step == 0 || run.next >= 0 || p.laid[run.next] {
			run = p.below()
		}
		st.Position = run.next
		p.laid[run.next], p.floors[run.next] = true, run.floor
		p.low = min(p.low, run.next)
		if p.high == 0 || run.next > p.high {
			p.high = run.next
		}
		run.next -= run.step
	}
	return run
}
