package rooms

import (
	"cmp"
	"context"
	"iter"
	"maps"
	"slices"

	"github.com/teahouse-chat/teahouse/internal/db"
	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms/state"
)

// stays joins outgoing events (e) above a position ($2) with the stays in rooms of
// a server ($1) during which they happened. The server's few rooms come first:
// CROSS keeps SQLite from walking along all events instead.
const stays = `FROM room_servers s CROSS JOIN events e
	WHERE s.server = $1 AND e.room_nid = s.room_nid AND e.outgoing = 1 AND e.position > $2
		AND e.position >= s.since AND (s.members > 0 OR e.position <= s.until) `

var (
	outgoingTo    = db.SQL(`SELECT DISTINCT e.position, e.event_nid ` + stays + `ORDER BY e.position LIMIT $3`)
	countOutgoing = db.SQL(`SELECT COUNT(*) FROM (SELECT 1 AS one ` + stays + `LIMIT $3) AS listed`)
	// A room that the server was in more than once may come more than once.
	newestOutgoing = db.SQL(`SELECT e.position, e.event_nid, e.room_nid FROM events e WHERE e.outgoing = 1 AND e.position IN (SELECT
			(SELECT MAX(x.position) FROM events x WHERE x.room_nid = s.room_nid AND x.outgoing = 1 AND x.position > $2
				AND x.position >= s.since AND (s.members > 0 OR x.position <= s.until))
		FROM room_servers s WHERE s.server = $1) ORDER BY e.position`)
	destinationsAfter = db.SQL(`SELECT DISTINCT s.server FROM (SELECT room_nid, MIN(position) AS first, MAX(position) AS last
			FROM events WHERE outgoing = 1 AND position > $1 GROUP BY room_nid) AS e
		JOIN room_servers s ON s.room_nid = e.room_nid AND s.since <= e.last AND (s.members > 0 OR s.until >= e.first) ORDER BY s.server`)
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

// Departures gives the destinations, each with the events that it is sent. The
// lists are shared.
func (c *Committed) Departures() iter.Seq2[matrix.ServerName, []*Stored] {
	alike := len(c.serverMoves) == 0 && len(c.Destinations) > 0
	for _, st := range c.Outgoing {
		_, own := slices.BinarySearch(c.Destinations, st.Sender.Server())
		alike = alike && !own
	}
	return func(yield func(matrix.ServerName, []*Stored) bool) {
		for _, s := range c.Destinations {
			events := c.Outgoing
			if !alike {
				events = c.OutgoingTo(s)
			}
			if len(events) > 0 && !yield(s, events) {
				return
			}
		}
	}
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

// Departure is an event that another server is to be sent.
type Departure struct {
	Position int64
	NID      state.EventNID
}

func scanDeparture(s db.Scanner) (d Departure, err error) { return d, s.Scan(&d.Position, &d.NID) }

// OutgoingTo lists the events behind a position that a server is sent, in the
// order of their positions. Those of its own users, which were passed on to
// others, are among them.
func (e *Engine) OutgoingTo(ctx context.Context, s matrix.ServerName, after int64, limit int) ([]Departure, error) {
	return db.All(ctx, e.DB, outgoingTo, scanDeparture, s, after, limit)
}

// CountOutgoing is how many events OutgoingTo would list.
func (e *Engine) CountOutgoing(ctx context.Context, s matrix.ServerName, after int64, limit int) (int, error) {
	n, _, err := db.One(ctx, e.DB, countOutgoing, scanOne[int], s, after, limit)
	return n, err
}

// NewestOutgoing gives, of each room, the newest event behind a position that a
// server is sent, in the order of their positions.
func (e *Engine) NewestOutgoing(ctx context.Context, s matrix.ServerName, after int64) ([]Departure, error) {
	newest := map[RoomNID]Departure{}
	err := db.Each(ctx, e.DB, newestOutgoing, func(s db.Scanner) error {
		var d Departure
		var room RoomNID
		err := s.Scan(&d.Position, &d.NID, &room)
		newest[room] = d
		return err
	}, s, after)
	byPosition := func(a, b Departure) int { return cmp.Compare(a.Position, b.Position) }
	return slices.SortedFunc(maps.Values(newest), byPosition), err
}

// DestinationsAfter lists the servers that were in rooms with outgoing events
// behind a position; there may be some that are sent none of these.
func (e *Engine) DestinationsAfter(ctx context.Context, position int64) ([]matrix.ServerName, error) {
	return db.All(ctx, e.DB, destinationsAfter, scanOne[matrix.ServerName], position)
}
