package joining

import (
	"context"
	"encoding/json"
	"net/http"
	"slices"

	"github.com/teahouse-chat/teahouse/federation/acl"
	"github.com/teahouse-chat/teahouse/federation/transport"
	"github.com/teahouse-chat/teahouse/internal/httpx"
	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms"
)

// Routes lists the federation routes.
func (j *Joining) Routes() []httpx.Route {
	a := j.Auth
	return []httpx.Route{
		transport.JSON(a, "GET", v1+"make_join/{roomId}/{userId}", j.makeJoin),
		transport.JSON(a, "GET", v1+"make_leave/{roomId}/{userId}", j.makeLeave),
		transport.JSON(a, "GET", v1+"make_knock/{roomId}/{userId}", j.makeKnock),
		transport.JSON(a, "PUT", v1+"send_join/{roomId}/{eventId}", j.takeJoinV1),
		transport.JSON(a, "PUT", v2+"send_join/{roomId}/{eventId}", j.takeJoin),
		transport.JSON(a, "PUT", v1+"send_leave/{roomId}/{eventId}", j.takeLeaveV1),
		transport.JSON(a, "PUT", v2+"send_leave/{roomId}/{eventId}", j.takeLeave),
		transport.JSON(a, "PUT", v1+"send_knock/{roomId}/{eventId}", j.takeKnock),
		transport.JSON(a, "PUT", v1+"invite/{roomId}/{eventId}", j.takeInviteV1),
		transport.JSON(a, "PUT", v2+"invite/{roomId}/{eventId}", j.takeInvite),
		transport.JSON(a, "PUT", v1+"exchange_third_party_invite/{roomId}", j.exchange),
		httpx.JSON("PUT", v1+"3pid/onbind", j.onbind, httpx.NoAuth, httpx.Limit("invite")),
	}
}

// resident finds a room that this server is in and lets the other server take
// part in.
func (j *Joining) resident(ctx context.Context, id matrix.RoomID, origin matrix.ServerName) (*rooms.Room, error) {
	r, err := j.Engine.Room(ctx, id)
	if err != nil && !matrix.HasCode(err, matrix.CodeNotFound) {
		return nil, err
	}
	if err != nil || r.LocalMemberCount() == 0 {
		return nil, matrix.NotFound("This server is not in the room")
	}
	return r, acl.Check(ctx, j.Engine, r, origin)
}

type makeRequest struct {
	RoomID   matrix.RoomID `path:"roomId"`
	UserID   matrix.UserID `path:"userId"`
	Versions []string      `query:"ver"`
}

type makeAnswer struct {
	Version string          `json:"room_version"`
	Event   json.RawMessage `json:"event"`
}

// makeJoin answers with the template of a join: what it has to build on, for the
// user's server to sign.
// spec: server-server#get_matrixfederationv1make_joinroomiduserid
func (j *Joining) makeJoin(ctx context.Context, origin matrix.ServerName, q *makeRequest) (*makeAnswer, error) {
	return j.make(ctx, origin, q, matrix.MembershipJoin)
}

// makeLeave answers with the template of a leave.
// spec: server-server#get_matrixfederationv1make_leaveroomiduserid
func (j *Joining) makeLeave(ctx context.Context, origin matrix.ServerName, q *makeRequest) (*makeAnswer, error) {
	return j.make(ctx, origin, q, matrix.MembershipLeave)
}

// makeKnock answers with the template of a knock.
// spec: server-server#get_matrixfederationv1make_knockroomiduserid
func (j *Joining) makeKnock(ctx context.Context, origin matrix.ServerName, q *makeRequest) (*makeAnswer, error) {
	return j.make(ctx, origin, q, matrix.MembershipKnock)
}

func (j *Joining) make(ctx context.Context, origin matrix.ServerName, q *makeRequest, membership string) (*makeAnswer, error) {
	if q.UserID.Server() != origin {
		return nil, matrix.Forbidden("%s is no user of %s", q.UserID, origin)
	}
	r, err := j.resident(ctx, q.RoomID, origin)
	if err != nil {
		return nil, err
	}
	if membership != matrix.MembershipLeave {
		if err := supports(q.Versions, r); err != nil {
			return nil, err
		}
	}
	event, err := j.draft(ctx, r, q.UserID, membership)
	if err != nil {
		return nil, err
	}
	return &makeAnswer{r.Version.ID, event}, nil
}

// supports tells whether a server that knows these room versions can take part.
func supports(versions []string, r *rooms.Room) error {
	if len(versions) == 0 {
		versions = []string{"1"}
	}
	if slices.Contains(versions, r.Version.ID) {
		return nil
	}
	return incompatible(r.Version.ID)
}

func incompatible(version string) error {
	return matrix.NewError(http.StatusBadRequest, matrix.CodeIncompatibleRoom,
		"The room is of version %.20q, which the other server does not support", version).With("room_version", version)
}

func (j *Joining) draft(ctx context.Context, r *rooms.Room, user matrix.UserID, membership string) (json.RawMessage, error) {
	content := map[string]string{"membership": membership}
	if membership == matrix.MembershipJoin {
		by, err := j.Engine.Authoriser(ctx, r, user)
		if err != nil {
			return nil, err
		}
		if by != "" {
			content["join_authorised_via_users_server"] = string(by)
		}
	}
	raw, err := json.Marshal(content)
	if err != nil {
		return nil, err
	}
	key := string(user)
	d, err := j.Engine.Template(ctx, r, rooms.Proto{Type: matrix.TypeMember, StateKey: &key, Sender: user, Content: raw})
	if err != nil {
		return nil, err
	}
	return d.JSON(r.Version), nil
}
