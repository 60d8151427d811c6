package api

import (
	"context"
	"encoding/json"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/teahouse-chat/teahouse/internal/httpx"
	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms"
)

// Invites are local users' rules on who may invite them.
type Invites interface {
	// Allows is nil, or 403 M_INVITE_BLOCKED.
	Allows(ctx context.Context, user, sender matrix.UserID) error
}

type inviteRequest struct {
	targetRequest
	Medium  string `json:"medium"`
	Address string `json:"address"`
}

// errThreepid answers invitations by e-mail address or telephone number, which
// need an identity server.
var errThreepid = matrix.NewError(403, matrix.CodeThreepidDenied,
	"This server has no identity server; invite by user id")

// errAlone answers invitations of users of other servers where there is no
// federation.
var errAlone = matrix.Forbidden("This server does not federate; only its own users can be invited")

// invite asks a user into a room.
// spec: client-server#post_matrixclientv3roomsroomidinvite
func (a *API) invite(ctx context.Context, c *httpx.Caller, q *inviteRequest) (*empty, error) {
	if q.UserID == "" && (q.Medium != "" || q.Address != "") {
		return nil, errThreepid
	}
	if err := q.check(); err != nil {
		return nil, err
	}
	p, err := a.member(ctx, q.UserID, memberContent{Membership: matrix.MembershipInvite, Reason: q.Reason})
	if err != nil {
		return nil, err
	}
	if err := a.mayInvite(ctx, c.User, q.UserID); err != nil {
		return nil, err
	}
	if !a.Engine.Local(q.UserID) {
		_, err = a.inviteOther(ctx, q.RoomID, c.User, p)
	} else {
		_, err = a.Engine.Send(ctx, q.RoomID, c.User, p, nil)
	}
	return nil, err
}

// inviteOther invites a user of another server, with that server's consent.
func (a *API) inviteOther(ctx context.Context, room matrix.RoomID, sender matrix.UserID, p rooms.Proto) (*rooms.Stored, error) {
	r, err := a.Engine.Room(ctx, room)
	if err != nil {
		return nil, err
	}
	return a.Remote.Invite(ctx, r, sender, p)
}

// mayInvite tells whether an invitation can reach the user, and is wanted.
// spec: client-server#invite-permission
func (a *API) mayInvite(ctx context.Context, sender, user matrix.UserID) error {
	switch {
	case !a.Engine.Local(user) && a.Remote == nil:
		return errAlone
	case !a.Engine.Local(user) || a.Invites == nil:
		return nil
	}
	return a.Invites.Allows(ctx, user, sender)
}

// setMember looks after what is special about setting a member event as any other
// state. Who lets somebody in is not theirs to say, and invitations of users of
// other servers go by those; the answer is nil for all that goes on as usual.
func (a *API) setMember(ctx context.Context, c *httpx.Caller, q *stateRequest, key string) (*eventAnswer, error) {
	content := map[string]json.RawMessage{}
	if err := json.Unmarshal(q.Body, &content); err != nil {
		return nil, matrix.BadJSON("The content must be an object").Because(err)
	}
	if _, there := content[authorisedVia]; there {
		delete(content, authorisedVia)
		q.Body = mustJSON(content)
	}
	user, err := matrix.ParseUserID(key)
	if err != nil || string(content["membership"]) != `"invite"` {
		return nil, nil
	}
	if err := a.mayInvite(ctx, c.User, user); err != nil || a.Engine.Local(user) {
		return nil, err
	}
	p := rooms.Proto{Type: q.Type, StateKey: &key, Content: q.Body, Timestamp: massaged(c, q.Timestamp)}
	st, err := a.inviteOther(ctx, q.RoomID, c.User, p)
	if err != nil {
		return nil, err
	}
	return &eventAnswer{st.ID}, nil
}

const authorisedVia = "join_authorised_via_users_server"

// How other servers are asked to agree to the first invitations to a room.
const (
	invitesAtATime = 8
	invitesTime    = 40 * time.Second // for all of them
)

// inviteOthers invites the users of other servers, who need those servers to
// agree. The room is there by now, so that it does not fail with one of them: an
// invitation can be sent again.
func (a *API) inviteOthers(ctx context.Context, r *rooms.Room, sender matrix.UserID, q *createRequest) error {
	ctx, cancel := context.WithTimeout(ctx, invitesTime)
	defer cancel()
	var asking errgroup.Group
	asking.SetLimit(invitesAtATime)
	for _, u := range slices.Compact(slices.Sorted(slices.Values(q.Invite))) {
		if a.Engine.Local(u) {
			continue
		}
		p, err := a.member(ctx, u, memberContent{Membership: matrix.MembershipInvite, IsDirect: q.IsDirect})
		if err != nil {
			return err
		}
		asking.Go(func() error {
			if _, err := a.Remote.Invite(ctx, r, sender, p); err != nil {
				a.Log.InfoContext(ctx, "a user of another server could not be invited to a new room", "user", u, "room", r.ID, "error", err)
			}
			return nil
		})
	}
	return asking.Wait()
}
