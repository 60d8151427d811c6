package history

import (
	"context"

	"github.com/teahouse-chat/teahouse/internal/httpx"
	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms"
)

// Ignores tells whom a user does not want to hear.
type Ignores interface {
	// Ignores returns whom the user ignores. The map is shared and not changed.
	Ignores(ctx context.Context, user matrix.UserID) (map[matrix.UserID]struct{}, error)
}

// Remote reaches history that only other servers have.
type Remote interface {
	// Backfill brings in what is behind gaps in a room's history, about as many
	// events as wanted, those behind the first gap above all. It tells whether any
	// came, and whether there may be more behind the first gap that cannot be had
	// now.
	Backfill(ctx context.Context, r *rooms.Room, gaps []rooms.Gap, wanted int) (came, open bool, err error)
	// EventNear asks other servers which event is the nearest to a time, from there
	// on or up to there, and brings it in; nil if none of them tells.
	EventNear(ctx context.Context, r *rooms.Room, ts int64, backwards bool) (*rooms.Stored, error)
}

// Deps are what the routes are made of.
type Deps struct {
	Engine  *rooms.Engine
	Ignores Ignores // nil: nobody ignores anybody
	Remote  Remote  // nil: what is not here is nowhere
}

// API serves the routes.
type API struct{ Deps }

// New makes the routes.
func New(d Deps) *API { return &API{d} }

// Routes lists the client routes. Guests may read what the specification opens
// to them.
// spec: client-server#guest-access
func (a *API) Routes() []httpx.Route {
	const room, room1 = "/_matrix/client/v3/rooms/{roomId}/", "/_matrix/client/v1/rooms/{roomId}/"
	const relations = room1 + "relations/{eventId}"
	guests := httpx.GuestsAllowed
	return []httpx.Route{
		httpx.JSON("GET", room+"event/{eventId}", a.event, guests),
		httpx.JSON("GET", "/_matrix/client/v3/events/{eventId}", a.eventAlone, guests),
		httpx.JSON("GET", room+"context/{eventId}", a.context, guests),
		httpx.JSON("GET", room+"messages", a.messages, guests),
		httpx.JSON("GET", room+"state", a.state, guests, httpx.TrailingSlash),
		httpx.JSON("GET", room+"state/{eventType}", a.plainState, guests, httpx.TrailingSlash),
		httpx.JSON("GET", room+"state/{eventType}/{stateKey}", a.keyedState, guests),
		httpx.JSON("GET", room+"members", a.members, guests),
		httpx.JSON("GET", room+"joined_members", a.joinedMembers),
		httpx.JSON("GET", "/_matrix/client/v3/joined_rooms", a.joinedRooms),
		httpx.JSON("GET", relations, a.relations, httpx.Versions("unstable")),
		httpx.JSON("GET", relations+"/{relType}", a.typedRelations, httpx.Versions("unstable")),
		httpx.JSON("GET", relations+"/{relType}/{eventType}", a.fullRelations, httpx.Versions("unstable")),
		httpx.JSON("GET", room1+"threads", a.threads),
		httpx.JSON("GET", room1+"timestamp_to_event", a.timestampToEvent),
		httpx.JSON("POST", "/_matrix/client/v3/search", a.search, httpx.Limit("search")),
	}
}
