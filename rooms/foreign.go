package rooms

import (
	"context"
	"slices"

	"github.com/teahouse-chat/teahouse/internal/db"
	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms/auth"
	"github.com/teahouse-chat/teahouse/rooms/state"
)

// foreignAtOnce is how many users of a server are looked at together: mostly one
// of the first is in the room, and no more are looked at then.
const foreignAtOnce = 64

// VisibleTo tells of each event whether another server may be given it: if the
// room's history was open to later members at the event, or one of the server's
// users was in the room, or invited where that is enough. It does not ask whether
// the server is in the room now.
// spec: client-server#server-behaviour-5
func (e *Engine) VisibleTo(ctx context.Context, r *Room, s matrix.ServerName, events []*Stored) ([]bool, error) {
	visible := make([]bool, len(events))
	if len(events) == 0 {
		return visible, nil
	}
	v, err := e.foreigner(ctx, r, s)
	if err != nil {
		return nil, err
	}
	if err := e.warmLayers(ctx, events); err != nil {
		return nil, err
	}
	for i, st := range events {
		if visible[i], err = v.sees(ctx, st); err != nil {
			return nil, err
		}
	}
	return visible, nil
}

// foreigner is another server that wants to see events of a room. Events that
// share a snapshot share the answer.
type foreigner struct {
	e          *Engine
	r          *Room
	server     matrix.ServerName
	visibility state.KeyNID
	read       bool
	members    []state.KeyNID // of the server's users
	visible    map[SnapshotNID]string
	present    map[presence]bool
}

// presence asks whether a user of the server was in the room in a state, or
// invited.
type presence struct {
	snapshot SnapshotNID
	invited  bool
}

func (e *Engine) foreigner(ctx context.Context, r *Room, s matrix.ServerName) (*foreigner, error) {
	key, err := e.keys.find(ctx, auth.Key{Type: matrix.TypeHistoryVisibility})
	return &foreigner{
		e: e, r: r, server: s, visibility: key, visible: map[SnapshotNID]string{}, present: map[presence]bool{},
	}, err
}

// sees decides on one event. Of a change of visibility, and of a membership of
// one of the server's users, the state before it counts as well: whoever saw the
// room then sees the change.
func (f *foreigner) sees(ctx context.Context, st *Stored) (bool, error) {
	if !st.Given() || st.Flags&Outlier != 0 || st.Room != f.r.NID {
		return false, nil
	}
	at, err := f.visibilityAt(ctx, st.Snapshot)
	if err != nil {
		return false, err
	}
	if ok, err := f.allows(ctx, at, st.Snapshot); ok || err != nil {
		return ok, err
	}
	switch {
	case st.Is(matrix.TypeHistoryVisibility, ""):
		old, err := f.e.eventsOrNil(ctx, []state.EventNID{st.Replaces})
		if err != nil {
			return false, err
		}
		return f.allows(ctx, historyVisibility(old[0]), st.Snapshot)
	case st.Type == matrix.TypeMember && st.IsState() && matrix.UserID(st.StateKey()).Server() == f.server:
		old, err := f.e.eventsOrNil(ctx, []state.EventNID{st.Replaces})
		return err == nil && old[0] != nil && allowsMember(at, old[0].Membership()), err
	}
	return false, nil
}

// allows tells whether a visibility lets the server see what happened in a state.
func (f *foreigner) allows(ctx context.Context, visibility string, n SnapshotNID) (bool, error) {
	if visibility == matrix.VisibilityShared || visibility == matrix.VisibilityWorldReadable {
		return true, nil
	}
	return f.isPresent(ctx, presence{n, visibility == matrix.VisibilityInvited})
}

// allowsMember tells whether a membership lets its user see what is not open to
// later members.
func allowsMember(visibility, membership string) bool {
	return membership == matrix.MembershipJoin || visibility == matrix.VisibilityInvited && membership == matrix.MembershipInvite
}

func (f *foreigner) visibilityAt(ctx context.Context, n SnapshotNID) (string, error) {
	if v, ok := f.visible[n]; ok {
		return v, nil
	}
	nids, err := f.e.lookup(ctx, n, []state.KeyNID{f.visibility})
	if err != nil {
		return "", err
	}
	events, err := f.e.eventsOrNil(ctx, nids)
	if err != nil {
		return "", err
	}
	v := historyVisibility(events[0])
	f.visible[n] = v
	return v, nil
}

// isPresent looks at the server's users until it finds one who was there.
func (f *foreigner) isPresent(ctx context.Context, p presence) (bool, error) {
	if present, ok := f.present[p]; ok {
		return present, nil
	}
	if !f.read {
		var err error
		if f.members, err = f.e.membersOf(ctx, f.r, f.server); err != nil {
			return false, err
		}
		f.read = true
	}
	visibility := matrix.VisibilityJoined
	if p.invited {
		visibility = matrix.VisibilityInvited
	}
	for keys := range slices.Chunk(f.members, foreignAtOnce) {
		nids, err := f.e.lookup(ctx, p.snapshot, keys)
		if err != nil {
			return false, err
		}
		events, err := f.e.eventsOrNil(ctx, nids)
		if err != nil {
			return false, err
		}
		if slices.ContainsFunc(events, func(st *Stored) bool { return st != nil && allowsMember(visibility, st.Membership()) }) {
			f.present[p] = true
			return true, nil
		}
	}
	f.present[p] = false
	return false, nil
}

// foreignKey names a server in a room.
type foreignKey struct {
	room   RoomNID
	server matrix.ServerName
}

// foreignMembers are the member keys of a server's users that a state has.
type foreignMembers struct {
	state *state.Map
	keys  []state.KeyNID
}

var memberKeysLike = db.SQL(`SELECT key_nid, state_key FROM state_keys
	WHERE key_nid IN {ints $1} AND type = 'm.room.member' AND state_key LIKE $2`)

// membersOf lists the member keys of a server's users who have or had any
// membership in the room: no state forgets a user. What was found in one state
// is carried on to the next by what they differ in.
func (e *Engine) membersOf(ctx context.Context, r *Room, s matrix.ServerName) ([]state.KeyNID, error) {
	name := foreignKey{r.NID, s}
	now := r.View().State
	known, _ := e.foreign.Get(name)
	var fresh []state.KeyNID
	for _, c := range state.Diff(known.state, now) {
		if c.Old == 0 && MemberKey(c.Key) {
			fresh = append(fresh, c.Key)
		}
	}
	keys := slices.Clone(known.keys)
	for part := range slices.Chunk(fresh, readAtOnce) {
		err := db.Each(ctx, e.DB, memberKeysLike, func(row db.Scanner) error {
			var k state.KeyNID
			var u matrix.UserID
			err := row.Scan(&k, &u)
			if u.Server() == s {
				keys = append(keys, k)
			}
			return err
		}, part, "%:"+string(s))
		if err != nil {
			return nil, err
		}
	}
	e.foreign.Add(name, foreignMembers{now, keys})
	return keys, nil
}
