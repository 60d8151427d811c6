package history

import (
	"context"
	"math"

	"github.com/teahouse-chat/teahouse/internal/httpx"
	"github.com/teahouse-chat/teahouse/internal/matrix"
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
	ts, position := *q.TS, int64(math.MinInt64)
	if backwards {
		position = math.MaxInt64
	}
	for scanned, page := 0, 1; scanned < maxScanned; page = scanPage {
		events, err := a.Engine.EventsByTime(ctx, rd.room, ts, position, backwards, page)
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
			return &timestampAnswer{seen[0].ID, seen[0].OriginServerTS}, nil
		}
	}
	return nil, matrix.NotFound("There is no event that you may see on that side of %d", *q.TS)
}
