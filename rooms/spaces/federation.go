package spaces

import (
	"context"
	"encoding/json"

	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms"
)

// Room is a room in a tree, with the events that list its children.
type Room struct {
	rooms.Summary
	Children []json.RawMessage `json:"children_state"`
}

// Answer is what one server tells another of a room and the rooms in it.
// spec: server-server#get_matrixfederationv1hierarchyroomid
type Answer struct {
	Room     Room            `json:"room"`
	Children []rooms.Summary `json:"children"`
	// Inaccessible are children that the asking server could not join.
	Inaccessible []matrix.RoomID `json:"inaccessible_children"`
}

// Remote asks another server for its Answer; 404 M_NOT_FOUND if it knows no such
// room, or has nothing to tell.
type Remote interface {
	Hierarchy(ctx context.Context, server matrix.ServerName, room matrix.RoomID, suggested bool) (*Answer, error)
}

// summarised bounds the children of a space that another server is given
// summaries of.
const summarised = 200

// ForServer is the answer for another server, of rooms that this server is in;
// may tells what the other server could join or read. 404 M_NOT_FOUND if the room
// is not one of those.
func (a *API) ForServer(ctx context.Context, id matrix.RoomID, suggested bool, may func(context.Context, *rooms.Room, *rooms.Summary) (bool, error)) (*Answer, error) {
	r, s, err := a.current(ctx, id)
	if err != nil {
		return nil, err
	}
	if ok, err := may(ctx, r, s); err != nil || !ok {
		return nil, orNoRoom(err)
	}
	children, err := a.children(ctx, r, s, suggested)
	if err != nil {
		return nil, err
	}
	children = children[:min(len(children), maxChildren)]
	answer := &Answer{Room: shownAs(s, children), Children: []rooms.Summary{}, Inaccessible: []matrix.RoomID{}}
	for _, c := range children[:min(len(children), summarised)] {
		r, s, err := a.current(ctx, c.room)
		if matrix.HasCode(err, matrix.CodeNotFound) {
			continue
		}
		if err != nil {
			return nil, err
		}
		ok, err := may(ctx, r, s)
		switch {
		case err != nil:
			return nil, err
		case ok:
			answer.Children = append(answer.Children, *s)
		default:
			answer.Inaccessible = append(answer.Inaccessible, c.room)
		}
	}
	return answer, nil
}

// current sums up a room that this server is in; 404 M_NOT_FOUND if it is not.
func (a *API) current(ctx context.Context, id matrix.RoomID) (*rooms.Room, *rooms.Summary, error) {
	r, err := a.Engine.Room(ctx, id)
	if matrix.HasCode(err, matrix.CodeNotFound) {
		return nil, nil, errNoRoom.Because(err)
	}
	if err != nil {
		return nil, nil, err
	}
	if r.LocalMemberCount() == 0 {
		return nil, nil, errNoRoom
	}
	s, err := a.Engine.Summary(ctx, r)
	return r, s, err
}

func orNoRoom(err error) error {
	if err == nil {
		return errNoRoom
	}
	return err
}
