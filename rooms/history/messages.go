package history

import (
	"context"
	"math"

	"github.com/teahouse-chat/teahouse/internal/filter"
	"github.com/teahouse-chat/teahouse/internal/httpx"
	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms"
)

type messagesRequest struct {
	RoomID matrix.RoomID `path:"roomId"`
	From   string        `query:"from"`
	To     string        `query:"to"`
	Dir    string        `query:"dir"`
	Limit  *int          `query:"limit"`
	Filter string        `query:"filter"`
}

// messages gives one page of a room's timeline.
// spec: client-server#get_matrixclientv3roomsroomidmessages
func (a *API) messages(ctx context.Context, c *httpx.Caller, q *messagesRequest) (*httpx.RawJSON, error) {
	f, err := filter.Parse(q.Filter)
	if err != nil {
		return nil, err
	}
	if q.Limit == nil {
		q.Limit = f.Limit
	}
	limit, err := limited(q.Limit, 0, defaultLimit, maxLimit)
	if err != nil {
		return nil, err
	}
	rd, err := a.reader(ctx, c, q.RoomID) // first: who has no access learns nothing else
	if err != nil {
		return nil, err
	}
	backwards, err := direction(q.Dir, "")
	if err != nil {
		return nil, err
	}
	w := rd.walk(f, backwards)
	if from, given, err := point("from", q.From); err != nil {
		return nil, err
	} else if given {
		w.from(from)
	}
	to, bounded, err := point("to", q.To)
	if err != nil {
		return nil, err
	}
	if bounded {
		w.to(to)
	}
	events, err := w.take(ctx, limit)
	if err != nil {
		return nil, err
	}
	return w.answer(ctx, q.From, events)
}

// answer encodes a page. It ends where the walk stands, so that also a page of
// nothing but hidden events leads on.
func (w *walk) answer(ctx context.Context, from string, events []*rooms.Stored) (*httpx.RawJSON, error) {
	chunk, err := w.reader.render(ctx, events)
	if err != nil {
		return nil, err
	}
	if w.start == math.MinInt64 {
		w.start = 0
	}
	out := append(make([]byte, 0, size(chunk)), `{"chunk":`...)
	out = append(appendList(out, chunk), ',')
	if from != "" {
		out = append(out, `"start":`...)
		out = appendText(out, from)
	} else {
		out = appendToken(out, "start", w.start)
	}
	if !w.ended || w.gaps.open || !w.backwards && len(events) > 0 { // forwards, more may come
		out = append(out, ',')
		out = appendToken(out, "end", w.place)
	}
	if w.filter.LazyMembers && len(events) > 0 {
		members, err := w.senders(ctx, events)
		if err != nil {
			return nil, err
		}
		out = append(out, `,"state":`...)
		out = appendList(out, members)
	}
	answer := httpx.RawJSON(append(out, '}'))
	return &answer, nil
}
