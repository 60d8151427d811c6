package fetch

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/teahouse-chat/teahouse/federation/transport"
	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms/event"
)

const (
	historyTime = 30 * time.Second
	// historyExtra is how many events more than asked for are read of an answer.
	historyExtra = 20
	pageBytes    = 16 << 20
)

// Backfill asks a server for events and those before them, newest first, as many
// as limit. An answer that ends early is used as far as it came.
// spec: server-server#get_matrixfederationv1backfillroomid
func (c *Client) Backfill(ctx context.Context, server matrix.ServerName, room Room, from []matrix.EventID, limit int) ([]*event.Event, error) {
	q := url.Values{"limit": {strconv.Itoa(limit)}}
	for _, id := range from {
		q.Add("v", string(id))
	}
	return c.history(ctx, transport.Request{
		Destination: server, Method: http.MethodGet, Query: q,
		Path: transport.Path("/_matrix/federation/v1/backfill", string(room.ID)),
	}, "pdus", room, limit)
}

// Missing names the events that lie between some that we have and newer ones.
type Missing struct {
	Earliest []matrix.EventID // that we have
	Latest   []matrix.EventID // that came without what is before them
	MinDepth int64
	Limit    int
}

// MissingEvents asks a server for the events that lie between others. An answer
// that ends early is used as far as it came. The error is ErrMalformed, too.
// spec: server-server#post_matrixfederationv1get_missing_eventsroomid
func (c *Client) MissingEvents(ctx context.Context, server matrix.ServerName, room Room, m Missing) ([]*event.Event, error) {
	text, err := json.Marshal(struct {
		Earliest []matrix.EventID `json:"earliest_events"`
		Latest   []matrix.EventID `json:"latest_events"`
		MinDepth int64            `json:"min_depth"`
		Limit    int              `json:"limit"`
	}{append([]matrix.EventID{}, m.Earliest...), append([]matrix.EventID{}, m.Latest...), m.MinDepth, m.Limit})
	if err != nil {
		return nil, err
	}
	return c.history(ctx, transport.Request{
		Destination: server, Method: http.MethodPost, Content: text,
		Path: transport.Path("/_matrix/federation/v1/get_missing_events", string(room.ID)),
	}, "events", room, m.Limit)
}

func (c *Client) history(ctx context.Context, q transport.Request, list string, room Room, limit int) ([]*event.Event, error) {
	q.Timeout, q.MaxAnswer = historyTime, pageBytes
	var events []*event.Event
	r := reading{c: c, budget: budgetOf(ctx), from: q.Destination, room: room, most: limit + historyExtra}
	if err := c.get(ctx, q, map[string]func(json.RawMessage) error{list: r.list(&events)}); err != nil && len(events) == 0 {
		return nil, err
	}
	if len(events) == 0 && r.bad > 0 {
		return nil, ErrMalformed
	}
	return c.verified(ctx, q.Destination, events)
}
