package history

import (
	"context"
	"encoding/json"
	"slices"

	"github.com/teahouse-chat/teahouse/internal/httpx"
	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms"
	roomstate "github.com/teahouse-chat/teahouse/rooms/state"
)

type membersRequest struct {
	RoomID        matrix.RoomID `path:"roomId"`
	At            string        `query:"at"`
	Membership    string        `query:"membership"`
	NotMembership string        `query:"not_membership"`
}

var memberships = []string{
	"", matrix.MembershipJoin, matrix.MembershipInvite, matrix.MembershipKnock, matrix.MembershipLeave, matrix.MembershipBan,
}

// takes tells whether a member is asked for. The two parameters together pick
// what either of them picks.
func (q *membersRequest) takes(membership string) bool {
	switch {
	case q.Membership == "" && q.NotMembership == "":
		return true
	case q.Membership != "" && q.Membership == membership:
		return true
	}
	return q.NotMembership != "" && q.NotMembership != membership
}

// members gives the room's member events, now or at a point.
// spec: client-server#get_matrixclientv3roomsroomidmembers
func (a *API) members(ctx context.Context, c *httpx.Caller, q *membersRequest) (*httpx.RawJSON, error) {
	if !slices.Contains(memberships, q.Membership) || !slices.Contains(memberships, q.NotMembership) {
		return nil, matrix.InvalidParam("membership and not_membership are join, invite, knock, leave or ban")
	}
	at, given, err := point("at", q.At)
	if err != nil {
		return nil, err
	}
	rd, err := a.reader(ctx, c, q.RoomID)
	if err != nil {
		return nil, err
	}
	if !given {
		at = rd.access.Until
	}
	m, err := rd.stateAt(ctx, at)
	if err != nil {
		return nil, err
	}
	events, err := a.Engine.StateEvents(ctx, m, rooms.MemberKey)
	if err != nil {
		return nil, err
	}
	events = slices.DeleteFunc(events, func(st *rooms.Stored) bool { return !q.takes(st.Membership()) })
	rendered, err := rd.renderState(ctx, events)
	if err != nil {
		return nil, err
	}
	out := append(make([]byte, 0, size(rendered)), `{"chunk":`...)
	answer := httpx.RawJSON(append(appendList(out, rendered), '}'))
	return &answer, nil
}

// stateAt is the state at a point, if the reader may see what happened there.
func (rd *reader) stateAt(ctx context.Context, point int64) (*roomstate.Map, error) {
	point = min(point, rd.access.Until)
	if point >= rd.room.View().Position {
		return rd.state(ctx)
	}
	last, err := rd.engine.Timeline(ctx, rooms.TimelineQuery{Room: rd.room, From: point + 1, Backwards: true, Limit: 1})
	if err != nil {
		return nil, err
	}
	if len(last) == 0 {
		// /sync gives such a point where it tells the room from its beginning. The
		// room as nobody ever saw it is of no use; its creator made it and joined.
		first, err := rd.engine.Timeline(ctx, rooms.TimelineQuery{Room: rd.room, Limit: 2})
		if err != nil || len(first) == 0 {
			return nil, err
		}
		last = first[len(first)-1:]
	}
	seen, err := rd.visible(ctx, last)
	if err != nil {
		return nil, err
	}
	if len(seen) == 0 {
		return nil, matrix.Forbidden("You may not see the room as it was then")
	}
	return rd.engine.Snapshot(ctx, last[0].Resolved)
}

type joinedMembersAnswer struct {
	Joined map[matrix.UserID]memberProfile `json:"joined"`
}

type memberProfile struct {
	DisplayName string `json:"display_name,omitempty"`
	AvatarURL   string `json:"avatar_url,omitempty"`
}

// joinedMembers gives the profiles of who is in the room, to those who are.
// spec: client-server#get_matrixclientv3roomsroomidjoined_members
func (a *API) joinedMembers(ctx context.Context, c *httpx.Caller, q *roomRequest) (*joinedMembersAnswer, error) {
	rd, err := a.reader(ctx, c, q.RoomID)
	if err != nil {
		return nil, err
	}
	if !rd.access.Joined {
		return nil, matrix.Forbidden("You are not in the room")
	}
	members, err := a.Engine.StateEvents(ctx, rd.room.View().State, rooms.MemberKey)
	if err != nil {
		return nil, err
	}
	joined := make(map[matrix.UserID]memberProfile, len(members))
	for _, st := range members {
		if st.Membership() == matrix.MembershipJoin {
			joined[matrix.UserID(st.StateKey())] = profileOf(st)
		}
	}
	return &joinedMembersAnswer{joined}, nil
}

// profileOf reads a member event's profile; values that are no texts are none.
func profileOf(st *rooms.Stored) (p memberProfile) {
	var content struct {
		DisplayName any `json:"displayname"`
		AvatarURL   any `json:"avatar_url"`
	}
	if json.Unmarshal(st.Content, &content) == nil {
		p.DisplayName, _ = content.DisplayName.(string)
		p.AvatarURL, _ = content.AvatarURL.(string)
	}
	return p
}

type joinedRoomsAnswer struct {
	JoinedRooms []matrix.RoomID `json:"joined_rooms"`
}

// joinedRooms lists the rooms that the user is in.
// spec: client-server#get_matrixclientv3joined_rooms
func (a *API) joinedRooms(ctx context.Context, c *httpx.Caller, _ *struct{}) (*joinedRoomsAnswer, error) {
	all, err := a.Engine.Memberships(ctx, c.User)
	if err != nil {
		return nil, err
	}
	joined := []matrix.RoomID{}
	for _, m := range all {
		if m.Membership == matrix.MembershipJoin {
			joined = append(joined, m.RoomID)
		}
	}
	slices.Sort(joined)
	return &joinedRoomsAnswer{joined}, nil
}
