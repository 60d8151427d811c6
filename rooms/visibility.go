package rooms

import (
	"cmp"
	"context"
	"encoding/json"
	"slices"

	"github.com/teahouse-chat/teahouse/internal/db"
	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms/auth"
	"github.com/teahouse-chat/teahouse/rooms/state"
)

// visibilities remembers, for one reader of one room, what the states at events
// say; events that share a snapshot share the answer.
type visibilities struct {
	e          *Engine
	user       matrix.UserID
	keys       [2]state.KeyNID // history visibility, the user's membership
	bySnapshot map[SnapshotNID]moment
	own        Membership
	parting    // of a user who is not joined
}

// moment is what decides on an event: the state at it.
type moment struct {
	visibility, membership string
	member                 state.EventNID // what gives the membership; 0 for none
}

// parting is how far a user who was joined sees shared history.
type parting struct {
	left int64            // position at which they ceased to be joined; minPosition if they never were, maxPosition if they are
	gone []state.EventNID // the member events since
}

// Visible filters events down to those that the user may see.
// spec: client-server#server-behaviour-5
func (e *Engine) Visible(ctx context.Context, r *Room, u matrix.UserID, events []*Stored) ([]*Stored, error) {
	if len(events) == 0 {
		return nil, nil
	}
	v, err := e.visibilities(ctx, r, u)
	if err != nil {
		return nil, err
	}
	if err := e.warmLayers(ctx, v.doubtful(events)); err != nil {
		return nil, err
	}
	visible := make([]*Stored, 0, len(events))
	for _, st := range events {
		ok, err := v.allows(ctx, st)
		if err != nil {
			return nil, err
		}
		if ok {
			visible = append(visible, st)
		}
	}
	return visible, nil
}

func (e *Engine) visibilities(ctx context.Context, r *Room, u matrix.UserID) (*visibilities, error) {
	keys, err := e.Keys(ctx, []auth.Key{{Type: matrix.TypeHistoryVisibility}, {Type: matrix.TypeMember, StateKey: string(u)}})
	if err != nil {
		return nil, err
	}
	v := &visibilities{e: e, user: u, keys: [2]state.KeyNID(keys), bySnapshot: map[SnapshotNID]moment{}, parting: parting{left: minPosition}}
	m, err := e.Membership(ctx, r, u)
	if err != nil {
		return nil, err
	}
	v.own = m
	switch m.Membership {
	case matrix.MembershipJoin:
		v.left = maxPosition
	case matrix.MembershipLeave, matrix.MembershipBan, matrix.MembershipInvite, matrix.MembershipKnock:
		if v.parting, err = e.partingOf(ctx, m); err != nil {
			return nil, err
		}
	}
	return v, nil
}

// partingOf finds out when a user who is not joined ceased to be so, as far as
// the chain of member events that replaced each other tells.
func (e *Engine) partingOf(ctx context.Context, m Membership) (parting, error) {
	p := parting{left: m.Position}
	for nid := m.Event; nid != 0; {
		events, err := e.Events(ctx, []state.EventNID{nid})
		if err != nil {
			return p, err
		}
		if events[0].Membership() == matrix.MembershipJoin {
			return p, nil
		}
		if len(p.gone) > 0 {
			p.left = events[0].Position
		}
		p.gone = append(p.gone, nid)
		nid = events[0].Replaces
	}
	p.left = minPosition
	return p, nil
}

// sees tells whether the user was joined at some time after an event, or at it.
// Backfilled events may fill a gap that came after the user had left, so that
// their positions say nothing about that.
func (p parting) sees(at moment, st *Stored) bool {
	if st.Position < 0 && p.left != minPosition {
		return !slices.Contains(p.gone, at.member)
	}
	return st.Position <= p.left
}

// allows decides on one event.
func (v *visibilities) allows(ctx context.Context, st *Stored) (bool, error) {
	if !st.Served() {
		return false, nil
	}
	if v.certain(st) {
		return true, nil
	}
	at, err := v.at(ctx, st.Snapshot)
	if err != nil {
		return false, err
	}
	if v.sees(at, st) {
		return true, nil
	}
	// Of a change of visibility, or of one's own membership, the state before
	// it counts as well: whoever saw the room then sees the change.
	if st.Is(matrix.TypeHistoryVisibility, "") || st.Is(matrix.TypeMember, string(v.user)) {
		before := at
		old, err := v.replaced(ctx, st)
		if err != nil {
			return false, err
		}
		switch {
		case st.Type == matrix.TypeMember:
			before.membership = ""
			if old != nil {
				before.membership = old.Membership()
			}
		default:
			before.visibility = historyVisibility(old)
		}
		return v.sees(before, st), nil
	}
	return false, nil
}

// certain tells, without reading anything, that the user was joined at the event.
func (v *visibilities) certain(st *Stored) bool {
	return v.own.Membership == matrix.MembershipJoin && v.since(st)
}

// doubtful are the events whose state must be looked at.
func (v *visibilities) doubtful(events []*Stored) []*Stored {
	var doubtful []*Stored
	for _, st := range events {
		if st.Served() && !v.certain(st) {
			doubtful = append(doubtful, st)
		}
	}
	return doubtful
}

// since tells, without reading anything, that the user's membership at the event
// is what it is now: the event was committed later, on the room's own state.
func (v *visibilities) since(st *Stored) bool {
	return st.Position >= v.own.Position && st.Snapshot == st.Resolved && v.own.Membership != ""
}

// membershipAt is the user's membership at the event, "leave" if there is none.
func (v *visibilities) membershipAt(ctx context.Context, st *Stored) (string, error) {
	if v.since(st) {
		return v.own.Membership, nil
	}
	m, err := v.at(ctx, st.Snapshot)
	if err != nil || m.membership != "" {
		return m.membership, err
	}
	return matrix.MembershipLeave, nil
}

func (v *visibilities) replaced(ctx context.Context, st *Stored) (*Stored, error) {
	if st.Replaces == 0 {
		return nil, nil
	}
	events, err := v.e.Events(ctx, []state.EventNID{st.Replaces})
	if err != nil {
		return nil, err
	}
	return events[0], nil
}

func (v *visibilities) sees(at moment, st *Stored) bool {
	switch {
	case at.visibility == matrix.VisibilityWorldReadable, at.membership == matrix.MembershipJoin:
		return true
	case at.visibility == matrix.VisibilityInvited && at.membership == matrix.MembershipInvite:
		return true
	case at.visibility == matrix.VisibilityShared:
		return v.parting.sees(at, st)
	}
	return false
}

// at reads the two deciding events of a snapshot, without building it.
func (v *visibilities) at(ctx context.Context, n SnapshotNID) (moment, error) {
	if m, ok := v.bySnapshot[n]; ok {
		return m, nil
	}
	nids, err := v.e.lookup(ctx, n, v.keys[:])
	if err != nil {
		return moment{}, err
	}
	m := moment{visibility: matrix.VisibilityShared}
	for i, nid := range nids {
		if nid == 0 {
			continue
		}
		events, err := v.e.Events(ctx, []state.EventNID{nid})
		if err != nil {
			return moment{}, err
		}
		if i == 0 {
			m.visibility = historyVisibility(events[0])
		} else {
			m.membership, m.member = events[0].Membership(), nid
		}
	}
	v.bySnapshot[n] = m
	return m, nil
}

// historyVisibility reads the setting; whatever is absent or unknown is shared.
func historyVisibility(st *Stored) string {
	if st == nil {
		return matrix.VisibilityShared
	}
	if v, ok := st.Memo(func() any { return parseHistoryVisibility(st.Content) }).(string); ok {
		return v
	}
	return parseHistoryVisibility(st.Content)
}

func parseHistoryVisibility(content []byte) string {
	var c struct {
		Visibility string `json:"history_visibility"`
	}
	_ = json.Unmarshal(content, &c) // a content of the wrong type is as good as none
	switch c.Visibility {
	case matrix.VisibilityInvited, matrix.VisibilityJoined, matrix.VisibilityWorldReadable:
		return c.Visibility
	}
	return matrix.VisibilityShared
}

var layersByNIDs = db.SQL(`SELECT snapshot, parent, entries FROM snapshots WHERE snapshot IN {ints $1}`)

// warmLayers reads the layers of the snapshots after events, all of one depth at
// once, so that lookups find them in memory.
func (e *Engine) warmLayers(ctx context.Context, events []*Stored) error {
	nids := make([]SnapshotNID, len(events))
	for i, st := range events {
		nids[i] = st.Snapshot
	}
	for nids = sortedSnapshots(nids); len(nids) > 0; nids = sortedSnapshots(nids) {
		var cold, parents []SnapshotNID
		for _, n := range nids {
			if l, ok := e.layers.Get(n); ok {
				parents = append(parents, SnapshotNID(l.Parent))
			} else if n != 0 {
				cold = append(cold, n)
			}
		}
		if len(cold) > 0 {
			err := db.Each(ctx, e.DB, layersByNIDs, func(s db.Scanner) error {
				var l state.Layer
				var entries []byte
				err := s.Scan(&l.NID, &l.Parent, &entries)
				if err != nil {
					return err
				}
				if l.Entries, err = state.DecodeEntries(entries); err != nil {
					return err
				}
				e.layers.Add(SnapshotNID(l.NID), l)
				parents = append(parents, SnapshotNID(l.Parent))
				return nil
			}, cold)
			if err != nil {
				return err
			}
		}
		nids = parents
	}
	return nil
}

// lookup finds a few keys in a stored snapshot from its layers; 0 where the
// state has none.
func (e *Engine) lookup(ctx context.Context, n SnapshotNID, keys []state.KeyNID) ([]state.EventNID, error) {
	found := make([]state.EventNID, len(keys))
	done := make([]bool, len(keys))
	for n != 0 {
		l, err := e.layer(ctx, n)
		if err != nil {
			return nil, err
		}
		for i, k := range keys {
			at, ok := slices.BinarySearchFunc(l.Entries, k, func(e state.Entry, k state.KeyNID) int { return cmp.Compare(e.Key, k) })
			if ok && !done[i] {
				found[i], done[i] = l.Entries[at].Event, true
			}
		}
		n = SnapshotNID(l.Parent)
	}
	return found, nil
}
