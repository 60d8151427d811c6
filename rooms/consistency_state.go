package rooms

import (
	"context"
	"fmt"
	"slices"

	"github.com/teahouse-chat/teahouse/internal/db"
	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms/state"
)

// checkState compares the current state with all that is derived from it.
func (c *checker) checkState(ctx context.Context, q db.Querier, r *checkedRoom) error {
	var layers []state.Layer
	for n := r.snapshot; n != 0; {
		l, ok := c.layers[n]
		if !ok {
			c.fault("snapshot %d of room %s is missing", n, r.id)
			return nil
		}
		layers, n = append(layers, l), SnapshotNID(l.Parent)
	}
	slices.Reverse(layers)
	m := state.Rebuild(layers)
	events, err := c.eventsIn(ctx, q, r, m)
	if err != nil {
		return err
	}
	var create *Stored
	for _, st := range events {
		if st.Version.RoomIDHash && st.Is(matrix.TypeCreate, "") {
			create = st
		}
	}
	members, joined, invited := 0, 0, 0
	for key, nid := range m.All() {
		st := events[nid]
		if st == nil || st.Room != r.nid || st.Key != key || st.Flags&Rejected != 0 {
			c.fault("the state of room %s has at key %d the event %d, which does not belong there", r.id, key, nid)
			continue
		}
		if why := c.allowed(st, create, events); why != nil {
			c.fault("event %s in the state of room %s: %v", st.ID, r.id, why)
		}
		if !MemberKey(key) {
			continue
		}
		members++
		u := matrix.UserID(st.StateKey())
		if r.outside[u] {
			members--
		} else if row := r.members[u]; row != (memberRow{st.Membership(), nid, c.e.Local(u)}) {
			c.fault("the membership of %s in room %s is stored as %+v, not as event %d has it", u, r.id, row, nid)
		}
		switch st.Membership() {
		case matrix.MembershipJoin:
			joined++
		case matrix.MembershipInvite:
			invited++
		}
	}
	if inside := len(r.members) - len(r.outside); members != inside {
		c.fault("room %s has %d memberships, and %d in its state", r.id, inside, members)
	}
	if joined != r.joined || invited != r.invited {
		c.fault("room %s counts %d joined and %d invited users, and has %d and %d", r.id, r.joined, r.invited, joined, invited)
	}
	return nil
}

// eventsIn reads the events of a state, and their auth events.
func (c *checker) eventsIn(ctx context.Context, q db.Querier, r *checkedRoom, m *state.Map) (map[state.EventNID]*Stored, error) {
	found := make(map[state.EventNID]*Stored, m.Len())
	read := func(nids []state.EventNID) error {
		for part := range slices.Chunk(nids, checkedPage) {
			events, err := db.All(ctx, q, eventsByNIDs, c.e.scanEvents(ctx), part)
			if err != nil {
				return err
			}
			for _, st := range events {
				found[st.NID] = st
			}
		}
		return nil
	}
	var nids, auths []state.EventNID
	for _, nid := range m.All() {
		nids = append(nids, nid)
	}
	if err := read(nids); err != nil {
		return nil, err
	}
	for _, st := range found {
		for _, a := range st.Auth {
			if found[a] == nil {
				auths = append(auths, a)
			}
		}
	}
	slices.Sort(auths)
	return found, read(slices.Compact(auths))
}

// allowed judges an event of the state by its auth events.
func (c *checker) allowed(st, create *Stored, events map[state.EventNID]*Stored) error {
	if st.RedactedBy != 0 || len(st.Auth) != len(st.AuthEvents) {
		return nil // what allowed it may be gone
	}
	var auths []*Stored
	for _, a := range st.Auth {
		if events[a] == nil {
			return fmt.Errorf("its auth event %d is missing", a)
		}
		if events[a].RedactedBy != 0 {
			return nil
		}
		auths = append(auths, events[a])
	}
	return checkAuthEvents(st.Event, auths, authEventsOf(st.Event, auths, create))
}
