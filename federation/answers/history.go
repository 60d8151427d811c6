package answers

import (
	"context"
	"math"
	"slices"

	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms"
)

const (
	// maxBackfill bounds the events of one answer to backfill.
	maxBackfill = 100
	// A gap of 10,000 events is filled by 20 answers of the most events; the cost
	// of one is a few reads, however the events hang together.
	missingDefault = 10
	maxMissing     = 500
	// maxNamed bounds the events that a request may name.
	maxNamed = 1000
)

type backfillRequest struct {
	RoomID matrix.RoomID    `path:"roomId"`
	From   []matrix.EventID `query:"v"`
	Limit  *int             `query:"limit"`
}

// backfill gives events and those before them, the newest first.
// spec: server-server#get_matrixfederationv1backfillroomid
func (a *Answers) backfill(ctx context.Context, origin matrix.ServerName, q *backfillRequest) (*transaction, error) {
	switch {
	case q.Limit == nil:
		return nil, matrix.MissingParam("limit is missing")
	case len(q.From) == 0:
		return nil, matrix.MissingParam("v is missing: name the events to go back from")
	case len(q.From) > maxNamed:
		return nil, matrix.InvalidParam("v names more than %d events", maxNamed)
	}
	r, err := a.room(ctx, origin, q.RoomID)
	if err != nil {
		return nil, err
	}
	stored, err := a.Engine.Before(ctx, r, q.From, min(max(*q.Limit, 0), maxBackfill))
	if err != nil {
		return nil, err
	}
	rd, err := a.reader(ctx, origin, r)
	if err != nil {
		return nil, err
	}
	events, err := rd.shown(ctx, stored)
	if err != nil {
		return nil, err
	}
	return a.transaction(events[:fitting(events)]), nil
}

type missingRequest struct {
	RoomID   matrix.RoomID    `path:"roomId"`
	Limit    *int             `json:"limit"`
	MinDepth int64            `json:"min_depth"`
	Earliest []matrix.EventID `json:"earliest_events"`
	Latest   []matrix.EventID `json:"latest_events"`
}

// missingEvents gives the events between those that a server has and those that
// it was sent, oldest first. If they don't fit, it gives those next to the latest.
// spec: server-server#post_matrixfederationv1get_missing_eventsroomid
func (a *Answers) missingEvents(ctx context.Context, origin matrix.ServerName, q *missingRequest) (*missing, error) {
	switch {
	case len(q.Latest) == 0:
		return nil, matrix.MissingParam("latest_events is missing: name the events whose previous ones are missing")
	case len(q.Latest) > maxNamed, len(q.Earliest) > maxNamed:
		return nil, matrix.InvalidParam("earliest_events or latest_events names more than %d events", maxNamed)
	}
	limit := missingDefault
	if q.Limit != nil {
		limit = min(max(*q.Limit, 0), maxMissing)
	}
	r, err := a.room(ctx, origin, q.RoomID)
	if err != nil {
		return nil, err
	}
	stored, err := a.Engine.Between(ctx, r, q.Earliest, q.Latest, q.MinDepth, limit)
	if err != nil {
		return nil, err
	}
	rd, err := a.reader(ctx, origin, r)
	if err != nil {
		return nil, err
	}
	events, err := rd.shown(ctx, stored)
	if err != nil {
		return nil, err
	}
	slices.Reverse(events)
	events = events[:fitting(events)]
	slices.Reverse(events)
	return (*missing)(&events), nil
}

type timestampRequest struct {
	RoomID matrix.RoomID `path:"roomId"`
	TS     *int64        `query:"ts"`
	Dir    string        `query:"dir"`
}

type timestampAnswer struct {
	ID matrix.EventID `json:"event_id"`
	TS int64          `json:"origin_server_ts"`
}

const (
	// timePage is how many events are looked at together, and timeScanned how many
	// altogether, where the nearest ones are not for the server.
	timePage    = 100
	timeScanned = 2000
)

// timestampToEvent finds the event nearest to a time that the server may see.
// spec: server-server#get_matrixfederationv1timestamp_to_eventroomid
func (a *Answers) timestampToEvent(ctx context.Context, origin matrix.ServerName, q *timestampRequest) (*timestampAnswer, error) {
	switch {
	case q.TS == nil:
		return nil, matrix.MissingParam("ts is missing")
	case q.Dir != "f" && q.Dir != "b":
		return nil, matrix.InvalidParam("dir must be f or b")
	}
	r, err := a.room(ctx, origin, q.RoomID)
	if err != nil {
		return nil, err
	}
	ts, position, back := *q.TS, int64(math.MinInt64), q.Dir == "b"
	if back {
		position = math.MaxInt64
	}
	for scanned := 0; scanned < timeScanned; {
		events, err := a.Engine.EventsByTime(ctx, r, ts, position, back, timePage)
		if err != nil {
			return nil, err
		}
		if len(events) == 0 {
			break
		}
		if st, err := a.firstVisible(ctx, r, origin, events); err != nil || st != nil {
			return answerTime(st), err
		}
		last := events[len(events)-1]
		ts, position, scanned = last.OriginServerTS, last.Position, scanned+len(events)
	}
	return nil, matrix.NotFound("There is no event that your server may see on that side of %d", *q.TS)
}

func (a *Answers) firstVisible(ctx context.Context, r *rooms.Room, origin matrix.ServerName, events []*rooms.Stored) (*rooms.Stored, error) {
	visible, err := a.Engine.VisibleTo(ctx, r, origin, events)
	if err != nil {
		return nil, err
	}
	if at := slices.Index(visible, true); at >= 0 {
		return events[at], nil
	}
	return nil, nil
}

func answerTime(st *rooms.Stored) *timestampAnswer {
	if st == nil {
		return nil
	}
	return &timestampAnswer{st.ID, st.OriginServerTS}
}
