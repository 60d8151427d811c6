package rooms

import (
	"context"
	"encoding/json"
	"slices"

	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms/auth"
	"github.com/teahouse-chat/teahouse/rooms/state"
)

// Summary is what a room is to someone who may come to join it.
// spec: client-server#get_matrixclientv1room_summaryroomidoralias
type Summary struct {
	Listing
	AllowedRooms []matrix.RoomID `json:"allowed_room_ids,omitempty"`
	Encryption   string          `json:"encryption,omitempty"`
	Version      string          `json:"room_version,omitempty"`
}

// summaryTypes are the state events that a summary is made of.
var summaryTypes = []string{
	matrix.TypeCreate, matrix.TypeName, matrix.TypeTopic, matrix.TypeCanonicalAlias, matrix.TypeAvatar, matrix.TypeJoinRules,
	matrix.TypeHistoryVisibility, matrix.TypeGuestAccess, matrix.TypeEncryption,
}

// Summary sums up a room as it is now.
func (e *Engine) Summary(ctx context.Context, r *Room) (*Summary, error) {
	v := r.View()
	keys := make([]auth.Key, len(summaryTypes))
	for i, typ := range summaryTypes {
		keys[i].Type = typ
	}
	events, err := e.StateOf(ctx, v.State, keys...)
	if err != nil {
		return nil, err
	}
	s := &Summary{Version: r.Version.ID}
	s.RoomID, s.JoinedMembers, s.JoinRule = r.ID, v.Joined, matrix.JoinInvite
	for _, st := range events {
		if st != nil {
			s.add(st)
		}
	}
	return s, nil
}

// add takes over what one state event says. Members of the wrong type say
// nothing.
func (s *Summary) add(st *Stored) {
	var c struct {
		Type        any `json:"type"`
		Name        any `json:"name"`
		Topic       any `json:"topic"`
		Alias       any `json:"alias"`
		URL         any `json:"url"`
		JoinRule    any `json:"join_rule"`
		GuestAccess any `json:"guest_access"`
		Algorithm   any `json:"algorithm"`
	}
	if json.Unmarshal(st.Content, &c) != nil {
		return
	}
	text := func(v any) string { s, _ := v.(string); return s }
	switch st.Type {
	case matrix.TypeCreate:
		s.RoomType = text(c.Type)
	case matrix.TypeName:
		s.Name = text(c.Name)
	case matrix.TypeTopic:
		s.Topic = text(c.Topic)
	case matrix.TypeCanonicalAlias:
		s.CanonicalAlias = text(c.Alias)
	case matrix.TypeAvatar:
		s.AvatarURL = text(c.URL)
	case matrix.TypeJoinRules:
		s.JoinRule = text(c.JoinRule)
		s.AllowedRooms = allowedRooms(st)
	case matrix.TypeHistoryVisibility:
		s.WorldReadable = historyVisibility(st) == matrix.VisibilityWorldReadable
	case matrix.TypeGuestAccess:
		s.GuestsMayJoin = text(c.GuestAccess) == "can_join"
	case matrix.TypeEncryption:
		s.Encryption = text(c.Algorithm)
	}
}

// allowedRooms lists the rooms that a restricted join rule lets in.
// spec: client-server#restricted-rooms
func allowedRooms(st *Stored) []matrix.RoomID {
	var rules struct {
		JoinRule string `json:"join_rule"`
		Allow    []struct {
			Type   string        `json:"type"`
			RoomID matrix.RoomID `json:"room_id"`
		} `json:"allow"`
	}
	if json.Unmarshal(st.Content, &rules) != nil {
		return nil
	}
	if rules.JoinRule != matrix.JoinRestricted && rules.JoinRule != matrix.JoinKnockRestricted {
		return nil
	}
	var allowed []matrix.RoomID
	for _, a := range rules.Allow {
		if a.Type == "m.room_membership" {
			allowed = append(allowed, a.RoomID)
		}
	}
	return allowed
}

// Findable tells whether a user, "" for anybody, may learn what a room is: as a
// member or an invited user, if they could join or knock, or if anyone may read
// the room. It also gives the user's membership, "" if there is none.
// spec: client-server#get_matrixclientv1roomsroomidhierarchy
func (e *Engine) Findable(ctx context.Context, r *Room, s *Summary, u matrix.UserID) (ok bool, membership string, err error) {
	if u != "" {
		own, err := e.StateEvent(ctx, r.View().State, matrix.TypeMember, string(u))
		if err != nil {
			return false, "", err
		}
		if own != nil {
			membership = own.Membership()
		}
	}
	switch {
	case membership == matrix.MembershipJoin, membership == matrix.MembershipInvite, s.WorldReadable:
		return true, membership, nil
	case membership == matrix.MembershipBan:
		return false, membership, nil
	}
	switch s.JoinRule {
	case matrix.JoinPublic:
		return true, membership, nil
	case matrix.JoinKnock:
		return r.Version.Knocking, membership, nil
	case matrix.JoinKnockRestricted:
		return r.Version.KnockRestricted, membership, nil
	case matrix.JoinRestricted:
		if u != "" && r.Version.RestrictedJoins {
			ok, err = e.InAllowedRoom(ctx, r, u)
		}
	}
	return ok, membership, err
}

// FindableBy tells whether a server may learn what a room is: if one of its users
// could join the room, knock at it or read it, as far as that can be told here.
// spec: server-server#get_matrixfederationv1hierarchyroomid
func (e *Engine) FindableBy(ctx context.Context, r *Room, s *Summary, server matrix.ServerName) (bool, error) {
	switch {
	case r.HasServer(server), s.WorldReadable, s.JoinRule == matrix.JoinPublic,
		s.JoinRule == matrix.JoinKnock && r.Version.Knocking,
		s.JoinRule == matrix.JoinKnockRestricted && r.Version.KnockRestricted:
		return true, nil
	case s.JoinRule == matrix.JoinRestricted && r.Version.RestrictedJoins:
		for _, id := range s.AllowedRooms {
			allowed, err := e.Room(ctx, id)
			if matrix.HasCode(err, matrix.CodeNotFound) {
				continue
			}
			if err != nil {
				return false, err
			}
			if allowed.HasServer(server) {
				return true, nil
			}
		}
	}
	return e.invites(ctx, r, server)
}

// invites tells whether a user of a server is invited to a room.
func (e *Engine) invites(ctx context.Context, r *Room, server matrix.ServerName) (bool, error) {
	v := r.View()
	if v.Invited == 0 {
		return false, nil
	}
	keys, err := e.membersOf(ctx, r, server)
	if err != nil {
		return false, err
	}
	for part := range slices.Chunk(keys, foreignAtOnce) {
		nids := make([]state.EventNID, len(part))
		for i, k := range part {
			nids[i], _ = v.State.Get(k)
		}
		events, err := e.eventsOrNil(ctx, nids)
		if err != nil {
			return false, err
		}
		if slices.ContainsFunc(events, func(st *Stored) bool { return st != nil && st.Membership() == matrix.MembershipInvite }) {
			return true, nil
		}
	}
	return false, nil
}

// NonMembers lists a state's events that are no member events.
func (e *Engine) NonMembers(ctx context.Context, m *state.Map) ([]*Stored, error) {
	return e.StateEvents(ctx, m, func(k state.KeyNID) bool { return !MemberKey(k) })
}
