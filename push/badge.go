package push

import (
	"context"
	"sync"

	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms"
)

// badgesKept is how many users' badges are kept in memory.
const badgesKept = 50_000

// unknownBadge is the badge of a pusher that has been sent none yet.
const unknownBadge = -1

// badges are the numbers on apps' icons, as far as pushers ask for them: what a
// user has not read, by room. Only rooms in which something happened are counted
// anew.
type badges struct {
	mu    sync.Mutex
	users map[matrix.UserID]*badge
}

type badge struct {
	counting sync.Mutex // held while rooms are counted

	// Guarded by badges.mu.
	counted bool                    // every room is, but for the stale ones
	rooms   map[rooms.RoomNID]int64 // those with unread messages
	stale   map[rooms.RoomNID]struct{}
}

func newBadges() *badges { return &badges{users: map[matrix.UserID]*badge{}} }

// touch takes note that a user's count of a room may have changed.
func (k *badges) touch(user matrix.UserID, room rooms.RoomNID) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if b := k.users[user]; b != nil {
		b.stale[room] = struct{}{}
	}
}

func (k *badges) of(user matrix.UserID) *badge {
	k.mu.Lock()
	defer k.mu.Unlock()
	b := k.users[user]
	if b == nil {
		if len(k.users) >= badgesKept {
			clear(k.users)
		}
		b = &badge{rooms: map[rooms.RoomNID]int64{}, stale: map[rooms.RoomNID]struct{}{}}
		k.users[user] = b
	}
	return b
}

// badge is the number on the icons of a user's apps.
func (p *Push) badge(ctx context.Context, user matrix.UserID) (int64, error) {
	b := p.badges.of(user)
	b.counting.Lock()
	defer b.counting.Unlock()
	p.badges.mu.Lock()
	all := !b.counted
	stale := make([]rooms.RoomNID, 0, len(b.stale))
	for nid := range b.stale {
		stale = append(stale, nid)
	}
	clear(b.stale)
	p.badges.mu.Unlock()
	if all {
		memberships, err := p.Rooms.Memberships(ctx, user)
		if err != nil {
			return 0, err
		}
		for _, m := range memberships {
			if m.Membership == matrix.MembershipJoin {
				stale = append(stale, m.Room)
			}
		}
	}
	counts, err := p.Reading.Unread(ctx, user, stale, p.DB.Position())
	p.badges.mu.Lock()
	defer p.badges.mu.Unlock()
	for _, nid := range stale {
		switch n := counts[nid]; {
		case err != nil:
			b.stale[nid] = struct{}{}
		case n == 0:
			delete(b.rooms, nid)
		default:
			b.rooms[nid] = n
		}
	}
	if err != nil {
		return 0, err
	}
	b.counted = true
	total := int64(0)
	for _, n := range b.rooms {
		total += n
	}
	if p.CountRooms {
		total = int64(len(b.rooms))
	}
	return total, nil
}
