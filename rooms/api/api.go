package api

import (
	"context"
	"errors"
	"log/slog"

	"github.com/teahouse-chat/teahouse/internal/db"
	"github.com/teahouse-chat/teahouse/internal/httpx"
	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms"
	"github.com/teahouse-chat/teahouse/rooms/event"
)

// Aliases is the room directory as rooms need it.
type Aliases interface {
	// Resolve finds the room of an alias, and servers that are in it; 404
	// M_NOT_FOUND.
	Resolve(ctx context.Context, alias matrix.RoomAlias) (matrix.RoomID, []matrix.ServerName, error)
	// Check tells whether the caller may take a local alias that is free; otherwise
	// 400 M_ROOM_IN_USE, M_INVALID_PARAM or M_EXCLUSIVE.
	Check(ctx context.Context, alias matrix.RoomAlias, c *httpx.Caller) error
	// Add stores an alias in the commit that makes it true.
	Add(tx *db.Tx, alias matrix.RoomAlias, room matrix.RoomID, user matrix.UserID) error
	// Publish lists a room in the public directory, in the commit that makes it.
	Publish(tx *db.Tx, room matrix.RoomID) error
	// Move gives an upgraded room's local aliases, and its place in the public
	// directory, to its replacement.
	Move(tx *db.Tx, from, to matrix.RoomID) error
}

// Deps are what the routes are made of.
type Deps struct {
	Engine         *rooms.Engine
	Aliases        Aliases
	Remote         Remote  // nil: there is no federation
	Invites        Invites // nil: everybody may be invited by anybody
	DefaultVersion string  // room version of new rooms
	Log            *slog.Logger
}

// API serves the routes.
type API struct {
	Deps
	version *event.Version
}

// New makes the routes.
func New(d Deps) (*API, error) {
	v, ok := event.Lookup(d.DefaultVersion)
	if !ok {
		return nil, errors.New("rooms: the default room version " + d.DefaultVersion + " is not supported")
	}
	return &API{Deps: d, version: v}, nil
}

// Routes lists the client routes.
func (a *API) Routes() []httpx.Route {
	const v3 = "/_matrix/client/v3/"
	join, invite, send := httpx.Limit("join"), httpx.Limit("invite"), httpx.Limit("send")
	return []httpx.Route{
		httpx.JSON("POST", v3+"createRoom", a.createRoom, join, httpx.EmptyBodyOK),
		httpx.JSON("POST", v3+"join/{roomIdOrAlias}", a.join, join, httpx.EmptyBodyOK, httpx.GuestsAllowed),
		httpx.JSON("POST", v3+"rooms/{roomIdOrAlias}/join", a.joinByID, join, httpx.EmptyBodyOK, httpx.GuestsAllowed),
		httpx.JSON("POST", v3+"knock/{roomIdOrAlias}", a.knock, join, httpx.EmptyBodyOK),
		httpx.JSON("POST", v3+"rooms/{roomId}/invite", a.invite, invite),
		httpx.JSON("POST", v3+"rooms/{roomId}/leave", a.leave, httpx.EmptyBodyOK, httpx.GuestsAllowed),
		httpx.JSON("POST", v3+"rooms/{roomId}/forget", a.forget, httpx.EmptyBodyOK, httpx.GuestsAllowed),
		httpx.JSON("POST", v3+"rooms/{roomId}/kick", a.kick, send),
		httpx.JSON("POST", v3+"rooms/{roomId}/ban", a.ban, send),
		httpx.JSON("POST", v3+"rooms/{roomId}/unban", a.unban, send),
		httpx.JSON("PUT", v3+"rooms/{roomId}/send/{eventType}/{txnId}", a.send, send, httpx.GuestsAllowed),
		httpx.JSON("PUT", v3+"rooms/{roomId}/state/{eventType}", a.putState, send, httpx.TrailingSlash),
		httpx.JSON("PUT", v3+"rooms/{roomId}/state/{eventType}/{stateKey}", a.putKeyedState, send),
		httpx.JSON("PUT", v3+"rooms/{roomId}/redact/{eventId}/{txnId}", a.redact, send, httpx.EmptyBodyOK),
		httpx.JSON("POST", v3+"rooms/{roomId}/upgrade", a.upgrade, join),
	}
}
