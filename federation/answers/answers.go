package answers

import (
	"context"
	"encoding/json"
	"time"

	"github.com/teahouse-chat/teahouse/federation/transport"
	"github.com/teahouse-chat/teahouse/internal/httpx"
	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms"
	"github.com/teahouse-chat/teahouse/rooms/spaces"
)

// Directory knows this server's aliases and published rooms.
type Directory interface {
	// Local finds the room of an alias of this server, and servers that are in
	// it; 404 M_NOT_FOUND.
	Local(ctx context.Context, alias matrix.RoomAlias) (matrix.RoomID, []matrix.ServerName, error)
	Published(ctx context.Context, q rooms.ListingQuery) (*rooms.ListingPage, error)
}

// Profiles knows the profiles of local users.
type Profiles interface {
	// Profile gives all of a profile, or only the field key if it is not "";
	// 404 M_NOT_FOUND if there is no such user or field.
	Profile(ctx context.Context, user matrix.UserID, key string) (map[string]json.RawMessage, error)
}

// OpenID knows the tokens that prove to third parties who somebody is.
type OpenID interface {
	RedeemOpenID(ctx context.Context, token string) (matrix.UserID, bool, error)
}

// Deps are what the answers are made of.
type Deps struct {
	Engine    *rooms.Engine
	Auth      *transport.Authenticator
	Directory Directory
	Profiles  Profiles
	OpenID    OpenID
	Spaces    *spaces.API
	Now       func() time.Time
}

// Answers serves the routes.
type Answers struct {
	Deps
	gates gates
}

// New makes the routes.
func New(d Deps) *Answers {
	return &Answers{Deps: d, gates: gates{of: map[matrix.ServerName]*gate{}}}
}

// maxQuestion bounds the body of a question.
const maxQuestion = 256 << 10

// Routes lists what other servers may ask, and what is asked on behalf of nobody.
func (a *Answers) Routes() []httpx.Route {
	const v1 = "/_matrix/federation/v1/"
	body := httpx.MaxBody(maxQuestion)
	return []httpx.Route{
		transport.JSON(a.Auth, "GET", v1+"event/{eventId}", a.event),
		transport.JSON(a.Auth, "GET", v1+"state/{roomId}", a.state),
		transport.JSON(a.Auth, "GET", v1+"state_ids/{roomId}", a.stateIDs),
		transport.JSON(a.Auth, "GET", v1+"event_auth/{roomId}/{eventId}", a.eventAuth),
		transport.JSON(a.Auth, "GET", v1+"backfill/{roomId}", a.backfill),
		transport.JSON(a.Auth, "POST", v1+"get_missing_events/{roomId}", a.missingEvents, body),
		transport.JSON(a.Auth, "GET", v1+"timestamp_to_event/{roomId}", a.timestampToEvent),
		transport.JSON(a.Auth, "GET", v1+"hierarchy/{roomId}", a.hierarchy),
		transport.JSON(a.Auth, "GET", v1+"query/directory", a.queryDirectory),
		transport.JSON(a.Auth, "GET", v1+"query/profile", a.queryProfile),
		transport.JSON(a.Auth, "GET", v1+"publicRooms", a.getPublicRooms),
		transport.JSON(a.Auth, "POST", v1+"publicRooms", a.postPublicRooms, body),
		httpx.JSON("GET", v1+"openid/userinfo", a.userInfo, httpx.NoAuth),
	}
}
