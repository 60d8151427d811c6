package appservices

import (
	"context"
	"slices"

	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms"
)

// audience is who is interested in a room's events, at one place in its history.
type audience struct {
	of       *set
	snapshot rooms.SnapshotNID // of the room after the last event that was looked at
	always   []*Service        // on account of the room's id or aliases
	members  []*Service        // on account of local members
	known    bool              // snapshot and members hold
}

// maxAudiences bounds the rooms that are remembered.
const maxAudiences = 20_000

// audiences decides which services an event is for. It is used by one goroutine,
// which gives it a room's events in their order.
type audiences struct {
	s     *Services
	rooms map[rooms.RoomNID]*audience
}

func newAudiences(s *Services) *audiences {
	return &audiences{s, map[rooms.RoomNID]*audience{}}
}

// forget drops what is known of a room.
func (a *audiences) forget(room rooms.RoomNID) { delete(a.rooms, room) }

// interested lists the services that an event is for: those that claim its room,
// one of its room's aliases, its sender, whose membership it tells of, or somebody
// who is in the room after it. It is exact for the time of the event, whatever the
// room has become since.
// spec: application-service#registration
func (a *audiences) interested(ctx context.Context, r *rooms.Room, ev *rooms.Stored) ([]*Service, error) {
	set := a.s.current.Load()
	if len(set.services) == 0 {
		return nil, nil
	}
	au := a.rooms[r.NID]
	if au == nil || au.of != set {
		if len(a.rooms) >= maxAudiences {
			clear(a.rooms)
		}
		au = &audience{of: set}
		var err error
		if au.always, err = a.s.claiming(ctx, set, r); err != nil {
			return nil, err
		}
		a.rooms[r.NID] = au
	}
	if err := a.move(ctx, au, r, ev); err != nil {
		return nil, err
	}
	own := set.covering(ev.Sender)
	var subject []*Service
	if ev.IsState() && ev.Type == matrix.TypeMember {
		subject = set.covering(matrix.UserID(ev.StateKey()))
	}
	return union(au.always, au.members, own, subject), nil
}

// claiming lists the services that claim a room itself.
func (s *Services) claiming(ctx context.Context, set *set, r *rooms.Room) ([]*Service, error) {
	var aliases []matrix.RoomAlias
	if set.aliases {
		var err error
		if aliases, err = s.aliases.AliasesOf(ctx, r.ID); err != nil {
			return nil, err
		}
	}
	var list []*Service
	for _, v := range set.services {
		if v.Rooms.Match(string(r.ID)) || slices.ContainsFunc(aliases, func(alias matrix.RoomAlias) bool { return v.Aliases.Match(string(alias)) }) {
			list = append(list, v)
		}
	}
	return list, nil
}

// move brings an audience up to the state after an event. An event that is no
// state, or does not tell of a member that matters and continues the state that was
// looked at last, changes nothing.
func (a *audiences) move(ctx context.Context, au *audience, r *rooms.Room, ev *rooms.Stored) error {
	if ev.Flags&rooms.Outside != 0 {
		return nil // tells of its own subject only
	}
	switch {
	case au.known && ev.Resolved == au.snapshot:
		return nil
	case au.known && ev.IsState() && ev.Resolved == ev.Snapshot &&
		(ev.Type != matrix.TypeMember || len(au.of.covering(matrix.UserID(ev.StateKey()))) == 0):
		au.snapshot = ev.Resolved
		return nil
	}
	au.known = false
	users, err := a.s.rooms.LocalUsersOf(ctx, r)
	if err != nil {
		return err
	}
	users = slices.DeleteFunc(users, func(u matrix.UserID) bool { return len(au.of.covering(u)) == 0 })
	events, err := a.s.rooms.MembersAt(ctx, ev.Resolved, users)
	if err != nil {
		return err
	}
	au.members = nil
	for _, member := range events {
		if member.Membership() == matrix.MembershipJoin {
			au.members = union(au.members, au.of.covering(matrix.UserID(member.StateKey())))
		}
	}
	au.snapshot, au.known = ev.Resolved, true
	return nil
}

// union lists what is in any of the lists, which are left as they are.
func union(lists ...[]*Service) []*Service {
	var all []*Service
	for _, list := range lists {
		if len(list) == 0 {
			continue
		}
		if all == nil {
			all = list[:len(list):len(list)]
			continue
		}
		for _, v := range list {
			if !slices.Contains(all, v) {
				all = append(all, v)
			}
		}
	}
	return all
}
