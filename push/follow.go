package push

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/teahouse-chat/teahouse/internal/db"
	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms"
)

const (
	// maxQueue bounds the commits that wait to be looked at; if there are more,
	// the follower reads them from the database.
	maxQueue = 10_000
	// checkpoints are how often the follower's position is stored, housekeeping is
	// how often old rows are removed.
	checkpoints  = 5 * time.Second
	housekeeping = time.Hour
	// maxWait bounds how long anybody waits for the follower: late counts are
	// better than none.
	maxWait = 5 * time.Second
)

// follower goes through all commits in their order, one step behind, and holds
// each event against the rules. Its position is stored now and then; after a
// crash what lies above it is gone through again, which adds nothing twice.
type follower struct {
	p      *Push
	start  int64 // the position that the process began at
	judged atomic.Int64

	tail *db.Tail

	mu       sync.Mutex
	advanced chan struct{} // closed when judged has moved; nil while nobody waits

	carrying sync.WaitGroup // what is carried over from rooms that were upgraded

	// Of the goroutine only.
	custom map[matrix.UserID]struct{} // users whose counts are their own
	people map[matrix.UserID]*person  // those of them who were looked at lately
	rooms  map[rooms.RoomNID]*watched
}

func newFollower(p *Push) *follower {
	f := &follower{p: p, start: p.DB.Position(), custom: map[matrix.UserID]struct{}{}}
	f.tail = p.DB.Tail(maxQueue, p.relevant)
	f.forget()
	return f
}

// forget drops what is in memory and may have become wrong.
func (f *follower) forget() {
	f.people, f.rooms = map[matrix.UserID]*person{}, map[rooms.RoomNID]*watched{}
}

// relevant picks the changes that the follower looks at.
func (p *Push) relevant(change any) bool {
	switch change.(type) {
	case *rooms.Committed, rulesChanged, pusherSet:
		return true
	}
	return p.concerns(change)
}

// Wait returns once everything up to a position has been held against the rules.
func (p *Push) Wait(ctx context.Context, position int64) error {
	f := p.follower
	if f.judged.Load() >= position {
		return nil
	}
	ctx, cancel := context.WithTimeoutCause(ctx, maxWait, errLate)
	defer cancel()
	for {
		f.mu.Lock()
		if f.judged.Load() >= position {
			f.mu.Unlock()
			return nil
		}
		if f.advanced == nil {
			f.advanced = make(chan struct{})
		}
		advanced := f.advanced
		f.mu.Unlock()
		select {
		case <-advanced:
		case <-ctx.Done():
			if errors.Is(context.Cause(ctx), errLate) {
				return nil
			}
			return ctx.Err()
		}
	}
}

var errLate = errors.New("push: the follower is late")

func (f *follower) advance(position int64) {
	f.judged.Store(position)
	f.mu.Lock()
	if f.advanced != nil {
		close(f.advanced)
		f.advanced = nil
	}
	f.mu.Unlock()
}

// run follows until ctx ends.
func (f *follower) run(ctx context.Context) error {
	if err := f.insist(ctx, func() error { return f.begin(ctx) }); err != nil {
		return err
	}
	f.p.ledger.prune(f.p.Now())
	tick, hourly := time.NewTicker(checkpoints), time.NewTicker(housekeeping)
	defer tick.Stop()
	defer hourly.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			f.p.ledger.write(f.p.checkpoint())
		case <-hourly.C:
			f.p.ledger.prune(f.p.Now())
		case <-f.tail.Wake():
			if err := f.drain(ctx); err != nil {
				return err
			}
		}
	}
}

// begin reads where the follower was and goes through what came since.
func (f *follower) begin(ctx context.Context) error {
	err := db.Each(ctx, f.p.DB, customUsers, func(s db.Scanner) error {
		var u matrix.UserID
		err := s.Scan(&u)
		f.custom[u] = struct{}{}
		return err
	})
	if err != nil {
		return err
	}
	ignoring, err := f.p.People.Ignoring(ctx)
	if err != nil {
		return err
	}
	for _, u := range ignoring {
		f.custom[u] = struct{}{}
	}
	from, found, err := db.One(ctx, f.p.DB, selectCursor, scanPosition)
	if err != nil {
		return err
	}
	if found && from < f.start {
		f.judged.Store(from)
		if err := f.catchUp(ctx, f.start); err != nil {
			return err
		}
	}
	f.advance(f.start)
	if !found {
		f.p.ledger.write(f.p.checkpoint()) // or else a crash before the next one would lose what comes until then
	}
	return nil
}

func scanPosition(s db.Scanner) (position int64, err error) {
	err = s.Scan(&position)
	return position, err
}

// drain goes through the queue.
func (f *follower) drain(ctx context.Context) error {
	batches, missed := f.tail.Take()
	if missed > 0 {
		f.forget()
		if err := f.insist(ctx, func() error { return f.catchUp(ctx, missed) }); err != nil {
			return err
		}
		f.advance(missed)
	}
	for _, b := range batches {
		for _, change := range b.Changes {
			if err := f.insist(ctx, func() error { return f.take(ctx, change) }); err != nil {
				return err
			}
		}
		f.advance(b.Position)
	}
	return nil
}

// insist does something until it works or ctx ends, as its failure can only be the
// database's.
func (f *follower) insist(ctx context.Context, do func() error) error {
	for wait := 100 * time.Millisecond; ; wait = min(2*wait, 10*time.Second) {
		err := do()
		if err == nil || ctx.Err() != nil {
			return ctx.Err()
		}
		f.p.Log.Error("events could not be held against push rules; trying again", "error", err)
		f.forget()
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// take goes through one change.
func (f *follower) take(ctx context.Context, change any) error {
	switch c := change.(type) {
	case *rooms.Committed:
		return f.committed(ctx, c)
	case rulesChanged:
		f.becomesCustom(c.user)
		if person := f.people[c.user]; person != nil {
			person.rules = c.shelf.rules
		}
		return f.watchEverywhere(ctx, c.user)
	case pusherSet:
		f.p.pushers.drop(c.others)
		f.p.delivery.stop(c.others)
		f.p.pushers.add(c.pusher)
		return f.watchEverywhere(ctx, c.pusher.user)
	}
	return f.others(ctx, change)
}

// others goes through changes that other features publish.
func (f *follower) others(ctx context.Context, change any) error {
	if user, ok := f.p.People.IgnoresOthers(change); ok {
		f.becomesCustom(user)
		delete(f.people, user)
		return f.watchEverywhere(ctx, user)
	}
	if r, ok := f.p.Reading.Read(change); ok {
		f.p.ledger.seen(r)
		if _, ok := f.custom[r.User]; ok {
			f.p.ledger.trim(r)
		}
		f.p.readOn(r.User, r.Room)
		return nil
	}
	if user, devices, ok := f.p.Sessions.Ended(change); ok {
		return f.p.removePushers(ctx, f.p.pushers.ofDevices(user, devices))
	}
	return nil
}

func (f *follower) becomesCustom(u matrix.UserID) { f.custom[u] = struct{}{} }

// committed goes through the events of a commit.
func (f *follower) committed(ctx context.Context, c *rooms.Committed) error {
	if err := f.moved(ctx, c.Room, c.LocalMoves()); err != nil {
		return err
	}
	in := sight{c.Room, c.State, c.Joined}
	for _, m := range c.LocalMoves() {
		if ev := m.Event; ev != nil && ev.Flags&rooms.Outside != 0 && ev.Position > f.judged.Load() {
			if err := f.outside(ctx, in, ev); err != nil {
				return err
			}
		}
	}
	for _, ev := range c.Events {
		if ev.Position <= 0 || !ev.Served() || ev.Position <= f.judged.Load() {
			continue
		}
		if err := f.event(ctx, in, ev); err != nil {
			return err
		}
	}
	for _, ev := range c.Redacted() {
		f.redacted(ev)
	}
	return nil
}

// catchUp goes through the events of the database up to a position, room by room.
func (f *follower) catchUp(ctx context.Context, upTo int64) error {
	from := f.judged.Load()
	var stale []rooms.RoomNID
	err := db.Each(ctx, f.p.DB, newestInRooms, func(s db.Scanner) error {
		var nid rooms.RoomNID
		var newest *int64
		err := s.Scan(&nid, &newest)
		if newest != nil && *newest > from {
			stale = append(stale, nid)
		}
		return err
	})
	if err != nil {
		return err
	}
	for _, nid := range stale {
		r, err := f.p.Rooms.RoomByNID(ctx, nid)
		if matrix.HasCode(err, matrix.CodeUnsupportedRoomVersion) {
			continue
		}
		if err != nil {
			return err
		}
		if err := f.catchUpRoom(ctx, r, from, upTo); err != nil {
			return err
		}
	}
	return nil
}

// page is how many events are read at once.
const page = 100

func (f *follower) catchUpRoom(ctx context.Context, r *rooms.Room, from, upTo int64) error {
	for {
		events, err := f.p.Rooms.Timeline(ctx, rooms.TimelineQuery{Room: r, From: from, To: upTo, Limit: page})
		if err != nil || len(events) == 0 {
			return err
		}
		v := r.View()
		for _, ev := range events {
			if err := f.event(ctx, sight{r, v.State, v.Joined}, ev); err != nil {
				return err
			}
			if ev.Type != matrix.TypeRedaction || ev.IsState() || ev.Redacts == "" {
				continue
			}
			target, err := f.p.Rooms.EventByID(ctx, r, ev.Redacts)
			if err != nil && !matrix.HasCode(err, matrix.CodeNotFound) {
				return err
			}
			if err == nil && target.RedactedBy == ev.NID {
				f.redacted(target)
			}
		}
		from = events[len(events)-1].Position
	}
}
