package rooms

import (
	"context"
	"encoding/json"

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
	var rules struct {
		Allow []struct {
			Type   string        `json:"type"`
			RoomID matrix.RoomID `json:"room_id"`
		} `json:"allow"`
	}
	if json.Unmarshal(st.Content, &rules) != nil {
		return false, nil
	}
	for _, a := range rules.Allow {
		if a.Type != "m.room_membership" {
			continue
		}
		allowed, err := e.Room(ctx, a.RoomID)
		if matrix.HasCode(err, matrix.CodeNotFound) {
			continue
		}
		if err != nil {
			return false, err
		}
		member, err := e.StateEvent(ctx, allowed.View().State, matrix.TypeMember, string(u))
		if err != nil {
			return false, err
		}
		if member != nil && member.Membership() == matrix.MembershipJoin {
			return true, nil
		}
	}
	return false, nil
}
