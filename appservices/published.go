package appservices

import (
	"context"
	"strings"

	"github.com/teahouse-chat/teahouse/internal/db"
	"github.com/teahouse-chat/teahouse/internal/httpx"
	"github.com/teahouse-chat/teahouse/internal/matrix"
)

type publishRequest struct {
	Network    string        `path:"networkId"`
	Room       matrix.RoomID `path:"roomId"`
	Visibility string        `json:"visibility"`
}

// publish lists a room in a directory of the service's own, or ends that.
// spec: client-server#put_matrixclientv3directorylistappservicenetworkidroomid
func (s *Services) publish(ctx context.Context, c *httpx.Caller, q *publishRequest) (*nothing, error) {
	v := s.current.Load().byID[c.Appservice]
	if v == nil {
		return nil, matrix.Forbidden("Only application services have directories of their own")
	}
	stmt := insertRoom
	switch q.Visibility {
	case "public":
	case "private":
		stmt = deleteRoom
	default:
		return nil, matrix.InvalidParam("visibility must be public or private")
	}
	if _, err := s.rooms.Room(ctx, q.Room); err != nil {
		return nil, err
	}
	return nil, s.DB.Write(ctx, func(tx *db.Tx) error { return tx.Exec(stmt, v.nid, q.Network, q.Room) })
}

// Published lists the rooms that services have published: those of a network, by
// the id of its instance, or of all networks if that is "".
func (s *Services) Published(ctx context.Context, instance string) ([]matrix.RoomID, error) {
	if instance == "" {
		return db.All(ctx, s.DB, everyRoom, scanRoomID)
	}
	for _, v := range s.current.Load().services {
		if network, ok := strings.CutPrefix(instance, instanceID(v, "")); ok {
			return db.All(ctx, s.DB, listedRooms, scanRoomID, v.nid, network)
		}
	}
	return nil, nil
}
