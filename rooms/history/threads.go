package history

import (
	"context"
	"encoding/json"
	"math"

	"github.com/teahouse-chat/teahouse/internal/httpx"
	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms"
	"github.com/teahouse-chat/teahouse/syncapi/token"
)

const (
	threadsDefault = 20
	threadsMax     = 100
	threadsScanned = 1000 // in one request
)

type threadsRequest struct {
	RoomID  matrix.RoomID `path:"roomId"`
	From    string        `query:"from"`
	Limit   *int          `query:"limit"`
	Include string        `query:"include"`
}

type threadsAnswer struct {
	Chunk     []json.RawMessage `json:"chunk"`
	NextBatch string            `json:"next_batch,omitempty"`
}

// threads lists the roots of the room's threads by their latest reply.
// spec: client-server#get_matrixclientv1roomsroomidthreads
func (a *API) threads(ctx context.Context, c *httpx.Caller, q *threadsRequest) (*threadsAnswer, error) {
	if q.Include != "" && q.Include != "all" && q.Include != "participated" {
		return nil, matrix.InvalidParam(`"include" is "all" or "participated"`)
	}
	limit, err := limited(q.Limit, 1, threadsDefault, threadsMax)
	if err != nil {
		return nil, err
	}
	from, given, err := point("from", q.From)
	if err != nil {
		return nil, err
	}
	rd, err := a.reader(ctx, c, q.RoomID)
	if err != nil {
		return nil, err
	}
	if !given {
		from = math.MaxInt64 - 1
	}
	s := &threadSearch{reader: rd, place: min(from, rd.access.Until, math.MaxInt64-1), own: q.Include == "participated"}
	roots, err := s.take(ctx, limit)
	if err != nil {
		return nil, err
	}
	answer := &threadsAnswer{}
	if !s.ended {
		answer.NextBatch = token.Point(s.place)
	}
	answer.Chunk, err = rd.render(ctx, roots)
	return answer, err
}

// threadSearch walks back through a room's threads.
type threadSearch struct {
	reader *reader
	own    bool // only threads that the reader has written in
	place  int64
	ended  bool
}

func (s *threadSearch) take(ctx context.Context, limit int) ([]*rooms.Stored, error) {
	var taken []*rooms.Stored
	for scanned := 0; len(taken) < limit && scanned < threadsScanned && !s.ended; {
		threads, err := s.reader.engine.ThreadsBefore(ctx, s.reader.room, s.place+1, limit+1)
		if err != nil {
			return nil, err
		}
		s.ended = len(threads) <= limit
		threads = threads[:min(len(threads), limit)]
		scanned += len(threads)
		roots, err := s.roots(ctx, threads)
		if err != nil {
			return nil, err
		}
		for _, t := range threads {
			if root := roots[t.Root]; root != nil {
				if len(taken) == limit {
					s.ended = false
					return taken, nil
				}
				taken = append(taken, root)
			}
			s.place = t.Position - 1
		}
	}
	return taken, nil
}

// roots are the threads' first events, as far as the reader may see them and
// asked for them.
func (s *threadSearch) roots(ctx context.Context, threads []rooms.Thread) (map[matrix.EventID]*rooms.Stored, error) {
	ids := make([]matrix.EventID, len(threads))
	for i, t := range threads {
		ids[i] = t.Root
	}
	rd := s.reader
	events, err := rd.engine.EventsByID(ctx, rd.room, ids)
	if err != nil {
		return nil, err
	}
	if events, err = rd.engine.Visible(ctx, rd.room, rd.viewer.User, events); err != nil {
		return nil, err
	}
	var joined map[matrix.EventID]bool
	if s.own {
		if joined, err = rd.engine.ThreadsJoined(ctx, rd.room, rd.viewer.User, ids); err != nil {
			return nil, err
		}
	}
	roots := make(map[matrix.EventID]*rooms.Stored, len(events))
	for _, st := range events {
		if s.own && !joined[st.ID] && st.Sender != rd.viewer.User {
			continue
		}
		if rd.ignores(st) {
			// What an ignored user said is not shown, but the thread is.
			hidden := *st
			hidden.Event = st.Event.Redact()
			st = &hidden
		}
		roots[st.ID] = st
	}
	return roots, nil
}
