package rooms

import (
	"context"
	"maps"

	"github.com/teahouse-chat/teahouse/internal/db"
	"github.com/teahouse-chat/teahouse/internal/matrix"
)

var (
	allOutside = db.SQL(`SELECT event_nid, event_id, room_nid, version, position, replaces, json, CASE WHEN stripped IS NULL THEN 0 ELSE 1 END FROM outside`)
	allStays   = db.SQL(`SELECT room_nid, server, members, since, until FROM room_servers`)
	positionOf = db.SQL(`SELECT room_nid, user_id, position FROM memberships WHERE local = 1`)
)

// shell tells that the room is known from outside only.
func (r *checkedRoom) shell() bool { return r.snapshot == 0 && r.joined == 0 && r.invited == 0 }

// readOutside checks the events that are stored from outside: each is, or was, a
// membership of its user, and only what they have now is shown.
func (c *checker) readOutside(ctx context.Context, q db.Querier) error {
	var rows []outsideRow
	var shown []bool
	err := db.Each(ctx, q, allOutside, func(s db.Scanner) error {
		row, has := outsideRow{st: &Stored{Flags: Outside}}, false
		err := s.Scan(&row.st.NID, &row.id, &row.st.Room, &row.version, &row.st.Position, &row.st.Replaces, &row.json, &has)
		rows, shown = append(rows, row), append(shown, has)
		return err
	})
	if err != nil {
		return err
	}
	positions := map[RoomNID]map[matrix.UserID]int64{}
	err = db.Each(ctx, q, positionOf, func(s db.Scanner) error {
		var r RoomNID
		var u matrix.UserID
		var position int64
		err := s.Scan(&r, &u, &position)
		if positions[r] == nil {
			positions[r] = map[matrix.UserID]int64{}
		}
		positions[r][u] = position
		return err
	})
	if err != nil {
		return err
	}
	for i, row := range rows {
		r := c.rooms[row.st.Room]
		if r == nil {
			c.fault("event %s is stored from outside of room %d, which does not exist", row.id, row.st.Room)
			continue
		}
		st, err := c.e.loadOutside(ctx, row)
		if err != nil {
			c.fault("event %s, which is stored from outside: %v", row.id, err)
			continue
		}
		u := matrix.UserID(st.StateKey())
		switch m, ok := r.members[u]; {
		case ok && m.event == st.NID:
			r.outside[u] = true
			if m.membership != st.Membership() || !m.local || positions[r.nid][u] != st.Position {
				c.fault("the membership of %s in room %s is stored as %+v, not as event %s from outside has it", u, r.id, m, st.ID)
			}
		case !ok:
			c.fault("%s has no membership in room %s, but event %s from outside", u, r.id, st.ID)
		case shown[i]:
			c.fault("event %s from outside is no membership any more, but has stripped state", st.ID)
		}
	}
	return nil
}

// readServers checks the stays of servers, and counts who is there now.
func (c *checker) readServers(ctx context.Context, q db.Querier) error {
	return db.Each(ctx, q, allStays, func(s db.Scanner) error {
		var nid RoomNID
		var server matrix.ServerName
		var members int
		var since, until int64
		if err := s.Scan(&nid, &server, &members, &since, &until); err != nil {
			return err
		}
		r := c.rooms[nid]
		switch {
		case r == nil:
			c.fault("server %s is in room %d, which does not exist", server, nid)
		case members > 0 && r.servers[server] > 0:
			c.fault("server %s is in room %s twice", server, r.id)
		case members > 0:
			r.servers[server] = members
		}
		if members < 0 || (members > 0) != (until == 0) || until != 0 && until < since {
			c.fault("server %s is in room %d with %d members from %d to %d", server, nid, members, since, until)
		}
		return nil
	})
}

// checkServers counts the members of other servers anew.
func (c *checker) checkServers(r *checkedRoom) {
	servers := map[matrix.ServerName]int{}
	for u, m := range r.members {
		if !m.local && m.membership == matrix.MembershipJoin && u.Server() != "" {
			servers[u.Server()]++
		}
	}
	if !maps.Equal(servers, r.servers) {
		c.fault("room %s counts the members %v of other servers, and has %v", r.id, r.servers, servers)
	}
}
