package answers

import (
	"context"

	"github.com/teahouse-chat/teahouse/federation/acl"
	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms"
	"github.com/teahouse-chat/teahouse/rooms/spaces"
)

type hierarchyRequest struct {
	RoomID    matrix.RoomID `path:"roomId"`
	Suggested bool          `query:"suggested_only"`
}

// hierarchy tells what a room is and which rooms it lists, as far as the server
// could join them or read in them.
// spec: server-server#get_matrixfederationv1hierarchyroomid
func (a *Answers) hierarchy(ctx context.Context, origin matrix.ServerName, q *hierarchyRequest) (*spaces.Answer, error) {
	leave, err := a.gates.enter(ctx, origin)
	if err != nil {
		return nil, err
	}
	defer leave()
	return a.Spaces.ForServer(ctx, q.RoomID, q.Suggested, func(ctx context.Context, r *rooms.Room, s *rooms.Summary) (bool, error) {
		ok, err := acl.Allows(ctx, a.Engine, r, origin)
		if err != nil || !ok {
			return false, err
		}
		return a.Engine.FindableBy(ctx, r, s, origin)
	})
}
