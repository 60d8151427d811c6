package answers

import (
	"context"
	"encoding/json"

	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms"
	"github.com/teahouse-chat/teahouse/rooms/state"
)

type stateRequest struct {
	RoomID matrix.RoomID  `path:"roomId"`
	Event  matrix.EventID `query:"event_id"`
}

// state gives the state before an event and what authorises it.
// spec: server-server#get_matrixfederationv1stateroomid
func (a *Answers) state(ctx context.Context, origin matrix.ServerName, q *stateRequest) (*lists, error) {
	return a.stateLists(ctx, origin, q, "pdus", "auth_chain", a.readEvents)
}

// stateIDs gives the ids of what state gives.
// spec: server-server#get_matrixfederationv1state_idsroomid
func (a *Answers) stateIDs(ctx context.Context, origin matrix.ServerName, q *stateRequest) (*lists, error) {
	return a.stateLists(ctx, origin, q, "pdu_ids", "auth_chain_ids", a.readIDs)
}

type readElements = func(context.Context, []state.EventNID) ([]json.RawMessage, error)

func (a *Answers) stateLists(ctx context.Context, origin matrix.ServerName, q *stateRequest, pdus, chain string, read readElements) (*lists, error) {
	if q.Event == "" {
		return nil, matrix.MissingParam("event_id is missing")
	}
	r, err := a.room(ctx, origin, q.RoomID)
	if err != nil {
		return nil, err
	}
	leave, err := a.gates.enter(ctx, origin)
	if err != nil {
		return nil, err
	}
	of, auths, err := a.stateAt(ctx, origin, r, q.Event)
	if err != nil {
		leave()
		return nil, err
	}
	return &lists{ctx, []list{{chain, auths}, {pdus, of}}, read, leave}, nil
}

// stateAt is the state before an event that the server can see, and its auth
// chain. Whoever was there at the event knows that state in full.
func (a *Answers) stateAt(ctx context.Context, origin matrix.ServerName, r *rooms.Room, id matrix.EventID) (of, chain []state.EventNID, err error) {
	st, err := a.find(ctx, r, id)
	if err != nil {
		return nil, nil, err
	}
	m, err := a.Engine.StateBefore(ctx, st)
	if err != nil {
		return nil, nil, err
	}
	rd, err := a.reader(ctx, origin, r)
	if err != nil {
		return nil, nil, err
	}
	visible, err := rd.sees(ctx, []*rooms.Stored{st})
	if err != nil {
		return nil, nil, err
	}
	if !visible[0] {
		return nil, nil, matrix.Forbidden("Your server may not see the room at event %s", id)
	}
	of = make([]state.EventNID, 0, m.Len())
	for _, nid := range m.All() {
		of = append(of, nid)
	}
	chain, err = a.Engine.AuthChain(ctx, of)
	return of, chain, err
}

func (a *Answers) readEvents(ctx context.Context, nids []state.EventNID) ([]json.RawMessage, error) {
	events, err := a.Engine.Events(ctx, nids)
	elements := make([]json.RawMessage, len(events))
	for i, st := range events {
		elements[i] = st.JSON
	}
	return elements, err
}

func (a *Answers) readIDs(ctx context.Context, nids []state.EventNID) ([]json.RawMessage, error) {
	ids, err := a.Engine.EventIDs(ctx, nids)
	if err != nil {
		return nil, err
	}
	elements := make([]json.RawMessage, len(ids))
	for i, id := range ids {
		if elements[i], err = json.Marshal(id); err != nil {
			return nil, err
		}
	}
	return elements, nil
}
