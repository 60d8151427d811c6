package api

import (
	"context"
	"encoding/json"
	"errors"

	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms"
)

// Remote reaches rooms, and users, that are on other servers. Errors are
// *matrix.Error, safe to be shown to the user.
type Remote interface {
	// Join makes a local user join through a server that is in the room. It fails
	// with ErrHere if a local user has come to be in the room meanwhile.
	Join(ctx context.Context, e Entry) error
	// Knock asks to be let in at a server that is in the room.
	Knock(ctx context.Context, e Entry) error
	// Leave ends a local user's invitation or knock in a room that no local user is
	// in; even if nobody can be told of it.
	Leave(ctx context.Context, r *rooms.Room, user matrix.UserID, content json.RawMessage) error
	// Invite makes the invitation of a user of another server, has that server
	// agree, and brings it into the room.
	Invite(ctx context.Context, r *rooms.Room, sender matrix.UserID, p rooms.Proto) (*rooms.Stored, error)
}

// Entry is a local user's wish to be in a room.
type Entry struct {
	Room    matrix.RoomID
	User    matrix.UserID
	Via     []matrix.ServerName // servers that may be in the room
	Content json.RawMessage     // of the member event
	// Here tells that local users are in the room, none of whom can let the user
	// in.
	Here bool
}

// ErrHere is Remote.Join's refusal to ask another server: there are local users
// in the room, so that the user can join as in any room of this server.
var ErrHere = errors.New("rooms: local users are in the room")
