package syncapi

import (
	"context"
	"slices"

	"github.com/teahouse-chat/teahouse/internal/filter"
	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms"
	"github.com/teahouse-chat/teahouse/rooms/auth"
	"github.com/teahouse-chat/teahouse/rooms/state"
)

// stateAt is the room's state just after a position. Where the view's recent
// events reach that far and follow each other without a fork, they are taken
// back from its state, so that the two share what they have in common.
func (s *Service) stateAt(ctx context.Context, r *rooms.Room, v *rooms.View, position int64) (*state.Map, error) {
	if position >= v.Position {
		return v.State, nil
	}
	if position < v.RecentFrom {
		return s.Rooms.StateAt(ctx, r, position)
	}
	var undo []state.Entry
	for i := len(v.Recent) - 1; i >= 0 && v.Recent[i].Position > position; i-- {
		ev := v.Recent[i]
		if ev.Resolved != ev.Snapshot {
			return s.Rooms.StateAt(ctx, r, position)
		}
		if ev.IsState() {
			undo = append(undo, state.Entry{Key: ev.Key, Event: ev.Replaces})
		}
	}
	// Of several events at one key the oldest tells what was there before: it is
	// the last in the list, and the last one counts.
	return v.State.Apply(undo), nil
}

// stateView is how a room's state is shown.
type stateView struct {
	after  bool // up to the end of the timeline, else up to its start
	lazy   bool // members only as far as they are needed
	all    bool // redundant members, too
	filter *filter.Events
	device deviceKey
	since  int64                      // the client has the answers up to here
	extra  map[matrix.UserID]struct{} // further users whose member events are needed
}

// stateDelta lists the state events that take a client from what it knows of the
// room to where the timeline begins or, with after, ends. known is the position
// that the client knows the room's state at, 0 for none.
func (s *Service) stateDelta(ctx context.Context, rd *roomDelta, known, upTo int64, t *stretch, v *stateView) ([]*rooms.Stored, error) {
	end, err := s.stateAt(ctx, rd.room, rd.view, upTo)
	if err != nil {
		return nil, err
	}
	at := end
	if !v.after {
		start, err := s.stateAt(ctx, rd.room, rd.view, max(t.start, known))
		if err != nil {
			return nil, err
		}
		at = toldBy(start, end, t.events)
	}
	var nids, members []state.EventNID
	if known == 0 {
		nids, members = split(at)
		if v.lazy {
			members = nil
		}
	} else {
		base, err := s.stateAt(ctx, rd.room, rd.view, known)
		if err != nil {
			return nil, err
		}
		nids, members = changed(base, at)
	}
	if v.lazy {
		if members, err = s.needed(ctx, at, t, v, members); err != nil {
			return nil, err
		}
	}
	events, err := s.Rooms.Events(ctx, append(nids, members...))
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(events, func(ev *rooms.Stored) bool { return !takesEvent(v.filter, ev) }), nil
}

// split lists a state's events, members apart.
func split(m *state.Map) (nids, members []state.EventNID) {
	for k, n := range m.All() {
		if rooms.MemberKey(k) {
			members = append(members, n)
		} else {
			nids = append(nids, n)
		}
	}
	return nids, members
}

// changed lists the events of b that are not in a, members apart.
func changed(a, b *state.Map) (nids, members []state.EventNID) {
	if a == b {
		return nil, nil
	}
	for _, c := range state.Diff(a, b) {
		switch {
		case c.New == 0:
		case rooms.MemberKey(c.Key):
			members = append(members, c.New)
		default:
			nids = append(nids, c.New)
		}
	}
	return nids, members
}

// toldBy is the state that a client must have at the start of a timeline so that
// with the state events of the timeline it comes to the end state. It differs
// from the state at the start where an event is left out by a filter or hidden,
// and where the resolution of a fork brought back an older one.
func toldBy(start, end *state.Map, timeline []*rooms.Stored) *state.Map {
	if start == end {
		return start
	}
	told := map[state.KeyNID]bool{}
	for _, ev := range timeline {
		if ev.IsState() {
			told[ev.Key] = true
		}
	}
	var untold []state.Entry
	for _, c := range state.Diff(start, end) {
		if !told[c.Key] {
			untold = append(untold, state.Entry{Key: c.Key, Event: c.New})
		}
	}
	return start.Apply(untold)
}

// needed adds to the members that changed those whom the answer mentions, except
// for what the client has already.
// spec: client-server#lazy-loading-room-members
func (s *Service) needed(ctx context.Context, at *state.Map, t *stretch, v *stateView, changed []state.EventNID) ([]state.EventNID, error) {
	keys := make([]auth.Key, 0, len(t.senders)+len(v.extra))
	for _, users := range []map[matrix.UserID]struct{}{t.senders, v.extra} {
		for u := range users {
			keys = append(keys, auth.Key{Type: matrix.TypeMember, StateKey: string(u)})
		}
	}
	numbers, err := s.Rooms.Keys(ctx, keys)
	if err != nil {
		return nil, err
	}
	inTimeline := map[state.EventNID]bool{}
	if !v.after {
		for _, ev := range t.events {
			inTimeline[ev.NID] = true
		}
	}
	var more []state.EventNID
	for _, k := range numbers {
		if nid, ok := at.Get(k); ok && !inTimeline[nid] && !slices.Contains(changed, nid) && !slices.Contains(more, nid) {
			more = append(more, nid)
		}
	}
	if !v.all {
		more = s.lazy.fresh(v.device, v.since, more)
	}
	all := append(changed, more...)
	slices.Sort(all)
	return all, nil
}
