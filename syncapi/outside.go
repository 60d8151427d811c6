package syncapi

import (
	"context"
	"encoding/json"

	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms"
	"github.com/teahouse-chat/teahouse/rooms/state"
)

// maxStripped bounds the stripped state of an invite in bytes, so that nobody
// can make the answers of a victim large.
const maxStripped = 256 << 10

// wanted are the invites that a user hears of: not those of people they ignore,
// and none if they block all.
// spec: client-server#ignoring-users
func (s *Service) wanted(ctx context.Context, user matrix.UserID, ignored map[matrix.UserID]struct{}, invited []roomDelta) ([]roomDelta, error) {
	if len(invited) == 0 {
		return nil, nil
	}
	blocked, err := s.Data.BlocksInvites(ctx, user)
	if blocked || err != nil {
		return nil, err
	}
	nids := make([]state.EventNID, len(invited))
	for i, rd := range invited {
		nids[i] = rd.Event
	}
	members, err := s.Rooms.Events(ctx, nids)
	if err != nil {
		return nil, err
	}
	var wanted []roomDelta
	for i, rd := range invited {
		if _, ignores := ignored[members[i].Sender]; !ignores {
			wanted = append(wanted, rd)
		}
	}
	return wanted, nil
}

// stripped appends the sections of rooms that the user was invited to or knocks
// at.
// spec: client-server#stripped-state
func (a *answer) stripped(list []roomDelta, name string) error {
	for i := range list {
		rd := &list[i]
		member, err := a.s.Rooms.Events(a.ctx, []state.EventNID{rd.Event})
		if err != nil {
			return err
		}
		if !a.q.filter.Room.takesRoom(rd.RoomID) {
			continue
		}
		events, err := a.glimpse(rd, member[0])
		if err != nil {
			return err
		}
		a.buf = append(appendName(a.buf, rd.RoomID), `{"`...)
		a.buf = append(a.buf, name...)
		a.buf = append(a.buf, `":`...)
		a.buf = appendEvents(a.buf, capped(events))
		a.buf = append(a.buf, '}')
		a.any = true
	}
	return nil
}

// glimpse is what a user who is not in the room is shown of it: what the server
// that told of their membership has sent along, or the state that is known here.
func (a *answer) glimpse(rd *roomDelta, member *rooms.Stored) ([]json.RawMessage, error) {
	told, err := a.s.Rooms.OutsideState(a.ctx, member)
	if err != nil {
		return nil, err
	}
	if told != nil {
		return append(told, rooms.StrippedEvent(member)), nil
	}
	m, err := a.s.stateAt(a.ctx, rd.room, rd.view, rd.Position)
	if err != nil {
		return nil, err
	}
	return a.s.Rooms.Stripped(a.ctx, m, member)
}

// capped leaves out the events that would make the list too large. The user's
// own member event, which is the last, always stays.
func capped(events []json.RawMessage) []json.RawMessage {
	size := 0
	for _, ev := range events {
		size += len(ev)
	}
	if size <= maxStripped {
		return events
	}
	last := len(events) - 1
	kept, size := []json.RawMessage{}, len(events[last])
	for _, ev := range events[:last] {
		if size += len(ev); size > maxStripped {
			size -= len(ev)
			continue
		}
		kept = append(kept, ev)
	}
	return append(kept, events[last])
}

// leave appends the sections of rooms that the user has left or was put out of:
// the timeline up to there, and nothing of what came later.
func (a *answer) leave() error {
	for i := range a.d.left {
		rd := &a.d.left[i]
		if !a.q.filter.Room.takesRoom(rd.RoomID) {
			continue
		}
		member, err := a.s.Rooms.Events(a.ctx, []state.EventNID{rd.Event})
		if err != nil {
			return err
		}
		before, err := a.s.membershipAt(a.ctx, rd, a.d.user, rd.Position-1)
		if err != nil {
			return err
		}
		a.buf = append(appendName(a.buf, rd.RoomID), '{')
		if before == matrix.MembershipJoin {
			err = a.leftRoom(rd)
		} else {
			err = a.neverJoined(rd, member[0])
		}
		if err != nil {
			return err
		}
		a.buf = append(a.buf, `,"account_data":`...)
		a.buf = appendEvents(a.buf, a.data[rd.RoomID])
		a.buf = append(a.buf, '}')
		a.any = true
	}
	return nil
}

// leftRoom appends what a user who was joined may still see.
func (a *answer) leftRoom(rd *roomDelta) error {
	if !rd.fresh() {
		was, err := a.s.membershipAt(a.ctx, rd, a.d.user, rd.from)
		if err != nil {
			return err
		}
		if was != matrix.MembershipJoin {
			rd.from = 0 // joined and left since
		}
	}
	t, err := a.timeline(rd, rd.Position)
	if err != nil {
		return err
	}
	needed := map[matrix.UserID]struct{}{a.d.user: {}}
	if _, err := a.state(rd, rd.from, rd.Position, &t, needed); err != nil {
		return err
	}
	return a.appendTimeline(rd, &t)
}

// neverJoined appends the one event that somebody is told of whose invite or
// knock has come to an end: they have not seen the room.
func (a *answer) neverJoined(rd *roomDelta, member *rooms.Stored) error {
	t := stretch{start: rd.Position - 1}
	if w := &a.q.window; w.filter.TakesRoom(rd.RoomID) && takesEvent(w.filter, member) {
		t.events = []*rooms.Stored{member}
	}
	a.appendState(nil)
	return a.appendTimeline(rd, &t)
}
