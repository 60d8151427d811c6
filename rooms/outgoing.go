package rooms

import (
	"context"
	"slices"

	"github.com/teahouse-chat/teahouse/internal/db"
	"github.com/teahouse-chat/teahouse/internal/matrix"
)

// concernsServer tells that a server ($1) was in the room of event e just before
// or after it.
const concernsServer = `EXISTS (SELECT 1 FROM room_servers s WHERE s.room_nid = e.room_nid AND s.server = $1
	AND s.since <= e.position AND (s.members > 0 OR s.until >= e.position)) `

var (
	outgoingAfter = db.SQL(selectEvents + `WHERE e.outgoing = 1 AND e.position > $1 ORDER BY e.position LIMIT $2`)
	outgoingTo    = db.SQL(selectEvents + `WHERE e.outgoing = 1 AND e.position > $2 AND ` + concernsServer + `ORDER BY e.position LIMIT $3`)
	// A room that the server was in more than once may come more than once.
	newestOutgoing = db.SQL(selectEvents + `WHERE e.outgoing = 1 AND e.position IN (SELECT
			(SELECT MAX(x.position) FROM events x WHERE x.room_nid = s.room_nid AND x.outgoing = 1 AND x.position > $2
				AND x.position >= s.since AND (s.members > 0 OR x.position <= s.until))
		FROM room_servers s WHERE s.server = $1) ORDER BY e.position`)
)

// sendOut makes an event one that the other servers in the room are sent; before
// are those that were there before it.
func (b *Builder) sendOut(st *Stored, before *servers) error {
	server, err := b.ends(st)
	if err != nil {
		return err
	}
	if server != "" {
		b.serverMoves = append(b.serverMoves, serverMove{server: server, by: st})
	}
	st.Outgoing = before != nil || b.head.servers != nil || server != ""
	return nil
}

// destinations are the servers that were in the room at some time while it was
// built on.
func (b *Builder) destinations() []matrix.ServerName {
	list := b.head.servers.list()
	var gone []matrix.ServerName
	for _, m := range b.serverMoves {
		if b.head.servers.count(m.server) == 0 {
			gone = append(gone, m.server)
		}
	}
	if len(gone) == 0 {
		return list
	}
	list = append(slices.Clone(list), gone...)
	slices.Sort(list)
	return slices.Compact(list)
}

// OutgoingTo lists those of the outgoing events that a server is sent: the ones
// of the time that it was in the room, but for those of its own users.
func (c *Committed) OutgoingTo(s matrix.ServerName) []*Stored {
	var moves []serverMove
	for _, m := range c.serverMoves {
		if m.server == s {
			moves = append(moves, m)
		}
	}
	var events []*Stored
	for _, st := range c.Outgoing {
		if st.Sender.Server() != s && c.there(s, moves, st.Position) {
			events = append(events, st)
		}
	}
	return events
}

// there tells whether a server was in the room just before or after a position;
// moves are its own in the commit.
func (c *Committed) there(s matrix.ServerName, moves []serverMove, position int64) bool {
	if len(moves) == 0 {
		return c.servers.count(s) > 0
	}
	in := moves[0].was > 0
	for _, m := range moves {
		switch {
		case m.at > position:
			return in
		case m.at == position:
			return true
		}
		in = m.is > 0
	}
	return in
}

// OutgoingAfter lists the events behind a position that other servers are sent,
// in the order of their positions.
func (e *Engine) OutgoingAfter(ctx context.Context, position int64, limit int) ([]*Stored, error) {
	return db.All(ctx, e.DB, outgoingAfter, e.scanEvents(ctx), position, limit)
}

// OutgoingTo lists the events behind a position that a server is sent, in the
// order of their positions. A short answer does not mean the end: only an empty
// one does.
func (e *Engine) OutgoingTo(ctx context.Context, s matrix.ServerName, after int64, limit int) ([]*Stored, error) {
	for {
		events, err := db.All(ctx, e.DB, outgoingTo, e.scanEvents(ctx), s, after, limit)
		if err != nil || len(events) == 0 {
			return nil, err
		}
		after = events[len(events)-1].Position
		if events = notFrom(s, events); len(events) > 0 {
			return events, nil
		}
	}
}

// NewestOutgoing gives, of each room, the newest event behind a position that a
// server is sent, in the order of their positions.
func (e *Engine) NewestOutgoing(ctx context.Context, s matrix.ServerName, after int64) ([]*Stored, error) {
	events, err := db.All(ctx, e.DB, newestOutgoing, e.scanEvents(ctx), s, after)
	if err != nil {
		return nil, err
	}
	newest := make(map[RoomNID]int64, len(events))
	for _, st := range events {
		newest[st.Room] = st.Position
	}
	events = slices.DeleteFunc(events, func(st *Stored) bool { return newest[st.Room] != st.Position })
	return notFrom(s, events), nil
}

// notFrom leaves out the events of a server's own users, which it has.
func notFrom(s matrix.ServerName, events []*Stored) []*Stored {
	return slices.DeleteFunc(events, func(st *Stored) bool { return st.Sender.Server() == s })
}
