package syncapi

import (
	"cmp"
	"context"

	"github.com/teahouse-chat/teahouse/internal/httpx"
	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms"
)

// maxStatus bounds a status message in bytes.
const maxStatus = 4096

func compare[T cmp.Ordered](a, b T) int { return cmp.Compare(a, b) }

type putPresenceRequest struct {
	User   matrix.UserID `path:"userId"`
	State  string        `json:"presence"`
	Status *string       `json:"status_msg"`
}

// spec: client-server#put_matrixclientv3presenceuseridstatus
func (s *Service) putPresence(_ context.Context, c *httpx.Caller, q *putPresenceRequest) (*struct{}, error) {
	if q.User != c.User {
		return nil, matrix.Forbidden("You can only set your own presence")
	}
	if !isPresence(q.State) {
		return nil, matrix.InvalidParam(`"presence" must be "online", "unavailable" or "offline"`)
	}
	if q.Status != nil && len(*q.Status) > maxStatus {
		return nil, matrix.InvalidParam("A status message has at most %d bytes", maxStatus)
	}
	s.presence.set(c.User, q.State, q.Status)
	return nil, nil
}

func isPresence(state string) bool {
	return state == online || state == unavailable || state == offline
}

type getPresenceRequest struct {
	User matrix.UserID `path:"userId"`
}

type presenceAnswer struct {
	State  string  `json:"presence"`
	Ago    *int64  `json:"last_active_ago,omitempty"` // ms
	Status *string `json:"status_msg,omitempty"`
	Active bool    `json:"currently_active"`
}

// spec: client-server#get_matrixclientv3presenceuseridstatus
func (s *Service) getPresence(ctx context.Context, c *httpx.Caller, q *getPresenceRequest) (*presenceAnswer, error) {
	if q.User != c.User {
		shares, err := s.sharesRoom(ctx, c.User, q.User)
		if err != nil {
			return nil, err
		}
		if !shares {
			return nil, matrix.Forbidden("You share no room with this user")
		}
	}
	p := s.presence.one(q.User)
	a := &presenceAnswer{State: p.state, Status: p.status, Active: p.active}
	if p.ago >= 0 {
		ms := p.ago.Milliseconds()
		a.Ago = &ms
	}
	return a, nil
}

// sharesRoom tells whether two users are joined to the same room.
func (s *Service) sharesRoom(ctx context.Context, a, b matrix.UserID) (bool, error) {
	mine, err := s.joinedRooms(ctx, a)
	if err != nil {
		return false, err
	}
	return s.meets(ctx, mine, b)
}

// joinedRooms is the set of rooms that a local user is in.
func (s *Service) joinedRooms(ctx context.Context, u matrix.UserID) (map[rooms.RoomNID]struct{}, error) {
	memberships, err := s.Rooms.Memberships(ctx, u)
	if err != nil {
		return nil, err
	}
	joined := make(map[rooms.RoomNID]struct{}, len(memberships))
	for _, m := range memberships {
		if m.Membership == matrix.MembershipJoin {
			joined[m.Room] = struct{}{}
		}
	}
	return joined, nil
}

// meets tells whether a user of any server is in one of the rooms.
func (s *Service) meets(ctx context.Context, in map[rooms.RoomNID]struct{}, u matrix.UserID) (bool, error) {
	if !s.Rooms.Local(u) {
		met, err := s.among(ctx, in, []matrix.UserID{u})
		return met[u], err
	}
	memberships, err := s.Rooms.Memberships(ctx, u)
	if err != nil {
		return false, err
	}
	for _, m := range memberships {
		if _, ok := in[m.Room]; ok && m.Membership == matrix.MembershipJoin {
			return true, nil
		}
	}
	return false, nil
}
