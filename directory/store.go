package directory

import (
	"context"

	"github.com/teahouse-chat/teahouse/internal/db"
	"github.com/teahouse-chat/teahouse/internal/matrix"
)

var _ = db.Schema("directory", `
CREATE TABLE directory_aliases (
	alias   TEXT PRIMARY KEY,
	room_id TEXT NOT NULL,
	creator TEXT NOT NULL
) {without rowid};
CREATE INDEX directory_aliases_room ON directory_aliases (room_id);
CREATE TABLE directory_published (
	room_id TEXT PRIMARY KEY
) {without rowid};
`)

var (
	selectAlias = db.SQL(`SELECT room_id, creator FROM directory_aliases WHERE alias = $1`)
	aliasesOf   = db.SQL(`SELECT alias FROM directory_aliases WHERE room_id = $1 ORDER BY alias`)
	insertAlias = db.SQL(`INSERT INTO directory_aliases (alias, room_id, creator) VALUES ($1, $2, $3) ON CONFLICT (alias) DO NOTHING`)
	deleteAlias = db.SQL(`DELETE FROM directory_aliases WHERE alias = $1`)
	moveAliases = db.SQL(`UPDATE directory_aliases SET room_id = $1 WHERE room_id = $2`)

	selectPublished = db.SQL(`SELECT room_id FROM directory_published WHERE room_id = $1`)
	insertPublished = db.SQL(`INSERT INTO directory_published (room_id) VALUES ($1) ON CONFLICT (room_id) DO NOTHING`)
	deletePublished = db.SQL(`DELETE FROM directory_published WHERE room_id = $1`)
	copyPublished   = db.SQL(`INSERT INTO directory_published (room_id)
		SELECT $1 FROM directory_published WHERE room_id = $2 ON CONFLICT (room_id) DO NOTHING`)

	// The largest rooms come first. The engine's table knows the sizes.
	listPublished = db.SQL(`SELECT p.room_id FROM directory_published p JOIN rooms r ON r.room_id = p.room_id
		WHERE r.joined > 0 ORDER BY r.joined DESC, p.room_id`)

	// People who are in a room with the user or in a published one.
	visibleUsers = db.SQL(`SELECT DISTINCT m.user_id FROM memberships m WHERE m.local = 1 AND m.membership = 'join' AND m.room_nid IN (` +
		roomsToMeet + `) LIMIT $2`)
	// Those of other servers, each with one of their member events.
	visibleForeign = db.SQL(`SELECT m.user_id, MAX(m.event_nid) FROM memberships m WHERE m.local = 0 AND m.membership = 'join' AND m.room_nid IN (` +
		roomsToMeet + `) GROUP BY m.user_id ORDER BY m.user_id LIMIT $2`)
)

const roomsToMeet = `SELECT own.room_nid FROM memberships own WHERE own.user_id = $1 AND own.membership = 'join'
	UNION SELECT r.room_nid FROM rooms r JOIN directory_published p ON p.room_id = r.room_id`

// entry is what is kept of an alias.
type entry struct {
	room    matrix.RoomID
	creator matrix.UserID
}

func (d *Directory) alias(ctx context.Context, alias matrix.RoomAlias) (e entry, found bool, err error) {
	return db.One(ctx, d.DB, selectAlias, func(s db.Scanner) (e entry, err error) {
		err = s.Scan(&e.room, &e.creator)
		return e, err
	}, alias)
}

func (d *Directory) published(ctx context.Context, room matrix.RoomID) (bool, error) {
	_, found, err := db.One(ctx, d.DB, selectPublished, scan[matrix.RoomID], room)
	return found, err
}

func scan[T any](s db.Scanner) (v T, err error) {
	err = s.Scan(&v)
	return v, err
}
