package history

import (
	"context"
	"encoding/json"
	"slices"

	"github.com/teahouse-chat/teahouse/internal/httpx"
	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms"
	"github.com/teahouse-chat/teahouse/rooms/state"
	"github.com/teahouse-chat/teahouse/syncapi/token"
)

// reader is one user who reads one room.
type reader struct {
	engine *rooms.Engine
	remote Remote // may be nil
	room   *rooms.Room
	viewer rooms.Viewer
	access rooms.Access
}

// reader lets a user in who may read something of the room; 403 M_FORBIDDEN
// for all others, and for rooms that are not there.
func (a *API) reader(ctx context.Context, c *httpx.Caller, id matrix.RoomID) (*reader, error) {
	r, err := a.Engine.Room(ctx, id)
	if matrix.HasCode(err, matrix.CodeNotFound) {
		return nil, matrix.Forbidden("You are not a member of the room and its history is not open to everyone").Because(err)
	}
	if err != nil {
		return nil, err
	}
	rd := &reader{engine: a.Engine, remote: a.Remote, room: r, viewer: rooms.Viewer{User: c.User, Device: c.Device}}
	if rd.access, err = a.Engine.Access(ctx, r, c.User); err != nil {
		return nil, err
	}
	if a.Ignores != nil {
		rd.viewer.Ignores, err = a.Ignores.Ignores(ctx, c.User)
	}
	return rd, err
}

// visible filters events down to those that the reader may see and wants to:
// state events of ignored users are shown, since others build on them.
// spec: client-server#ignoring-users
func (rd *reader) visible(ctx context.Context, events []*rooms.Stored) ([]*rooms.Stored, error) {
	events, err := rd.engine.Visible(ctx, rd.room, rd.viewer.User, events)
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(events, func(st *rooms.Stored) bool {
		return st.Position > rd.access.Until || rd.ignores(st) && !st.IsState()
	}), nil
}

func (rd *reader) ignores(st *rooms.Stored) bool {
	_, ok := rd.viewer.Ignores[st.Sender]
	return ok && st.Sender != rd.viewer.User
}

// event returns one event that the reader may see. Others, and those that are
// not there, are 404 M_NOT_FOUND.
func (rd *reader) event(ctx context.Context, id matrix.EventID) (*rooms.Stored, error) {
	st, err := rd.engine.EventByID(ctx, rd.room, id)
	if err != nil {
		return nil, err
	}
	seen, err := rd.visible(ctx, []*rooms.Stored{st})
	if err != nil {
		return nil, err
	}
	if len(seen) == 0 {
		return nil, matrix.NotFound("There is no such event in the room")
	}
	return st, nil
}

// state is the room's state as far as the reader may know it.
func (rd *reader) state(ctx context.Context) (*state.Map, error) {
	return rd.engine.StateAt(ctx, rd.room, rd.access.Until)
}

// render renders events of the timeline.
func (rd *reader) render(ctx context.Context, events []*rooms.Stored) ([]json.RawMessage, error) {
	return rd.engine.Render(ctx, rd.room, rd.viewer, events, rooms.Format{Bundle: true})
}

// renderState renders events as parts of a state.
func (rd *reader) renderState(ctx context.Context, events []*rooms.Stored) ([]json.RawMessage, error) {
	return rd.engine.Render(ctx, rd.room, rd.viewer, events, rooms.Format{State: true})
}

// point reads a token, absent if the text is empty.
func point(name, text string) (position int64, given bool, err error) {
	if text == "" {
		return 0, false, nil
	}
	if position, err = token.ParsePoint(text); err != nil {
		return 0, false, matrix.InvalidParam("%q is not a token of this server", name).Because(err)
	}
	return position, true, nil
}

// direction reads a dir parameter, which may be absent where there is a default.
func direction(dir, byDefault string) (backwards bool, err error) {
	if dir == "" {
		dir = byDefault
	}
	switch dir {
	case "b", "f":
		return dir == "b", nil
	case "":
		return false, matrix.MissingParam(`"dir" is missing; it is "b" or "f"`)
	}
	return false, matrix.InvalidParam(`"dir" is "b" or "f"`)
}

// The sizes of pages.
const (
	defaultLimit = 10
	maxLimit     = 1000
)

// limited reads a limit parameter.
func limited(limit *int, least, byDefault, most int) (int, error) {
	switch {
	case limit == nil:
		return byDefault, nil
	case *limit < least:
		return 0, matrix.InvalidParam(`"limit" must be at least %d`, least)
	}
	return min(*limit, most), nil
}

// appendList appends an array of what is encoded already.
func appendList(dst []byte, list []json.RawMessage) []byte {
	dst = append(dst, '[')
	for i, v := range list {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(dst, v...)
	}
	return append(dst, ']')
}

// appendToken appends a member whose value is a point.
func appendToken(dst []byte, name string, position int64) []byte {
	dst = append(dst, '"')
	dst = append(dst, name...)
	dst = append(dst, `":"`...)
	dst = token.AppendPoint(dst, position)
	return append(dst, '"')
}

// size is about how long an encoded list is.
func size(list []json.RawMessage) int {
	n := 64
	for _, v := range list {
		n += len(v) + 1
	}
	return n
}
