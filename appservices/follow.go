package appservices

import (
	"context"
	"time"

	"github.com/teahouse-chat/teahouse/internal/db"
	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms"
)

const (
	// maxBehind bounds the commits that wait in memory to be looked at.
	maxBehind = 10_000
	// page is how many events of a room are read at once.
	page = 200
	// checkpoints are how often it is stored how far the follower is, while there
	// is nothing to be delivered.
	checkpoints = 10 * time.Second
)

// follower goes through all commits in their order and notes for each service
// which events it has to get. What it notes and how far it is are stored together,
// so that an event is noted once, whatever crashes.
type follower struct {
	s        *Services
	tail     *db.Tail
	who      *audiences
	position int64 // what is up to here is noted
	stored   int64 // as the database has it
	noted    time.Time

	// What is found and not stored yet, a service and an event a row.
	services, positions, events, roomNIDs []int64
}

func newFollower(s *Services) *follower {
	f := &follower{s: s, who: newAudiences(s)}
	f.tail = s.DB.Tail(maxBehind, func(change any) bool {
		if len(s.current.Load().services) == 0 {
			return false
		}
		_, committed := change.(*rooms.Committed)
		return committed || s.aliases.AliasesMoved(change) != ""
	})
	return f
}

// run follows until ctx ends. A failure can only be the database's: it goes on from
// where it was once that is back.
func (f *follower) run(ctx context.Context) {
	for {
		err := f.follow(ctx)
		if ctx.Err() != nil {
			return
		}
		f.s.Log.Error("what application services have to get could not be noted; trying again", "error", err)
		f.services, f.positions, f.events, f.roomNIDs = nil, nil, nil, nil
		f.who = newAudiences(f.s)
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
			return
		}
	}
}

func (f *follower) follow(ctx context.Context) error {
	if f.position == 0 {
		p, err := readProgress(ctx, f.s.DB)
		if err != nil {
			return err
		}
		f.position, f.stored = p.position, p.position
	}
	if err := f.catchUp(ctx, f.s.DB.Position()); err != nil {
		return err
	}
	for {
		select {
		case <-f.tail.Wake():
		case <-ctx.Done():
			return ctx.Err()
		}
		batches, missed := f.tail.Take()
		if missed > 0 {
			f.who = newAudiences(f.s)
			if err := f.catchUp(ctx, missed); err != nil {
				return err
			}
		}
		if err := f.take(ctx, batches); err != nil {
			return err
		}
	}
}

// take goes through commits.
func (f *follower) take(ctx context.Context, batches []db.Batch) error {
	for _, b := range batches {
		for _, change := range b.Changes {
			c, ok := change.(*rooms.Committed)
			if !ok {
				f.aliasesMoved(ctx, change)
				continue
			}
			for _, m := range c.LocalMoves() {
				if m.Event != nil && m.Event.Flags&rooms.Outside != 0 {
					if err := f.note(ctx, c.Room, m.Event); err != nil {
						return err
					}
				}
			}
			for _, ev := range c.Events {
				if err := f.note(ctx, c.Room, ev); err != nil {
					return err
				}
			}
		}
		f.position = max(f.position, b.Position)
	}
	return f.store(ctx)
}

// aliasesMoved forgets who is interested in a room whose aliases are others now.
func (f *follower) aliasesMoved(ctx context.Context, change any) {
	if r, err := f.s.rooms.Room(ctx, f.s.aliases.AliasesMoved(change)); err == nil {
		f.who.forget(r.NID)
	}
}

// note finds out for whom an event is.
func (f *follower) note(ctx context.Context, r *rooms.Room, ev *rooms.Stored) error {
	if ev.Position <= f.position || ev.Flags&rooms.Outside == 0 && !ev.Served() {
		return nil
	}
	list, err := f.who.interested(ctx, r, ev)
	if err != nil {
		return err
	}
	for _, v := range list {
		if v.URL == "" || ev.Position <= v.since {
			continue
		}
		f.services = append(f.services, v.nid)
		f.positions = append(f.positions, ev.Position)
		f.events = append(f.events, int64(ev.NID))
		f.roomNIDs = append(f.roomNIDs, int64(ev.Room))
	}
	return nil
}

// store writes down what was found and how far the follower is.
func (f *follower) store(ctx context.Context) error {
	now := f.s.Now()
	if len(f.services) == 0 && (f.position == f.stored || now.Sub(f.noted) < checkpoints || len(f.s.current.Load().services) == 0) {
		return nil
	}
	services, positions, events, roomNIDs, upTo := f.services, f.positions, f.events, f.roomNIDs, f.position
	err := f.s.DB.Write(ctx, func(tx *db.Tx) error {
		if len(services) > 0 {
			if err := tx.Exec(insertEvents, services, positions, events, roomNIDs, now.UnixMilli()); err != nil {
				return err
			}
		}
		return tx.Exec(moveProgress, upTo)
	})
	if err != nil {
		return err
	}
	f.s.waiting(services)
	f.services, f.positions, f.events, f.roomNIDs = nil, nil, nil, nil
	f.stored, f.noted = upTo, now
	return nil
}

// catchUp goes through what the database has up to a position, room by room, and
// stores it in one step.
func (f *follower) catchUp(ctx context.Context, upTo int64) error {
	if f.position < upTo && len(f.s.current.Load().services) > 0 {
		list, err := f.s.rooms.RoomsAfter(ctx, f.position)
		if err != nil {
			return err
		}
		for _, nid := range list {
			if err := f.catchUpRoom(ctx, nid, upTo); err != nil {
				return err
			}
		}
		outside, err := f.s.rooms.OutsideAfter(ctx, f.position, upTo)
		if err != nil {
			return err
		}
		for _, ev := range outside {
			r, err := f.s.rooms.RoomByNID(ctx, ev.Room)
			if err != nil {
				return err
			}
			if err := f.note(ctx, r, ev); err != nil {
				return err
			}
		}
	}
	f.position = max(f.position, upTo)
	return f.store(ctx)
}

func (f *follower) catchUpRoom(ctx context.Context, nid rooms.RoomNID, upTo int64) error {
	r, err := f.s.rooms.RoomByNID(ctx, nid)
	if matrix.HasCode(err, matrix.CodeUnsupportedRoomVersion) {
		return nil
	}
	if err != nil {
		return err
	}
	for from := f.position; ; {
		events, err := f.s.rooms.Timeline(ctx, rooms.TimelineQuery{Room: r, From: from, To: upTo, Limit: page})
		if err != nil || len(events) == 0 {
			return err
		}
		for _, ev := range events {
			if err := f.note(ctx, r, ev); err != nil {
				return err
			}
		}
		from = events[len(events)-1].Position
	}
}
