package api

import (
	"context"
	"encoding/json"

	"github.com/teahouse-chat/teahouse/internal/httpx"
	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms"
	"github.com/teahouse-chat/teahouse/rooms/auth"
)

type roomAnswer struct {
	RoomID matrix.RoomID `json:"room_id"`
}

// join joins a room by id or alias.
// spec: client-server#post_matrixclientv3joinroomidoralias
func (a *API) join(ctx context.Context, c *httpx.Caller, q *joinRequest) (*roomAnswer, error) {
	id, err := a.room(ctx, q.Target)
	if err != nil {
		return nil, err
	}
	return a.joinRoom(ctx, c, id, q)
}

// joinByID joins a room by id.
// spec: client-server#post_matrixclientv3roomsroomidjoin
func (a *API) joinByID(ctx context.Context, c *httpx.Caller, q *joinRequest) (*roomAnswer, error) {
	id, err := matrix.ParseRoomID(q.Target)
	if err != nil {
		return nil, err
	}
	return a.joinRoom(ctx, c, id, q)
}

func (a *API) joinRoom(ctx context.Context, c *httpx.Caller, id matrix.RoomID, q *joinRequest) (*roomAnswer, error) {
	r, err := a.Engine.Room(ctx, id)
	if err != nil {
		return nil, err
	}
	if c.Guest {
		if err := a.guestsMayJoin(ctx, r); err != nil {
			return nil, err
		}
	}
	reason, err := q.reason()
	if err != nil {
		return nil, err
	}
	content := memberContent{Membership: matrix.MembershipJoin, Reason: reason}
	own, err := a.Engine.Membership(ctx, r, c.User)
	if err != nil {
		return nil, err
	}
	switch own.Membership {
	case matrix.MembershipJoin:
		return &roomAnswer{id}, nil
	case matrix.MembershipInvite:
	default:
		if content.AuthorisedBy, err = a.authorise(ctx, r, c.User); err != nil {
			return nil, err
		}
	}
	p, err := a.member(ctx, c.User, content)
	if err != nil {
		return nil, err
	}
	if p, err = q.withExtras(p); err != nil {
		return nil, err
	}
	if _, err := a.Engine.Send(ctx, id, c.User, p, nil); err != nil {
		return nil, err
	}
	return &roomAnswer{id}, nil
}

// guestsMayJoin checks m.room.guest_access.
// spec: client-server#mroomguest_access
func (a *API) guestsMayJoin(ctx context.Context, r *rooms.Room) error {
	st, err := a.Engine.StateEvent(ctx, r.View().State, matrix.TypeGuestAccess, "")
	if err != nil {
		return err
	}
	var content struct {
		GuestAccess string `json:"guest_access"`
	}
	if st != nil {
		_ = json.Unmarshal(st.Content, &content) // of the wrong type: as good as none
	}
	if content.GuestAccess != "can_join" {
		return matrix.NewError(403, matrix.CodeGuestAccessForbidden, "Guests may not join this room")
	}
	return nil
}

// authorise finds, for a room whose join rule is restricted, the local user by
// whose power to invite someone may join who is a member of one of the allowed
// rooms; "" where the join rule asks for no such user.
// spec: client-server#restricted-rooms
func (a *API) authorise(ctx context.Context, r *rooms.Room, u matrix.UserID) (matrix.UserID, error) {
	m := r.View().State
	st, err := a.Engine.StateEvent(ctx, m, matrix.TypeJoinRules, "")
	if err != nil || st == nil {
		return "", err
	}
	var rules struct {
		JoinRule string `json:"join_rule"`
	}
	if json.Unmarshal(st.Content, &rules) != nil {
		return "", nil
	}
	switch {
	case rules.JoinRule == matrix.JoinRestricted && r.Version.RestrictedJoins:
	case rules.JoinRule == matrix.JoinKnockRestricted && r.Version.KnockRestricted:
	default:
		return "", nil
	}
	if ok, err := a.Engine.InAllowedRoom(ctx, r, u); err != nil {
		return "", err
	} else if !ok {
		return "", matrix.Forbidden("Only members of certain other rooms may join this one; you are in none of them")
	}
	levels, err := a.levels(ctx, r)
	if err != nil {
		return "", err
	}
	for _, member := range r.LocalMembers() {
		if levels.User(member) >= levels.Invite {
			return member, nil
		}
	}
	return "", matrix.NewError(400, matrix.CodeUnableToGrantJoin,
		"No user of this server who is in the room may invite; ask a server that has one")
}

// levels reads the room's power levels.
func (a *API) levels(ctx context.Context, r *rooms.Room) (*auth.PowerLevels, error) {
	return a.Engine.Levels(ctx, r.View().State)
}

// knock asks to be let into a room.
// spec: client-server#post_matrixclientv3knockroomidoralias
func (a *API) knock(ctx context.Context, c *httpx.Caller, q *joinRequest) (*roomAnswer, error) {
	id, err := a.room(ctx, q.Target)
	if err != nil {
		return nil, err
	}
	reason, err := q.reason()
	if err != nil {
		return nil, err
	}
	p, err := a.member(ctx, c.User, memberContent{Membership: matrix.MembershipKnock, Reason: reason})
	if err != nil {
		return nil, err
	}
	if _, err := a.Engine.Send(ctx, id, c.User, p, nil); err != nil {
		return nil, err
	}
	return &roomAnswer{id}, nil
}
