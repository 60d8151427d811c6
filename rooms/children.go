package rooms

import (
	"context"

	"github.com/teahouse-chat/teahouse/internal/db"
	"github.com/teahouse-chat/teahouse/internal/matrix"
)

// A relation counts only within a room: whoever may write into another room
// must not add to what this one shows.
const selectChildren = `SELECT r.target, r.event_nid, r.rel_type, r.type, r.sender, r.rel_key, r.position, e.event_id
	FROM relations r JOIN events e ON e.event_nid = r.event_nid
	WHERE r.target IN {texts $1} AND e.room_nid = $2 AND r.position > $3 AND r.position <= $4 AND r.position <> 0
		AND ($5 = '' OR r.rel_type = $5) AND ($6 = '' OR r.type = $6) `

var (
	childrenDown = db.SQL(selectChildren + `ORDER BY r.position DESC LIMIT $7`)
	childrenUp   = db.SQL(selectChildren + `ORDER BY r.position LIMIT $7`)

	threadsJoined = db.SQL(`SELECT t.value FROM {texts $1} t WHERE EXISTS (SELECT 1 FROM relations r
		JOIN events e ON e.event_nid = r.event_nid
		WHERE r.target = t.value AND r.rel_type = 'm.thread' AND r.sender = $2 AND e.room_nid = $3)`)

	// A thread that lost a reply is as its last one leaves it. Its running count
	// stays, since others are measured against it.
	dropReply = db.SQL(`UPDATE threads SET replies = replies - 1,
		latest = COALESCE((SELECT r.event_nid FROM relations r JOIN events e ON e.event_nid = r.event_nid
			WHERE r.target = threads.root AND r.rel_type = 'm.thread' AND e.room_nid = threads.room_nid
			ORDER BY r.position DESC LIMIT 1), latest),
		position = COALESCE((SELECT r.position FROM relations r JOIN events e ON e.event_nid = r.event_nid
			WHERE r.target = threads.root AND r.rel_type = 'm.thread' AND e.room_nid = threads.room_nid
			ORDER BY r.position DESC LIMIT 1), position)
		WHERE room_nid = $1 AND root = $2`)

	eventsAfterTS  = db.SQL(selectEvents + `WHERE e.room_nid = $1 AND e.ts >= $2 AND (e.ts > $2 OR e.position > $3) AND e.position <> 0 AND e.flags = 0 ORDER BY e.ts, e.position LIMIT $4`)
	eventsBeforeTS = db.SQL(selectEvents + `WHERE e.room_nid = $1 AND e.ts <= $2 AND (e.ts < $2 OR e.position < $3) AND e.position <> 0 AND e.flags = 0 ORDER BY e.ts DESC, e.position DESC LIMIT $4`)
)

// ChildrenQuery asks for events that relate to others, by their positions.
type ChildrenQuery struct {
	Room          *Room
	Targets       []matrix.EventID
	After, UpTo   int64  // positions, exclusive and inclusive
	RelType, Type string // "" for any
	Backwards     bool   // newest first
	Limit         int
}

// Child is an event that relates to another one of its room.
type Child struct {
	RelationRow
	ID matrix.EventID
}

// Children lists events that relate to the targets.
func (e *Engine) Children(ctx context.Context, q ChildrenQuery) ([]Child, error) {
	stmt := childrenUp
	if q.Backwards {
		stmt = childrenDown
	}
	return db.All(ctx, e.DB, stmt, func(s db.Scanner) (c Child, err error) {
		err = s.Scan(&c.Target, &c.Event, &c.RelType, &c.Type, &c.Sender, &c.Key, &c.Position, &c.ID)
		return c, err
	}, q.Targets, q.Room.NID, q.After, q.UpTo, q.RelType, q.Type, q.Limit)
}

// ThreadsJoined tells in which of a room's threads the user has written.
func (e *Engine) ThreadsJoined(ctx context.Context, r *Room, u matrix.UserID, roots []matrix.EventID) (map[matrix.EventID]bool, error) {
	joined, err := db.All(ctx, e.DB, threadsJoined, scanOne[matrix.EventID], roots, u, r.NID)
	if err != nil {
		return nil, err
	}
	set := make(map[matrix.EventID]bool, len(joined))
	for _, root := range joined {
		set[root] = true
	}
	return set, nil
}

// EventsByTime lists events in the order of their origin_server_ts, beginning
// with those of the time ts whose position is behind the given one.
func (e *Engine) EventsByTime(ctx context.Context, r *Room, ts, position int64, backwards bool, limit int) ([]*Stored, error) {
	stmt := eventsAfterTS
	if backwards {
		stmt = eventsBeforeTS
	}
	return db.All(ctx, e.DB, stmt, e.scanEvents(ctx), r.NID, ts, position, limit)
}
