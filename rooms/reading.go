package rooms

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/teahouse-chat/teahouse/internal/db"
	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms/auth"
	"github.com/teahouse-chat/teahouse/rooms/state"
)

// Access is what a user may read of a room; of which events, Visible tells one
// by one.
type Access struct {
	Joined bool
	World  bool  // anyone may read what is sent now
	Until  int64 // the position behind which the user sees nothing; maxPosition for none
}

// Access tells what a user may read of a room: all that goes on in it as a
// member or where anyone may, what there was until they left as a former member.
// 403 M_FORBIDDEN if that is nothing: to invited users, too.
// spec: client-server#room-history-visibility
func (e *Engine) Access(ctx context.Context, r *Room, u matrix.UserID) (Access, error) {
	m, err := e.Membership(ctx, r, u)
	if err != nil {
		return Access{}, err
	}
	if m.Membership == matrix.MembershipJoin {
		return Access{Joined: true, Until: maxPosition}, nil
	}
	visibility, err := e.HistoryVisibility(ctx, r.View().State)
	if err != nil {
		return Access{}, err
	}
	if visibility == matrix.VisibilityWorldReadable {
		return Access{World: true, Until: maxPosition}, nil
	}
	if m.Membership != "" && !m.Forgotten {
		p, err := e.partingOf(ctx, m)
		if err != nil {
			return Access{}, err
		}
		if p.left != minPosition {
			return Access{Until: p.left}, nil
		}
	}
	return Access{}, matrix.Forbidden("You are not a member of the room and its history is not open to everyone")
}

// HistoryVisibility is who may read the history of a room in a state: one of the
// matrix.Visibility values.
func (e *Engine) HistoryVisibility(ctx context.Context, m *state.Map) (string, error) {
	st, err := e.StateEvent(ctx, m, matrix.TypeHistoryVisibility, "")
	if err != nil {
		return "", err
	}
	return historyVisibility(st), nil
}

// StateOf returns a few events of a state, in the order of the keys; nil where
// the state has none.
func (e *Engine) StateOf(ctx context.Context, m *state.Map, keys ...auth.Key) ([]*Stored, error) {
	numbers, err := e.Keys(ctx, keys)
	if err != nil {
		return nil, err
	}
	nids := make([]state.EventNID, len(keys))
	for i, k := range numbers {
		nids[i], _ = m.Get(k)
	}
	return e.eventsOrNil(ctx, nids)
}

// MembersAt returns the member events of a few users in a stored state, without
// building it; users who have none are left out.
func (e *Engine) MembersAt(ctx context.Context, n SnapshotNID, users []matrix.UserID) ([]*Stored, error) {
	keys, err := e.memberKeys(ctx, users)
	if err != nil {
		return nil, err
	}
	nids, err := e.lookup(ctx, n, keys)
	if err != nil {
		return nil, err
	}
	found := nids[:0]
	for _, nid := range nids {
		if nid != 0 {
			found = append(found, nid)
		}
	}
	return e.Events(ctx, found)
}

// LocalUsersOf lists the local users who have a membership in a room, whichever it
// is.
func (e *Engine) LocalUsersOf(ctx context.Context, r *Room) ([]matrix.UserID, error) {
	return db.All(ctx, e.DB, everLocal, scanOne[matrix.UserID], r.NID)
}

// RoomsAfter lists the rooms that had events behind a position.
func (e *Engine) RoomsAfter(ctx context.Context, position int64) ([]RoomNID, error) {
	return db.All(ctx, e.DB, roomsAfter, scanOne[RoomNID], position)
}

// eventsOrNil is Events for numbers of which some are 0.
func (e *Engine) eventsOrNil(ctx context.Context, nids []state.EventNID) ([]*Stored, error) {
	var there []state.EventNID
	for _, n := range nids {
		if n != 0 {
			there = append(there, n)
		}
	}
	read, err := e.Events(ctx, there)
	if err != nil {
		return nil, err
	}
	events := make([]*Stored, len(nids))
	for i, n := range nids {
		if n != 0 {
			events[i], read = read[0], read[1:]
		}
	}
	return events, nil
}

// EventsByID returns those of a room's events that have these ids and may be
// served, in the order of the ids.
func (e *Engine) EventsByID(ctx context.Context, r *Room, ids []matrix.EventID) ([]*Stored, error) {
	read, err := e.eventsByID(ctx, ids)
	if err != nil {
		return nil, err
	}
	byID := make(map[matrix.EventID]*Stored, len(read))
	for _, st := range read {
		byID[st.ID] = st
	}
	events := make([]*Stored, 0, len(ids))
	for _, id := range ids {
		if st := byID[id]; st != nil && st.Room == r.NID && st.Served() {
			events = append(events, st)
		}
	}
	return events, nil
}

var idsByNIDs = db.SQL(`SELECT event_nid, event_id FROM events WHERE event_nid IN {ints $1}`)

// EventIDs returns the ids of the events with these numbers, in the same order,
// without reading the events.
func (e *Engine) EventIDs(ctx context.Context, nids []state.EventNID) ([]matrix.EventID, error) {
	byNID := make(map[state.EventNID]matrix.EventID, len(nids))
	err := db.Each(ctx, e.DB, idsByNIDs, func(s db.Scanner) error {
		var nid state.EventNID
		var id matrix.EventID
		err := s.Scan(&nid, &id)
		byNID[nid] = id
		return err
	}, nids)
	if err != nil {
		return nil, err
	}
	ids := make([]matrix.EventID, len(nids))
	for i, nid := range nids {
		if ids[i] = byNID[nid]; ids[i] == "" {
			return nil, fmt.Errorf("rooms: event %d is missing", nid)
		}
	}
	return ids, nil
}

var memberKeysByName = db.SQL(`SELECT key_nid, state_key FROM state_keys WHERE state_key IN {texts $1} AND type = 'm.room.member'`)

// memberKeys numbers the member keys of users who have one, in the order of the
// users.
func (e *Engine) memberKeys(ctx context.Context, users []matrix.UserID) ([]state.KeyNID, error) {
	known, err := e.memberNumbers(ctx, users)
	if err != nil {
		return nil, err
	}
	keys := make([]state.KeyNID, 0, len(users))
	for _, u := range users {
		if n, ok := known[u]; ok {
			keys = append(keys, n)
		}
	}
	return keys, nil
}

// memberNumbers numbers the member keys of users who have one; those that are not
// in memory are read in one go.
func (e *Engine) memberNumbers(ctx context.Context, users []matrix.UserID) (map[matrix.UserID]state.KeyNID, error) {
	known := make(map[matrix.UserID]state.KeyNID, len(users))
	var missing []string
	for _, u := range users {
		if n, ok := e.keys.known(auth.Key{Type: matrix.TypeMember, StateKey: string(u)}); ok {
			known[u] = n
		} else {
			missing = append(missing, string(u))
		}
	}
	if len(missing) == 0 {
		return known, nil
	}
	return known, db.Each(ctx, e.DB, memberKeysByName, func(s db.Scanner) error {
		var n state.KeyNID
		var u matrix.UserID
		err := s.Scan(&n, &u)
		known[u] = n
		return err
	}, missing)
}

// WhereJoined tells which of the rooms each of the users is joined to; they may be
// users of any server. Those who are in none are left out.
func (e *Engine) WhereJoined(ctx context.Context, in []*Room, users []matrix.UserID) (map[matrix.UserID][]*Room, error) {
	keys, err := e.memberNumbers(ctx, users)
	if err != nil || len(keys) == 0 {
		return nil, err
	}
	type place struct {
		user matrix.UserID
		room *Room
	}
	var places []place
	var nids []state.EventNID
	for _, r := range in {
		m := r.View().State
		for u, k := range keys {
			if nid, ok := m.Get(k); ok {
				places, nids = append(places, place{u, r}), append(nids, nid)
			}
		}
	}
	members, err := e.Events(ctx, nids)
	if err != nil {
		return nil, err
	}
	joined := map[matrix.UserID][]*Room{}
	for i, st := range members {
		if p := places[i]; st.Membership() == matrix.MembershipJoin {
			joined[p.user] = append(joined[p.user], p.room)
		}
	}
	return joined, nil
}

// Predecessor is the room that the one of a create event was made to take the
// place of; "" if there is none.
func Predecessor(create *Stored) matrix.RoomID {
	var content struct {
		Predecessor struct {
			RoomID matrix.RoomID `json:"room_id"`
		} `json:"predecessor"`
	}
	if json.Unmarshal(create.Content, &content) != nil {
		return ""
	}
	return content.Predecessor.RoomID
}
