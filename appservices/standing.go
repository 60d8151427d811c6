package appservices

import (
	"context"

	lru "github.com/hashicorp/golang-lru/v2"

	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms"
)

// standing is who is interested in a room as it is now.
type standing struct {
	of       *set
	snapshot rooms.SnapshotNID
	always   []*Service // on account of the room's id or aliases
	members  []*Service // on account of local members
}

// standings tell who is interested in rooms now, for what is not an event and has
// no place in a room's history.
type standings struct {
	s     *Services
	rooms *lru.Cache[rooms.RoomNID, *standing]
}

func newStandings(s *Services) *standings {
	known, _ := lru.New[rooms.RoomNID, *standing](maxAudiences) // fails for a size of 0 only
	return &standings{s: s, rooms: known}
}

func (t *standings) forget(room rooms.RoomNID) { t.rooms.Remove(room) }

// in finds who is interested in a room.
func (t *standings) in(ctx context.Context, r *rooms.Room) (*standing, error) {
	set, view := t.s.current.Load(), r.View()
	before, known := t.rooms.Get(r.NID)
	if known && before.of == set && before.snapshot == view.Snapshot {
		return before, nil
	}
	now := &standing{of: set, snapshot: view.Snapshot}
	if known && before.of == set {
		now.always = before.always
	} else {
		var err error
		if now.always, err = t.s.claiming(ctx, set, r); err != nil {
			return nil, err
		}
	}
	for _, u := range r.LocalMembers() {
		now.members = union(now.members, set.covering(u))
	}
	t.rooms.Add(r.NID, now)
	return now, nil
}

// interested lists the services that are interested in a room.
func (t *standings) interested(ctx context.Context, r *rooms.Room) ([]*Service, error) {
	now, err := t.in(ctx, r)
	if err != nil {
		return nil, err
	}
	return union(now.always, now.members), nil
}

// among tells whether a service is in a list, maybe as it was registered before or
// after.
func among(list []*Service, v *Service) bool {
	for _, o := range list {
		if o.nid == v.nid {
			return true
		}
	}
	return false
}

// meets tells whether users of a service are in a room with somebody.
func (t *standings) meets(ctx context.Context, v *Service, user matrix.UserID) (bool, error) {
	in, err := t.joined(ctx, user)
	if err != nil {
		return false, err
	}
	for _, nid := range in {
		r, err := t.s.rooms.RoomByNID(ctx, nid)
		if err != nil {
			return false, err
		}
		now, err := t.in(ctx, r)
		if err != nil {
			return false, err
		}
		if among(now.members, v) {
			return true, nil
		}
	}
	return false, nil
}

// joined lists the rooms that a user is in, as far as local users are in them, too.
func (t *standings) joined(ctx context.Context, user matrix.UserID) ([]rooms.RoomNID, error) {
	if user.Server() != t.s.ServerName {
		shared, err := t.s.rooms.SharedRooms(ctx, []matrix.UserID{user})
		return shared[user], err
	}
	memberships, err := t.s.rooms.Memberships(ctx, user)
	var in []rooms.RoomNID
	for _, m := range memberships {
		if m.Membership == matrix.MembershipJoin {
			in = append(in, m.Room)
		}
	}
	return in, err
}
