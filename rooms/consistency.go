package rooms

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/teahouse-chat/teahouse/internal/db"
	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms/auth"
	"github.com/teahouse-chat/teahouse/rooms/event"
	"github.com/teahouse-chat/teahouse/rooms/state"
)

var (
	allRooms       = db.SQL(`SELECT room_nid, room_id, version, snapshot, extremities, joined, invited, unread, gap FROM rooms ORDER BY room_nid`)
	newestEvents   = db.SQL(selectEvents + `WHERE e.event_nid < $1 ORDER BY e.event_nid DESC LIMIT $2`)
	allSnapshots   = db.SQL(`SELECT snapshot, parent, entries FROM snapshots ORDER BY snapshot`)
	allMemberships = db.SQL(`SELECT user_id, room_nid, membership, event_nid, local FROM memberships`)
	eventsNoJSON   = db.SQL(`SELECT event_nid FROM events WHERE event_nid NOT IN (SELECT event_nid FROM event_json)`)
	keysNoEvent    = db.SQL(`SELECT key_nid FROM state_keys WHERE key_nid NOT IN (SELECT key_nid FROM events)`)
	snapshotsGone  = db.SQL(`SELECT event_nid FROM events WHERE snapshot <> 0 AND snapshot NOT IN (SELECT snapshot FROM snapshots)
		OR resolved <> 0 AND resolved NOT IN (SELECT snapshot FROM snapshots)`)
	positionsTwice = db.SQL(`SELECT MIN(event_nid) FROM events WHERE position <> 0 GROUP BY room_nid, position HAVING COUNT(*) > 1`)
)

const (
	checkedEvents = 200_000 // the newest ones; older ones are looked at only where rooms rest on them
	checkedPage   = 1000
	namedFaults   = 20
)

// CheckConsistency looks for contradictions in what the database says of rooms,
// and between that and the rooms in memory. The error names what it found. It
// reads most of the database: it is for tests and for operators in doubt.
func (e *Engine) CheckConsistency(ctx context.Context) error {
	c := &checker{
		e: e, rooms: map[RoomNID]*checkedRoom{}, seen: map[state.EventNID]seenEvent{}, ids: map[matrix.EventID]state.EventNID{},
		layers: map[SnapshotNID]state.Layer{},
	}
	err := e.DB.View(ctx, func(q db.Querier) error {
		for _, check := range []func(context.Context, db.Querier) error{
			c.readRooms, c.readSnapshots, c.readMemberships, c.readOutside, c.readServers, c.counts, c.readEvents, c.checkRooms,
			c.checkGaps, c.checkAwaited, c.checkThreads,
		} {
			if err := check(ctx, q); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	c.checkViews()
	return errors.Join(c.faults...)
}

type checker struct {
	e      *Engine
	rooms  map[RoomNID]*checkedRoom
	seen   map[state.EventNID]seenEvent
	ids    map[matrix.EventID]state.EventNID
	layers map[SnapshotNID]state.Layer
	faults []error
	all    bool // every event was looked at
}

type checkedRoom struct {
	roomRow
	room        roomName
	extremities []state.EventNID
	members     map[matrix.UserID]memberRow
	outside     map[matrix.UserID]bool // those whose membership is stored from outside
	servers     map[matrix.ServerName]int
	builtOn     map[matrix.EventID]state.EventNID // what accepted events build on, by whom
	timeline    []seenEvent
	held        bool // some events have moved the state without being in the timeline
	gaps        map[gap]bool
	replies     map[matrix.EventID]int64 // by thread
}

// gap is an event that is not here and one that builds on it.
type gap struct {
	missing matrix.EventID
	by      state.EventNID
}

// seenEvent is what is kept of an event that was looked at.
type seenEvent struct {
	nid      state.EventNID
	room     RoomNID
	position int64
	unread   int64
	thread   matrix.EventID
	flags    Flags
	state    bool
	snapshot SnapshotNID
	resolved SnapshotNID
}

type memberRow struct {
	membership string
	event      state.EventNID
	local      bool
}

func (c *checker) fault(format string, args ...any) {
	if len(c.faults) < namedFaults {
		c.faults = append(c.faults, fmt.Errorf("rooms: "+format, args...))
	}
}

func (c *checker) readRooms(ctx context.Context, q db.Querier) error {
	rows, err := db.All(ctx, q, allRooms, scanRoom)
	if err != nil {
		return err
	}
	for _, row := range rows {
		name, err := c.e.nameRow(row)
		if err != nil {
			c.fault("room %s: %v", row.id, err)
			continue
		}
		r := &checkedRoom{roomRow: row, room: name, members: map[matrix.UserID]memberRow{}, builtOn: map[matrix.EventID]state.EventNID{},
			outside: map[matrix.UserID]bool{}, servers: map[matrix.ServerName]int{}, gaps: map[gap]bool{}, replies: map[matrix.EventID]int64{}}
		if r.extremities, err = decodeNIDs(row.extremities); err != nil || (len(r.extremities) == 0) != r.shell() {
			c.fault("room %s has no forward extremities (%v)", row.id, err)
		}
		c.rooms[row.nid] = r
	}
	return nil
}

// readSnapshots checks that every layer lies over an older one.
func (c *checker) readSnapshots(ctx context.Context, q db.Querier) error {
	return db.Each(ctx, q, allSnapshots, func(s db.Scanner) error {
		var l state.Layer
		var packed []byte
		if err := s.Scan(&l.NID, &l.Parent, &packed); err != nil {
			return err
		}
		var err error
		if l.Entries, err = state.DecodeEntries(packed); err != nil {
			c.fault("snapshot %d: %v", l.NID, err)
		}
		if _, ok := c.layers[SnapshotNID(l.Parent)]; l.Parent != 0 && !ok {
			c.fault("snapshot %d lies over %d, which is not older", l.NID, l.Parent)
		}
		c.layers[SnapshotNID(l.NID)] = l
		return nil
	})
}

func (c *checker) readMemberships(ctx context.Context, q db.Querier) error {
	return db.Each(ctx, q, allMemberships, func(s db.Scanner) error {
		var u matrix.UserID
		var nid RoomNID
		var m memberRow
		if err := s.Scan(&u, &nid, &m.membership, &m.event, &m.local); err != nil {
			return err
		}
		if r := c.rooms[nid]; r != nil {
			r.members[u] = m
		} else {
			c.fault("%s has a membership in room %d, which does not exist", u, nid)
		}
		return nil
	})
}

// counts asks the database itself for what must not be there.
func (c *checker) counts(ctx context.Context, q db.Querier) error {
	for _, ask := range []struct {
		stmt  *db.Stmt
		fault string
	}{
		{eventsNoJSON, "event %d has no text"},
		{keysNoEvent, "no event has the state key %d"},
		{snapshotsGone, "a snapshot of event %d is missing"},
		{positionsTwice, "another event has the position of event %d"},
	} {
		nids, err := db.All(ctx, q, ask.stmt, scanOne[int64])
		if err != nil {
			return err
		}
		for _, nid := range nids {
			c.fault(ask.fault, nid)
		}
	}
	return nil
}

// readEvents looks at each event by itself, newest first.
func (c *checker) readEvents(ctx context.Context, q db.Querier) error {
	from := state.EventNID(maxPosition)
	for range checkedEvents / checkedPage {
		events, err := db.All(ctx, q, newestEvents, c.e.scanEvents(ctx), from, checkedPage)
		if err != nil {
			return err
		}
		if err := c.checkKeys(ctx, q, events); err != nil {
			return err
		}
		for _, st := range events {
			c.checkEvent(st)
			from = st.NID
		}
		if len(events) < checkedPage {
			c.all = true
			break
		}
	}
	return nil
}

func (c *checker) checkEvent(st *Stored) {
	r := c.rooms[st.Room]
	if r == nil {
		c.fault("event %s is of room %d, which does not exist", st.ID, st.Room)
		return
	}
	s := seenEvent{st.NID, st.Room, st.Position, st.Unread, st.Thread, st.Flags, st.IsState(), st.Snapshot, st.Resolved}
	c.seen[st.NID], c.ids[st.ID] = s, st.NID
	if r.shell() {
		c.fault("room %s is known from outside only, and has the event %s", r.id, st.ID)
	}
	if (st.Flags == 0) != (st.Position != 0) && (st.Flags != Held || st.Position > 0) {
		c.fault("event %s has the flags %d and the position %d", st.ID, st.Flags, st.Position)
	}
	if ev, err := event.Parse(st.Version, st.JSON); err != nil || ev.ID != st.ID || ev.RoomID != r.id {
		c.fault("the text of event %s is not its own (%v)", st.ID, err)
	}
	for _, a := range st.Auth {
		if a >= st.NID {
			c.fault("event %d has the auth event %d, which is not older", st.NID, a)
		}
	}
	if st.IsState() && len(st.Auth) != 0 && len(st.Auth) != len(st.AuthEvents) {
		c.fault("event %s has %d auth events, not %d", st.ID, len(st.Auth), len(st.AuthEvents))
	}
	// A redaction that had to wait for something of the past is shown there.
	r.held = r.held || st.Flags&Held != 0 || st.Position < 0 && st.Type == matrix.TypeRedaction
	if st.Position > 0 {
		r.timeline = append(r.timeline, s)
	}
	if st.Flags&(Rejected|SoftFailed|Outlier) == 0 {
		for _, id := range st.PrevEvents {
			if st.Position >= 0 { // what fills a gap leaves the extremities alone
				r.builtOn[id] = st.NID
			}
			r.gaps[gap{id, st.NID}] = true
		}
	}
	if st.Thread != "" && st.Position != 0 && st.RedactedBy == 0 {
		r.replies[st.Thread]++
	}
}

// checkKeys checks that state events have the number of their type and key.
func (c *checker) checkKeys(ctx context.Context, q db.Querier, events []*Stored) error {
	var nids []state.KeyNID
	for _, st := range events {
		nids = append(nids, st.Key)
	}
	keys := map[state.KeyNID]auth.Key{}
	err := db.Each(ctx, q, keysByNIDs, func(s db.Scanner) error {
		var n state.KeyNID
		var k auth.Key
		err := s.Scan(&n, &k.Type, &k.StateKey)
		keys[n] = k
		return err
	}, nids)
	for _, st := range events {
		switch want := (auth.Key{Type: st.Type, StateKey: st.StateKey()}); {
		case !st.IsState() && st.Key != 0, st.IsState() && keys[st.Key] != want:
			c.fault("event %s has the state key %d, which is %v", st.ID, st.Key, keys[st.Key])
		case st.IsState() && MemberKey(st.Key) != (st.Type == matrix.TypeMember):
			c.fault("the state key %d of a %s is of the wrong kind", st.Key, st.Type)
		}
	}
	return err
}

func (c *checker) checkRooms(ctx context.Context, q db.Querier) error {
	for _, r := range c.rooms {
		c.checkExtremities(r)
		c.checkUnread(r)
		c.checkLine(r)
		c.checkServers(r)
		if err := c.checkState(ctx, q, r); err != nil {
			return err
		}
	}
	return nil
}

func (c *checker) checkExtremities(r *checkedRoom) {
	extremities := map[state.EventNID]bool{}
	for _, nid := range r.extremities {
		extremities[nid] = true
		if s, ok := c.seen[nid]; !ok || s.flags&(Rejected|SoftFailed|Outlier) != 0 {
			c.fault("room %s has the forward extremity %d, which is missing or was turned down (%d)", r.id, nid, s.flags)
		}
	}
	for id, by := range r.builtOn {
		if nid, ok := c.ids[id]; ok && extremities[nid] {
			c.fault("room %s has the forward extremity %d, which event %d builds on", r.id, nid, by)
		}
	}
}

// checkUnread checks that running counts only grow.
func (c *checker) checkUnread(r *checkedRoom) {
	slices.SortFunc(r.timeline, func(a, b seenEvent) int { return cmp.Compare(a.position, b.position) })
	last := map[matrix.EventID]int64{}
	for _, s := range r.timeline {
		if s.unread < last[s.thread] {
			c.fault("in room %s the unread count falls to %d at event %d", r.id, s.unread, s.nid)
		}
		last[s.thread] = s.unread
	}
	if last[""] > r.unread {
		c.fault("room %s counts %d unread events, but its last one %d", r.id, r.unread, last[""])
	}
}

// checkLine checks that the states after the events of the timeline follow each
// other up to the current one.
func (c *checker) checkLine(r *checkedRoom) {
	if r.held || len(r.timeline) == 0 {
		return
	}
	for i, s := range r.timeline[1:] {
		before := r.timeline[i]
		if !s.state && s.snapshot == s.resolved && s.resolved != before.resolved {
			c.fault("in room %s the state changes at event %d, which is none of state", r.id, s.nid)
		}
	}
	if last := r.timeline[len(r.timeline)-1]; last.resolved != r.snapshot {
		c.fault("room %s is at snapshot %d, its newest event %d at %d", r.id, r.snapshot, last.nid, last.resolved)
	}
}

// checkViews compares the rooms in memory with what was read, unless they have
// moved on.
func (c *checker) checkViews() {
	for nid, r := range c.rooms {
		room := c.e.loadedNID(nid)
		if room == nil {
			continue
		}
		v := room.View()
		if v.Snapshot == r.snapshot && (v.Joined != r.joined || v.Invited != r.invited) {
			c.fault("room %s shows %d joined and %d invited users, and has %d and %d", r.id, v.Joined, v.Invited, r.joined, r.invited)
		}
		if v.Snapshot == r.snapshot && !slices.Equal(room.Servers(), slices.Sorted(maps.Keys(r.servers))) {
			c.fault("room %s shows the servers %v, and has %v", r.id, room.Servers(), r.servers)
		}
		if len(r.timeline) == 0 || v.Position != r.timeline[len(r.timeline)-1].position {
			continue
		}
		if v.Snapshot != r.snapshot {
			c.fault("room %s shows the snapshot %d, and has %d", r.id, v.Snapshot, r.snapshot)
		}
		for u, m := range r.members {
			if m.local && room.IsLocalMember(u) != (m.membership == matrix.MembershipJoin) {
				c.fault("room %s has the wrong idea of whether %s is joined", r.id, u)
			}
		}
	}
}
