package syncapi

import (
	"context"
	"encoding/json"
	"slices"
	"time"

	"github.com/teahouse-chat/teahouse/internal/httpx"
	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms"
	"github.com/teahouse-chat/teahouse/rooms/state"
	"github.com/teahouse-chat/teahouse/syncapi/token"
)

// legacyPage is how many events /events and /initialSync give.
const legacyPage = 20

// reader is what somebody may read of a room.
type reader struct {
	rooms.Membership
	room *rooms.Room
	view *rooms.View
	upTo int64 // position
}

// read opens a room for somebody who is in it, was in it, or may look into it
// because everybody may; 403 otherwise.
// spec: client-server#room-previews
func (s *Service) read(ctx context.Context, id matrix.RoomID, user matrix.UserID) (*reader, error) {
	now := s.notifier.stand().position
	refused := matrix.Forbidden("You are not in the room, and it is not open to everybody")
	r, err := s.Rooms.Room(ctx, id)
	if err != nil {
		if matrix.HasCode(err, matrix.CodeNotFound) {
			return nil, refused
		}
		return nil, err
	}
	m, err := s.Rooms.Membership(ctx, r, user)
	if err != nil {
		return nil, err
	}
	p := &reader{Membership: m, room: r, view: r.View(), upTo: max(now, m.Position)}
	if m.Membership == matrix.MembershipJoin {
		return p, nil
	}
	open, err := s.worldReadable(ctx, p.view.State)
	if err != nil || open {
		return p, err
	}
	if m.Membership != matrix.MembershipLeave && m.Membership != matrix.MembershipBan || m.Forgotten {
		return nil, refused
	}
	was, err := s.membershipAt(ctx, &roomDelta{Membership: m, room: r, view: p.view}, user, m.Position-1)
	if err != nil {
		return nil, err
	}
	if was != matrix.MembershipJoin {
		return nil, refused
	}
	p.upTo = m.Position
	return p, nil
}

func (s *Service) worldReadable(ctx context.Context, m *state.Map) (bool, error) {
	st, err := s.Rooms.StateEvent(ctx, m, matrix.TypeHistoryVisibility, "")
	if err != nil || st == nil {
		return false, err
	}
	var content struct {
		Visibility string `json:"history_visibility"`
	}
	return json.Unmarshal(st.Content, &content) == nil && content.Visibility == matrix.VisibilityWorldReadable, nil
}

type roomInitialSyncRequest struct {
	Room  matrix.RoomID `path:"roomId"`
	Limit *int          `query:"limit"`
}

// getRoomInitialSync is what a client shows a room with that it looks into.
// spec: client-server#get_matrixclientv3roomsroomidinitialsync
func (s *Service) getRoomInitialSync(ctx context.Context, c *httpx.Caller, q *roomInitialSyncRequest) (*roomInfo, error) {
	p, err := s.read(ctx, q.Room, c.User)
	if err != nil {
		return nil, err
	}
	data, err := s.Data.All(ctx, c.User)
	if err != nil {
		return nil, err
	}
	return s.roomInfo(ctx, c, p, s.pageSize(q.Limit), data)
}

func (s *Service) pageSize(limit *int) int {
	if limit == nil {
		return legacyPage
	}
	return min(max(*limit, 0), s.MaxTimeline)
}

// roomInfo is a room as /initialSync has it.
type roomInfo struct {
	Room        matrix.RoomID     `json:"room_id"`
	Membership  string            `json:"membership,omitempty"`
	Invite      json.RawMessage   `json:"invite,omitempty"`
	Messages    *messages         `json:"messages,omitempty"`
	State       []json.RawMessage `json:"state,omitempty"`
	AccountData []json.RawMessage `json:"account_data"`
	Receipts    []json.RawMessage `json:"receipts,omitempty"`
	Presence    []json.RawMessage `json:"presence"`
}

// messages is a stretch of a timeline, oldest first. End can be listened from.
type messages struct {
	Start string            `json:"start"`
	End   string            `json:"end"`
	Chunk []json.RawMessage `json:"chunk"`
}

func (s *Service) roomInfo(ctx context.Context, c *httpx.Caller, p *reader, limit int, data []Datum) (*roomInfo, error) {
	info := &roomInfo{
		Room: p.room.ID, Membership: p.Membership.Membership,
		AccountData: []json.RawMessage{}, Presence: []json.RawMessage{},
	}
	for _, e := range data {
		if e.Room == p.room.ID {
			info.AccountData = append(info.AccountData, typedEvent(e.Type, e.Content))
		}
	}
	w, err := s.windowOf(ctx, c.User, &everything.Room.Timeline)
	if err != nil {
		return nil, err
	}
	w.limit = limit
	m := p.Membership
	m.Room = p.room.NID
	t, err := s.stretch(ctx, c.User, &roomDelta{Membership: m, room: p.room, view: p.view}, p.upTo, &w)
	if err != nil {
		return nil, err
	}
	at, err := s.stateAt(ctx, p.room, p.view, p.upTo)
	if err != nil {
		return nil, err
	}
	events, err := s.Rooms.StateEvents(ctx, at, nil)
	if err != nil {
		return nil, err
	}
	viewer := rooms.Viewer{User: c.User, Device: c.Device, Ignores: w.ignored}
	if info.State, err = s.Rooms.Render(ctx, p.room, viewer, events, rooms.Format{}); err != nil {
		return nil, err
	}
	info.Messages = &messages{Start: token.Point(t.start), End: s.listenFrom(p.upTo)}
	if info.Messages.Chunk, err = s.Rooms.Render(ctx, p.room, viewer, t.events, rooms.Format{Bundle: true}); err != nil {
		return nil, err
	}
	if p.Membership.Membership == matrix.MembershipJoin {
		list, err := s.receipts.since(ctx, c.User, []rooms.RoomNID{p.room.NID}, 0, p.upTo)
		if err != nil {
			return nil, err
		}
		info.Receipts = renderReceipts(list[p.room.NID])
	}
	return info, nil
}

// listenFrom is the token of a stream position for /events.
func (s *Service) listenFrom(position int64) string {
	return token.Sync{Position: position, Epoch: s.epoch, Ephemeral: s.notifier.stand().ephemeral, Device: position}.String()
}

type eventsRequest struct {
	Room    matrix.RoomID `query:"room_id"`
	From    string        `query:"from"`
	Timeout *int64        `query:"timeout"` // ms
}

// eventsDefaultWait is how long /events waits unless it is told.
const eventsDefaultWait = 30 * time.Second

// getEvents listens the way that was before /sync, or to one room, whether or
// not the user is in it.
// spec: client-server#peeking_get_matrixclientv3events
func (s *Service) getEvents(ctx context.Context, c *httpx.Caller, q *eventsRequest) (*messages, error) {
	if q.Room == "" && c.Guest {
		return nil, matrix.NewError(403, matrix.CodeGuestAccessForbidden, "Guests listen to one room: name it as room_id")
	}
	from := s.notifier.stand().position
	if q.From != "" {
		at, err := token.ParsePoint(q.From)
		if err != nil {
			return nil, matrix.InvalidParam("%q is not a token to listen from", q.From)
		}
		from = min(from, at)
	}
	wait := eventsDefaultWait
	if q.Timeout != nil {
		wait = s.waitFor(*q.Timeout)
	}
	look := func() ([]*rooms.Stored, int64, error) { return s.roomEvents(ctx, c.User, q.Room, from) }
	var w *waiter
	if q.Room == "" {
		rec, entered, err := s.notifier.enter(ctx, c.User, c.Device)
		if err != nil {
			return nil, err
		}
		defer s.notifier.leave(rec, entered)
		w = entered
		look = func() ([]*rooms.Stored, int64, error) { return s.allEvents(ctx, rec, from) }
	} else {
		p, err := s.read(ctx, q.Room, c.User)
		if err != nil {
			return nil, err
		}
		w = s.notifier.peek(p.room.NID, c.User, c.Device)
		defer s.notifier.unpeek(p.room.NID, w)
	}
	if s.Sessions != nil && !s.Sessions.Live(ctx, c.User, c.Device, c.Token) {
		return nil, matrix.UnknownToken(false)
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	for {
		events, upTo, err := look()
		if err != nil {
			return nil, err
		}
		if len(events) > 0 {
			return s.messages(ctx, c, from, upTo, events)
		}
		select {
		case <-w.wake:
			if s.notifier.over(w) {
				return nil, matrix.UnknownToken(false)
			}
		case <-timer.C:
			return s.messages(ctx, c, from, upTo, nil)
		case <-httpx.Draining(ctx):
			return s.messages(ctx, c, from, upTo, nil)
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// roomEvents lists the next events of one room above a position, as far as the
// user may see them, and up to where they reach.
func (s *Service) roomEvents(ctx context.Context, user matrix.UserID, id matrix.RoomID, from int64) ([]*rooms.Stored, int64, error) {
	p, err := s.read(ctx, id, user)
	if err != nil {
		return nil, 0, err
	}
	for from < p.upTo {
		page, err := s.Rooms.Timeline(ctx, rooms.TimelineQuery{Room: p.room, From: from, To: p.upTo, Limit: legacyPage})
		if err != nil || len(page) == 0 {
			return nil, p.upTo, err
		}
		from = page[len(page)-1].Position
		visible, err := s.Rooms.Visible(ctx, p.room, user, page)
		if err != nil || len(visible) > 0 {
			return visible, from, err
		}
	}
	return nil, max(from, p.upTo), nil
}

// allEvents lists the next events of all the user's rooms.
func (s *Service) allEvents(ctx context.Context, rec *record, from int64) ([]*rooms.Stored, int64, error) {
	d, err := s.deltaFor(ctx, rec, stand{position: from, ephemeral: maxPosition}, false, false)
	if err != nil {
		return nil, 0, err
	}
	upTo := d.upTo.position
	var all []*rooms.Stored
	for _, rd := range slices.Concat(d.joined, d.left) {
		to := d.upTo.position
		if rd.Membership.Membership != matrix.MembershipJoin {
			to = rd.Position
		}
		page, err := s.Rooms.Timeline(ctx, rooms.TimelineQuery{Room: rd.room, From: from, To: to, Limit: legacyPage})
		if err != nil {
			return nil, 0, err
		}
		if len(page) == legacyPage { // there may be more of this room
			upTo = min(upTo, page[len(page)-1].Position)
		}
		visible, err := s.Rooms.Visible(ctx, rd.room, rec.user, page)
		if err != nil {
			return nil, 0, err
		}
		all = append(all, withOwn(visible, page, rd.Event)...)
	}
	all = slices.DeleteFunc(all, func(ev *rooms.Stored) bool { return ev.Position > upTo })
	slices.SortFunc(all, func(a, b *rooms.Stored) int { return compare(a.Position, b.Position) })
	return all, upTo, nil
}

// messages renders events of any rooms, in their order.
func (s *Service) messages(ctx context.Context, c *httpx.Caller, from, upTo int64, events []*rooms.Stored) (*messages, error) {
	m := &messages{Start: s.listenFrom(from), End: s.listenFrom(upTo), Chunk: []json.RawMessage{}}
	viewer := rooms.Viewer{User: c.User, Device: c.Device}
	for _, ev := range events {
		r, err := s.Rooms.RoomByNID(ctx, ev.Room)
		if err != nil {
			return nil, err
		}
		rendered, err := s.Rooms.Render(ctx, r, viewer, []*rooms.Stored{ev}, rooms.Format{})
		if err != nil {
			return nil, err
		}
		m.Chunk = append(m.Chunk, rendered...)
	}
	return m, nil
}
