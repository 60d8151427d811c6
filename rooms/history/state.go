package history

import (
	"context"

	"github.com/teahouse-chat/teahouse/internal/httpx"
	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms"
)

type roomRequest struct {
	RoomID matrix.RoomID `path:"roomId"`
}

// state gives the room's state; to those who left, as it was then.
// spec: client-server#get_matrixclientv3roomsroomidstate
func (a *API) state(ctx context.Context, c *httpx.Caller, q *roomRequest) (*httpx.RawJSON, error) {
	rd, err := a.reader(ctx, c, q.RoomID)
	if err != nil {
		return nil, err
	}
	m, err := rd.state(ctx)
	if err != nil {
		return nil, err
	}
	events, err := a.Engine.StateEvents(ctx, m, nil)
	if err != nil {
		return nil, err
	}
	rendered, err := rd.renderState(ctx, events)
	if err != nil {
		return nil, err
	}
	answer := httpx.RawJSON(appendList(make([]byte, 0, size(rendered)), rendered))
	return &answer, nil
}

type stateRequest struct {
	RoomID matrix.RoomID `path:"roomId"`
	Type   string        `path:"eventType"`
	Format string        `query:"format"`
}

type keyedRequest struct {
	stateRequest
	StateKey string `path:"stateKey"`
}

// plainState gives the state event with the empty key.
func (a *API) plainState(ctx context.Context, c *httpx.Caller, q *stateRequest) (*httpx.RawJSON, error) {
	return a.stateEvent(ctx, c, q, "")
}

// keyedState gives the state event with a key.
func (a *API) keyedState(ctx context.Context, c *httpx.Caller, q *keyedRequest) (*httpx.RawJSON, error) {
	return a.stateEvent(ctx, c, &q.stateRequest, q.StateKey)
}

// stateEvent gives one state event or its content.
// spec: client-server#get_matrixclientv3roomsroomidstateeventtypestatekey
func (a *API) stateEvent(ctx context.Context, c *httpx.Caller, q *stateRequest, key string) (*httpx.RawJSON, error) {
	if q.Format != "" && q.Format != "content" && q.Format != "event" {
		return nil, matrix.InvalidParam(`"format" is "content" or "event"`)
	}
	rd, err := a.reader(ctx, c, q.RoomID)
	if err != nil {
		return nil, err
	}
	m, err := rd.state(ctx)
	if err != nil {
		return nil, err
	}
	st, err := a.Engine.StateEvent(ctx, m, q.Type, key)
	if err != nil {
		return nil, err
	}
	if st == nil {
		return nil, matrix.NotFound("The room has no state event of this type and key")
	}
	if q.Format != "event" {
		answer := httpx.RawJSON(st.Content)
		return &answer, nil
	}
	rendered, err := rd.renderState(ctx, []*rooms.Stored{st})
	if err != nil {
		return nil, err
	}
	answer := httpx.RawJSON(rendered[0])
	return &answer, nil
}
