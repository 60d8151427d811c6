package admin

import (
	"context"
	"net/http"
	"time"

	"github.com/teahouse-chat/teahouse/internal/db"
	"github.com/teahouse-chat/teahouse/internal/httpx"
	"github.com/teahouse-chat/teahouse/internal/matrix"
)

// Rooms knows what may be reported. MayReport fails with M_NOT_FOUND or
// M_FORBIDDEN if user is not joined to the room or may not see the event; for
// the room itself, when event is "", only if the server does not know the room.
type Rooms interface {
	MayReport(ctx context.Context, user matrix.UserID, room matrix.RoomID, event matrix.EventID) error
}

// Users knows the accounts of this server.
type Users interface {
	// Exists is false for a user who has never registered.
	Exists(ctx context.Context, user matrix.UserID) (bool, error)
	// Sessions lists where the user is logged in.
	Sessions(ctx context.Context, user matrix.UserID) ([]Session, error)
}

// Session is a login of a user and its last use.
type Session struct {
	Device    matrix.DeviceID
	Addr      string // "" if not known
	LastSeen  int64  // milliseconds since 1970; 0 if never
	UserAgent string // "" if not known
}

// Deps is what New needs.
type Deps struct {
	DB         *db.DB
	ServerName matrix.ServerName
	Now        func() time.Time
	Rooms      Rooms
	Users      Users
}

// Admin is the feature.
type Admin struct {
	db     *db.DB
	server matrix.ServerName
	now    func() time.Time
	rooms  Rooms
	users  Users
	ids    *db.Sequence
}

// New makes the feature.
func New(d Deps) (*Admin, error) {
	return &Admin{
		db: d.DB, server: d.ServerName, now: d.Now, rooms: d.Rooms, users: d.Users,
		ids: d.DB.Sequence("reports"),
	}, nil
}

// Routes lists the client API.
func (a *Admin) Routes() []httpx.Route {
	const v3 = "/_matrix/client/v3/"
	limit := httpx.Limit("report")
	return []httpx.Route{
		httpx.JSON(http.MethodPost, v3+"rooms/{roomId}/report", a.reportRoom, limit),
		httpx.JSON(http.MethodPost, v3+"rooms/{roomId}/report/{eventId}", a.reportEvent, limit),
		httpx.JSON(http.MethodPost, v3+"users/{userId}/report", a.reportUser, limit),
		httpx.JSON(http.MethodGet, v3+"admin/whois/{userId}", a.whois),
	}
}
