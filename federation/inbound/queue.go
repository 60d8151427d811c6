package inbound

import (
	"slices"

	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms"
	"github.com/teahouse-chat/teahouse/rooms/event"
)

// key is the hash of an event's id: rows are many, and ids are long.
type key uint64

// row is what is in memory of a staged event.
type row struct {
	seq      int64
	id       key
	needs    []key // the events that it refers to
	origin   matrix.ServerName
	received int64 // milliseconds since 1970
	size     int
	checked  bool  // its signatures were verified
	fetched  bool  // we asked for it; it is no burden of its origin's
	busy     bool  // in somebody's hands
	stuck    bool  // something that it needs must be fetched
	filled   bool  // what it needs was fetched
	tries    int   // how often what it needs could not be had
	tried    int64 // when that was last
	retryAt  int64 // a stuck one is left alone until then
}

// queue holds the staged events of a room.
type queue struct {
	room    rooms.RoomNID
	rows    map[key]*row
	order   []*row      // as they are to be brought in, as far as they can be
	held    map[key]int // events that were fetched and come into rows when the filling of their gap ends
	loads   map[matrix.ServerName]*load
	stuck   int                        // rows
	wanted  map[matrix.ServerName]bool // a turn waits to be run, on behalf of these
	running bool                       // a turn is
	filling int                        // gaps are being filled
	breaks  map[matrix.ServerName]*rest
	filled  int64 // when the filling of one began last
	pause   int64 // no turn before, since our own database fails
}

// rest is how long nothing is fetched for events of an origin, since what others
// needed could not be had: no origin shall have us ask for ever new things that
// nobody has.
type rest struct {
	failures int   // one after the other
	tried    int64 // when it was last
	until    int64
}

// load is what an origin has staged in a room.
type load struct {
	rows  int
	bytes int
}

func newQueue(room rooms.RoomNID) *queue {
	return &queue{
		room: room, rows: map[key]*row{}, held: map[key]int{}, loads: map[matrix.ServerName]*load{},
		wanted: map[matrix.ServerName]bool{}, breaks: map[matrix.ServerName]*rest{},
	}
}

// add puts a row at the end. One that has replaced another in the database takes
// its place.
func (q *queue) add(r *row) (added bool) {
	old := q.rows[r.id]
	if old == nil {
		q.rows[r.id] = r
		q.order = append(q.order, r)
		q.account(r, 1)
		return true
	}
	if r.seq > old.seq {
		q.account(old, -1)
		q.setStuck(old, false)
		old.seq, old.origin, old.size, old.checked, old.fetched = r.seq, r.origin, r.size, r.checked, r.fetched
		old.tries, old.retryAt = 0, 0
		q.account(old, 1)
	}
	return false
}

func (q *queue) account(r *row, n int) {
	if r.fetched {
		return
	}
	l := q.loads[r.origin]
	if l == nil {
		l = &load{}
		q.loads[r.origin] = l
	}
	l.rows += n
	l.bytes += n * r.size
	if l.rows == 0 {
		delete(q.loads, r.origin)
	}
}

func (q *queue) setStuck(r *row, stuck bool) {
	if r.stuck == stuck {
		return
	}
	r.stuck = stuck
	if stuck {
		q.stuck++
	} else {
		q.stuck--
	}
}

// remove takes rows out.
func (q *queue) remove(rows map[*row]bool) {
	if len(rows) == 0 {
		return
	}
	for r := range rows {
		q.setStuck(r, false)
		q.account(r, -1)
		delete(q.rows, r.id)
	}
	q.order = slices.DeleteFunc(q.order, func(r *row) bool { return rows[r] })
}

// here tells whether an event is staged.
func (q *queue) here(k key) bool { return q.rows[k] != nil || q.held[k] > 0 }

// chunk is how many events are given to the engine together.
const chunk = 100

// next picks the rows that can be brought in now, each after those that it
// needs. An origin gets half of the chunk before others have had their turn.
func (q *queue) next() []*row {
	var list []*row
	in := map[key]bool{}
	for _, share := range []int{chunk / 2, chunk} {
		taken := map[matrix.ServerName]int{}
		for _, r := range q.order {
			if len(list) == chunk {
				return list
			}
			if in[r.id] || taken[r.origin] == share || !q.ready(r, in) {
				continue
			}
			taken[r.origin]++
			list, in[r.id] = append(list, r), true
		}
	}
	return list
}

// ready tells whether nothing that is staged, except for what is in a chunk, must
// be brought in before r.
func (q *queue) ready(r *row, in map[key]bool) bool {
	if r.busy || r.stuck {
		return false
	}
	for _, k := range r.needs {
		if !in[k] && q.here(k) {
			return false
		}
	}
	return true
}

// due picks stuck rows whose time has come, of one origin. Those that something
// could not be had for before are picked alone, since that may be the fault of one
// of them, and after the others.
func (q *queue) due(now int64) []*row {
	var list []*row
	var again *row
	for _, r := range q.order {
		switch {
		case !r.stuck || r.busy || r.retryAt > now || q.breaks[r.origin] != nil && q.breaks[r.origin].until > now:
		case r.tries > 0:
			if again == nil || r.tries < again.tries {
				again = r
			}
		case len(list) == 0 || r.origin == list[0].origin && len(list) < fillRows:
			list = append(list, r)
		}
	}
	if len(list) == 0 && again != nil {
		return []*row{again}
	}
	return list
}

// dependents adds to rows all that need them, directly or not.
func (q *queue) dependents(rows map[*row]bool) {
	users := map[key][]*row{}
	for _, r := range q.order {
		for _, k := range r.needs {
			users[k] = append(users[k], r)
		}
	}
	var list []*row
	for r := range rows {
		list = append(list, r)
	}
	for len(list) > 0 {
		last := list[len(list)-1]
		list = list[:len(list)-1]
		for _, r := range users[last.id] {
			if !rows[r] && !r.busy {
				rows[r] = true
				list = append(list, r)
			}
		}
	}
}

// inOrder sorts rows so that each comes after those that it needs, and otherwise
// as they were. Rows that need themselves come last.
func inOrder(rows []*row) []*row {
	index := make(map[key]int, len(rows))
	for i, r := range rows {
		index[r.id] = i
	}
	waits := make([]int, len(rows))
	needed := make([][]int, len(rows))
	sorted := make([]*row, 0, len(rows))
	var ready []int
	for i, r := range rows {
		for _, k := range r.needs {
			if at, ok := index[k]; ok {
				waits[i]++
				needed[at] = append(needed[at], i)
			}
		}
		if waits[i] == 0 {
			ready = append(ready, i)
		}
	}
	for n := 0; n < len(ready); n++ {
		sorted = append(sorted, rows[ready[n]])
		for _, i := range needed[ready[n]] {
			if waits[i]--; waits[i] == 0 {
				ready = append(ready, i)
			}
		}
	}
	for i, r := range rows {
		if waits[i] > 0 {
			sorted = append(sorted, r)
		}
	}
	return sorted
}

// needsOf lists what an event refers to.
func (in *Inbound) needsOf(ev *event.Event) []key {
	needs := make([]key, 0, len(ev.PrevEvents)+len(ev.AuthEvents))
	for _, ids := range [...][]matrix.EventID{ev.PrevEvents, ev.AuthEvents} {
		for _, id := range ids {
			needs = append(needs, in.key(id))
		}
	}
	return needs
}
