package history

import (
	"cmp"
	"context"
	"encoding/json"
	"math"
	"slices"

	"github.com/teahouse-chat/teahouse/internal/httpx"
	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms"
	roomstate "github.com/teahouse-chat/teahouse/rooms/state"
	"github.com/teahouse-chat/teahouse/syncapi/token"
)

const (
	relationsDefault = 50
	relationsMax     = 500
	// relationDepth is how far relations of relations are followed, and
	// relationsScanned how many of them in all.
	relationDepth    = 3
	relationsScanned = 10_000
)

type relationsRequest struct {
	RoomID  matrix.RoomID  `path:"roomId"`
	EventID matrix.EventID `path:"eventId"`
	From    string         `query:"from"`
	To      string         `query:"to"`
	Dir     string         `query:"dir"`
	Limit   *int           `query:"limit"`
	Recurse *bool          `query:"recurse"`
}

type typedRelationsRequest struct {
	relationsRequest
	RelType string `path:"relType"`
}

type fullRelationsRequest struct {
	typedRelationsRequest
	EventType string `path:"eventType"`
}

type relationsAnswer struct {
	Chunk     []json.RawMessage `json:"chunk"`
	NextBatch string            `json:"next_batch,omitempty"`
	PrevBatch string            `json:"prev_batch,omitempty"`
	Depth     *int              `json:"recursion_depth,omitempty"`
}

// relations gives the events that relate to one.
// spec: client-server#get_matrixclientv1roomsroomidrelationseventid
func (a *API) relations(ctx context.Context, c *httpx.Caller, q *relationsRequest) (*relationsAnswer, error) {
	return a.related(ctx, c, &fullRelationsRequest{typedRelationsRequest: typedRelationsRequest{relationsRequest: *q}})
}

// typedRelations gives those that relate in one way.
// spec: client-server#get_matrixclientv1roomsroomidrelationseventidreltype
func (a *API) typedRelations(ctx context.Context, c *httpx.Caller, q *typedRelationsRequest) (*relationsAnswer, error) {
	return a.related(ctx, c, &fullRelationsRequest{typedRelationsRequest: *q})
}

// fullRelations gives those that relate in one way and are of one type.
// spec: client-server#get_matrixclientv1roomsroomidrelationseventidreltypeeventtype
func (a *API) fullRelations(ctx context.Context, c *httpx.Caller, q *fullRelationsRequest) (*relationsAnswer, error) {
	return a.related(ctx, c, q)
}

func (a *API) related(ctx context.Context, c *httpx.Caller, q *fullRelationsRequest) (*relationsAnswer, error) {
	backwards, err := direction(q.Dir, "b")
	if err != nil {
		return nil, err
	}
	limit, err := limited(q.Limit, 1, relationsDefault, relationsMax)
	if err != nil {
		return nil, err
	}
	rd, err := a.reader(ctx, c, q.RoomID)
	if err != nil {
		return nil, err
	}
	if _, err := rd.event(ctx, q.EventID); err != nil {
		return nil, err
	}
	s := &children{
		reader: rd, recurse: q.Recurse != nil && *q.Recurse,
		query: rooms.ChildrenQuery{
			Room: rd.room, Targets: []matrix.EventID{q.EventID}, Backwards: backwards,
			After: math.MinInt64, UpTo: rd.access.Until, RelType: q.RelType, Type: q.EventType, Limit: limit + 1,
		},
	}
	if err := s.between(q.From, q.To); err != nil {
		return nil, err
	}
	rows, err := s.list(ctx)
	if err != nil {
		return nil, err
	}
	answer, err := s.page(ctx, rows, limit)
	if err != nil {
		return nil, err
	}
	if answer.PrevBatch = q.From; q.Recurse != nil {
		answer.Depth = &s.depth
	}
	return answer, nil
}

// children looks for the events that relate to one, and to these.
type children struct {
	reader  *reader
	query   rooms.ChildrenQuery
	recurse bool
	depth   int // how far relations were followed
}

// between narrows the search down to what lies between two tokens.
func (s *children) between(from, to string) error {
	q := &s.query
	at, given, err := point("from", from)
	if err != nil {
		return err
	}
	end, bounded, err := point("to", to)
	if err != nil {
		return err
	}
	if q.Backwards {
		at, end, given, bounded = end, at, bounded, given
	}
	if given {
		q.After = at
	}
	if bounded {
		q.UpTo = min(end, q.UpTo)
	}
	return nil
}

// list gives the rows of one page and one more, if there is more.
func (s *children) list(ctx context.Context) ([]rooms.Child, error) {
	if !s.recurse {
		return s.reader.engine.Children(ctx, s.query)
	}
	all, err := s.descend(ctx)
	if err != nil {
		return nil, err
	}
	q := &s.query
	all = slices.DeleteFunc(all, func(c rooms.Child) bool {
		return c.Position <= q.After || c.Position > q.UpTo ||
			q.RelType != "" && c.RelType != q.RelType || q.Type != "" && c.Type != q.Type
	})
	slices.SortFunc(all, func(x, y rooms.Child) int {
		if q.Backwards {
			x, y = y, x
		}
		return cmp.Compare(x.Position, y.Position)
	})
	return all[:min(len(all), q.Limit)], nil
}

// descend follows relations level by level. Each event is passed once, so that
// relations in circles end.
func (s *children) descend(ctx context.Context) ([]rooms.Child, error) {
	var all []rooms.Child
	level := rooms.ChildrenQuery{
		Room: s.query.Room, Targets: s.query.Targets, After: math.MinInt64, UpTo: s.reader.access.Until, Backwards: true,
	}
	passed := map[matrix.EventID]bool{level.Targets[0]: true}
	for s.depth < relationDepth && len(level.Targets) > 0 && len(all) < relationsScanned {
		level.Limit = relationsScanned - len(all)
		found, err := s.reader.engine.Children(ctx, level)
		if err != nil {
			return nil, err
		}
		s.depth++
		level.Targets = nil
		for _, c := range found {
			if !passed[c.ID] {
				passed[c.ID] = true
				all, level.Targets = append(all, c), append(level.Targets, c.ID)
			}
		}
	}
	return all, nil
}

// page renders what the reader may see of the rows.
func (s *children) page(ctx context.Context, rows []rooms.Child, limit int) (*relationsAnswer, error) {
	answer := &relationsAnswer{Chunk: []json.RawMessage{}}
	if len(rows) > limit {
		rows = rows[:limit]
		next := rows[limit-1].Position
		if s.query.Backwards {
			next--
		}
		answer.NextBatch = token.Point(next)
	}
	nids := make([]roomstate.EventNID, len(rows))
	for i, row := range rows {
		nids[i] = row.Event
	}
	events, err := s.reader.engine.Events(ctx, nids)
	if err != nil {
		return nil, err
	}
	if events, err = s.reader.visible(ctx, events); err != nil {
		return nil, err
	}
	answer.Chunk, err = s.reader.render(ctx, events)
	return answer, err
}
