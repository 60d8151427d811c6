package history

import (
	"context"
	"math"
	"slices"

	"github.com/teahouse-chat/teahouse/internal/httpx"
	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms"
)

type timestampRequest struct {
	RoomID matrix.RoomID `path:"roomId"`
	TS     *int64        `query:"ts"`
	Dir    string        `query:"dir"`
}

type timestampAnswer struct {
	EventID   matrix.EventID `json:"event_id"`
	Timestamp int64          `json:"origin_server_ts"`
}

// timestampToEvent finds the event nearest to a time that the reader may see.
// spec: client-server#get_matrixclientv1roomsroomidtimestamp_to_event
func (a *API) timestampToEvent(ctx context.Context, c *httpx.Caller, q *timestampRequest) (*timestampAnswer, error) {
	if q.TS == nil {
		return nil, matrix.MissingParam(`"ts" is missing`)
	}
	backwards, err := direction(q.Dir, "")
	if err != nil {
		return nil, err
	}
	rd, err := a.reader(ctx, c, q.RoomID)
	if err != nil {
		return nil, err
	}
	found, err := rd.near(ctx, *q.TS, backwards)
	if err != nil {
		return nil, err
	}
	if found, err = rd.nearer(ctx, found, *q.TS, backwards); err != nil {
		return nil, err
	}
	if found == nil {
		return nil, matrix.NotFound("There is no event that you may see on that side of %d", *q.TS)
	}
	return &timestampAnswer{found.ID, found.OriginServerTS}, nil
}

// near finds the event among those that are here; nil if there is none.
func (rd *reader) near(ctx context.Context, ts int64, backwards bool) (*rooms.Stored, error) {
	position := int64(math.MinInt64)
	if backwards {
		position = math.MaxInt64
	}
	for scanned, page := 0, 1; scanned < maxScanned; page = scanPage {
		events, err := rd.engine.EventsByTime(ctx, rd.room, ts, position, backwards, page)
		if err != nil {
			return nil, err
		}
		if len(events) == 0 {
			break
		}
		last := events[len(events)-1]
		ts, position, scanned = last.OriginServerTS, last.Position, scanned+len(events)
		seen, err := rd.visible(ctx, events)
		if err != nil {
			return nil, err
		}
		if len(seen) > 0 {
			return seen[0], nil
		}
	}
	return nil, nil
}

// nearer asks other servers where this one has a gap in the room's history at that
// time: behind the first event after it, or if there is none.
func (rd *reader) nearer(ctx context.Context, found *rooms.Stored, ts int64, backwards bool) (*rooms.Stored, error) {
	if rd.remote == nil {
		return found, nil
	}
	gaps, err := rd.engine.Backward(ctx, rd.room)
	if err != nil || len(gaps) == 0 {
		return found, err
	}
	after, err := rd.engine.EventsByTime(ctx, rd.room, ts, math.MinInt64, false, 1)
	if err != nil || len(after) > 0 && !slices.ContainsFunc(gaps, func(g rooms.Gap) bool { return g.By.NID == after[0].NID }) {
		return found, err
	}
	told, err := rd.remote.EventNear(ctx, rd.room, ts, backwards)
	if err != nil || told == nil || found != nil && distance(told, ts) >= distance(found, ts) {
		return found, err
	}
	seen, err := rd.visible(ctx, []*rooms.Stored{told})
	if err != nil || len(seen) == 0 {
		return found, err
	}
	return told, nil
}

func distance(st *rooms.Stored, ts int64) int64 {
	return max(st.OriginServerTS-ts, ts-st.OriginServerTS)
}
