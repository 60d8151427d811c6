package rooms

import (
	"cmp"
	"container/heap"
	"context"
	"slices"

	"github.com/teahouse-chat/teahouse/internal/db"
	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms/event"
	"github.com/teahouse-chat/teahouse/rooms/state"
)

// Extremities are the room's forward extremities, in the order of their ids.
func (r *Room) Extremities(ctx context.Context) ([]event.Ref, error) {
	if err := r.turn.Acquire(ctx, 1); err != nil {
		return nil, err
	}
	defer r.turn.Release(1)
	refs := make([]event.Ref, len(r.head.extremities))
	for i, x := range r.head.extremities {
		refs[i] = x.ref
	}
	slices.SortFunc(refs, func(a, b event.Ref) int { return cmp.Compare(a.ID, b.ID) })
	return refs, nil
}

// Gap is a place where a room's history can be continued: an event that is not
// here, and one that builds on it.
type Gap struct {
	Missing matrix.EventID
	By      *Stored
}

// maxGaps bounds how many gaps are told of. A hostile server can make many.
const maxGaps = 1000

var (
	backwardOf = db.SQL(`SELECT b.prev, b.event_nid FROM backward b JOIN events e ON e.event_nid = b.event_nid
		WHERE b.room_nid = $1 ORDER BY e.position, b.event_nid LIMIT $2`)
	backwardFrom = db.SQL(`SELECT b.prev, b.event_nid FROM backward b JOIN events e ON e.event_nid = b.event_nid
		WHERE b.room_nid = $1 AND e.position <= $2 AND e.position <> 0 ORDER BY e.position DESC, b.event_nid LIMIT $3`)
)

// Backward lists where the room's history can be continued, the oldest places
// first.
func (e *Engine) Backward(ctx context.Context, r *Room) ([]Gap, error) {
	return e.gaps(ctx, backwardOf, r.NID, maxGaps)
}

// BackwardFrom lists those that whoever reads back from a position comes by, the
// nearest first, as many as limit.
func (e *Engine) BackwardFrom(ctx context.Context, r *Room, position int64, limit int) ([]Gap, error) {
	return e.gaps(ctx, backwardFrom, r.NID, position, limit)
}

func (e *Engine) gaps(ctx context.Context, stmt *db.Stmt, args ...any) ([]Gap, error) {
	var gaps []Gap
	var nids []state.EventNID
	err := db.Each(ctx, e.DB, stmt, func(s db.Scanner) error {
		var g Gap
		var nid state.EventNID
		err := s.Scan(&g.Missing, &nid)
		gaps, nids = append(gaps, g), append(nids, nid)
		return err
	}, args...)
	if err != nil {
		return nil, err
	}
	events, err := e.Events(ctx, nids)
	if err != nil {
		return nil, err
	}
	for i, st := range events {
		gaps[i].By = st
	}
	return gaps, nil
}

// Before walks back from events along what they build on, they included, those of
// the highest depth first. It gives at most limit events, of those that other
// servers may be given; others it passes through.
// spec: server-server#get_matrixfederationv1backfillroomid
func (e *Engine) Before(ctx context.Context, r *Room, from []matrix.EventID, limit int) ([]*Stored, error) {
	w := e.walkBack(r, limit)
	w.queue(from)
	var events []*Stored
	for len(events) < limit {
		st, err := w.next(ctx)
		if err != nil || st == nil {
			return events, err
		}
		if st.Given() {
			events = append(events, st)
		}
		w.queue(st.PrevEvents)
	}
	return events, nil
}

// Between walks back from the latest events, which are not among what it gives,
// up to the earliest ones, which are not either, and never below a depth. It gives
// those that other servers may be given, oldest first; where they are more than limit, those that are
// nearest to the latest.
// spec: server-server#post_matrixfederationv1get_missing_eventsroomid
func (e *Engine) Between(ctx context.Context, r *Room, earliest, latest []matrix.EventID, minDepth int64, limit int) ([]*Stored, error) {
	w := e.walkBack(r, limit)
	for _, id := range earliest {
		w.seen[id] = true
	}
	w.queue(latest)
	var events []*Stored
	for len(events) < limit {
		st, err := w.next(ctx)
		if err != nil {
			return nil, err
		}
		if st == nil {
			break
		}
		switch {
		case slices.Contains(latest, st.ID):
		case st.Depth < minDepth:
			continue
		case st.Given():
			events = append(events, st)
		}
		w.queue(st.PrevEvents)
	}
	return inOrder(events), nil
}

// What a walk may cost at most, beside what its limit says.
const (
	walkReads = 100 // reads of the database
	walkPage  = 100 // events that are read ahead
	walkMore  = 1000
)

// walkBack goes back through a room's graph of events. Most events build on the
// one before them in the timeline, which is therefore read ahead: a long line of
// events does not cost a query for each.
type walkBack struct {
	e       *Engine
	r       *Room
	seen    map[matrix.EventID]bool
	asked   []matrix.EventID // to be put in the heap
	ahead   map[matrix.EventID]*Stored
	heap    deepest
	looked  int // events that may still be looked at
	reading int // reads that are left
}

func (e *Engine) walkBack(r *Room, limit int) *walkBack {
	return &walkBack{
		e: e, r: r, seen: map[matrix.EventID]bool{}, ahead: map[matrix.EventID]*Stored{},
		looked: 2*limit + walkMore, reading: walkReads,
	}
}

// queue adds events to those that the walk has yet to come to.
func (w *walkBack) queue(ids []matrix.EventID) {
	for _, id := range ids {
		if !w.seen[id] {
			w.seen[id] = true
			w.asked = append(w.asked, id)
		}
	}
}

// next is the deepest event of those that the walk stands before; nil at its end.
func (w *walkBack) next(ctx context.Context) (*Stored, error) {
	if err := w.find(ctx); err != nil {
		return nil, err
	}
	if w.looked--; w.looked < 0 || len(w.heap) == 0 {
		return nil, nil
	}
	return heap.Pop(&w.heap).(*Stored), nil
}

// find reads the events that were asked for. Those that have no place in this
// room's history are none.
func (w *walkBack) find(ctx context.Context) error {
	var cold []matrix.EventID
	for _, id := range w.asked {
		if st := w.ahead[id]; st != nil {
			delete(w.ahead, id)
			heap.Push(&w.heap, st)
		} else {
			cold = append(cold, id)
		}
	}
	w.asked = w.asked[:0]
	if len(cold) == 0 || w.reading == 0 {
		return nil
	}
	w.reading--
	events, err := w.e.eventsByID(ctx, cold)
	if err != nil {
		return err
	}
	highest := int64(minPosition)
	for _, st := range events {
		if st.Room != w.r.NID || st.Flags&Outlier != 0 {
			continue
		}
		heap.Push(&w.heap, st)
		if st.Position != 0 {
			highest = max(highest, st.Position)
		}
	}
	if highest == minPosition {
		return nil
	}
	return w.readAhead(ctx, highest)
}

func (w *walkBack) readAhead(ctx context.Context, position int64) error {
	events, err := w.e.Timeline(ctx, TimelineQuery{Room: w.r, From: position, Backwards: true, Limit: walkPage})
	for _, st := range events {
		if !w.seen[st.ID] {
			w.ahead[st.ID] = st
		}
	}
	return err
}

// deepest is a heap of events, those of the highest depth on top.
type deepest []*Stored

func (d deepest) Len() int { return len(d) }
func (d deepest) Less(i, j int) bool {
	a, b := d[i], d[j]
	return cmp.Or(-cmp.Compare(a.Depth, b.Depth), -cmp.Compare(a.Position, b.Position), cmp.Compare(a.ID, b.ID)) < 0
}
func (d deepest) Swap(i, j int) { d[i], d[j] = d[j], d[i] }
func (d *deepest) Push(x any)   { *d = append(*d, x.(*Stored)) }
func (d *deepest) Pop() any {
	last := (*d)[len(*d)-1]
	*d = (*d)[:len(*d)-1]
	return last
}

// inOrder sorts events so that each comes after those that it builds on.
func inOrder(stored []*Stored) []*Stored {
	events := make([]*event.Event, len(stored))
	for i, st := range stored {
		events[i] = st.Event
	}
	sorted := make([]*Stored, len(stored))
	for i, at := range prevOrder(events) {
		sorted[i] = stored[at]
	}
	return sorted
}

// prevOrder gives the indexes of the events in an order in which each comes after
// its previous events; where that leaves a choice, those of less depth come first.
// Events that lead to themselves, as only ids that servers choose can, come last.
func prevOrder(events []*event.Event) []int {
	index := make(map[matrix.EventID]int, len(events))
	for i, ev := range events {
		index[ev.ID] = i
	}
	waits := make([]int, len(events))
	next := make([][]int, len(events))
	ready := &shallowest{events: events}
	for i, ev := range events {
		for _, id := range ev.PrevEvents {
			if at, ok := index[id]; ok {
				waits[i]++
				next[at] = append(next[at], i)
			}
		}
		if waits[i] == 0 {
			heap.Push(ready, i)
		}
	}
	order := make([]int, 0, len(events))
	for ready.Len() > 0 {
		at := heap.Pop(ready).(int)
		order = append(order, at)
		for _, i := range next[at] {
			if waits[i]--; waits[i] == 0 {
				heap.Push(ready, i)
			}
		}
	}
	for i := range events {
		if waits[i] > 0 {
			order = append(order, i)
		}
	}
	return order
}

// shallowest is a heap of indexes of events, those of the least depth on top.
type shallowest struct {
	events []*event.Event
	at     []int
}

func (s *shallowest) Len() int { return len(s.at) }
func (s *shallowest) Less(i, j int) bool {
	a, b := s.events[s.at[i]], s.events[s.at[j]]
	return cmp.Or(cmp.Compare(a.Depth, b.Depth), cmp.Compare(a.ID, b.ID)) < 0
}
func (s *shallowest) Swap(i, j int) { s.at[i], s.at[j] = s.at[j], s.at[i] }
func (s *shallowest) Push(x any)    { s.at = append(s.at, x.(int)) }
func (s *shallowest) Pop() any {
	last := s.at[len(s.at)-1]
	s.at = s.at[:len(s.at)-1]
	return last
}
