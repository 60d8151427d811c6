package syncapi

import (
	"context"
	"slices"

	"github.com/teahouse-chat/teahouse/internal/filter"
	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms"
	"github.com/teahouse-chat/teahouse/rooms/state"
)

// window is how much of each room's timeline is shown.
type window struct {
	limit   int
	filter  *filter.Events
	ignored map[matrix.UserID]struct{}
}

// stretch is the part of a timeline that is shown.
type stretch struct {
	events  []*rooms.Stored // oldest first
	limited bool            // there are earlier events that the client does not know
	start   int64           // position behind which the first event comes
	senders map[matrix.UserID]struct{}
}

// The slow path is bounded: a filter that picks next to nothing ends in a
// limited timeline, which the client can go back from.
const (
	stretchPage  = 64
	stretchLooks = 320
)

// stretch picks the newest events of the room between the delta's room's from
// (exclusive) and upTo (inclusive). It begins no earlier than at the newest gap:
// what is missing there the client has to ask for.
func (s *Service) stretch(ctx context.Context, user matrix.UserID, rd *roomDelta, upTo int64, w *window) (stretch, error) {
	found := stretch{start: upTo}
	from := rd.from
	if gap := rd.view.Gap; !rd.fresh() && gap > from && gap <= upTo {
		from, found.start, found.limited = gap-1, gap-1, true
	}
	at, looked := upTo, 0
	for len(found.events) <= w.limit {
		page, end, err := s.page(ctx, rd, from, at, max(w.limit+1-len(found.events), 1))
		if err != nil {
			return found, err
		}
		if len(page) == 0 {
			break
		}
		at, looked = page[len(page)-1].Position-1, looked+len(page)
		if page, err = s.pick(ctx, user, rd, w, page); err != nil {
			return found, err
		}
		found.events = append(found.events, page...)
		if end {
			break
		}
		if looked >= stretchLooks && len(found.events) <= w.limit {
			found.limited = true
			break
		}
	}
	if len(found.events) > w.limit {
		found.limited = true
		found.events = found.events[:w.limit]
	}
	if len(found.events) > 0 {
		found.start = found.events[len(found.events)-1].Position - 1
	}
	slices.Reverse(found.events)
	found.senders = make(map[matrix.UserID]struct{}, len(found.events))
	for _, ev := range found.events {
		found.senders[ev.Sender] = struct{}{}
	}
	return found, nil
}

// page reads events backwards from a position (inclusive), newest first; end
// tells that there are no more above from.
func (s *Service) page(ctx context.Context, rd *roomDelta, from, at int64, limit int) (events []*rooms.Stored, end bool, err error) {
	if at <= from && !rd.fresh() {
		return nil, true, nil
	}
	recent := rd.view.Recent
	for i := len(recent) - 1; i >= 0; i-- {
		ev := recent[i]
		switch {
		case ev.Position > at:
		case !rd.fresh() && ev.Position <= from:
			return events, true, nil
		default:
			events = append(events, ev)
			if ev.Is(matrix.TypeCreate, "") {
				return events, true, nil
			}
			if len(events) == limit {
				return events, false, nil
			}
		}
	}
	if !rd.fresh() && from >= rd.view.RecentFrom {
		return events, true, nil
	}
	if len(events) > 0 {
		return events, false, nil
	}
	events, err = s.Rooms.Timeline(ctx, rooms.TimelineQuery{Room: rd.room, From: at + 1, To: from, Backwards: true, Limit: max(limit, stretchPage)})
	return events, len(events) == 0 || events[len(events)-1].Is(matrix.TypeCreate, ""), err
}

// pick leaves out what the filter does not take, what the user ignores, and
// what they may not see.
func (s *Service) pick(ctx context.Context, user matrix.UserID, rd *roomDelta, w *window, events []*rooms.Stored) ([]*rooms.Stored, error) {
	picked := make([]*rooms.Stored, 0, len(events))
	mustLook := false
	for _, ev := range events {
		if !takesEvent(w.filter, ev) {
			continue
		}
		if _, ignored := w.ignored[ev.Sender]; ignored && !ev.IsState() {
			continue
		}
		picked = append(picked, ev)
		mustLook = mustLook || !rd.sees(ev)
	}
	if mustLook {
		visible, err := s.Rooms.Visible(ctx, rd.room, user, picked)
		if err != nil {
			return nil, err
		}
		picked = withOwn(visible, picked, rd.Event)
	}
	return pickRelated(ctx, s.Rooms, w.filter, picked)
}

// sees tells, without asking anything, that an event is visible: it was sent on
// top of the state in which the user had joined for good.
// spec: client-server#server-behaviour-5
func (rd *roomDelta) sees(ev *rooms.Stored) bool {
	return rd.Membership.Membership == matrix.MembershipJoin && ev.Position >= rd.Position && ev.Resolved == ev.Snapshot && ev.Served()
}

// withOwn keeps the event of the user's own membership among the visible ones:
// whoever it puts out of the room is still told.
func withOwn(visible, all []*rooms.Stored, own state.EventNID) []*rooms.Stored {
	for _, ev := range all {
		if ev.NID == own && !slices.Contains(visible, ev) {
			at, _ := slices.BinarySearchFunc(visible, ev.Position, func(v *rooms.Stored, p int64) int { return compare(p, v.Position) })
			return slices.Insert(visible, at, ev)
		}
	}
	return visible
}
