package syncapi

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/teahouse-chat/teahouse/internal/httpx"
	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms"
)

const (
	typingDefault = 30 * time.Second
	typingMax     = 2 * time.Minute
	typingAgain   = 20 * time.Second // until other servers are told again
	typingRemote  = time.Minute      // until a user of another server counts as having stopped
)

// typing knows who is typing where. It lives in memory only. Its lock is taken
// while the notifier's is held, so that nobody sees the generation of a change
// without the change.
type typing struct {
	notifier *notifier
	now      func() time.Time
	changed  func(rooms.RoomNID)                // told of every change
	stopped  func(rooms.RoomNID, matrix.UserID) // told of who stops by themselves

	mu     sync.Mutex
	rooms  map[rooms.RoomNID]*typingRoom
	closed bool
}

type typingRoom struct {
	generation int64 // of the last change
	users      map[matrix.UserID]*typist
}

// typist is one user who types, until the timer stops them.
type typist struct {
	timer *time.Timer
	told  time.Time // when other servers were told
}

func newTyping(n *notifier, now func() time.Time, changed func(rooms.RoomNID), stopped func(rooms.RoomNID, matrix.UserID)) *typing {
	return &typing{notifier: n, now: now, changed: changed, stopped: stopped, rooms: map[rooms.RoomNID]*typingRoom{}}
}

// set notes that a user types for so long, or has stopped if it is 0. It tells
// whether that is news for other servers, who forget before long.
func (t *typing) set(nid rooms.RoomNID, user matrix.UserID, d time.Duration) (news bool) {
	d = min(d, typingMax)
	now := t.now()
	t.mu.Lock()
	r := t.rooms[nid]
	var old *typist
	if r != nil {
		old = r.users[user]
	}
	if old != nil && d > 0 { // still typing: nobody here needs to be told
		old.timer.Reset(d)
		if news = now.Sub(old.told) >= typingAgain; news {
			old.told = now
		}
	}
	t.mu.Unlock()
	if (old != nil) == (d > 0) {
		return news
	}
	return t.change(nid, user, old, d)
}

// change starts or stops a user; if they are to stop, only as the typist that
// was seen, since they may have begun anew.
func (t *typing) change(nid rooms.RoomNID, user matrix.UserID, seen *typist, d time.Duration) (changed bool) {
	now := t.now()
	t.notifier.typed(nid, func(generation int64) bool {
		t.mu.Lock()
		defer t.mu.Unlock()
		r := t.rooms[nid]
		if r == nil {
			r = &typingRoom{users: map[matrix.UserID]*typist{}}
			t.rooms[nid] = r
		}
		there := r.users[user]
		if there != seen || t.closed {
			return false
		}
		if d > 0 {
			p := &typist{told: now}
			p.timer = time.AfterFunc(d, func() {
				if t.change(nid, user, p, 0) {
					t.stopped(nid, user)
				}
			})
			r.users[user] = p
		} else {
			there.timer.Stop()
			delete(r.users, user)
		}
		r.generation = generation
		changed = true
		return true
	})
	if changed {
		t.changed(nid)
	}
	return changed
}

// in lists who types in a room; changed tells whether that is news above a
// generation.
func (t *typing) in(nid rooms.RoomNID, above int64) (users []matrix.UserID, changed bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	r := t.rooms[nid]
	if r == nil || r.generation <= above {
		return nil, false
	}
	for u := range r.users {
		users = append(users, u)
	}
	slices.Sort(users)
	return users, true
}

func (t *typing) close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.closed = true
	for _, r := range t.rooms {
		for _, p := range r.users {
			p.timer.Stop()
		}
	}
}

type typingRequest struct {
	Room    matrix.RoomID `path:"roomId"`
	User    matrix.UserID `path:"userId"`
	Typing  *bool         `json:"typing"`
	Timeout *int64        `json:"timeout"` // ms
}

// spec: client-server#put_matrixclientv3roomsroomidtypinguserid
func (s *Service) putTyping(ctx context.Context, c *httpx.Caller, q *typingRequest) (*struct{}, error) {
	if q.User != c.User {
		return nil, matrix.Forbidden("You can only say of yourself that you are typing")
	}
	if q.Typing == nil {
		return nil, matrix.MissingParam(`"typing" is missing`)
	}
	r, err := s.joinedRoom(ctx, q.Room, c.User)
	if err != nil {
		return nil, err
	}
	d := typingDefault
	switch {
	case !*q.Typing:
		d = 0
	case q.Timeout != nil:
		d = time.Duration(min(max(*q.Timeout, 0), typingMax.Milliseconds())) * time.Millisecond
	}
	if d > 0 {
		s.presence.active(c.User)
	}
	if s.typing.set(r.NID, c.User, d) {
		s.tellTyping(r, c.User, d > 0)
	}
	return nil, nil
}
