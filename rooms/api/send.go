package api

import (
	"context"
	"encoding/json"
	"hash/fnv"
	"io"

	"github.com/teahouse-chat/teahouse/internal/httpx"
	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms"
)

type sendRequest struct {
	RoomID    matrix.RoomID   `path:"roomId"`
	Type      string          `path:"eventType"`
	TxnID     string          `path:"txnId"`
	Timestamp *int64          `query:"ts"`
	Body      json.RawMessage `body:"raw"`
}

type eventAnswer struct {
	EventID matrix.EventID `json:"event_id"`
}

// send sends a message event.
// spec: client-server#put_matrixclientv3roomsroomidsendeventtypetxnid
func (a *API) send(ctx context.Context, c *httpx.Caller, q *sendRequest) (*eventAnswer, error) {
	if err := checkTxnID(q.TxnID); err != nil {
		return nil, err
	}
	p := rooms.Proto{Type: q.Type, Content: q.Body, Timestamp: massaged(c, q.Timestamp)}
	switch q.Type {
	case matrix.TypeRedaction:
		var content struct {
			Redacts matrix.EventID `json:"redacts"`
		}
		if err := json.Unmarshal(q.Body, &content); err != nil || content.Redacts == "" {
			return nil, matrix.BadJSON("A redaction needs the event_id of an event in redacts")
		}
		p.Redacts = content.Redacts
	default:
		if err := a.checkRelation(ctx, c, q); err != nil {
			return nil, err
		}
	}
	return a.sendOnce(ctx, c, q.RoomID, p, q.txn(c))
}

// txn identifies the request among those of the device.
func (q *sendRequest) txn(c *httpx.Caller) rooms.TxnKey {
	return rooms.TxnKey{User: c.User, Device: c.Device, Path: pathHash("send", string(q.RoomID), q.Type), ID: q.TxnID}
}

// pathHash tells apart the requests in which a device may use the same
// transaction id.
func pathHash(segments ...string) int64 {
	h := fnv.New64a()
	for _, s := range segments {
		_, _ = io.WriteString(h, s) // a hash takes everything
		_, _ = h.Write([]byte{0})
	}
	return int64(h.Sum64())
}

// sendOnce sends an event that a device may ask for again.
func (a *API) sendOnce(ctx context.Context, c *httpx.Caller, room matrix.RoomID, p rooms.Proto, txn rooms.TxnKey) (*eventAnswer, error) {
	txn.Answered = ctx.Done()
	st, err := a.Engine.Send(ctx, room, c.User, p, &txn)
	if err != nil {
		return nil, err
	}
	return &eventAnswer{st.ID}, nil
}

type stateRequest struct {
	RoomID    matrix.RoomID   `path:"roomId"`
	Type      string          `path:"eventType"`
	Timestamp *int64          `query:"ts"`
	Body      json.RawMessage `body:"raw"`
}

type keyedStateRequest struct {
	stateRequest
	StateKey string `path:"stateKey"`
}

// putKeyedState sets a state event that has a state key.
func (a *API) putKeyedState(ctx context.Context, c *httpx.Caller, q *keyedStateRequest) (*eventAnswer, error) {
	return a.setState(ctx, c, &q.stateRequest, q.StateKey)
}

// putState sets the state event with the empty state key.
func (a *API) putState(ctx context.Context, c *httpx.Caller, q *stateRequest) (*eventAnswer, error) {
	return a.setState(ctx, c, q, "")
}

// setState sets a state event. Setting what is there already changes nothing and
// answers with the event that is there.
// spec: client-server#put_matrixclientv3roomsroomidstateeventtypestatekey
func (a *API) setState(ctx context.Context, c *httpx.Caller, q *stateRequest, key string) (*eventAnswer, error) {
	if q.Type == matrix.TypeCanonicalAlias && key == "" {
		if err := a.checkCanonicalAlias(ctx, q); err != nil {
			return nil, err
		}
	}
	switch q.Type {
	case matrix.TypeCreate:
		return nil, matrix.NewError(400, matrix.CodeBadState, "A room has one create event, which was sent when it was made")
	case matrix.TypeMember:
		if answer, err := a.setMember(ctx, c, q, key); answer != nil || err != nil {
			return answer, err
		}
	}
	p := rooms.Proto{Type: q.Type, StateKey: &key, Content: q.Body, Timestamp: massaged(c, q.Timestamp)}
	var there *rooms.Stored
	events, err := a.Engine.Update(ctx, q.RoomID, c.User, func(b *rooms.Builder) error {
		var err error
		if there, err = b.Same(p); there != nil || err != nil {
			return err
		}
		_, err = b.Append(p)
		return err
	})
	if err != nil {
		return nil, err
	}
	if there == nil {
		there = events[0]
	}
	return &eventAnswer{there.ID}, nil
}

// checkCanonicalAlias refuses aliases that do not point to the room, unless the
// room has listed them before.
// spec: client-server#mroomcanonical_alias
func (a *API) checkCanonicalAlias(ctx context.Context, q *stateRequest) error {
	type aliases struct {
		Alias *matrix.RoomAlias  `json:"alias"`
		Alt   []matrix.RoomAlias `json:"alt_aliases"`
	}
	var next, now aliases
	if err := json.Unmarshal(q.Body, &next); err != nil {
		return matrix.BadJSON("alias must be a text and alt_aliases a list of texts")
	}
	r, err := a.Engine.Room(ctx, q.RoomID)
	if err != nil {
		return err
	}
	st, err := a.Engine.StateEvent(ctx, r.View().State, matrix.TypeCanonicalAlias, "")
	if err != nil {
		return err
	}
	listed := map[matrix.RoomAlias]bool{}
	if st != nil && json.Unmarshal(st.Content, &now) == nil {
		for _, alias := range append(now.Alt, deref(now.Alias)) {
			listed[alias] = true
		}
	}
	for _, alias := range append(next.Alt, deref(next.Alias)) {
		if alias == "" || listed[alias] {
			continue
		}
		if _, err := matrix.ParseRoomAlias(string(alias)); err != nil {
			return err
		}
		id, _, err := a.Aliases.Resolve(ctx, alias)
		if err != nil && !matrix.HasCode(err, matrix.CodeNotFound) {
			return err
		}
		if id != q.RoomID {
			return matrix.NewError(400, matrix.CodeBadAlias, "The alias %s does not point to this room", alias)
		}
	}
	return nil
}

type redactRequest struct {
	RoomID  matrix.RoomID  `path:"roomId"`
	EventID matrix.EventID `path:"eventId"`
	TxnID   string         `path:"txnId"`
	Reason  *string        `json:"reason"`
}

// redact takes the content from an event.
// spec: client-server#put_matrixclientv3roomsroomidredacteventidtxnid
func (a *API) redact(ctx context.Context, c *httpx.Caller, q *redactRequest) (*eventAnswer, error) {
	if err := checkTxnID(q.TxnID); err != nil {
		return nil, err
	}
	content := map[string]string{}
	if q.Reason != nil {
		content["reason"] = *q.Reason
	}
	p := rooms.Proto{Type: matrix.TypeRedaction, Content: mustJSON(content), Redacts: q.EventID}
	txn := rooms.TxnKey{User: c.User, Device: c.Device, Path: pathHash("redact", string(q.RoomID), string(q.EventID)), ID: q.TxnID}
	return a.sendOnce(ctx, c, q.RoomID, p, txn)
}

// massaged is the time an event claims; only appservices may set it, also to 0.
// spec: application-service#timestamp-massaging
func massaged(c *httpx.Caller, ts *int64) *int64 {
	if c.Appservice == "" {
		return nil
	}
	return ts
}

func checkTxnID(id string) error {
	if len(id) > matrix.MaxIDBytes {
		return matrix.InvalidParam("The transaction id is longer than %d bytes", matrix.MaxIDBytes)
	}
	return nil
}

func deref(a *matrix.RoomAlias) matrix.RoomAlias {
	if a == nil {
		return ""
	}
	return *a
}
