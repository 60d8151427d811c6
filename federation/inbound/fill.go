package inbound

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/teahouse-chat/teahouse/federation/acl"
	"github.com/teahouse-chat/teahouse/federation/fetch"
	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms"
)

const (
	fillRows = 20 // events that something is fetched for together
	// Two gaps of a room are filled at the same time only if one takes long: mostly
	// the same events are missing for both.
	fillsInRoom = 3
	fillSpacing = 10 * time.Second
	// keyTime is how long keys are waited for that were not to be had at once.
	keyTime    = 20 * time.Second
	maxServers = 6 // that are asked for something
	knownBatch = 500
)

// fill fetches what events of one origin need.
type fill struct {
	in      *Inbound
	q       *queue
	r       *rooms.Room
	room    fetch.Room
	origin  matrix.ServerName
	items   []*item
	servers []matrix.ServerName
	rows    []*row              // events that were fetched and staged, newest first
	held    []key               // of them
	away    []matrix.ServerName // could not be reached
	bridged bool                // a state was taken from another server
}

// startFill begins to fetch what is needed in a room, if it is time. It is called
// with the lock held.
func (in *Inbound) startFill(q *queue, now int64) {
	if q.stuck == 0 || q.filling >= fillsInRoom || q.filling > 0 && now-q.filled < fillSpacing.Milliseconds() {
		return
	}
	rows := q.due(now)
	if len(rows) == 0 {
		return
	}
	q.filling++
	q.filled = now
	f := &fill{in: in, q: q, origin: rows[0].origin, items: hold(rows)}
	in.fills.add(f.origin, f.run)
}

func (f *fill) run(ctx context.Context) {
	err := guard(func() error { return f.do(ctx) })
	failed := f.left(ctx, err)
	f.end(ctx, failed, err)
}

func (f *fill) do(ctx context.Context) error {
	var err error
	if f.r, err = f.in.Rooms.RoomByNID(ctx, f.q.room); err != nil {
		return err
	}
	f.room = fetch.Room{ID: f.r.ID, Version: f.r.Version}
	if err := f.in.read(ctx, f.r, f.items); err != nil {
		return err
	}
	if err := f.in.verify(ctx, f.items, keyTime); err != nil || f.r.LocalMemberCount() == 0 {
		return err
	}
	if f.servers, err = f.candidates(ctx); err != nil {
		return err
	}
	missing, err := f.unplaced(ctx, f.open())
	if err != nil {
		return err
	}
	if len(missing) > 0 {
		if err := f.close(ctx, missing); err != nil {
			return err
		}
	}
	limited, cancel := fetch.WithBudget(ctx, authLimits)
	defer cancel()
	for _, it := range f.items {
		if it.fate == waits {
			if err := f.authorise(limited, it.ev); err != nil {
				return err
			}
		}
	}
	return nil
}

// open lists what the items build on.
func (f *fill) open() map[matrix.EventID][]matrix.EventID {
	builders := map[matrix.EventID][]matrix.EventID{}
	for _, it := range f.items {
		if it.fate == waits {
			for _, id := range it.ev.PrevEvents {
				builders[id] = append(builders[id], it.id)
			}
		}
	}
	return builders
}

// candidates are the servers to ask: the origin, the servers of the senders, and
// a few others of the room, those that were heard of lately first.
func (f *fill) candidates(ctx context.Context) ([]matrix.ServerName, error) {
	var list []matrix.ServerName
	add := func(s matrix.ServerName) error {
		if len(list) >= maxServers || s == f.in.Rooms.ServerName || slices.Contains(list, s) {
			return nil
		}
		ok, err := acl.Allows(ctx, f.in.Rooms, f.r, s)
		if ok {
			list = append(list, s)
		}
		return err
	}
	err := add(f.origin)
	for _, it := range f.items {
		if it.ev != nil && f.r.HasServer(it.ev.Sender.Server()) && len(list) < maxServers/2 {
			err = errors.Join(err, add(it.ev.Sender.Server()))
		}
	}
	others := f.r.Servers()
	for _, recent := range []bool{true, false} {
		for i := range others {
			// Not always the same ones.
			s := others[(i+int(f.items[0].seq))%len(others)]
			if f.in.recent.Contains(s) == recent && len(list) < maxServers {
				err = errors.Join(err, add(s))
			}
		}
	}
	return list, err
}

// note remembers servers that could not be reached.
func (f *fill) note(server matrix.ServerName, err error) {
	if fetch.Unreachable(err) && !slices.Contains(f.away, server) {
		f.away = append(f.away, server)
	}
}

// unplaced are those of the events that have no place in the room's history and
// are not staged either.
func (f *fill) unplaced(ctx context.Context, builders map[matrix.EventID][]matrix.EventID) (map[matrix.EventID][]matrix.EventID, error) {
	ids := make([]matrix.EventID, 0, len(builders))
	for id := range builders {
		ids = append(ids, id)
	}
	missing := map[matrix.EventID][]matrix.EventID{}
	err := f.known(ctx, ids, func(id matrix.EventID, st *rooms.Stored) {
		if st == nil || st.Flags&rooms.Outlier != 0 || st.Room != f.r.NID {
			missing[id] = builders[id]
		}
	})
	f.in.mu.Lock()
	defer f.in.mu.Unlock()
	for id := range missing {
		if f.q.here(f.in.key(id)) {
			delete(missing, id)
		}
	}
	return missing, err
}

// unknown are those of the events that are not known at all.
func (f *fill) unknown(ctx context.Context, ids []matrix.EventID) ([]matrix.EventID, error) {
	var missing []matrix.EventID
	err := f.known(ctx, ids, func(id matrix.EventID, st *rooms.Stored) {
		if st == nil {
			missing = append(missing, id)
		}
	})
	return missing, err
}

// known looks events up, a bounded number at a time: they may be the state of a
// large room.
func (f *fill) known(ctx context.Context, ids []matrix.EventID, tell func(matrix.EventID, *rooms.Stored)) error {
	for batch := range slices.Chunk(ids, knownBatch) {
		known, err := f.in.Rooms.Known(ctx, batch)
		if err != nil {
			return err
		}
		for _, id := range batch {
			tell(id, known[id])
		}
	}
	return nil
}

// left are the items for which something is missing still.
func (f *fill) left(ctx context.Context, err error) []*item {
	var failed []*item
	for _, it := range f.items {
		switch {
		case it.fate == done:
		case err != nil || it.fate == stuck:
			failed = append(failed, it)
		default:
			ok, err := f.complete(ctx, it)
			if err != nil || !ok {
				failed = append(failed, it)
			}
		}
	}
	return failed
}

// complete tells whether an event could be brought in now, or after what is
// staged.
func (f *fill) complete(ctx context.Context, it *item) (bool, error) {
	if f.r.LocalMemberCount() == 0 {
		return true, nil // the next turn ends it
	}
	builders := map[matrix.EventID][]matrix.EventID{}
	for _, id := range it.ev.PrevEvents {
		builders[id] = nil
	}
	missing, err := f.unplaced(ctx, builders)
	if err != nil || len(missing) > 0 {
		return false, err
	}
	auths, err := f.unknown(ctx, it.ev.AuthEvents)
	f.in.mu.Lock()
	defer f.in.mu.Unlock()
	auths = slices.DeleteFunc(auths, func(id matrix.EventID) bool { return f.q.here(f.in.key(id)) })
	return len(auths) == 0, err
}

// end lets what was fetched, and the items, be brought in.
func (f *fill) end(ctx context.Context, failed []*item, err error) {
	in := f.in
	if err != nil && ctx.Err() == nil {
		in.Log.Error("What events of other servers refer to could not be fetched; it will be tried again", "error", err)
	}
	outcome := "filled"
	switch {
	case len(failed) > 0:
		outcome = "failed"
	case f.bridged:
		outcome = "bridged"
	}
	in.metrics.gaps.WithLabelValues(outcome).Inc()
	slices.Reverse(f.rows)
	now := in.Now().UnixMilli()
	in.mu.Lock()
	defer in.mu.Unlock()
	f.q.filling--
	for _, k := range f.held {
		if f.q.held[k]--; f.q.held[k] == 0 {
			delete(f.q.held, k)
		}
	}
	for _, w := range inOrder(f.rows) {
		in.add(f.q, w)
	}
	for _, it := range f.items {
		it.row.fills++
		if it.row.seq == it.seq && !slices.Contains(failed, it) {
			f.q.setStuck(it.row, false)
		}
	}
	free := slices.DeleteFunc(slices.Clone(f.items), func(it *item) bool { return slices.Contains(failed, it) })
	for _, it := range failed {
		it.row.busy = false
	}
	if ctx.Err() == nil {
		in.failed(f.q, failed, f.away, now)
	}
	in.putBack(f.q, free, now)
	in.next(f.q, now)
}
