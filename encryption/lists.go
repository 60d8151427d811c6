package encryption

import (
	"context"
	"maps"
	"slices"

	"github.com/teahouse-chat/teahouse/internal/db"
	"github.com/teahouse-chat/teahouse/internal/httpx"
	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms"
	"github.com/teahouse-chat/teahouse/rooms/state"
)

// openRoom is how many members a room without encryption may have for the users
// of other servers in it to count as company.
const openRoom = 500

// mayHaveMoved tells whether memberships of a room may have changed above a
// position.
func (e *Encryption) mayHaveMoved(r rooms.RoomNID, after int64) bool {
	if after < e.floor {
		return true
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.moves[r] > after
}

type users map[matrix.UserID]struct{}

func (s users) sorted() []matrix.UserID { return slices.Sorted(maps.Keys(s)) }

func union(a, b users) users {
	all := maps.Clone(a)
	maps.Copy(all, b)
	return all
}

// DeviceLists returns whose devices changed above the position after, up to and
// including upTo, or who came to share a room with the user; and with whom the
// user shares none any more.
// spec: client-server#e2e-extensions-to-sync
func (e *Encryption) DeviceLists(ctx context.Context, user matrix.UserID, after, upTo int64) (changed, left []matrix.UserID, err error) {
	if after >= upTo {
		return nil, nil, nil
	}
	mine, err := e.Rooms.Memberships(ctx, user)
	if err != nil {
		return nil, nil, err
	}
	came, went := users{}, users{}
	certain := users{} // need not share a room
	if e.lastChange.Load() > after || after < e.floor {
		err := db.Each(ctx, e.DB, selectChanges, func(s db.Scanner) error {
			var who, seenBy matrix.UserID
			err := s.Scan(&who, &seenBy)
			if who == user || seenBy != "" {
				certain[who] = struct{}{}
			} else {
				came[who] = struct{}{}
			}
			return err
		}, user, after, upTo)
		if err != nil {
			return nil, nil, err
		}
	}
	for _, m := range mine {
		if err := e.company(ctx, user, m, after, upTo, came, went); err != nil {
			return nil, nil, err
		}
	}
	// Who joins a room is told of themselves, too: their other devices learn by it
	// that there is a room to encrypt for.
	delete(went, user)
	with, err := e.sharing(ctx, user, mine, union(came, went))
	if err != nil {
		return nil, nil, err
	}
	for u := range with {
		if _, ok := came[u]; ok {
			certain[u] = struct{}{}
		}
		delete(went, u)
	}
	return certain.sorted(), went.sorted(), nil
}

// company adds who came into, and who went from, the company that the user has
// in a room.
func (e *Encryption) company(ctx context.Context, user matrix.UserID, m rooms.Membership, after, upTo int64, came, went users) error {
	in := m.Membership == matrix.MembershipJoin
	if in && !e.mayHaveMoved(m.Room, after) || !in && m.Position <= after {
		return nil
	}
	r, err := e.Rooms.RoomByNID(ctx, m.Room)
	if err != nil {
		return err
	}
	was, err := e.Rooms.StateAt(ctx, r, after)
	if err != nil {
		return err
	}
	wasIn, err := e.joinedIn(ctx, was, user)
	if err != nil {
		return err
	}
	switch {
	case in && wasIn:
		now, err := e.Rooms.StateAt(ctx, r, upTo)
		if err != nil {
			return err
		}
		return e.compare(ctx, was, now, came, went)
	case in:
		now, err := e.Rooms.StateAt(ctx, r, max(upTo, m.Position))
		if err != nil {
			return err
		}
		return e.members(ctx, r, now, came)
	case wasIn:
		return e.members(ctx, r, was, went)
	}
	return nil
}

func (e *Encryption) joinedIn(ctx context.Context, m *state.Map, user matrix.UserID) (bool, error) {
	st, err := e.Rooms.StateEvent(ctx, m, matrix.TypeMember, string(user))
	return st != nil && st.Membership() == matrix.MembershipJoin, err
}

// compare adds the users who joined and left between two states.
func (e *Encryption) compare(ctx context.Context, was, now *state.Map, came, went users) error {
	var olds, news []state.EventNID
	for _, c := range state.Diff(was, now) {
		if rooms.MemberKey(c.Key) {
			if c.Old != 0 {
				olds = append(olds, c.Old)
			}
			if c.New != 0 {
				news = append(news, c.New)
			}
		}
	}
	before, err := e.joinedOf(ctx, olds)
	if err != nil {
		return err
	}
	after, err := e.joinedOf(ctx, news)
	if err != nil {
		return err
	}
	for u := range after {
		if _, there := before[u]; !there {
			came[u] = struct{}{}
		}
	}
	for u := range before {
		if _, there := after[u]; !there {
			went[u] = struct{}{}
		}
	}
	return nil
}

// joinedOf are the users whom member events make members.
func (e *Encryption) joinedOf(ctx context.Context, nids []state.EventNID) (users, error) {
	joined := users{}
	events, err := e.Rooms.Events(ctx, nids)
	for _, st := range events {
		if st.Membership() == matrix.MembershipJoin {
			joined[matrix.UserID(st.StateKey())] = struct{}{}
		}
	}
	return joined, err
}

// members adds the members of a room. In large rooms without encryption the users
// of other servers are left out: nobody needs their devices there.
func (e *Encryption) members(ctx context.Context, r *rooms.Room, m *state.Map, all users) error {
	if r.View().Joined > openRoom {
		encrypted, err := e.Rooms.StateEvent(ctx, m, matrix.TypeEncryption, "")
		if err != nil {
			return err
		}
		if encrypted == nil {
			for _, u := range r.LocalMembers() {
				all[u] = struct{}{}
			}
			return nil
		}
	}
	joined, err := e.joinedMembers(ctx, m)
	maps.Copy(all, joined)
	return err
}

// joinedMembers are the members in a state.
func (e *Encryption) joinedMembers(ctx context.Context, m *state.Map) (users, error) {
	var nids []state.EventNID
	for k, n := range m.All() {
		if rooms.MemberKey(k) {
			nids = append(nids, n)
		}
	}
	return e.joinedOf(ctx, nids)
}

// sharing finds those of other users whom the user shares a room with.
func (e *Encryption) sharing(ctx context.Context, user matrix.UserID, mine []rooms.Membership, others users) (users, error) {
	joined := map[rooms.RoomNID]bool{}
	for _, m := range mine {
		if m.Membership == matrix.MembershipJoin {
			joined[m.Room] = true
		}
	}
	with := users{}
	var remote []matrix.UserID
	for u := range others {
		if !e.local(u) {
			remote = append(remote, u)
			continue
		}
		theirs, err := e.Rooms.Memberships(ctx, u)
		if err != nil {
			return nil, err
		}
		if slices.ContainsFunc(theirs, func(m rooms.Membership) bool {
			return m.Membership == matrix.MembershipJoin && joined[m.Room]
		}) {
			with[u] = struct{}{}
		}
	}
	for some := range slices.Chunk(remote, sweepSize) {
		shared, err := e.Rooms.SharedRooms(ctx, some)
		if err != nil {
			return nil, err
		}
		for u, list := range shared {
			if slices.ContainsFunc(list, func(n rooms.RoomNID) bool { return joined[n] }) {
				with[u] = struct{}{}
			}
		}
	}
	return with, nil
}

type changesRequest struct {
	From string `query:"from"`
	To   string `query:"to"`
}

type changesAnswer struct {
	Changed []matrix.UserID `json:"changed"`
	Left    []matrix.UserID `json:"left"`
}

// changes lists what /sync said of devices between two tokens.
// spec: client-server#get_matrixclientv3keyschanges
func (e *Encryption) changes(ctx context.Context, c *httpx.Caller, q *changesRequest) (*changesAnswer, error) {
	if q.From == "" {
		return nil, matrix.MissingParam("from is missing")
	}
	from, err := e.Position(q.From)
	if err != nil {
		return nil, matrix.InvalidParam("from is not a token of /sync").Because(err)
	}
	to := e.DB.Position()
	if q.To != "" {
		if to, err = e.Position(q.To); err != nil {
			return nil, matrix.InvalidParam("to is not a token of /sync").Because(err)
		}
	}
	a := &changesAnswer{}
	if a.Changed, a.Left, err = e.DeviceLists(ctx, c.User, from, min(to, e.DB.Position())); err != nil {
		return nil, err
	}
	if a.Changed == nil {
		a.Changed = []matrix.UserID{}
	}
	if a.Left == nil {
		a.Left = []matrix.UserID{}
	}
	return a, nil
}
