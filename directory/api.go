package directory

import (
	"context"

	"github.com/teahouse-chat/teahouse/internal/db"
	"github.com/teahouse-chat/teahouse/internal/httpx"
	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms"
)

// Profiles gives what people call themselves.
type Profiles interface {
	// Profiles returns the profiles of those of the local users who have one.
	Profiles(ctx context.Context, users []matrix.UserID) (map[matrix.UserID]rooms.Profile, error)
}

// Claims tells which aliases application services have.
type Claims interface {
	// MayAlias tells whether a user, or the service with an id that acts as them,
	// may make and delete an alias: what a service claims exclusively is that
	// service's only, and no service goes beyond what it claims.
	MayAlias(alias matrix.RoomAlias, user matrix.UserID, service string) bool
	// OwnsAlias tells whether an alias is a service's, which claims it: claimed
	// exclusively, or made by a user of the service's.
	OwnsAlias(alias matrix.RoomAlias, creator matrix.UserID, service string) bool
}

// Bridges are the application services that have rooms of other networks.
type Bridges interface {
	// MakeAlias asks the services that claim an alias which is free whether they
	// make its room, and tells whether one did.
	MakeAlias(ctx context.Context, alias matrix.RoomAlias) (bool, error)
	// Published lists the rooms that services have published: those of a network,
	// by the id of its instance, or of all networks if that is "".
	Published(ctx context.Context, instance string) ([]matrix.RoomID, error)
}

// Remote asks other servers. Their refusals, and that they cannot be reached, are
// errors for our client.
type Remote interface {
	// Alias asks an alias's server for its room, and servers that are in it; 404
	// M_NOT_FOUND if there is none.
	Alias(ctx context.Context, alias matrix.RoomAlias) (matrix.RoomID, []matrix.ServerName, error)
	// PublicRooms asks a server for its published rooms.
	PublicRooms(ctx context.Context, server matrix.ServerName, q rooms.ListingQuery) (*rooms.ListingPage, error)
}

// Deps are what the feature is made of.
type Deps struct {
	DB       *db.DB
	Engine   *rooms.Engine
	Profiles Profiles
	Claims   Claims  // nil: nobody claims any
	Bridges  Bridges // nil: there are none
	Remote   Remote  // nil: there are no other servers
}

// Directory is the feature.
type Directory struct{ Deps }

// New makes the feature.
func New(d Deps) *Directory { return &Directory{d} }

// Routes lists the client routes.
func (d *Directory) Routes() []httpx.Route {
	const v3 = "/_matrix/client/v3/"
	search := httpx.Limit("search")
	return []httpx.Route{
		httpx.JSON("GET", v3+"directory/room/{roomAlias}", d.getAlias, httpx.NoAuth, search),
		httpx.JSON("PUT", v3+"directory/room/{roomAlias}", d.putAlias, httpx.Limit("send")),
		httpx.JSON("DELETE", v3+"directory/room/{roomAlias}", d.deleteAlias),
		httpx.JSON("GET", v3+"rooms/{roomId}/aliases", d.roomAliases, httpx.Versions("unstable/org.matrix.msc2432")),
		httpx.JSON("GET", v3+"directory/list/room/{roomId}", d.getVisibility, httpx.NoAuth),
		httpx.JSON("PUT", v3+"directory/list/room/{roomId}", d.putVisibility, httpx.EmptyBodyOK),
		httpx.JSON("GET", v3+"publicRooms", d.getPublicRooms, httpx.NoAuth, search),
		httpx.JSON("POST", v3+"publicRooms", d.postPublicRooms, httpx.EmptyBodyOK, httpx.GuestsAllowed, search),
		httpx.JSON("POST", v3+"user_directory/search", d.searchUsers, search),
	}
}
