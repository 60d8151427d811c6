package answers

import (
	"context"
	"encoding/json"

	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms"
	"github.com/teahouse-chat/teahouse/rooms/event"
	"github.com/teahouse-chat/teahouse/rooms/state"
)

type eventRequest struct {
	ID matrix.EventID `path:"eventId"`
}

// event gives one event. Of one that the server may not see it gives what is left
// by redaction if it is state, since later events rest on that; a message is not
// there.
// spec: server-server#get_matrixfederationv1eventeventid
func (a *Answers) event(ctx context.Context, origin matrix.ServerName, q *eventRequest) (*transaction, error) {
	missing := matrix.NotFound("There is no event %s that your server may see", q.ID)
	known, err := a.Engine.Known(ctx, []matrix.EventID{q.ID})
	if err != nil {
		return nil, err
	}
	st := known[q.ID]
	if st == nil {
		return nil, missing
	}
	r, err := a.Engine.RoomByNID(ctx, st.Room)
	if err != nil {
		return nil, err
	}
	if err := a.admit(ctx, origin, r); err != nil {
		return nil, err
	}
	if !st.Given() {
		return nil, missing
	}
	rd, err := a.reader(ctx, origin, r)
	if err != nil {
		return nil, err
	}
	visible, err := rd.sees(ctx, []*rooms.Stored{st})
	switch {
	case err != nil:
		return nil, err
	case visible[0]:
		return a.transaction([]*event.Event{st.Event}), nil
	case st.IsState():
		return a.transaction([]*event.Event{st.Redact()}), nil
	}
	return nil, missing
}

type eventAuthRequest struct {
	RoomID matrix.RoomID  `path:"roomId"`
	ID     matrix.EventID `path:"eventId"`
}

// eventAuth gives the auth chain of an event.
// spec: server-server#get_matrixfederationv1event_authroomideventid
func (a *Answers) eventAuth(ctx context.Context, origin matrix.ServerName, q *eventAuthRequest) (*lists, error) {
	r, err := a.room(ctx, origin, q.RoomID)
	if err != nil {
		return nil, err
	}
	st, err := a.find(ctx, r, q.ID)
	if err != nil {
		return nil, err
	}
	leave, err := a.gates.enter(ctx, origin)
	if err != nil {
		return nil, err
	}
	rd, err := a.reader(ctx, origin, r)
	var chain []state.EventNID
	if err == nil {
		chain, err = a.Engine.AuthChain(ctx, []state.EventNID{st.NID})
	}
	if err != nil {
		leave()
		return nil, err
	}
	return &lists{ctx, []list{{"auth_chain", chain}}, rd.readShown, leave}, nil
}

// readShown reads events as the server may have them.
func (rd *reader) readShown(ctx context.Context, nids []state.EventNID) ([]json.RawMessage, error) {
	stored, err := rd.Engine.Events(ctx, nids)
	if err != nil {
		return nil, err
	}
	events, err := rd.shown(ctx, stored)
	if err != nil {
		return nil, err
	}
	elements := make([]json.RawMessage, len(events))
	for i, ev := range events {
		elements[i] = ev.JSON
	}
	return elements, nil
}
