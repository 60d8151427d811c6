package push

import (
	"encoding/json"

	"github.com/teahouse-chat/teahouse/internal/db"
)

var _ = db.Schema("push", `
CREATE TABLE push_rules (
	user_id TEXT NOT NULL PRIMARY KEY,
	book    {blob} NOT NULL
) {without rowid};
`, `
CREATE TABLE push_highlights (
	user_id   TEXT NOT NULL,
	room_nid  INTEGER NOT NULL,
	event_pos INTEGER NOT NULL,
	event_nid INTEGER NOT NULL,
	thread    TEXT NOT NULL,
	sender    TEXT NOT NULL,
	kind      INTEGER NOT NULL,
	ts        INTEGER NOT NULL,
	seen      {bool} NOT NULL,
	PRIMARY KEY (user_id, room_nid, event_pos)
) {without rowid};
CREATE INDEX push_highlights_room ON push_highlights (room_nid, event_pos);
CREATE INDEX push_highlights_ts ON push_highlights (ts);
CREATE TABLE push_redacted (
	room_nid  INTEGER NOT NULL,
	event_pos INTEGER NOT NULL,
	thread    TEXT NOT NULL,
	unread    INTEGER NOT NULL,
	counted   {bool} NOT NULL,
	PRIMARY KEY (room_nid, event_pos)
) {without rowid};
CREATE TABLE push_lines (
	user_id   TEXT NOT NULL,
	room_nid  INTEGER NOT NULL,
	thread    TEXT NOT NULL,
	event_pos INTEGER NOT NULL,
	common    INTEGER NOT NULL,
	own       INTEGER NOT NULL,
	follows   {bool} NOT NULL,
	PRIMARY KEY (user_id, room_nid, thread, event_pos)
) {without rowid};
CREATE INDEX push_lines_room ON push_lines (room_nid);
CREATE TABLE push_cursor (
	id       INTEGER PRIMARY KEY,
	position INTEGER NOT NULL
);
CREATE TABLE pushers (
	pusher_nid INTEGER PRIMARY KEY,
	user_id    TEXT NOT NULL,
	device_id  TEXT NOT NULL,
	app_id     TEXT NOT NULL,
	pushkey    TEXT NOT NULL,
	settings   {blob} NOT NULL,
	ts         INTEGER NOT NULL,
	pending    INTEGER NOT NULL,
	UNIQUE (app_id, pushkey, user_id)
);
CREATE TABLE push_gateways (
	host     TEXT NOT NULL PRIMARY KEY,
	failures INTEGER NOT NULL,
	retry_ts INTEGER NOT NULL
) {without rowid};
`)

// A pusher is pending from the position below the first event that it has not
// delivered; 0 if there is none. The user of a highlight is empty if it is
// everybody's in the room. Seen ones are kept for a while, for the list of
// notifications.

var (
	selectBook  = db.SQL(`SELECT book FROM push_rules WHERE user_id = $1`)
	selectBooks = db.SQL(`SELECT user_id, book FROM push_rules WHERE user_id IN {texts $1}`)
	upsertBook  = db.SQL(`INSERT INTO push_rules (user_id, book) VALUES ($1, $2) ON CONFLICT (user_id) DO UPDATE SET book = excluded.book`)
	customUsers = db.SQL(`SELECT user_id FROM push_rules UNION SELECT user_id FROM push_lines`)
	deleteBook  = db.SQL(`DELETE FROM push_rules WHERE user_id = $1`)

	insertHighlight = db.SQL(`INSERT INTO push_highlights (user_id, room_nid, event_pos, event_nid, thread, sender, kind, ts, seen)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, 0) ON CONFLICT (user_id, room_nid, event_pos) DO NOTHING`)
	deleteHighlights = db.SQL(`DELETE FROM push_highlights WHERE room_nid = $1 AND event_pos = $2`)
	seeHighlights    = db.SQL(`UPDATE push_highlights SET seen = 1 WHERE user_id = $1 AND room_nid = $2 AND event_pos <= $3 AND seen = 0`)
	seeThread        = db.SQL(`UPDATE push_highlights SET seen = 1 WHERE user_id = $1 AND room_nid = $2 AND event_pos <= $3 AND seen = 0 AND thread = $4`)
	pruneHighlights  = db.SQL(`DELETE FROM push_highlights WHERE ts < $1 AND (seen = 1 OR ts < $2)`)
	highlightsOf     = db.SQL(selectHighlights + `WHERE user_id = $1 AND seen = 0 ORDER BY event_pos`)
	highlightsOfAll  = db.SQL(selectHighlights + `WHERE room_nid IN {ints $1} AND user_id = '' ORDER BY event_pos`)

	ownHighlightsBelow = db.SQL(selectHighlights + `WHERE user_id = $1 AND event_pos < $2 AND ts >= $3 ORDER BY event_pos DESC LIMIT $4`)
	allHighlightsBelow = db.SQL(selectHighlights + `WHERE room_nid IN {ints $1} AND user_id = '' AND event_pos < $2 AND ts >= $3
		ORDER BY event_pos DESC LIMIT $4`)

	insertRedacted = db.SQL(`INSERT INTO push_redacted (room_nid, event_pos, thread, unread, counted) VALUES ($1, $2, $3, $4, $5)
		ON CONFLICT (room_nid, event_pos) DO NOTHING`)
	redactedIn = db.SQL(`SELECT room_nid, event_pos, thread, unread, counted FROM push_redacted WHERE room_nid IN {ints $1} ORDER BY event_pos`)

	insertBend = db.SQL(`INSERT INTO push_lines (user_id, room_nid, thread, event_pos, common, own, follows)
		VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (user_id, room_nid, thread, event_pos) DO NOTHING`)
	linesOf   = db.SQL(`SELECT user_id, room_nid, thread, event_pos, common, own, follows FROM push_lines WHERE user_id = $1 ORDER BY event_pos`)
	linesIn   = db.SQL(`SELECT user_id, room_nid, thread, event_pos, common, own, follows FROM push_lines WHERE room_nid = $1 ORDER BY event_pos`)
	trimLines = db.SQL(`DELETE FROM push_lines WHERE user_id = $1 AND room_nid = $2 AND event_pos < (SELECT MAX(l.event_pos) FROM push_lines l
		WHERE l.user_id = $1 AND l.room_nid = $2 AND l.thread = push_lines.thread AND l.event_pos <= $3)`)
	trimLine = db.SQL(`DELETE FROM push_lines WHERE user_id = $1 AND room_nid = $2 AND thread = $4 AND event_pos < (SELECT MAX(l.event_pos) FROM push_lines l
		WHERE l.user_id = $1 AND l.room_nid = $2 AND l.thread = $4 AND l.event_pos <= $3)`)

	selectCursor = db.SQL(`SELECT position FROM push_cursor WHERE id = 1`)
	upsertCursor = db.SQL(`INSERT INTO push_cursor (id, position) VALUES (1, $1) ON CONFLICT (id) DO UPDATE SET position = excluded.position`)
	insertPusher = db.SQL(`INSERT INTO pushers (pusher_nid, user_id, device_id, app_id, pushkey, settings, ts, pending)
		VALUES ($1, $2, $3, $4, $5, $6, $7, 0)`)
	deletePusher  = db.SQL(`DELETE FROM pushers WHERE pusher_nid = $1`)
	pusherPending = db.SQL(`UPDATE pushers SET pending = $1 WHERE pusher_nid = $2`)
	allPushers    = db.SQL(`SELECT pusher_nid, user_id, device_id, app_id, pushkey, settings, ts, pending FROM pushers`)

	allGateways   = db.SQL(`SELECT host, failures, retry_ts FROM push_gateways`)
	upsertGateway = db.SQL(`INSERT INTO push_gateways (host, failures, retry_ts) VALUES ($1, $2, $3)
		ON CONFLICT (host) DO UPDATE SET failures = excluded.failures, retry_ts = excluded.retry_ts`)
	deleteGateway = db.SQL(`DELETE FROM push_gateways WHERE host = $1`)

	leaveHighlights = db.SQL(`DELETE FROM push_highlights WHERE user_id = $1 AND room_nid = $2`)
	leaveLines      = db.SQL(`DELETE FROM push_lines WHERE user_id = $1 AND room_nid = $2`)
	eraseHighlights = db.SQL(`DELETE FROM push_highlights WHERE user_id = $1`)
	eraseLines      = db.SQL(`DELETE FROM push_lines WHERE user_id = $1`)

	newestInRooms = db.SQL(`SELECT r.room_nid, (SELECT MAX(e.position) FROM events e WHERE e.room_nid = r.room_nid AND e.position <> 0) FROM rooms r`)
)

const selectHighlights = `SELECT user_id, room_nid, event_pos, event_nid, thread, sender, kind FROM push_highlights `

func scanBook(s db.Scanner) (*book, error) {
	var raw []byte
	if err := s.Scan(&raw); err != nil {
		return nil, err
	}
	b := &book{}
	return b, json.Unmarshal(raw, b)
}

func scanHighlight(s db.Scanner) (h highlightRow, err error) {
	err = s.Scan(&h.user, &h.room, &h.position, &h.event, &h.thread, &h.sender, &h.kind)
	return h, err
}
