package rooms

import (
	"context"
	"encoding/json"
	"slices"

	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms/auth"
	"github.com/teahouse-chat/teahouse/rooms/state"
)

// Levels reads the power levels of a state.
func (e *Engine) Levels(ctx context.Context, m *state.Map) (*auth.PowerLevels, error) {
	var st authState
	for _, typ := range []string{matrix.TypeCreate, matrix.TypePowerLevels} {
		s, err := e.StateEvent(ctx, m, typ, "")
		if err != nil {
			return nil, err
		}
		if s != nil {
			st = append(st, s.Event)
		}
	}
	return auth.Levels(st), nil
}

// InAllowedRoom tells whether the user is joined to one of the rooms that the
// room's join rule lets in. Rooms that this server does not know count as rooms
// that the user is not in.
// spec: client-server#restricted-rooms
func (e *Engine) InAllowedRoom(ctx context.Context, r *Room, u matrix.UserID) (bool, error) {
	st, err := e.StateEvent(ctx, r.View().State, matrix.TypeJoinRules, "")
	if err != nil || st == nil {
		return false, err
	}
	in, _, err := e.inOneOf(ctx, allowedRooms(st), u)
	return in, err
}

// inOneOf tells whether the user is joined to one of the rooms, and whether this
// server is in any of them, so that it can tell.
func (e *Engine) inOneOf(ctx context.Context, ids []matrix.RoomID, u matrix.UserID) (in, known bool, err error) {
	for _, id := range ids {
		allowed, err := e.Room(ctx, id)
		if matrix.HasCode(err, matrix.CodeNotFound) || err == nil && allowed.LocalMemberCount() == 0 {
			continue
		}
		if err != nil {
			return false, false, err
		}
		known = true
		member, err := e.StateEvent(ctx, allowed.View().State, matrix.TypeMember, string(u))
		if err != nil {
			return false, false, err
		}
		if member != nil && member.Membership() == matrix.MembershipJoin {
			return true, true, nil
		}
	}
	return false, known, nil
}

// Authoriser finds, for somebody whom a restricted join rule would have to let
// in, the local user by whose power to invite they may join; "" where the join
// rule asks for no such user, or they are invited. It fails with 403 M_FORBIDDEN
// if they meet none of the conditions, with 400 M_UNABLE_TO_AUTHORISE_JOIN if this
// server cannot know that, and with 400 M_UNABLE_TO_GRANT_JOIN if they do but no
// local user has the power.
// spec: server-server#restricted-rooms
func (e *Engine) Authoriser(ctx context.Context, r *Room, u matrix.UserID) (matrix.UserID, error) {
	m := r.View().State
	events, err := e.StateOf(ctx, m, auth.Key{Type: matrix.TypeJoinRules}, auth.Key{Type: matrix.TypeMember, StateKey: string(u)})
	if err != nil || events[0] == nil || !restricted(r, events[0]) {
		return "", err
	}
	if own := events[1]; own != nil {
		switch own.Membership() {
		case matrix.MembershipJoin, matrix.MembershipInvite:
			return "", nil
		}
	}
	allowed := allowedRooms(events[0])
	switch in, known, err := e.inOneOf(ctx, allowed, u); {
	case err != nil:
		return "", err
	case !in && !known && len(allowed) > 0 && !e.Local(u):
		return "", matrix.NewError(400, matrix.CodeUnableToAuthoriseJoin,
			"This server is in none of the rooms whose members may join; ask another one")
	case !in:
		return "", matrix.Forbidden("Only members of certain other rooms may join this one, and %s is in none of them", u)
	}
	levels, err := e.Levels(ctx, m)
	if err != nil {
		return "", err
	}
	for _, member := range slices.Sorted(slices.Values(r.LocalMembers())) {
		if levels.User(member) >= levels.Invite {
			return member, nil
		}
	}
	return "", matrix.NewError(400, matrix.CodeUnableToGrantJoin,
		"No user of this server who is in the room may invite; ask a server that has one")
}

// restricted tells whether the join rule lets in the members of other rooms.
func restricted(r *Room, rules *Stored) bool {
	var content struct {
		JoinRule string `json:"join_rule"`
	}
	if json.Unmarshal(rules.Content, &content) != nil {
		return false
	}
	switch content.JoinRule {
	case matrix.JoinRestricted:
		return r.Version.RestrictedJoins
	case matrix.JoinKnockRestricted:
		return r.Version.KnockRestricted
	}
	return false
}
