package syncapi

import (
	"context"
	"slices"

	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms"
	"github.com/teahouse-chat/teahouse/rooms/state"
)

// Unread tells how many events up to a position a local user has not read in each
// of the rooms that the user is joined to; rooms without any are left out.
func (s *Service) Unread(ctx context.Context, user matrix.UserID, in []rooms.RoomNID, upTo int64) (map[rooms.RoomNID]int64, error) {
	places, err := s.places(ctx, user, in, upTo)
	if err != nil {
		return nil, err
	}
	all := map[rooms.RoomNID]int64{}
	for _, p := range places {
		u, err := s.counts.of(ctx, p)
		if err != nil {
			return nil, err
		}
		n := u.main.notifications
		for _, t := range u.threads {
			n += t.notifications
		}
		if n > 0 {
			all[p.room.NID] = n
		}
	}
	return all, nil
}

// places are where a user stands in those of the rooms that they are joined to.
func (s *Service) places(ctx context.Context, user matrix.UserID, in []rooms.RoomNID, upTo int64) ([]place, error) {
	judged, err := s.counts.judged(ctx, user, in, upTo)
	if err != nil {
		return nil, err
	}
	own, err := s.receipts.of(ctx, user, in)
	if err != nil {
		return nil, err
	}
	memberships, err := s.Rooms.Memberships(ctx, user)
	if err != nil {
		return nil, err
	}
	joined := make(map[rooms.RoomNID]state.EventNID, len(memberships))
	for _, m := range memberships {
		if m.Membership == matrix.MembershipJoin {
			joined[m.Room] = m.Event
		}
	}
	in = slices.DeleteFunc(slices.Clone(in), func(nid rooms.RoomNID) bool { _, ok := joined[nid]; return !ok })
	events := make([]state.EventNID, len(in))
	for i, nid := range in {
		events[i] = joined[nid]
	}
	members, err := s.Rooms.Events(ctx, events)
	if err != nil {
		return nil, err
	}
	list := make([]place, len(in))
	for i, nid := range in {
		r, err := s.Rooms.RoomByNID(ctx, nid)
		if err != nil {
			return nil, err
		}
		list[i] = place{room: r, view: r.View(), user: user, joined: members[i], own: own[nid], judged: judged[nid], upTo: upTo}
	}
	return list, nil
}

// Standing is up to where a user has read a room.
type Standing struct {
	all, main int64
	threads   map[matrix.EventID]int64
}

// Read tells whether an event of a thread, or of the main timeline if it is "",
// was read.
func (s Standing) Read(thread matrix.EventID, position int64) bool {
	if thread == "" {
		return position <= max(s.all, s.main)
	}
	return position <= max(s.all, s.threads[thread])
}

// Standings tells how far a user has read rooms.
func (s *Service) Standings(ctx context.Context, user matrix.UserID, in []rooms.RoomNID) (map[rooms.RoomNID]Standing, error) {
	own, err := s.receipts.of(ctx, user, in)
	if err != nil {
		return nil, err
	}
	all := make(map[rooms.RoomNID]Standing, len(own))
	for nid, list := range own {
		read := Standing{threads: map[matrix.EventID]int64{}}
		for _, r := range list {
			switch r.Thread {
			case "":
				read.all = max(read.all, r.EventPosition)
			case threadMain:
				read.main = max(read.main, r.EventPosition)
			default:
				root := matrix.EventID(r.Thread)
				read.threads[root] = max(read.threads[root], r.EventPosition)
			}
		}
		all[nid] = read
	}
	return all, nil
}
