package api

import (
	"context"
	"encoding/json"
	"errors"
	"time"

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
	id, via, err := a.room(ctx, q)
	if err != nil {
		return nil, err
	}
	return a.joinRoom(ctx, c, id, via, q)
}

// joinByID joins a room by id.
// spec: client-server#post_matrixclientv3roomsroomidjoin
func (a *API) joinByID(ctx context.Context, c *httpx.Caller, q *joinRequest) (*roomAnswer, error) {
	id, err := matrix.ParseRoomID(q.Target)
	if err != nil {
		return nil, err
	}
	return a.joinRoom(ctx, c, id, q.via(), q)
}

func (a *API) joinRoom(ctx context.Context, c *httpx.Caller, id matrix.RoomID, via []matrix.ServerName, q *joinRequest) (*roomAnswer, error) {
	reason, err := q.reason()
	if err != nil {
		return nil, err
	}
	err = a.enter(ctx, c, id, via, q, reason)
	if errors.Is(err, ErrHere) {
		err = a.enter(ctx, c, id, via, q, reason)
	}
	for wait := firstPatience; errors.As(err, new(*early)) && wait <= lastPatience; wait *= 2 {
		select {
		case <-time.After(wait):
			err = a.enter(ctx, c, id, via, q, reason)
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	if err != nil {
		return nil, err
	}
	return &roomAnswer{id}, nil
}

// How long it is waited, the first time and the last, for servers to hear of each
// other's events.
const (
	firstPatience = 100 * time.Millisecond
	lastPatience  = 800 * time.Millisecond
)

// early is a refusal by other servers of somebody who may join as far as this
// server knows. Who joins a space and, a moment later, a room for its members can
// be quicker than the news of the first join.
type early struct{ error }

func (e *early) Unwrap() error { return e.error }

// enter makes the caller a member of a room, be it here or at another server.
func (a *API) enter(ctx context.Context, c *httpx.Caller, id matrix.RoomID, via []matrix.ServerName, q *joinRequest, reason string) error {
	content := memberContent{Membership: matrix.MembershipJoin, Reason: reason}
	r, elsewhere, err := a.find(ctx, id)
	if err != nil {
		return err
	}
	if elsewhere {
		if c.Guest {
			return matrix.NewError(403, matrix.CodeGuestAccessForbidden, "Guests may not join rooms of other servers")
		}
		return a.enterElsewhere(ctx, c.User, id, via, q, content, false)
	}
	if c.Guest {
		if err := a.guestsMayJoin(ctx, r); err != nil {
			return err
		}
	}
	own, err := a.Engine.Membership(ctx, r, c.User)
	if err != nil {
		return err
	}
	switch own.Membership {
	case matrix.MembershipJoin:
		return nil
	case matrix.MembershipInvite:
	default:
		content.AuthorisedBy, err = a.Engine.Authoriser(ctx, r, c.User)
		if matrix.HasCode(err, matrix.CodeUnableToGrantJoin) && a.Remote != nil && len(r.Servers()) > 0 {
			err := a.enterElsewhere(ctx, c.User, id, via, q, content, true)
			if matrix.HasCode(err, matrix.CodeForbidden) {
				return &early{err}
			}
			return err
		}
		if err != nil {
			return err
		}
	}
	p, err := a.member(ctx, c.User, content)
	if err != nil {
		return err
	}
	if p, err = q.withExtras(p); err != nil {
		return err
	}
	_, err = a.Engine.Send(ctx, id, c.User, p, nil)
	return err
}

// find finds a room, and tells whether only other servers know what goes on in
// it: no local user is there. The room is nil if this server does not know it.
func (a *API) find(ctx context.Context, id matrix.RoomID) (r *rooms.Room, elsewhere bool, err error) {
	r, err = a.Engine.Room(ctx, id)
	switch {
	case a.Remote == nil:
		return r, false, err
	case matrix.HasCode(err, matrix.CodeNotFound):
		return nil, true, nil
	case err != nil:
		return nil, false, err
	}
	return r, r.LocalMemberCount() == 0 && (r.Shell() || len(r.Servers()) > 0), nil
}

// enterElsewhere has another server let the user in. here tells that local users
// are in the room, but cannot let them in.
func (a *API) enterElsewhere(ctx context.Context, u matrix.UserID, id matrix.RoomID, via []matrix.ServerName, q *joinRequest, content memberContent, here bool) error {
	p, err := a.member(ctx, u, content)
	if err != nil {
		return err
	}
	if p, err = q.withExtras(p); err != nil {
		return err
	}
	return a.Remote.Join(ctx, Entry{Room: id, User: u, Via: via, Content: p.Content, Here: here})
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

// levels reads the room's power levels.
func (a *API) levels(ctx context.Context, r *rooms.Room) (*auth.PowerLevels, error) {
	return a.Engine.Levels(ctx, r.View().State)
}

// knock asks to be let into a room.
// spec: client-server#post_matrixclientv3knockroomidoralias
func (a *API) knock(ctx context.Context, c *httpx.Caller, q *joinRequest) (*roomAnswer, error) {
	id, via, err := a.room(ctx, q)
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
	_, elsewhere, err := a.find(ctx, id)
	switch {
	case err != nil:
	case elsewhere:
		err = a.Remote.Knock(ctx, Entry{Room: id, User: c.User, Via: via, Content: p.Content})
	default:
		_, err = a.Engine.Send(ctx, id, c.User, p, nil)
	}
	if err != nil {
		return nil, err
	}
	return &roomAnswer{id}, nil
}
