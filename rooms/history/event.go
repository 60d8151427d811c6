package history

import (
	"context"
	"encoding/json"
	"slices"

	"github.com/teahouse-chat/teahouse/internal/filter"
	"github.com/teahouse-chat/teahouse/internal/httpx"
	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms"
	roomstate "github.com/teahouse-chat/teahouse/rooms/state"
)

type eventRequest struct {
	RoomID  matrix.RoomID  `path:"roomId"`
	EventID matrix.EventID `path:"eventId"`
}

// event gives one event. What the caller may not see is not found.
// spec: client-server#get_matrixclientv3roomsroomideventeventid
func (a *API) event(ctx context.Context, c *httpx.Caller, q *eventRequest) (*httpx.RawJSON, error) {
	rd, err := a.reader(ctx, c, q.RoomID)
	if matrix.HasCode(err, matrix.CodeForbidden) {
		return nil, matrix.NotFound("There is no such event").Because(err)
	}
	if err != nil {
		return nil, err
	}
	st, err := rd.event(ctx, q.EventID)
	if err != nil {
		return nil, err
	}
	events, err := rd.render(ctx, []*rooms.Stored{st})
	if err != nil {
		return nil, err
	}
	answer := httpx.RawJSON(events[0])
	return &answer, nil
}

type eventAloneRequest struct {
	EventID matrix.EventID `path:"eventId"`
}

// eventAlone gives an event to a client that does not name the room.
// spec: client-server#get_matrixclientv3eventseventid
func (a *API) eventAlone(ctx context.Context, c *httpx.Caller, q *eventAloneRequest) (*httpx.RawJSON, error) {
	r, err := a.Engine.RoomOf(ctx, q.EventID)
	if err != nil {
		return nil, err
	}
	return a.event(ctx, c, &eventRequest{r.ID, q.EventID})
}

type contextRequest struct {
	eventRequest
	Limit  *int   `query:"limit"`
	Filter string `query:"filter"`
}

// maxContext bounds the events around one event.
const maxContext = 100

// context gives an event, what was before and after it, and the room's state
// at the end of that.
// spec: client-server#get_matrixclientv3roomsroomidcontexteventid
func (a *API) context(ctx context.Context, c *httpx.Caller, q *contextRequest) (*httpx.RawJSON, error) {
	f, err := filter.Parse(q.Filter)
	if err != nil {
		return nil, err
	}
	limit, err := limited(q.Limit, 0, defaultLimit, maxContext)
	if err != nil {
		return nil, err
	}
	rd, err := a.reader(ctx, c, q.RoomID)
	if err != nil {
		return nil, err
	}
	st, err := rd.event(ctx, q.EventID)
	if err != nil {
		return nil, err
	}
	s := &surroundings{reader: rd, filter: f, event: st}
	if err := s.collect(ctx, limit/2, limit-limit/2); err != nil {
		return nil, err
	}
	return s.answer(ctx)
}

// nothingLeftOut is the filter that picks everything.
var nothingLeftOut = &filter.Events{}

// surroundings are what happened around an event.
type surroundings struct {
	reader        *reader
	filter        *filter.Events
	event         *rooms.Stored
	before, after []*rooms.Stored
	start, end    int64
}

// collect reads around the event. One that has no place in the timeline has
// nothing around it.
func (s *surroundings) collect(ctx context.Context, before, after int) (err error) {
	s.start, s.end = s.event.Position-1, s.event.Position
	if s.event.Position == 0 {
		return nil
	}
	back := s.reader.walk(s.filter, true)
	back.from(s.start)
	if s.before, err = back.take(ctx, before); err != nil {
		return err
	}
	on := s.reader.walk(s.filter, false)
	on.from(s.end)
	if s.after, err = on.take(ctx, after); err != nil {
		return err
	}
	s.start, s.end = back.place, on.place
	return nil
}

func (s *surroundings) answer(ctx context.Context) (*httpx.RawJSON, error) {
	all := slices.Concat(s.before, []*rooms.Stored{s.event}, s.after)
	state, err := s.state(ctx, all)
	if err != nil {
		return nil, err
	}
	rendered, err := s.reader.render(ctx, all)
	if err != nil {
		return nil, err
	}
	out := append(make([]byte, 0, size(rendered)+size(state)), `{"event":`...)
	at := len(s.before)
	out = append(out, rendered[at]...)
	for _, part := range []struct {
		name string
		list []json.RawMessage
	}{{"events_before", rendered[:at]}, {"events_after", rendered[at+1:]}, {"state", state}} {
		out = append(out, `,"`...)
		out = append(out, part.name...)
		out = append(out, `":`...)
		out = appendList(out, part.list)
	}
	out = append(out, ',')
	out = append(appendToken(out, "start", s.start), ',')
	out = appendToken(out, "end", s.end)
	answer := httpx.RawJSON(append(out, '}'))
	return &answer, nil
}

// state renders the room's state at the last event, with all members or only
// those who are heard of.
func (s *surroundings) state(ctx context.Context, events []*rooms.Stored) ([]json.RawMessage, error) {
	rd, last := s.reader, events[len(events)-1]
	m, err := rd.engine.Snapshot(ctx, last.Resolved)
	if err != nil {
		return nil, err
	}
	want := func(k roomstate.KeyNID) bool { return !rooms.MemberKey(k) }
	if !s.filter.LazyMembers {
		want = nil
	}
	state, err := rd.engine.StateEvents(ctx, m, want)
	if err != nil {
		return nil, err
	}
	if s.filter.LazyMembers {
		members, err := rd.engine.MembersAt(ctx, last.Resolved, sendersOf(events))
		if err != nil {
			return nil, err
		}
		state = append(state, members...)
	}
	state = slices.DeleteFunc(state, func(st *rooms.Stored) bool {
		return !s.filter.TakesRoom(st.RoomID) || !s.filter.Takes(st.Type, st.Sender, st.Content)
	})
	return rd.renderState(ctx, state)
}
