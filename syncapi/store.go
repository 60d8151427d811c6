package syncapi

import (
	"github.com/teahouse-chat/teahouse/internal/db"
)

// The thread of a receipt is empty if it is unthreaded, "main", or the thread's
// root. What is written is the newest message of a user, by thread.
var _ = db.Schema("syncapi", `
CREATE TABLE receipts (
	room_nid  INTEGER NOT NULL,
	user_id   TEXT NOT NULL,
	type      TEXT NOT NULL,
	thread    TEXT NOT NULL,
	event_id  TEXT NOT NULL,
	event_pos INTEGER NOT NULL,
	unread    INTEGER NOT NULL,
	ts        INTEGER NOT NULL,
	position  INTEGER NOT NULL,
	PRIMARY KEY (room_nid, user_id, type, thread)
) {without rowid};
CREATE INDEX receipts_position ON receipts (room_nid, position);
CREATE INDEX receipts_user ON receipts (user_id);
CREATE TABLE highlights (
	room_nid  INTEGER NOT NULL,
	user_id   TEXT NOT NULL,
	event_pos INTEGER NOT NULL,
	thread    TEXT NOT NULL,
	sender    TEXT NOT NULL,
	event_nid INTEGER NOT NULL,
	PRIMARY KEY (room_nid, user_id, event_pos)
) {without rowid};
CREATE TABLE written (
	user_id   TEXT NOT NULL,
	room_nid  INTEGER NOT NULL,
	thread    TEXT NOT NULL,
	event_pos INTEGER NOT NULL,
	unread    INTEGER NOT NULL,
	PRIMARY KEY (user_id, room_nid, thread)
) {without rowid};
`, `
DROP TABLE highlights;
`, `
CREATE INDEX receipts_stream ON receipts (position);
`)

const selectReceipts = `SELECT room_nid, user_id, type, thread, event_id, event_pos, unread, ts, position FROM receipts `

var (
	upsertReceipt = db.SQL(`INSERT INTO receipts (room_nid, user_id, type, thread, event_id, event_pos, unread, ts, position)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
		ON CONFLICT (room_nid, user_id, type, thread) DO UPDATE SET event_id = excluded.event_id,
			event_pos = excluded.event_pos, unread = excluded.unread, ts = excluded.ts, position = excluded.position`)
	advanceReceipt = db.SQL(`INSERT INTO receipts (room_nid, user_id, type, thread, event_id, event_pos, unread, ts, position)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
		ON CONFLICT (room_nid, user_id, type, thread) DO UPDATE SET event_id = excluded.event_id,
			event_pos = excluded.event_pos, ts = excluded.ts, position = excluded.position
			WHERE receipts.event_pos < excluded.event_pos`)
	receiptAt     = db.SQL(`SELECT event_pos FROM receipts WHERE room_nid = $1 AND user_id = $2 AND type = $3 AND thread = $4`)
	receiptsSince = db.SQL(selectReceipts + `WHERE room_nid IN {ints $1} AND position > $2 AND position <= $3 ORDER BY position`)
	receiptsAfter = db.SQL(selectReceipts + `WHERE position > $1 AND position <= $2 ORDER BY position LIMIT $3`)
	receiptsOf    = db.SQL(selectReceipts + `WHERE user_id = $1`)

	upsertWritten = db.SQL(`INSERT INTO written (user_id, room_nid, thread, event_pos, unread) VALUES ($1, $2, $3, $4, $5)
		ON CONFLICT (user_id, room_nid, thread) DO UPDATE SET event_pos = excluded.event_pos, unread = excluded.unread`)
	writtenBy = db.SQL(`SELECT room_nid, user_id, 'written', thread, '', event_pos, unread, 0, 0 FROM written WHERE user_id = $1`)

	// How many events of a room's threads counted as unread up to a position, those
	// included that were redacted since and relate to nothing any more.
	threadsUnreadAt = db.SQL(`SELECT t.value, (SELECT e.unread FROM events e WHERE e.room_nid = $1 AND e.thread = t.value AND e.thread <> ''
		AND e.position > 0 AND e.position <= $3 ORDER BY e.position DESC LIMIT 1) FROM {texts $2} t`)
)

func scanReceipt(s db.Scanner) (r Receipt, err error) {
	err = s.Scan(&r.Room, &r.User, &r.Type, &r.Thread, &r.Event, &r.EventPosition, &r.unread, &r.Timestamp, &r.Position)
	return r, err
}
