package spaces

import (
	"context"
	"strings"

	"github.com/teahouse-chat/teahouse/internal/httpx"
	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms"
)

type summaryRequest struct {
	Target string              `path:"roomIdOrAlias"`
	Via    []matrix.ServerName `query:"via"`
}

type summaryAnswer struct {
	rooms.Summary
	Membership string `json:"membership,omitempty"`
}

// unstableAnswer has the members by their names before they were specified, too.
type unstableAnswer struct {
	summaryAnswer
	Version    string `json:"im.nheko.summary.room_version,omitempty"`
	Version2   string `json:"im.nheko.summary.version,omitempty"`
	Encryption string `json:"im.nheko.summary.encryption,omitempty"`
}

var errNoRoom = matrix.NotFound("There is no such room that you could see")

// summary sums up one room.
// spec: client-server#get_matrixclientv1room_summaryroomidoralias
func (a *API) summary(ctx context.Context, c *httpx.Caller, q *summaryRequest) (*summaryAnswer, error) {
	id, err := a.target(ctx, q.Target)
	if err != nil {
		return nil, err
	}
	s, membership, err := a.find(ctx, c.User, id)
	if err != nil {
		return nil, err
	}
	return &summaryAnswer{*s, membership}, nil
}

func (a *API) unstableSummary(ctx context.Context, c *httpx.Caller, q *summaryRequest) (*unstableAnswer, error) {
	s, err := a.summary(ctx, c, q)
	if err != nil {
		return nil, err
	}
	return &unstableAnswer{*s, s.Version, s.Version, s.Encryption}, nil
}

// find sums up a room that the user may know of; 404 otherwise.
func (a *API) find(ctx context.Context, u matrix.UserID, id matrix.RoomID) (*rooms.Summary, string, error) {
	r, err := a.Engine.Room(ctx, id)
	if matrix.HasCode(err, matrix.CodeNotFound) {
		return nil, "", errNoRoom.Because(err)
	}
	if err != nil {
		return nil, "", err
	}
	s, err := a.Engine.Summary(ctx, r)
	if err != nil {
		return nil, "", err
	}
	ok, membership, err := a.Engine.Findable(ctx, r, s, u)
	if err == nil && !ok {
		err = errNoRoom
	}
	return s, membership, err
}

// target finds the room that a request names by id or alias.
func (a *API) target(ctx context.Context, text string) (matrix.RoomID, error) {
	if !strings.HasPrefix(text, "#") {
		return matrix.ParseRoomID(text)
	}
	alias, err := matrix.ParseRoomAlias(text)
	if err != nil {
		return "", err
	}
	id, _, err := a.Aliases.Resolve(ctx, alias)
	return id, err
}
