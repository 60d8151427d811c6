package rooms

import (
	"context"
	"maps"
	"slices"

	"github.com/teahouse-chat/teahouse/internal/db"
	"github.com/teahouse-chat/teahouse/internal/matrix"
)

// The past of a room has the positions below zero. It is fetched in parts, and in
// no order that could be relied on: branch by branch, a stretch that a client
// jumped to, what was missed in an outage. Each depth has a range of positions,
// so that every event has its place before it comes. Only where servers lie about
// the depth do the events that are known to build on it, and those that it is
// known to build on, count instead.
const (
	pastStart  = -1 << 61 // where depth 0 is; what cannot be above it has room below
	depthSpace = 1 << 22  // positions of one depth
	depths     = 1 << 38  // with positions of their own; all beyond shares the last one's
	eventSpace = 1 << 10  // that is left between events, where there is room
)

// depthStart is the first of the positions that are meant for a depth.
func depthStart(depth int64) int64 { return pastStart + min(depth, depths-1)*depthSpace }

var (
	lowestChildren = db.SQL(`SELECT b.prev, MIN(e.position) FROM backward b JOIN events e ON e.event_nid = b.event_nid
		WHERE b.prev IN {texts $1} AND b.room_nid = $2 AND e.position < 0 GROUP BY b.prev`)
	nextBelow = db.SQL(`SELECT at.value, COALESCE((SELECT e.position FROM events e WHERE e.room_nid = $2
			AND e.position < at.value AND e.position <> 0 ORDER BY e.position DESC LIMIT 1), 0) FROM {ints $1} AS at`)
	nextAbove  = db.SQL(`SELECT position FROM events WHERE room_nid = $1 AND position > $2 AND position <> 0 ORDER BY position LIMIT 1`)
	lowestPast = db.SQL(`SELECT position FROM events WHERE room_nid = $1 AND position < 0 AND position <> 0 ORDER BY position LIMIT 1`)
)

// past is where the events of a room's past lie. Only who holds the room's intake
// changes that.
type past struct {
	*filling
	low      int64                    // the lowest position; 0 if there is none
	children map[matrix.EventID]int64 // of events that come now: the lowest position of what builds on them
	floors   map[int64]int64          // the next position in use below another one, as it was before
	laid     map[int64]bool           // positions that are given now
}

// allot gives the events that were admitted their positions, the newest first.
// Redactions that are held have theirs, too, for when they are shown.
func (f *filling) allot(ctx context.Context, b *olderBuilder) error {
	placed := func(st *Stored) bool { return st.Flags&^Held == 0 && st.Position == 0 }
	p, err := f.past(ctx, slices.DeleteFunc(slices.Clone(b.events), func(st *Stored) bool { return !placed(st) }))
	if err != nil {
		return err
	}
	for _, st := range slices.Backward(b.events) {
		if !placed(st) {
			continue
		}
		var above int64 // the highest of what it builds on
		for _, id := range st.PrevEvents {
			if prev := b.got.ids[id]; prev != nil && prev.Position < 0 && (above == 0 || prev.Position > above) {
				above = prev.Position
			}
		}
		if err := p.place(ctx, st, above); err != nil {
			return err
		}
	}
	return nil
}

// past reads what decides on the places of the events.
func (f *filling) past(ctx context.Context, events []*Stored) (*past, error) {
	p := &past{filling: f, children: map[matrix.EventID]int64{}, floors: map[int64]int64{}, laid: map[int64]bool{}}
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
	at := slices.Collect(maps.Values(p.children))
	for _, st := range events {
		at = append(at, depthStart(st.Depth)+depthSpace)
	}
	slices.Sort(at)
	err = db.Each(ctx, f.e.DB, nextBelow, func(s db.Scanner) error {
		var position, floor int64
		err := s.Scan(&position, &floor)
		if p.floors[position] = floor; floor == 0 {
			p.floors[position] = minPosition
		}
		return err
	}, slices.Compact(at), f.room.NID)
	if err != nil {
		return nil, err
	}
	p.low, _, err = db.One(ctx, f.e.DB, lowestPast, scanOne[int64], f.room.NID)
	return p, err
}

// place gives an event a free position: among those of its depth, unless what
// builds on it is below them, or what it builds on above.
func (p *past) place(ctx context.Context, st *Stored, above int64) error {
	start := depthStart(st.Depth)
	end := start + depthSpace
	child := p.children[st.ID]
	under := end
	if child != 0 && child < end {
		under = child
	}
	below := p.floors[under]
	if above < 0 && above >= end && (child == 0 || above < child) {
		next, err := p.above(ctx, above)
		if err != nil {
			return err
		}
		under, below = next, above
	}
	floor := p.floor(under, below)
	space := min(eventSpace, (under-floor)/2)
	var position int64
	switch {
	case space == 0: // what came late, or lies, has used it up
		position, below = p.low-eventSpace, minPosition
	case under == child:
		position = under - space
	case under == end && floor < start:
		position = start + depthSpace/2
	default:
		position = floor + space
	}
	p.lay(st, position, below)
	return nil
}

// floor is the next position in use below another; below is what it was before.
func (p *past) floor(position, below int64) int64 {
	for laid := range p.laid {
		if laid < position {
			below = max(below, laid)
		}
	}
	return below
}

// above is the next position in use above another, or zero.
func (p *past) above(ctx context.Context, position int64) (int64, error) {
	next, _, err := db.One(ctx, p.e.DB, nextAbove, scanOne[int64], p.room.NID, position)
	next = min(next, 0)
	for laid := range p.laid {
		if laid > position {
			next = min(next, laid)
		}
	}
	return next, err
}

func (p *past) lay(st *Stored, position, below int64) {
	st.Position = position
	p.laid[position], p.floors[position] = true, below
	p.low = min(p.low, position)
	for _, id := range st.PrevEvents {
		if c, ok := p.children[id]; !ok || position < c {
			p.children[id] = position
		}
	}
}
