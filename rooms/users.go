package rooms

import (
	"context"
	"maps"
	"slices"
	"sync"

	lru "github.com/hashicorp/golang-lru/v2"

	"github.com/teahouse-chat/teahouse/internal/db"
	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms/state"
)

// Membership is a user's own in a room.
type Membership struct {
	Room       RoomNID
	RoomID     matrix.RoomID
	Membership string // matrix.MembershipJoin and so on
	Event      state.EventNID
	Position   int64 // of the member event
	Forgotten  bool
}

// userCache holds the memberships of the local users who were active lately.
type userCache struct {
	e     *Engine
	mu    sync.Mutex
	users *lru.Cache[matrix.UserID, map[RoomNID]Membership]
	// clock counts commits that changed memberships, so that what was read from
	// the database while one was published is not kept.
	clock int64
}

func newUserCache(e *Engine) (*userCache, error) {
	users, err := lru.New[matrix.UserID, map[RoomNID]Membership](usersKept)
	return &userCache{e: e, users: users}, err
}

// publish brings cached users up to a commit.
func (c *userCache) publish(done *Committed) {
	if len(done.memberChanges) == 0 {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.clock++
	for _, m := range done.memberChanges {
		rooms, ok := c.users.Peek(m.user)
		switch {
		case !ok:
		case m.event == nil:
			delete(rooms, done.Room.NID)
		default:
			rooms[done.Room.NID] = Membership{
				Room: done.Room.NID, RoomID: done.Room.ID, Membership: m.membership(), Event: m.event.NID, Position: m.by.Position,
			}
		}
	}
}

func (c *userCache) of(ctx context.Context, u matrix.UserID) (all []Membership, err error) {
	err = c.with(ctx, u, func(rooms map[RoomNID]Membership) { all = slices.Collect(maps.Values(rooms)) })
	return all, err
}

// with shows a user's memberships to fn while the cache is locked.
func (c *userCache) with(ctx context.Context, u matrix.UserID, fn func(map[RoomNID]Membership)) error {
	for {
		c.mu.Lock()
		if rooms, ok := c.users.Get(u); ok {
			fn(rooms)
			c.mu.Unlock()
			return nil
		}
		began := c.clock
		c.mu.Unlock()
		rooms, err := c.read(ctx, u)
		if err != nil {
			return err
		}
		c.mu.Lock()
		if c.clock == began {
			c.users.Add(u, rooms)
			fn(rooms)
			c.mu.Unlock()
			return nil
		}
		c.mu.Unlock()
	}
}

func (c *userCache) read(ctx context.Context, u matrix.UserID) (map[RoomNID]Membership, error) {
	rooms := map[RoomNID]Membership{}
	return rooms, db.Each(ctx, c.e.DB, membershipsOf, func(s db.Scanner) error {
		var m Membership
		if err := s.Scan(&m.Room, &m.RoomID, &m.Membership, &m.Event, &m.Position, &m.Forgotten); err != nil {
			return err
		}
		rooms[m.Room] = m
		return nil
	}, u)
}

// Memberships lists every room that a local user has a membership in, left and
// forgotten ones included, in no order.
func (e *Engine) Memberships(ctx context.Context, u matrix.UserID) ([]Membership, error) {
	return e.users.of(ctx, u)
}

// Membership returns a local user's membership in a room; its Membership is ""
// if there never was one.
func (e *Engine) Membership(ctx context.Context, r *Room, u matrix.UserID) (Membership, error) {
	own := Membership{Room: r.NID, RoomID: r.ID}
	err := e.users.with(ctx, u, func(rooms map[RoomNID]Membership) {
		if m, ok := rooms[r.NID]; ok {
			own = m
		}
	})
	return own, err
}

// Forget takes a room that the user has left from what they see of it.
// spec: client-server#post_matrixclientv3roomsroomidforget
func (e *Engine) Forget(ctx context.Context, r *Room, u matrix.UserID) error {
	m, err := e.Membership(ctx, r, u)
	if err != nil {
		return err
	}
	switch m.Membership {
	case matrix.MembershipLeave, matrix.MembershipBan:
	case "":
		return matrix.NotFound("You have no membership in the room")
	default:
		return matrix.NewError(400, matrix.CodeUnknown, "Leave the room before you forget it")
	}
	err = e.DB.Write(ctx, func(tx *db.Tx) error { return tx.Exec(markForgot, u, r.NID) })
	if err != nil {
		return err
	}
	e.users.mu.Lock()
	defer e.users.mu.Unlock()
	e.users.clock++
	if rooms, ok := e.users.users.Peek(u); ok {
		m.Forgotten = true
		rooms[r.NID] = m
	}
	return nil
}
