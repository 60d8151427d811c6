package spaces

import (
	"context"

	"github.com/teahouse-chat/teahouse/internal/db"
	"github.com/teahouse-chat/teahouse/internal/httpx"
	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms"
)

// Aliases finds rooms by alias.
type Aliases interface {
	// Resolve finds the room of an alias, and servers that are in it; 404
	// M_NOT_FOUND.
	Resolve(ctx context.Context, alias matrix.RoomAlias) (matrix.RoomID, []matrix.ServerName, error)
}

// Deps are what the routes are made of.
type Deps struct {
	DB      *db.DB
	Engine  *rooms.Engine
	Aliases Aliases
	Remote  Remote // nil: there are no other servers
}

// API serves the routes.
type API struct{ Deps }

// New makes the routes.
func New(d Deps) *API { return &API{d} }

// Routes lists the client routes, with the paths by which clients asked before
// they were specified.
func (a *API) Routes() []httpx.Route {
	const v1, unstable = "/_matrix/client/v1/", "/_matrix/client/unstable/"
	search := httpx.Limit("search")
	const summary, mutual = unstable + "im.nheko.summary/", unstable + "uk.half-shot.msc2666/"
	return []httpx.Route{
		httpx.JSON("GET", v1+"rooms/{roomId}/hierarchy", a.hierarchy, search, httpx.Versions("unstable/org.matrix.msc2946")),
		httpx.JSON("GET", v1+"room_summary/{roomIdOrAlias}", a.summary, httpx.OptionalAuth, httpx.GuestsAllowed, search),
		httpx.JSON("GET", summary+"rooms/{roomIdOrAlias}/summary", a.unstableSummary, httpx.OptionalAuth, httpx.GuestsAllowed, search),
		httpx.JSON("GET", summary+"summary/{roomIdOrAlias}", a.unstableSummary, httpx.OptionalAuth, httpx.GuestsAllowed, search),
		httpx.JSON("GET", v1+"mutual_rooms", a.mutual),
		httpx.JSON("GET", mutual+"user/mutual_rooms", a.unstableMutual),
		httpx.JSON("GET", mutual+"user/mutual_rooms/{user_id}", a.unstableMutualPath),
	}
}
