package answers

import (
	"context"

	"github.com/teahouse-chat/teahouse/federation/acl"
	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms"
	"github.com/teahouse-chat/teahouse/rooms/event"
)

var errOutside = matrix.Forbidden("Your server is not in the room")

// room is a room that a server may ask about: it has members there and is not
// banned. 403 M_FORBIDDEN otherwise, whether there is such a room or not.
func (a *Answers) room(ctx context.Context, origin matrix.ServerName, id matrix.RoomID) (*rooms.Room, error) {
	r, err := a.Engine.Room(ctx, id)
	if matrix.HasCode(err, matrix.CodeNotFound) {
		return nil, errOutside.Because(err)
	}
	if err != nil {
		return nil, err
	}
	return r, a.admit(ctx, origin, r)
}

func (a *Answers) admit(ctx context.Context, origin matrix.ServerName, r *rooms.Room) error {
	if !r.HasServer(origin) {
		return errOutside
	}
	return acl.Check(ctx, a.Engine, r, origin)
}

// find is an event of a room, be it known as an outlier only; 404 M_NOT_FOUND.
func (a *Answers) find(ctx context.Context, r *rooms.Room, id matrix.EventID) (*rooms.Stored, error) {
	known, err := a.Engine.Known(ctx, []matrix.EventID{id})
	if err != nil {
		return nil, err
	}
	if st := known[id]; st != nil && st.Room == r.NID && st.Given() {
		return st, nil
	}
	return nil, matrix.NotFound("There is no event %s in the room", id)
}

// reader is a server that reads a room that it is in.
type reader struct {
	*Answers
	room   *rooms.Room
	origin matrix.ServerName
	// open tells, for events whose place in the history is not known, whether the
	// room's history is open to its members now.
	open bool
}

func (a *Answers) reader(ctx context.Context, origin matrix.ServerName, r *rooms.Room) (*reader, error) {
	visibility, err := a.Engine.HistoryVisibility(ctx, r.View().State)
	open := visibility == matrix.VisibilityShared || visibility == matrix.VisibilityWorldReadable
	return &reader{a, r, origin, open}, err
}

// sees tells of each event whether the server may be given it whole. The current
// state is every member's.
// spec: client-server#room-history-visibility
func (rd *reader) sees(ctx context.Context, events []*rooms.Stored) ([]bool, error) {
	visible, err := rd.Engine.VisibleTo(ctx, rd.room, rd.origin, events)
	if err != nil {
		return nil, err
	}
	state := rd.room.View().State
	for i, st := range events {
		if visible[i] {
			continue
		}
		now, _ := state.Get(st.Key)
		visible[i] = st.IsState() && now == st.NID || rd.open && st.Flags&rooms.Outlier != 0
	}
	return visible, nil
}

// shown gives events as the server may have them: what it may not see is
// redacted.
func (rd *reader) shown(ctx context.Context, stored []*rooms.Stored) ([]*event.Event, error) {
	visible, err := rd.sees(ctx, stored)
	if err != nil {
		return nil, err
	}
	events := make([]*event.Event, len(stored))
	for i, st := range stored {
		events[i] = st.Event
		if !visible[i] {
			events[i] = st.Redact()
		}
	}
	return events, nil
}
