package acl

import (
	"context"

	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms"
)

// Allows tells whether a room lets a server in now; a room without an ACL lets
// everyone in.
// spec: server-server#server-access-control-lists-acls
func Allows(ctx context.Context, e *rooms.Engine, r *rooms.Room, server matrix.ServerName) (bool, error) {
	st, err := e.StateEvent(ctx, r.View().State, matrix.TypeServerACL, "")
	if err != nil || st == nil {
		return err == nil, err
	}
	// The event's memo is this package's: nobody else reads ACLs.
	if l, ok := st.Memo(func() any { return Parse(st.Content) }).(*List); ok {
		return l.Allows(server), nil
	}
	return Parse(st.Content).Allows(server), nil
}

// Check is Allows as an error: 403 M_FORBIDDEN for a server that is not let in.
func Check(ctx context.Context, e *rooms.Engine, r *rooms.Room, server matrix.ServerName) error {
	ok, err := Allows(ctx, e, r, server)
	if err == nil && !ok {
		err = matrix.Forbidden("%s is banned from the room by its server ACL", server)
	}
	return err
}
