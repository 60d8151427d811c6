package push

import (
	"context"
	"encoding/json"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/teahouse-chat/teahouse/internal/db"
	"github.com/teahouse-chat/teahouse/internal/httpx"
	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms"
	"github.com/teahouse-chat/teahouse/rooms/state"
)

const (
	// notificationsKept is how far back notifications are listed.
	notificationsKept = 30 * 24 * time.Hour
	// scanBudget is how many events one request may have looked at.
	scanBudget          = 2_000
	defaultNotification = 20
	maxNotifications    = 100
)

type notificationsRequest struct {
	From  string `query:"from"`
	Limit *int   `query:"limit"`
	Only  string `query:"only"`
}

type notificationsAnswer struct {
	Next string             `json:"next_token,omitempty"`
	List []notificationItem `json:"notifications"`
}

type notificationItem struct {
	Actions []Action        `json:"actions"`
	Event   json.RawMessage `json:"event"`
	Read    bool            `json:"read"`
	RoomID  matrix.RoomID   `json:"room_id"`
	TS      int64           `json:"ts"`
}

func (p *Push) notificationsRoute() httpx.Route {
	return httpx.JSON(http.MethodGet, "/_matrix/client/v3/notifications", p.getNotifications, httpx.Limit("search"))
}

// getNotifications lists what the user was notified of, or would have been under
// the rules of now. Nothing is kept for it but which events stood out.
// spec: client-server#get_matrixclientv3notifications
func (p *Push) getNotifications(ctx context.Context, c *httpx.Caller, q *notificationsRequest) (*notificationsAnswer, error) {
	what := scan{limit: defaultNotification, budget: scanBudget}
	if q.From != "" {
		var err error
		if what.below, err = strconv.ParseInt(q.From, 10, 64); err != nil || what.below <= 0 {
			return nil, matrix.InvalidParam(`"from" must be the next_token of an earlier answer`)
		}
	}
	if q.Limit != nil {
		if *q.Limit < 1 {
			return nil, matrix.InvalidParam(`"limit" must be at least 1`)
		}
		what.limit = min(*q.Limit, maxNotifications)
	}
	if err := p.Wait(ctx, p.DB.Position()); err != nil {
		return nil, err
	}
	find := p.notified
	if q.Only == "highlight" {
		find = p.standOut
	}
	list, next, err := find(ctx, c.User, what)
	if err != nil {
		return nil, err
	}
	a := &notificationsAnswer{List: make([]notificationItem, 0, len(list))}
	if next > 0 {
		a.Next = strconv.FormatInt(next, 10)
	}
	var in []rooms.RoomNID
	for _, n := range list {
		in = append(in, n.room.NID)
	}
	read, err := p.Reading.Standings(ctx, c.User, in)
	if err != nil {
		return nil, err
	}
	for _, n := range list {
		rendered, err := p.Rooms.Render(ctx, n.room, rooms.Viewer{User: c.User, Device: c.Device}, []*rooms.Stored{n.event}, rooms.Format{OmitRoomID: true})
		if err != nil {
			return nil, err
		}
		s := read[n.room.NID]
		a.List = append(a.List, notificationItem{
			Actions: n.result.Actions, Event: rendered[0], RoomID: n.room.ID, TS: n.event.OriginServerTS,
			Read: s != nil && s.Read(n.event.Thread, n.event.Position),
		})
	}
	return a, nil
}

// scan says which notifications are looked for.
type scan struct {
	above, below int64 // positions; 0: no bound
	limit        int
	budget       int // of events that are looked at
}

// notification is an event that notifies a user.
type notification struct {
	room   *rooms.Room
	event  *rooms.Stored
	result Result
}

// reader looks through the events of one room, newest first.
type reader struct {
	room   *rooms.Room
	above  int64 // where to stop
	next   int64 // position of the next event, or one above it
	events []*rooms.Stored
}

// person is a user's rules and whom they ignore.
func (p *Push) person(ctx context.Context, user matrix.UserID) (*person, error) {
	shelf, err := p.books.one(ctx, user)
	if err != nil {
		return nil, err
	}
	ignored, err := p.People.Ignored(ctx, []matrix.UserID{user})
	if err != nil {
		return nil, err
	}
	return &person{shelf.rules, ignored[user]}, nil
}

// notified finds the newest events that notify a user, newest first, and from
// where to go on; 0 if there are no more.
func (p *Push) notified(ctx context.Context, user matrix.UserID, q scan) ([]notification, int64, error) {
	who, err := p.person(ctx, user)
	if err != nil {
		return nil, 0, err
	}
	readers, err := p.readers(ctx, user, q)
	if err != nil {
		return nil, 0, err
	}
	var list []notification
	oldest := p.Now().Add(-notificationsKept).UnixMilli()
	for ; q.budget > 0; q.budget-- {
		r, ev, err := p.newest(ctx, readers, oldest)
		if err != nil || ev == nil {
			return list, 0, err
		}
		q.below = ev.Position
		if ev.OriginServerTS < oldest {
			continue
		}
		result, err := p.verdict(ctx, r.room, ev, who)
		if err != nil {
			return nil, 0, err
		}
		if result.Notify && ev.RedactedBy == 0 {
			list = append(list, notification{r.room, ev, result})
		}
		if len(list) == q.limit {
			break
		}
	}
	return list, q.below, nil
}

// verdict is what a user's rules of now say about an event.
func (p *Push) verdict(ctx context.Context, r *rooms.Room, ev *rooms.Stored, who *person) (Result, error) {
	v := r.View()
	in := sight{r, v.State, v.Joined}
	s, failed := p.subject(ctx, in, ev)
	result, err := p.follower.personal(ctx, in, s, who.rules.user, who)
	if err != nil {
		return result, err
	}
	return result, failed()
}

// readers are one for each room that the user is in or invited to.
func (p *Push) readers(ctx context.Context, user matrix.UserID, q scan) ([]*reader, error) {
	memberships, err := p.Rooms.Memberships(ctx, user)
	if err != nil {
		return nil, err
	}
	blocked, err := p.People.BlocksInvites(ctx, user)
	if err != nil {
		return nil, err
	}
	var list []*reader
	for _, m := range memberships {
		invited := m.Membership == matrix.MembershipInvite && !blocked
		if m.Membership != matrix.MembershipJoin && !invited {
			continue
		}
		r, err := p.Rooms.RoomByNID(ctx, m.Room)
		if err != nil {
			return nil, err
		}
		one := &reader{room: r, above: max(q.above, m.Position), next: r.View().Position}
		if invited { // of the room, the invite alone
			one.above, one.next = max(q.above, m.Position-1), m.Position
		}
		if q.below > 0 {
			one.next = min(one.next, q.below-1)
		}
		if one.next > one.above {
			list = append(list, one)
		}
	}
	return list, nil
}

// newest takes the newest event of all readers; nil if there is none. A room of
// which a whole page is older than what is listed is left; the times of single
// events mean less, as their senders make them.
func (p *Push) newest(ctx context.Context, readers []*reader, oldest int64) (*reader, *rooms.Stored, error) {
	for {
		var first *reader
		for _, r := range readers {
			if r.next > r.above && (first == nil || r.next > first.next) {
				first = r
			}
		}
		if first == nil {
			return nil, nil, nil
		}
		if len(first.events) > 0 {
			return first, first.take(), nil
		}
		events, err := p.Rooms.Timeline(ctx, rooms.TimelineQuery{
			Room: first.room, From: first.next + 1, To: first.above, Backwards: true, Limit: page,
		})
		if err != nil {
			return nil, nil, err
		}
		if !slices.ContainsFunc(events, func(ev *rooms.Stored) bool { return ev.OriginServerTS >= oldest }) {
			first.next = first.above
			continue
		}
		first.events, first.next = events, events[0].Position
	}
}

// take takes the next event of those that were read.
func (r *reader) take() *rooms.Stored {
	ev := r.events[0]
	r.events = r.events[1:]
	r.next = ev.Position - 1
	if len(r.events) > 0 {
		r.next = r.events[0].Position
	}
	return ev
}

// standOut is notified for events that stand out, which are known.
func (p *Push) standOut(ctx context.Context, user matrix.UserID, q scan) ([]notification, int64, error) {
	memberships, err := p.Rooms.Memberships(ctx, user)
	if err != nil {
		return nil, 0, err
	}
	since := map[rooms.RoomNID]int64{}
	var joined []rooms.RoomNID
	for _, m := range memberships {
		if m.Membership == matrix.MembershipJoin {
			since[m.Room] = m.Position
			joined = append(joined, m.Room)
		}
	}
	who, err := p.person(ctx, user)
	if err != nil {
		return nil, 0, err
	}
	rows, more, err := p.highlightsBelow(ctx, user, joined, q)
	if err != nil {
		return nil, 0, err
	}
	var list []notification
	for _, h := range rows {
		if at, ok := since[h.room]; !ok || h.position <= at {
			continue
		}
		r, err := p.Rooms.RoomByNID(ctx, h.room)
		if err != nil {
			return nil, 0, err
		}
		events, err := p.Rooms.Events(ctx, []state.EventNID{h.event})
		if err != nil {
			return nil, 0, err
		}
		result, err := p.verdict(ctx, r, events[0], who)
		if err != nil {
			return nil, 0, err
		}
		if result.Highlight {
			list = append(list, notification{r, events[0], result})
		}
	}
	if !more {
		return list, 0, nil
	}
	return list, rows[len(rows)-1].position, nil
}

// highlightsBelow lists the newest events that stand out to a user, and tells
// whether there are more.
func (p *Push) highlightsBelow(ctx context.Context, user matrix.UserID, in []rooms.RoomNID, q scan) ([]highlightRow, bool, error) {
	if q.below == 0 {
		q.below = p.DB.Position() + 1
	}
	if err := p.ledger.settle(ctx); err != nil {
		return nil, false, err
	}
	oldest := p.Now().Add(-notificationsKept).UnixMilli()
	rows, err := db.All(ctx, p.DB, ownHighlightsBelow, scanHighlight, user, q.below, oldest, q.limit+1)
	if err != nil {
		return nil, false, err
	}
	all, err := db.All(ctx, p.DB, allHighlightsBelow, scanHighlight, in, q.below, oldest, q.limit+1)
	if err != nil {
		return nil, false, err
	}
	rows = append(rows, all...) // own ones first: where there are both, they count
	slices.SortStableFunc(rows, func(a, b highlightRow) int { return int(b.position - a.position) })
	rows = slices.CompactFunc(rows, func(a, b highlightRow) bool { return a.position == b.position })
	if len(rows) > q.limit {
		return rows[:q.limit], true, nil
	}
	return rows, false, nil
}
