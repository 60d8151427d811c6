package joining

import (
	"context"
	"encoding/json"
	"net/http"

	"github.com/teahouse-chat/teahouse/federation/acl"
	"github.com/teahouse-chat/teahouse/federation/keys"
	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms"
	"github.com/teahouse-chat/teahouse/rooms/event"
)

// invitation is what a server sends when one of its users invites one of ours.
type invitation struct {
	Version string            `json:"room_version"`
	Event   json.RawMessage   `json:"event"`
	State   []json.RawMessage `json:"invite_room_state"`
}

type inviteRequest struct {
	RoomID  matrix.RoomID  `path:"roomId"`
	EventID matrix.EventID `path:"eventId"`
	invitation
}

type eventAnswer struct {
	Event json.RawMessage `json:"event"`
}

// takeInvite lets one of our users be invited, and signs that they are.
// spec: server-server#put_matrixfederationv2inviteroomideventid
func (j *Joining) takeInvite(ctx context.Context, origin matrix.ServerName, q *inviteRequest) (*eventAnswer, error) {
	signed, err := j.invited(ctx, origin, q)
	if err != nil {
		return nil, err
	}
	return &eventAnswer{signed.JSON}, nil
}

// takeInviteV1 is takeInvite in the first version, whose body is the event.
// spec: server-server#put_matrixfederationv1inviteroomideventid
func (j *Joining) takeInviteV1(ctx context.Context, origin matrix.ServerName, q *sendRequest) (*[2]any, error) {
	var body struct {
		Unsigned struct {
			State []json.RawMessage `json:"invite_room_state"`
		} `json:"unsigned"`
	}
	if err := json.Unmarshal(q.Event, &body); err != nil {
		return nil, matrix.BadJSON("unsigned.invite_room_state is no list")
	}
	version, err := j.oldVersion(ctx, q.RoomID, body.Unsigned.State)
	if err != nil {
		return nil, err
	}
	answer, err := j.takeInvite(ctx, origin, &inviteRequest{q.RoomID, q.EventID, invitation{version, q.Event, body.Unsigned.State}})
	if err != nil {
		return nil, err
	}
	return &[2]any{http.StatusOK, answer}, nil
}

// oldVersion finds out which of the first room versions, which the first version
// of the interface is for, a room has.
func (j *Joining) oldVersion(ctx context.Context, room matrix.RoomID, state []json.RawMessage) (string, error) {
	r, err := j.Engine.Room(ctx, room)
	switch {
	case err == nil && !r.Shell() && (r.Version.ID == "1" || r.Version.ID == "2"):
		return r.Version.ID, nil
	case err != nil && !matrix.HasCode(err, matrix.CodeNotFound):
		return "", err
	}
	for _, raw := range state {
		var e struct {
			Type    string `json:"type"`
			Content struct {
				Version string `json:"room_version"`
			} `json:"content"`
		}
		if json.Unmarshal(raw, &e) == nil && e.Type == matrix.TypeCreate && e.Content.Version == "2" {
			return "2", nil
		}
	}
	return "1", nil
}

// invited checks an invitation and brings it before the user.
func (j *Joining) invited(ctx context.Context, origin matrix.ServerName, q *inviteRequest) (*event.Event, error) {
	ev, err := readInvite(origin, q)
	if err != nil {
		return nil, err
	}
	user := matrix.UserID(ev.StateKey())
	if err := j.mayBeInvited(ctx, user, ev.Sender); err != nil {
		return nil, err
	}
	room, err := j.Engine.Room(ctx, ev.RoomID)
	if err != nil && !matrix.HasCode(err, matrix.CodeNotFound) {
		return nil, err
	}
	here := err == nil && room.LocalMemberCount() > 0
	if here {
		if err := acl.Check(ctx, j.Engine, room, origin); err != nil {
			return nil, err
		}
	}
	// Whoever redeems a third party's token needs no other signature as far as
	// the room is concerned; who talks to us does.
	checks := append(keys.EventChecks(ev), keys.Check{Server: origin, Event: ev})
	if err := j.verified(ctx, checks); err != nil {
		return nil, err
	}
	state, err := j.stripped(ctx, ev.Version, ev.RoomID, q.State, true)
	if err != nil {
		return nil, err
	}
	signed, err := ev.Sign(j.Engine.ServerName, j.Engine.Key)
	if err != nil {
		return nil, err
	}
	if here {
		return signed, j.invitedHere(ctx, room, signed)
	}
	_, err = j.Engine.StoreOutside(ctx, ev.Version, signed, state)
	return signed, err
}

// readInvite reads the event and checks that it is an invitation of one of our
// users by one of the origin's.
func readInvite(origin matrix.ServerName, q *inviteRequest) (*event.Event, error) {
	v, ok := event.Lookup(q.Version)
	if !ok {
		return nil, incompatible(q.Version)
	}
	ev, err := parse(v, q.Event)
	if err != nil {
		return nil, err
	}
	switch {
	case ev.RoomID != q.RoomID:
		return nil, matrix.InvalidParam("The event is of another room than the path says")
	case ev.ID != q.EventID:
		return nil, matrix.InvalidParam("The event's id is %s, not what the path says", ev.ID)
	case ev.Type != matrix.TypeMember || !ev.IsState() || ev.Membership() != matrix.MembershipInvite:
		return nil, matrix.InvalidParam("The event is no invitation")
	case ev.Sender.Server() != origin:
		return nil, matrix.InvalidParam("The event's sender is no user of %s", origin)
	}
	return ev, nil
}

// mayBeInvited tells whether a user is ours and wants to hear from the sender.
func (j *Joining) mayBeInvited(ctx context.Context, user, sender matrix.UserID) error {
	if _, err := matrix.ParseUserID(string(user)); err != nil || !j.Engine.Local(user) {
		return matrix.InvalidParam("The event invites no user of %s", j.Engine.ServerName)
	}
	exists, err := j.Users.Exists(ctx, user)
	if err != nil {
		return err
	}
	if !exists {
		return matrix.Forbidden("There is no such user")
	}
	if j.Invites == nil {
		return nil
	}
	return j.Invites.Allows(ctx, user, sender)
}

// invitedHere brings the invitation into a room that this server is in, so that
// the user sees it at once. If it builds on what is not here yet, or the room's
// policy server has not signed it yet, it comes in when the sender's server sends
// it to all that are in the room.
func (j *Joining) invitedHere(ctx context.Context, r *rooms.Room, ev *event.Event) error {
	policy, err := j.Engine.StateEvent(ctx, r.View().State, matrix.TypePolicy, "")
	if err != nil || policy != nil {
		return err
	}
	out, err := j.Engine.Receive(ctx, r.ID, []rooms.Incoming{{Event: ev}})
	if err != nil || len(out[0].Missing) > 0 {
		return err
	}
	return refused(out[0])
}
