package fetch

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"time"

	"github.com/teahouse-chat/teahouse/federation/transport"
	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms/event"
)

const (
	stateTime = 2 * time.Minute
	// The largest rooms have some 100,000 state events, and half as many again in
	// the auth chain.
	stateBytes    = 256 << 20
	stateIDsBytes = 16 << 20
	stateEvents   = 300_000

	authTime   = 30 * time.Second
	authBytes  = 32 << 20
	authEvents = 20_000
)

// StateIDs is the state of a room before an event, and what authorises it.
type StateIDs struct {
	State []matrix.EventID
	Auth  []matrix.EventID
}

// State is StateIDs with the events themselves.
type State struct {
	State []*event.Event
	Auth  []*event.Event
}

// StateIDs asks a server for the ids of a room's state before an event.
// spec: server-server#get_matrixfederationv1state_idsroomid
func (c *Client) StateIDs(ctx context.Context, server matrix.ServerName, room Room, at matrix.EventID) (*StateIDs, error) {
	s := &StateIDs{}
	most := stateEvents
	list := func(into *[]matrix.EventID) func(json.RawMessage) error {
		return func(raw json.RawMessage) error {
			var text string
			if most--; most < 0 {
				return errTooMany
			}
			if json.Unmarshal(raw, &text) != nil {
				return nil
			}
			if id, err := matrix.ParseEventID(text); err == nil {
				*into = append(*into, id)
			}
			return nil
		}
	}
	err := c.get(ctx, stateRequest(server, "state_ids", room, at, stateIDsBytes), map[string]func(json.RawMessage) error{
		"pdu_ids": list(&s.State), "auth_chain_ids": list(&s.Auth),
	})
	if err != nil {
		return nil, err
	}
	return s, nil
}

// State asks a server for a room's state before an event. It fails if the answer
// is not whole; of events that do not count there may be less than was given.
// spec: server-server#get_matrixfederationv1stateroomid
func (c *Client) State(ctx context.Context, server matrix.ServerName, room Room, at matrix.EventID) (*State, error) {
	s := &State{}
	r := reading{c: c, budget: budgetOf(ctx), from: server, room: room, most: stateEvents}
	err := c.get(ctx, stateRequest(server, "state", room, at, stateBytes), map[string]func(json.RawMessage) error{
		"pdus": r.list(&s.State), "auth_chain": r.list(&s.Auth),
	})
	if err != nil {
		return nil, err
	}
	if s.State, err = c.verified(ctx, server, s.State); err != nil {
		return nil, err
	}
	s.Auth, err = c.verified(ctx, server, s.Auth)
	return s, err
}

func stateRequest(server matrix.ServerName, what string, room Room, at matrix.EventID, most int64) transport.Request {
	return transport.Request{
		Destination: server, Method: http.MethodGet, Timeout: stateTime, MaxAnswer: most,
		Path:  transport.Path("/_matrix/federation/v1/"+what, string(room.ID)),
		Query: url.Values{"event_id": {string(at)}},
	}
}

// EventAuth asks a server for the events that authorise an event, directly and
// indirectly.
// spec: server-server#get_matrixfederationv1event_authroomideventid
func (c *Client) EventAuth(ctx context.Context, server matrix.ServerName, room Room, id matrix.EventID) ([]*event.Event, error) {
	var events []*event.Event
	r := reading{c: c, budget: budgetOf(ctx), from: server, room: room, most: authEvents}
	err := c.get(ctx, transport.Request{
		Destination: server, Method: http.MethodGet, Timeout: authTime, MaxAnswer: authBytes,
		Path: transport.Path("/_matrix/federation/v1/event_auth", string(room.ID), string(id)),
	}, map[string]func(json.RawMessage) error{"auth_chain": r.list(&events)})
	if err != nil {
		return nil, err
	}
	return c.verified(ctx, server, events)
}
