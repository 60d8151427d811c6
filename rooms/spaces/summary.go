package spaces

import (
	"context"
	"slices"
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

// summary sums up one room. Of rooms that this server is not in, others are asked
// for users who are logged in.
// spec: client-server#get_matrixclientv1room_summaryroomidoralias
func (a *API) summary(ctx context.Context, c *httpx.Caller, q *summaryRequest) (*summaryAnswer, error) {
	id, via, err := a.target(ctx, q.Target)
	if err != nil {
		return nil, err
	}
	l, end := a.lookout(ctx, c.User)
	defer end()
	found, err := l.find(ctx, branch{room: id, via: slices.Concat(q.Via, via)}, false)
	if err != nil {
		return nil, err
	}
	return &summaryAnswer{*found.summary, found.membership}, nil
}

func (a *API) unstableSummary(ctx context.Context, c *httpx.Caller, q *summaryRequest) (*unstableAnswer, error) {
	s, err := a.summary(ctx, c, q)
	if err != nil {
		return nil, err
	}
	return &unstableAnswer{*s, s.Version, s.Version, s.Encryption}, nil
}

// target finds the room that a request names by id or alias, and servers that
// may be in it.
func (a *API) target(ctx context.Context, text string) (matrix.RoomID, []matrix.ServerName, error) {
	if !strings.HasPrefix(text, "#") {
		id, err := matrix.ParseRoomID(text)
		return id, nil, err
	}
	alias, err := matrix.ParseRoomAlias(text)
	if err != nil {
		return "", nil, err
	}
	return a.Aliases.Resolve(ctx, alias)
}
