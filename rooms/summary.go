package rooms

import (
	"context"
	"encoding/json"

	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms/auth"
	"github.com/teahouse-chat/teahouse/rooms/state"
)

// Listing is a room as a directory shows it.
// spec: client-server#get_matrixclientv3publicrooms
type Listing struct {
	RoomID         matrix.RoomID `json:"room_id"`
	Name           string        `json:"name,omitempty"`
	Topic          string        `json:"topic,omitempty"`
	CanonicalAlias string        `json:"canonical_alias,omitempty"`
	AvatarURL      string        `json:"avatar_url,omitempty"`
	JoinRule       string        `json:"join_rule,omitempty"`
	RoomType       string        `json:"room_type,omitempty"`
	JoinedMembers  int           `json:"num_joined_members"`
	WorldReadable  bool          `json:"world_readable"`
	GuestsMayJoin  bool          `json:"guest_can_join"`
}

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

// NonMembers lists a state's events that are no member events.
func (e *Engine) NonMembers(ctx context.Context, m *state.Map) ([]*Stored, error) {
	return e.StateEvents(ctx, m, func(k state.KeyNID) bool { return !MemberKey(k) })
}
