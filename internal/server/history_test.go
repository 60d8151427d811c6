package server_test

import (
	"encoding/json"
	"math"

	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/internal/testrig"
	"github.com/teahouse-chat/teahouse/rooms"
)

// happening is one event of a room, as the model of what users may see knows it.
type happening struct {
	id       matrix.EventID
	typ      string
	key      *string
	position int64
	value    string // the membership of a member event, the visibility of m.room.history_visibility
}

func (h *happening) is(typ, key string) bool { return h.typ == typ && h.key != nil && *h.key == key }

// happenings reads on in a room's history.
func happenings(s *testrig.Server, t fatal, room matrix.RoomID, known []happening) []happening {
	ctx := t.Context()
	r, err := s.Rooms().Room(ctx, room)
	if err != nil {
		t.Fatalf("%s: %v", room, err)
	}
	from := int64(math.MinInt64)
	if len(known) > 0 {
		from = known[len(known)-1].position
	}
	for {
		page, err := s.Rooms().Timeline(ctx, rooms.TimelineQuery{Room: r, From: from, Limit: 1000})
		if err != nil {
			t.Fatalf("%s: %v", room, err)
		}
		if len(page) == 0 {
			return known
		}
		for _, st := range page {
			h := happening{id: st.ID, typ: st.Type, key: st.StateKeyPtr(), position: st.Position, value: st.Membership()}
			if st.Is(matrix.TypeHistoryVisibility, "") {
				var c struct {
					Visibility string `json:"history_visibility"`
				}
				_ = json.Unmarshal(st.Content, &c)
				h.value = c.Visibility
			}
			known, from = append(known, h), st.Position
		}
	}
}

// sight is what one user may know of a room whose history is a line.
type sight struct {
	membership string // now
	world      bool   // the room is world readable now
	left       int    // index of the event that ended the last stay; the end of the history for who is joined, -1 for who never was
	visible    map[matrix.EventID]bool
	known      map[matrix.EventID]bool // state that held at an event that the user sees
	index      map[matrix.EventID]int
}

// sightOf transcribes the rules by which history is visible.
// spec: client-server#server-behaviour-5
func sightOf(u matrix.UserID, line []happening) sight {
	type moment struct{ visibility, membership string }
	at := make([]moment, len(line))
	s := sight{left: -1, visible: map[matrix.EventID]bool{}, known: map[matrix.EventID]bool{}, index: map[matrix.EventID]int{}}
	now := moment{visibility: matrix.VisibilityShared}
	stay := -1 // index of the last event at which the user was joined
	for i := range line {
		h := &line[i]
		s.index[h.id] = i
		switch {
		case h.is(matrix.TypeHistoryVisibility, ""):
			now.visibility = h.value
		case h.is(matrix.TypeMember, string(u)):
			now.membership = h.value
		}
		at[i] = now
		if now.membership == matrix.MembershipJoin {
			stay = i
		}
	}
	s.membership, s.world = now.membership, now.visibility == matrix.VisibilityWorldReadable
	if stay >= 0 {
		s.left = min(stay+1, len(line)-1)
	}
	sees := func(m moment, i int) bool {
		switch {
		case m.visibility == matrix.VisibilityWorldReadable, m.membership == matrix.MembershipJoin:
			return true
		case m.visibility == matrix.VisibilityInvited:
			return m.membership == matrix.MembershipInvite
		case m.visibility == matrix.VisibilityShared:
			return i <= stay
		}
		return false
	}
	type key struct{ typ, key string }
	holds := map[key]matrix.EventID{}
	know := func() {
		for _, id := range holds {
			s.known[id] = true
		}
	}
	for i := range line {
		h := &line[i]
		ok := sees(at[i], i)
		if h.is(matrix.TypeHistoryVisibility, "") || h.is(matrix.TypeMember, string(u)) {
			before := moment{visibility: matrix.VisibilityShared}
			if i > 0 {
				before = at[i-1]
			}
			ok = ok || sees(before, i)
		}
		if ok {
			s.visible[h.id] = true
			know() // a timeline may begin here
		}
		if h.key != nil {
			holds[key{h.typ, *h.key}] = h.id
		}
		if ok {
			know()
		}
	}
	return s
}

// readable lists what a user who may read the room at all gets by paging
// through it, in order.
func (s *sight) readable(line []happening) []matrix.EventID {
	until := len(line) - 1
	if s.membership != matrix.MembershipJoin && !s.world {
		until = s.left
	}
	var ids []matrix.EventID
	for i := 0; i <= until; i++ {
		if s.visible[line[i].id] {
			ids = append(ids, line[i].id)
		}
	}
	return ids
}
