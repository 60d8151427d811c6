package rooms

import (
	"context"
	"maps"
	"slices"

	"github.com/teahouse-chat/teahouse/internal/db"
	"github.com/teahouse-chat/teahouse/internal/matrix"
)

// A row of room_servers is a stay of another server in a room: from the event
// that brought its first member to the one that took its last. The stay goes on
// while it has members; until is 0 then.
var (
	insertStay = db.SQL(`INSERT INTO room_servers (room_nid, server, members, since, until) VALUES ($1, $2, $3, $4, $5)
		ON CONFLICT (room_nid, server, since) DO UPDATE SET members = excluded.members, until = excluded.until`)
	countStay = db.SQL(`UPDATE room_servers SET members = $1 WHERE room_nid = $2 AND server = $3 AND members > 0`)
	endStay   = db.SQL(`UPDATE room_servers SET members = 0, until = $1 WHERE room_nid = $2 AND server = $3 AND members > 0`)
	staysIn   = db.SQL(`SELECT server, members FROM room_servers WHERE room_nid = $1 AND members > 0 ORDER BY server`)

	roomsWith = db.SQL(`SELECT s.room_nid FROM room_servers s WHERE s.server = $1 AND s.members > 0 AND EXISTS
		(SELECT 1 FROM memberships m WHERE m.room_nid = s.room_nid AND m.local = 1 AND m.membership = 'join') ORDER BY s.room_nid`)
	serversWith = db.SQL(`SELECT DISTINCT s.server FROM memberships m JOIN room_servers s ON s.room_nid = m.room_nid AND s.members > 0
		WHERE m.user_id = $1 AND m.membership = 'join' ORDER BY s.server`)
)

// servers are the other servers with joined members in a room, and how many each
// has. They never change; nil is none.
type servers struct {
	names   []matrix.ServerName // sorted
	members []int
}

func (s *servers) list() []matrix.ServerName {
	if s == nil {
		return nil
	}
	return s.names
}

// count is how many members a server has.
func (s *servers) count(name matrix.ServerName) int {
	if at, ok := slices.BinarySearch(s.list(), name); ok {
		return s.members[at]
	}
	return 0
}

// with is s with changed numbers of members.
func (s *servers) with(moves []serverMove) *servers {
	next := make(map[matrix.ServerName]int, len(s.list())+len(moves))
	for i, name := range s.list() {
		next[name] = s.members[i]
	}
	for _, m := range moves {
		next[m.server] = m.is
	}
	return newServers(next)
}

func newServers(members map[matrix.ServerName]int) *servers {
	s := &servers{}
	for _, name := range slices.Sorted(maps.Keys(members)) {
		if n := members[name]; n > 0 {
			s.names, s.members = append(s.names, name), append(s.members, n)
		}
	}
	if len(s.names) == 0 {
		return nil
	}
	return s
}

// serverMove is a change of how many members a server has in a room. One from 0
// to 0 is a server that is not in the room and has to hear of the event.
type serverMove struct {
	server  matrix.ServerName
	was, is int
	by      *Stored
	at      int64 // position of by, known once it is written
}

// memberMoves collects, by server, the changes that member events make.
type memberMoves map[matrix.ServerName]int

// add takes account of a change of somebody's membership; old and fresh are nil
// where there is none.
func (m *memberMoves) add(own matrix.ServerName, user matrix.UserID, old, fresh *Stored) {
	by := 0
	if fresh != nil && fresh.Membership() == matrix.MembershipJoin {
		by++
	}
	if old != nil && old.Membership() == matrix.MembershipJoin {
		by--
	}
	server := user.Server()
	if by == 0 || server == own || server == "" {
		return
	}
	if *m == nil {
		*m = memberMoves{}
	}
	(*m)[server] += by
}

// moveServers brings the head's servers up to changes of members.
func (b *Builder) moveServers(changes memberMoves, by *Stored) {
	var moves []serverMove
	for _, server := range slices.Sorted(maps.Keys(changes)) {
		if n := changes[server]; n != 0 {
			was := b.head.servers.count(server)
			moves = append(moves, serverMove{server: server, was: was, is: was + n, by: by})
		}
	}
	if len(moves) > 0 {
		b.head.servers = b.head.servers.with(moves)
		b.serverMoves = append(b.serverMoves, moves...)
	}
}

// writeServers stores what became of the servers, in the transaction that gave
// the events their positions.
func (b *Builder) writeServers(tx *db.Tx) error {
	if len(b.serverMoves) == 0 {
		return nil
	}
	last := make(map[matrix.ServerName]int, len(b.serverMoves))
	for i, m := range b.serverMoves {
		last[m.server] = i
	}
	for i := range b.serverMoves {
		m := &b.serverMoves[i]
		if m.at = m.by.Position; m.at == 0 { // it changed the room, though clients do not see it
			m.at = tx.Position()
		}
		var err error
		switch {
		case m.was == 0 && m.is == 0:
			err = tx.Exec(insertStay, b.room.NID, m.server, 0, m.at, m.at)
		case m.was == 0:
			err = tx.Exec(insertStay, b.room.NID, m.server, m.is, m.at, 0)
		case m.is == 0:
			err = tx.Exec(endStay, m.at, b.room.NID, m.server)
		case last[m.server] == i:
			err = tx.Exec(countStay, m.is, b.room.NID, m.server)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// loadServers reads a room's servers.
func (e *Engine) loadServers(ctx context.Context, r RoomNID) (*servers, error) {
	members := map[matrix.ServerName]int{}
	err := db.Each(ctx, e.DB, staysIn, func(s db.Scanner) error {
		var name matrix.ServerName
		var n int
		err := s.Scan(&name, &n)
		members[name] = n
		return err
	}, r)
	return newServers(members), err
}

// Servers lists the other servers that have joined members in the room, sorted.
// The slice is shared: do not change it.
func (r *Room) Servers() []matrix.ServerName { return r.View().servers.list() }

// HasServer tells whether another server has joined members in the room.
func (r *Room) HasServer(s matrix.ServerName) bool { return r.View().servers.count(s) > 0 }

// RoomsWith lists the rooms in which both this server and another one have
// joined members.
func (e *Engine) RoomsWith(ctx context.Context, s matrix.ServerName) ([]RoomNID, error) {
	return db.All(ctx, e.DB, roomsWith, scanOne[RoomNID], s)
}

// ServersWith lists the other servers that share a room with a local user,
// sorted.
func (e *Engine) ServersWith(ctx context.Context, u matrix.UserID) ([]matrix.ServerName, error) {
	return db.All(ctx, e.DB, serversWith, scanOne[matrix.ServerName], u)
}

// ends tells which server has to hear of a member event because it ends the
// invite or the knock of one of its users, though the server is not in the room;
// "" for none.
func (b *Builder) ends(st *Stored) (matrix.ServerName, error) {
	if m := st.Membership(); m != matrix.MembershipLeave && m != matrix.MembershipBan || st.Replaces == 0 {
		return "", nil
	}
	server := matrix.UserID(st.StateKey()).Server()
	if server == b.e.ServerName || server == st.Sender.Server() || server == "" || b.head.servers.count(server) > 0 {
		return "", nil
	}
	old, err := b.stored(st.Replaces)
	if err != nil {
		return "", err
	}
	switch old.Membership() {
	case matrix.MembershipInvite, matrix.MembershipKnock:
		return server, nil
	}
	return "", nil
}
