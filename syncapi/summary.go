package syncapi

import (
	"cmp"
	"context"
	"encoding/json"
	"slices"
	"strconv"

	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms"
	"github.com/teahouse-chat/teahouse/rooms/state"
)

// maxHeroes is how many members stand for a room that has no name.
const maxHeroes = 5

// summary appends the room's summary, and puts the heroes among those whose
// member events the client needs.
// spec: client-server#get_matrixclientv3sync_response-200_roomsummary
func (a *answer) summary(rd *roomDelta, needed map[matrix.UserID]struct{}) error {
	v := rd.view
	a.buf = append(a.buf, `"summary":{"m.joined_member_count":`...)
	a.buf = strconv.AppendInt(a.buf, int64(v.Joined), 10)
	a.buf = append(a.buf, `,"m.invited_member_count":`...)
	a.buf = strconv.AppendInt(a.buf, int64(v.Invited), 10)
	named, err := a.s.named(a.ctx, v.State)
	if err != nil {
		return err
	}
	if !named {
		heroes, err := a.s.heroes(a.ctx, v, a.d.user)
		if err != nil {
			return err
		}
		for _, u := range heroes {
			needed[u] = struct{}{}
		}
		a.buf = append(a.buf, `,"m.heroes":`...)
		a.buf = appendTexts(a.buf, heroes)
	}
	a.buf = append(a.buf, '}')
	return nil
}

// named tells whether the room has a name or a canonical alias.
func (s *Service) named(ctx context.Context, m *state.Map) (bool, error) {
	for _, k := range []struct{ typ, member string }{{matrix.TypeName, "name"}, {matrix.TypeCanonicalAlias, "alias"}} {
		st, err := s.Rooms.StateEvent(ctx, m, k.typ, "")
		if err != nil {
			return false, err
		}
		if st == nil {
			continue
		}
		var content map[string]json.RawMessage
		_ = json.Unmarshal(st.Content, &content) // what is no object names nothing
		var text string
		if json.Unmarshal(content[k.member], &text) == nil && text != "" {
			return true, nil
		}
	}
	return false, nil
}

// heroesAtATime is how many members are looked at at once.
const heroesAtATime = 32

// heroes are the first members other than the user who are joined or invited or,
// if there are none, who were.
func (s *Service) heroes(ctx context.Context, v *rooms.View, user matrix.UserID) ([]matrix.UserID, error) {
	want := min(maxHeroes, v.Joined+v.Invited-1)
	if want > 0 {
		return s.firstMembers(ctx, v.State, user, want, matrix.MembershipJoin, matrix.MembershipInvite)
	}
	return s.firstMembers(ctx, v.State, user, maxHeroes, matrix.MembershipLeave, matrix.MembershipBan)
}

// firstMembers finds members by the order of their events.
func (s *Service) firstMembers(ctx context.Context, m *state.Map, user matrix.UserID, want int, memberships ...string) ([]matrix.UserID, error) {
	found := []matrix.UserID{}
	for above := state.EventNID(0); len(found) < want; {
		next := smallestMembers(m, above)
		if len(next) == 0 {
			break
		}
		above = next[len(next)-1]
		events, err := s.Rooms.Events(ctx, next)
		if err != nil {
			return nil, err
		}
		for _, ev := range events {
			u := matrix.UserID(ev.StateKey())
			if len(found) < want && u != user && slices.Contains(memberships, ev.Membership()) {
				found = append(found, u)
			}
		}
	}
	return found, nil
}

// smallestMembers lists the first few member events above a number, in order.
func smallestMembers(m *state.Map, above state.EventNID) []state.EventNID {
	var first []state.EventNID
	for k, n := range m.All() {
		if !rooms.MemberKey(k) || n <= above || len(first) == heroesAtATime && n > first[heroesAtATime-1] {
			continue
		}
		at, _ := slices.BinarySearchFunc(first, n, cmp.Compare[state.EventNID])
		first = slices.Insert(first, at, n)
		if len(first) > heroesAtATime {
			first = first[:heroesAtATime]
		}
	}
	return first
}
