package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"strings"

	"github.com/teahouse-chat/teahouse/internal/httpx"
	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms"
)

// memberContent is the content of an m.room.member event as this server writes
// it.
// spec: client-server#mroommember
type memberContent struct {
	Membership   string        `json:"membership"`
	DisplayName  string        `json:"displayname,omitempty"`
	AvatarURL    string        `json:"avatar_url,omitempty"`
	Reason       string        `json:"reason,omitempty"`
	IsDirect     bool          `json:"is_direct,omitempty"`
	AuthorisedBy matrix.UserID `json:"join_authorised_via_users_server,omitempty"`
}

// member makes the event by which user gets a membership. Only a user's own
// profile is shown, and that of an invited local user.
func (a *API) member(ctx context.Context, user matrix.UserID, c memberContent) (rooms.Proto, error) {
	switch c.Membership {
	case matrix.MembershipJoin, matrix.MembershipInvite, matrix.MembershipKnock:
		if a.Engine.Local(user) {
			p, err := a.Engine.Profiles.Profile(ctx, user)
			if err != nil {
				return rooms.Proto{}, err
			}
			c.DisplayName, c.AvatarURL = p.DisplayName, p.AvatarURL
		}
	}
	return memberProto(user, c)
}

func memberProto(user matrix.UserID, c any) (rooms.Proto, error) {
	content, err := json.Marshal(c)
	key := string(user)
	return rooms.Proto{Type: matrix.TypeMember, StateKey: &key, Content: content}, err
}

type reasonRequest struct {
	RoomID matrix.RoomID `path:"roomId"`
	Reason string        `json:"reason"`
}

type targetRequest struct {
	RoomID matrix.RoomID `path:"roomId"`
	UserID matrix.UserID `json:"user_id"`
	Reason string        `json:"reason"`
}

func (q *targetRequest) check() error {
	if q.UserID == "" {
		return matrix.MissingParam("user_id is missing")
	}
	_, err := matrix.ParseUserID(string(q.UserID))
	return err
}

type empty struct{}

// leave ends a membership, an invitation or a knock.
// spec: client-server#post_matrixclientv3roomsroomidleave
func (a *API) leave(ctx context.Context, c *httpx.Caller, q *reasonRequest) (*empty, error) {
	r, err := a.Engine.Room(ctx, q.RoomID)
	if err != nil {
		return nil, err
	}
	m, err := a.Engine.Membership(ctx, r, c.User)
	if err != nil {
		return nil, err
	}
	if m.Membership == matrix.MembershipLeave {
		return nil, nil
	}
	return nil, a.leaveRoom(ctx, q.RoomID, c.User, q.Reason)
}

// leaveRoom takes a user out of a room, or has another server do so for who was
// only invited there.
func (a *API) leaveRoom(ctx context.Context, id matrix.RoomID, u matrix.UserID, reason string) error {
	p, err := memberProto(u, memberContent{Membership: matrix.MembershipLeave, Reason: reason})
	if err != nil {
		return err
	}
	r, elsewhere, err := a.find(ctx, id)
	switch {
	case err != nil:
		return err
	case r != nil && elsewhere:
		return a.Remote.Leave(ctx, r, u, p.Content)
	}
	_, err = a.Engine.Send(ctx, id, u, p, nil)
	return err
}

// LeaveAll ends all memberships, invitations and knocks of a user whose account
// is deactivated. Rooms that cannot be left are passed over.
func (a *API) LeaveAll(ctx context.Context, u matrix.UserID) error {
	all, err := a.Engine.Memberships(ctx, u)
	if err != nil {
		return err
	}
	for _, m := range all {
		switch m.Membership {
		case matrix.MembershipJoin, matrix.MembershipInvite, matrix.MembershipKnock:
			if err := a.leaveRoom(ctx, m.RoomID, u, ""); err != nil {
				a.Log.WarnContext(ctx, "a deactivated user could not leave a room", "user", u, "room", m.RoomID, "error", err)
			}
		}
	}
	return nil
}

// ProfileChanged puts a user's new profile into their member events.
// spec: client-server#events-on-change-of-profile-information
func (a *API) ProfileChanged(ctx context.Context, u matrix.UserID) error {
	profile, err := a.Engine.Profiles.Profile(ctx, u)
	if err != nil {
		return err
	}
	all, err := a.Engine.Memberships(ctx, u)
	if err != nil {
		return err
	}
	for _, m := range all {
		if m.Membership != matrix.MembershipJoin {
			continue
		}
		_, err := a.Engine.Update(ctx, m.RoomID, u, func(b *rooms.Builder) error { return reprofile(b, u, profile) })
		if err != nil {
			a.Log.WarnContext(ctx, "a changed profile could not be shown in a room", "user", u, "room", m.RoomID, "error", err)
		}
	}
	return nil
}

// reprofile changes the profile in a member event and keeps everything else.
func reprofile(b *rooms.Builder, u matrix.UserID, p rooms.Profile) error {
	st, err := b.State(matrix.TypeMember, string(u))
	if err != nil {
		return err
	}
	if st == nil || st.Membership() != matrix.MembershipJoin {
		return nil
	}
	content := map[string]json.RawMessage{}
	if err := json.Unmarshal(st.Content, &content); err != nil {
		return err
	}
	for name, value := range map[string]string{"displayname": p.DisplayName, "avatar_url": p.AvatarURL} {
		if delete(content, name); value != "" {
			if content[name], err = json.Marshal(value); err != nil {
				return err
			}
		}
	}
	delete(content, authorisedVia)
	proto, err := memberProto(u, content)
	if err != nil || bytes.Equal(proto.Content, st.Content) {
		return err
	}
	_, err = b.Append(proto)
	return err
}

// forget takes a room that was left from what the user sees.
// spec: client-server#post_matrixclientv3roomsroomidforget
func (a *API) forget(ctx context.Context, c *httpx.Caller, q *reasonRequest) (*empty, error) {
	r, err := a.Engine.Room(ctx, q.RoomID)
	if err != nil {
		return nil, err
	}
	return nil, a.Engine.Forget(ctx, r, c.User)
}

// kick removes a user who is joined, invited or knocking.
// spec: client-server#post_matrixclientv3roomsroomidkick
func (a *API) kick(ctx context.Context, c *httpx.Caller, q *targetRequest) (*empty, error) {
	return a.moderate(ctx, c, q, matrix.MembershipLeave, func(membership string) error {
		switch membership {
		case matrix.MembershipJoin, matrix.MembershipInvite, matrix.MembershipKnock:
			return nil
		}
		return matrix.Forbidden("The user is not in the room")
	})
}

// ban keeps a user out of a room.
// spec: client-server#post_matrixclientv3roomsroomidban
func (a *API) ban(ctx context.Context, c *httpx.Caller, q *targetRequest) (*empty, error) {
	return a.moderate(ctx, c, q, matrix.MembershipBan, func(string) error { return nil })
}

// unban lets a banned user come back.
// spec: client-server#post_matrixclientv3roomsroomidunban
func (a *API) unban(ctx context.Context, c *httpx.Caller, q *targetRequest) (*empty, error) {
	return a.moderate(ctx, c, q, matrix.MembershipLeave, func(membership string) error {
		if membership != matrix.MembershipBan {
			return matrix.Forbidden("The user is not banned")
		}
		return nil
	})
}

// moderate changes the membership of another user, if their present one allows.
func (a *API) moderate(ctx context.Context, c *httpx.Caller, q *targetRequest, to string, from func(string) error) (*empty, error) {
	if err := q.check(); err != nil {
		return nil, err
	}
	_, err := a.Engine.Update(ctx, q.RoomID, c.User, func(b *rooms.Builder) error {
		own, err := b.State(matrix.TypeMember, string(c.User))
		if err != nil {
			return err
		}
		if own == nil || own.Membership() != matrix.MembershipJoin {
			return matrix.Forbidden("You are not in the room")
		}
		st, err := b.State(matrix.TypeMember, string(q.UserID))
		if err != nil {
			return err
		}
		content := memberContent{Membership: to, Reason: q.Reason}
		present := matrix.MembershipLeave
		if st != nil {
			present = st.Membership()
			if to == matrix.MembershipBan {
				// A ban keeps what others know the user by.
				_ = json.Unmarshal(st.Content, &struct {
					DisplayName *string `json:"displayname"`
					AvatarURL   *string `json:"avatar_url"`
				}{&content.DisplayName, &content.AvatarURL})
			}
		}
		if err := from(present); err != nil {
			return err
		}
		p, err := memberProto(q.UserID, content)
		if err != nil {
			return err
		}
		_, err = b.Append(p)
		return err
	})
	return nil, err
}

type joinRequest struct {
	Target     string              `path:"roomIdOrAlias"`
	Via        []matrix.ServerName `query:"via"`
	ServerName []matrix.ServerName `query:"server_name"` // the older name of via
	Body       json.RawMessage     `body:"raw"`
}

// reason reads the one member of the body that the specification gives a
// meaning.
func (q *joinRequest) reason() (string, error) {
	var body struct {
		Reason string `json:"reason"`
	}
	if err := json.Unmarshal(q.Body, &body); err != nil {
		return "", matrix.BadJSON("reason must be a text")
	}
	return body.Reason, nil
}

// withExtras adds to a member event what else a client put into the body of its
// request, as clients have come to expect, unless the server sets it by itself.
func (q *joinRequest) withExtras(p rooms.Proto) (rooms.Proto, error) {
	content, extras := map[string]json.RawMessage{}, map[string]json.RawMessage{}
	if err := errors.Join(json.Unmarshal(q.Body, &extras), json.Unmarshal(p.Content, &content)); err != nil {
		return p, err
	}
	for _, own := range []string{"membership", "displayname", "avatar_url", "third_party_invite", "third_party_signed",
		authorisedVia, "is_direct"} {
		delete(extras, own)
	}
	maps.Copy(extras, content)
	p.Content = mustJSON(extras)
	return p, nil
}

// via lists the servers that a client names as being in the room.
func (q *joinRequest) via() []matrix.ServerName { return slices.Concat(q.Via, q.ServerName) }

// room finds the room that a request names by id or alias, and the servers that
// may be in it.
func (a *API) room(ctx context.Context, q *joinRequest) (matrix.RoomID, []matrix.ServerName, error) {
	if !strings.HasPrefix(q.Target, "#") {
		id, err := matrix.ParseRoomID(q.Target)
		return id, q.via(), err
	}
	alias, err := matrix.ParseRoomAlias(q.Target)
	if err != nil {
		return "", nil, err
	}
	id, servers, err := a.Aliases.Resolve(ctx, alias)
	return id, append(q.via(), servers...), err
}
