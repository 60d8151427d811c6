package push

import (
	"context"

	"github.com/teahouse-chat/teahouse/internal/db"
	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms"
)

// What the follower keeps in memory; what goes beyond is dropped as a whole.
const (
	watchedKept = 10_000
	peopleKept  = 20_000
)

// watched are the local members of a room who have to be looked at one by one:
// those whose counts are their own, and those who have pushers.
type watched struct{ users map[matrix.UserID]*watch }

type watch struct {
	person *person                 // nil: the user's counts are everybody's
	tips   map[matrix.EventID]*tip // ends of the user's lines, by thread
}

// person is what decides, beside the event, whether a user is notified.
type person struct {
	rules   *compiled
	ignores map[matrix.UserID]struct{}
}

// watched returns whom to look at in a room.
func (f *follower) watched(ctx context.Context, r *rooms.Room) (*watched, error) {
	if w := f.rooms[r.NID]; w != nil {
		return w, nil
	}
	w := &watched{users: map[matrix.UserID]*watch{}}
	var custom []matrix.UserID
	for _, u := range r.LocalMembers() {
		if _, ok := f.custom[u]; ok {
			custom = append(custom, u)
		} else if f.p.pushers.has(u) {
			w.users[u] = &watch{}
		}
	}
	if len(custom) > 0 {
		if err := f.watchCustom(ctx, r.NID, w, custom); err != nil {
			return nil, err
		}
	}
	if len(f.rooms) >= watchedKept {
		clear(f.rooms)
	}
	f.rooms[r.NID] = w
	return w, nil
}

// watchCustom adds users whose counts are their own.
func (f *follower) watchCustom(ctx context.Context, nid rooms.RoomNID, w *watched, users []matrix.UserID) error {
	if err := f.know(ctx, users); err != nil {
		return err
	}
	if err := f.p.ledger.settle(ctx); err != nil {
		return err
	}
	for _, u := range users {
		w.users[u] = &watch{person: f.people[u], tips: map[matrix.EventID]*tip{}}
	}
	return db.Each(ctx, f.p.DB, linesIn, func(s db.Scanner) error {
		b, err := scanBend(s)
		if one := w.users[b.user]; one != nil && one.person != nil { // in order: the last one stays
			one.tips[b.thread] = &tip{bend: b.bend}
		}
		return err
	}, nid)
}

// know brings what decides about users into memory.
func (f *follower) know(ctx context.Context, users []matrix.UserID) error {
	var cold []matrix.UserID
	for _, u := range users {
		if f.people[u] == nil {
			cold = append(cold, u)
		}
	}
	if len(cold) == 0 {
		return nil
	}
	shelves, err := f.p.books.of(ctx, cold)
	if err != nil {
		return err
	}
	ignores, err := f.p.People.Ignored(ctx, cold)
	if err != nil {
		return err
	}
	if len(f.people) > peopleKept {
		f.forget() // rooms point to people
	}
	for _, u := range cold {
		f.people[u] = &person{rules: shelves[u].rules, ignores: ignores[u]}
	}
	// Those who were known before may just have been forgotten.
	if len(cold) < len(users) {
		return f.know(ctx, users)
	}
	return nil
}

// watchEverywhere makes a user watched in the rooms that are in memory.
func (f *follower) watchEverywhere(ctx context.Context, u matrix.UserID) error {
	memberships, err := f.p.Rooms.Memberships(ctx, u)
	if err != nil {
		return err
	}
	for _, m := range memberships {
		if w := f.rooms[m.Room]; w != nil && m.Membership == matrix.MembershipJoin {
			if err := f.watch(ctx, m.Room, w, u); err != nil {
				return err
			}
		}
	}
	return nil
}

// watch adds a member to those who are watched in a room, if need be.
func (f *follower) watch(ctx context.Context, nid rooms.RoomNID, w *watched, u matrix.UserID) error {
	if _, ok := f.custom[u]; ok {
		if one := w.users[u]; one != nil && one.person != nil && one.person == f.people[u] {
			return nil
		}
		return f.watchCustom(ctx, nid, w, []matrix.UserID{u})
	}
	if w.users[u] == nil && f.p.pushers.has(u) {
		w.users[u] = &watch{}
	}
	return nil
}

// moved takes note of local users who came to a room or left it.
func (f *follower) moved(ctx context.Context, r *rooms.Room, moves []rooms.LocalMove) error {
	for _, m := range moves {
		w := f.rooms[r.NID]
		switch {
		case !r.IsLocalMember(m.User):
			if m.Event == nil || m.Event.Membership() != matrix.MembershipInvite {
				f.p.readOn(m.User, r.NID) // nothing is unread in a room that was left
				f.p.ledger.left(m.User, r.NID)
			}
			if w != nil {
				delete(w.users, m.User)
			}
		case w != nil:
			if err := f.watch(ctx, r.NID, w, m.User); err != nil {
				return err
			}
		}
	}
	return nil
}
