package syncapi

import (
	"context"
	"slices"
	"time"

	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms"
	"github.com/teahouse-chat/teahouse/rooms/state"
)

// delta is what changed for a user between two stands: the core that every way
// to listen shares. It says which rooms there is something in; how much of each
// is shown is up to the window that it is seen through.
type delta struct {
	user matrix.UserID
	from stand
	upTo stand
	// initial: nothing is known to the client yet.
	initial  bool
	data     bool // account data, or what encryption adds
	presence bool
	joined   []roomDelta
	left     []roomDelta
	invited  []roomDelta
	knocked  []roomDelta
}

// roomDelta is one room of a delta.
type roomDelta struct {
	rooms.Membership
	room *rooms.Room
	view *rooms.View
	// from is the position that the client knows the room up to; 0 for a room
	// that is new to it.
	from  int64
	marks marks
}

func (d *roomDelta) fresh() bool { return d.from == 0 }

// everyMark makes all of a room be looked at.
var everyMark = marks{events: maxPosition, receipts: maxPosition, typing: maxPosition}

const maxPosition = int64(^uint64(0) >> 1)

// deltaFor finds what changed for the record's user above from. left asks for
// rooms that the user has left before, too.
func (s *Service) deltaFor(ctx context.Context, rec *record, from stand, initial, left bool) (*delta, error) {
	for wait := time.Duration(0); ; wait += 50 * time.Microsecond {
		c := s.notifier.since(rec, from)
		d := &delta{user: rec.user, from: from, upTo: c.upTo, initial: initial, data: c.data, presence: c.presence}
		if !initial && !c.any() {
			return d, nil
		}
		memberships, err := s.concerned(ctx, rec.user, &c, initial)
		if err != nil {
			return nil, err
		}
		// The engine runs ahead of the notifier by what is being published just
		// now. An answer that knew of a membership from beyond its end would show
		// too much or too little of the room.
		if !slices.ContainsFunc(memberships, func(m rooms.Membership) bool { return m.Position > c.upTo.position }) {
			return d, s.sort(ctx, d, &c, memberships, left)
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(wait):
		}
	}
}

// concerned lists the user's memberships in the rooms that may have changed.
func (s *Service) concerned(ctx context.Context, user matrix.UserID, c *changes, initial bool) ([]rooms.Membership, error) {
	if initial || c.all {
		return s.Rooms.Memberships(ctx, user)
	}
	list := make([]rooms.Membership, 0, len(c.rooms))
	for nid := range c.rooms {
		r, err := s.Rooms.RoomByNID(ctx, nid)
		if err != nil {
			return nil, err
		}
		m, err := s.Rooms.Membership(ctx, r, user)
		if err != nil {
			return nil, err
		}
		list = append(list, m)
	}
	return list, nil
}

// sort puts the rooms into the sections that they belong to.
func (s *Service) sort(ctx context.Context, d *delta, c *changes, memberships []rooms.Membership, left bool) error {
	for _, m := range memberships {
		news := d.initial || m.Position > d.from.position
		rd := roomDelta{Membership: m, from: d.from.position, marks: everyMark}
		if d.initial {
			rd.from = 0
		} else if !c.all {
			rd.marks = c.rooms[m.Room]
		}
		switch {
		case m.Membership == matrix.MembershipJoin:
		case !news || m.Forgotten && d.initial: // other devices must learn of the end of what was forgotten
			continue
		case m.Membership == matrix.MembershipLeave, m.Membership == matrix.MembershipBan:
			if d.initial && !left {
				continue
			}
		}
		var err error
		if rd.room, err = s.Rooms.RoomByNID(ctx, m.Room); err != nil {
			return err
		}
		rd.view = rd.room.View()
		switch m.Membership {
		case matrix.MembershipJoin:
			if !d.initial && news {
				if err := s.checkRejoin(ctx, d, &rd); err != nil {
					return err
				}
			}
			d.joined = append(d.joined, rd)
		case matrix.MembershipInvite:
			d.invited = append(d.invited, rd)
		case matrix.MembershipKnock:
			d.knocked = append(d.knocked, rd)
		case matrix.MembershipLeave, matrix.MembershipBan:
			d.left = append(d.left, rd)
		}
	}
	for _, list := range [][]roomDelta{d.joined, d.left, d.invited, d.knocked} {
		slices.SortFunc(list, func(a, b roomDelta) int { return compare(a.Room, b.Room) })
	}
	return nil
}

// checkRejoin looks whether the user was in the room when the client last
// heard: if not, the room is new to the client, whatever it knew of it before.
func (s *Service) checkRejoin(ctx context.Context, d *delta, rd *roomDelta) error {
	was, err := s.membershipAt(ctx, rd, d.user, d.from.position)
	if err == nil && was != matrix.MembershipJoin {
		rd.from, rd.marks = 0, everyMark
	}
	return err
}

// memberHops is how many member events are walked back before a whole state is
// read instead.
const memberHops = 32

// membershipAt is the user's membership in the room just after a position: what
// their newest member event up to there says. Where the resolution of a fork
// brought the membership, events do not tell, and the state is asked.
func (s *Service) membershipAt(ctx context.Context, rd *roomDelta, user matrix.UserID, position int64) (string, error) {
	nid := rd.Event
	for hop := range memberHops {
		if nid == 0 {
			return "", nil
		}
		events, err := s.Rooms.Events(ctx, []state.EventNID{nid})
		if err != nil {
			return "", err
		}
		if hop == 0 && events[0].Position != rd.Position {
			break
		}
		if events[0].Position <= position {
			return events[0].Membership(), nil
		}
		nid = events[0].Replaces
	}
	m, err := s.stateAt(ctx, rd.room, rd.view, position)
	if err != nil {
		return "", err
	}
	st, err := s.Rooms.StateEvent(ctx, m, matrix.TypeMember, string(user))
	if err != nil || st == nil {
		return "", err
	}
	return st.Membership(), nil
}
