package syncapi

import (
	"cmp"
	"context"
	"encoding/json"
	"slices"
	"strconv"
	"sync"

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
		heroes, err := a.s.heroes(a.ctx, rd, a.d.user)
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

// heroes keeps the first members of rooms, which are the same for all who ask,
// the user who asks aside.
type heroes struct {
	mu    sync.Mutex
	rooms map[rooms.RoomNID]firstMembers
}

type firstMembers struct {
	state *state.Map // that they were found in
	there bool       // joined or invited, as opposed to gone
	users []matrix.UserID
}

const heroRooms = 10_000

// heroes are the first members other than the user who are joined or invited or,
// if there are none, who were.
func (s *Service) heroes(ctx context.Context, rd *roomDelta, user matrix.UserID) ([]matrix.UserID, error) {
	v, there := rd.view, rd.view.Joined+rd.view.Invited > 1
	s.first.mu.Lock()
	first := s.first.rooms[rd.Room]
	s.first.mu.Unlock()
	if first.state != v.State || first.there != there {
		memberships, want := []string{matrix.MembershipLeave, matrix.MembershipBan}, maxHeroes+1
		if there {
			memberships = []string{matrix.MembershipJoin, matrix.MembershipInvite}
			want = min(want, v.Joined+v.Invited)
		}
		users, err := s.firstMembers(ctx, v.State, want, memberships)
		if err != nil {
			return nil, err
		}
		first = firstMembers{v.State, there, users}
		s.first.mu.Lock()
		if len(s.first.rooms) >= heroRooms {
			clear(s.first.rooms)
		}
		s.first.rooms[rd.Room] = first
		s.first.mu.Unlock()
	}
	others := slices.DeleteFunc(slices.Clone(first.users), func(u matrix.UserID) bool { return u == user })
	return others[:min(len(others), maxHeroes)], nil
}

// firstMembers finds members by the order of their events.
func (s *Service) firstMembers(ctx context.Context, m *state.Map, want int, memberships []string) ([]matrix.UserID, error) {
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
			if len(found) < want && slices.Contains(memberships, ev.Membership()) {
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
