package inbound

import (
	"context"
	"slices"
	"time"

	"github.com/teahouse-chat/teahouse/federation/fetch"
	"github.com/teahouse-chat/teahouse/federation/gather"
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
	maxServers = 5 // that are asked for something
)

// fill fetches what events of one origin need.
type fill struct {
	in      *Inbound
	q       *queue
	r       *rooms.Room
	job     *gather.Job
	origin  matrix.ServerName
	items   []*item
	rows    []*row              // events that were fetched and staged, newest first
	held    []key               // of them
	away    []matrix.ServerName // could not be reached
	bridged bool                // a state was taken from another server
	broken  bool                // the origin has malformed events where something is missing
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
	if err := f.in.read(ctx, f.r, f.items); err != nil {
		return err
	}
	if err := f.in.verify(ctx, f.items, keyTime); err != nil || f.r.LocalMemberCount() == 0 {
		return err
	}
	servers, err := f.candidates(ctx)
	if err != nil {
		return err
	}
	f.job = &gather.Job{Gatherer: f.in.Gatherer, Room: f.r, Servers: servers, Failed: f.note}
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
	preferred := []matrix.ServerName{f.origin}
	for _, it := range f.items {
		if it.ev != nil && f.r.HasServer(it.ev.Sender.Server()) && len(preferred) < maxServers/2 {
			preferred = append(preferred, it.ev.Sender.Server())
		}
	}
	others := f.r.Servers()
	for _, recent := range []bool{true, false} {
		for i := range others {
			// Not always the same ones.
			s := others[(i+int(f.items[0].seq))%len(others)]
			if f.in.recent.Contains(s) == recent && len(preferred) < 2*maxServers {
				preferred = append(preferred, s)
			}
		}
	}
	return f.in.Candidates(ctx, f.r, maxServers, preferred...)
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
	err := f.in.Known(ctx, ids, func(id matrix.EventID, st *rooms.Stored) {
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

// notHere are those of the events that are not staged.
func (f *fill) notHere(ids []matrix.EventID) []matrix.EventID {
	f.in.mu.Lock()
	defer f.in.mu.Unlock()
	return slices.DeleteFunc(ids, func(id matrix.EventID) bool { return f.q.here(f.in.key(id)) })
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
	auths, err := f.in.Unknown(ctx, it.ev.AuthEvents)
	return len(f.notHere(auths)) == 0, err
}

// end lets what was fetched, and the items, be brought in.
func (f *fill) end(ctx context.Context, failed []*item, err error) {
	f.tell(ctx, failed, err)
	in, now := f.in, f.in.Now().UnixMilli()
	in.mu.Lock()
	defer in.mu.Unlock()
	f.q.filling--
	f.release()
	// Another copy of an event may have come meanwhile, which has not failed.
	failed = slices.DeleteFunc(failed, func(it *item) bool { return it.row.seq != it.seq })
	var free []*item
	for _, it := range f.items {
		it.row.filled = true
		if slices.Contains(failed, it) {
			it.row.busy = false
		} else {
			free = append(free, it)
			f.q.setStuck(it.row, false)
		}
	}
	switch {
	case ctx.Err() != nil:
	case f.broken:
		in.abandon(f.q, failed)
	default:
		in.failed(f.q, f.origin, failed, f.away, now)
	}
	in.putBack(f.q, free, now)
	in.next(f.q, now)
}

// tell counts and logs how it ended.
func (f *fill) tell(ctx context.Context, failed []*item, err error) {
	if err != nil && ctx.Err() == nil {
		f.in.Log.Error("What events of other servers refer to could not be fetched; it will be tried again", "error", err)
	}
	outcome := "filled"
	switch {
	case len(failed) > 0:
		outcome = "failed"
	case f.bridged:
		outcome = "bridged"
	}
	f.in.metrics.gaps.WithLabelValues(outcome).Inc()
}

// release puts what was fetched into the queue. It is called with the lock held.
func (f *fill) release() {
	for _, k := range f.held {
		if f.q.held[k]--; f.q.held[k] == 0 {
			delete(f.q.held, k)
		}
	}
	slices.Reverse(f.rows)
	for _, w := range inOrder(f.rows) {
		f.in.add(f.q, w)
	}
}
