package rooms

import (
	"context"
	"encoding/binary"
	"fmt"

	"github.com/teahouse-chat/teahouse/internal/db"
	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms/event"
	"github.com/teahouse-chat/teahouse/rooms/state"
)

var _ = db.Schema("rooms", `
CREATE TABLE rooms (
	room_nid    INTEGER PRIMARY KEY,
	room_id     TEXT NOT NULL UNIQUE,
	version     TEXT NOT NULL,
	snapshot    INTEGER NOT NULL,
	extremities {blob} NOT NULL,
	joined      INTEGER NOT NULL,
	invited     INTEGER NOT NULL,
	unread      INTEGER NOT NULL
);
CREATE TABLE state_keys (
	key_nid   INTEGER PRIMARY KEY,
	type      TEXT NOT NULL,
	state_key TEXT NOT NULL,
	UNIQUE (state_key, type)
);
CREATE TABLE events (
	event_nid   INTEGER PRIMARY KEY,
	event_id    TEXT NOT NULL UNIQUE,
	room_nid    INTEGER NOT NULL,
	position    INTEGER NOT NULL,
	ts          INTEGER NOT NULL,
	key_nid     INTEGER NOT NULL,
	snapshot    INTEGER NOT NULL,
	resolved    INTEGER NOT NULL,
	replaces    INTEGER NOT NULL,
	redacted_by INTEGER NOT NULL,
	flags       INTEGER NOT NULL,
	unread      INTEGER NOT NULL,
	thread      TEXT NOT NULL
);
CREATE INDEX events_timeline ON events (room_nid, position) WHERE position <> 0;
CREATE INDEX events_ts ON events (room_nid, ts) WHERE position <> 0;
CREATE TABLE event_json (
	event_nid INTEGER PRIMARY KEY,
	json      {blob} NOT NULL
);
CREATE TABLE snapshots (
	snapshot INTEGER PRIMARY KEY,
	parent   INTEGER NOT NULL,
	entries  {blob} NOT NULL
);
CREATE TABLE memberships (
	user_id    TEXT NOT NULL,
	room_nid   INTEGER NOT NULL,
	membership TEXT NOT NULL,
	event_nid  INTEGER NOT NULL,
	position   INTEGER NOT NULL,
	local      INTEGER NOT NULL,
	forgotten  INTEGER NOT NULL,
	PRIMARY KEY (user_id, room_nid)
) {without rowid};
CREATE INDEX memberships_local ON memberships (room_nid) WHERE local = 1;
CREATE TABLE relations (
	target    TEXT NOT NULL,
	event_nid INTEGER NOT NULL,
	rel_type  TEXT NOT NULL,
	type      TEXT NOT NULL,
	sender    TEXT NOT NULL,
	rel_key   TEXT NOT NULL,
	position  INTEGER NOT NULL,
	PRIMARY KEY (target, rel_type, sender, event_nid)
) {without rowid};
CREATE TABLE threads (
	room_nid INTEGER NOT NULL,
	root     TEXT NOT NULL,
	latest   INTEGER NOT NULL,
	position INTEGER NOT NULL,
	replies  INTEGER NOT NULL,
	unread   INTEGER NOT NULL,
	PRIMARY KEY (room_nid, root)
) {without rowid};
CREATE INDEX threads_latest ON threads (room_nid, position);
CREATE TABLE txns (
	user_id   TEXT NOT NULL,
	device_id TEXT NOT NULL,
	path      INTEGER NOT NULL,
	txn_id    TEXT NOT NULL,
	event_nid INTEGER NOT NULL,
	ts        INTEGER NOT NULL,
	PRIMARY KEY (user_id, device_id, path, txn_id)
) {without rowid};
CREATE INDEX txns_ts ON txns (ts);
`, `
ALTER TABLE events ADD COLUMN auth {blob};
CREATE TABLE backward (
	prev      TEXT NOT NULL,
	event_nid INTEGER NOT NULL,
	room_nid  INTEGER NOT NULL,
	PRIMARY KEY (prev, event_nid)
) {without rowid};
CREATE INDEX backward_room ON backward (room_nid);
CREATE TABLE awaited (
	target    TEXT NOT NULL,
	event_nid INTEGER NOT NULL,
	PRIMARY KEY (target, event_nid)
) {without rowid};
`, `
ALTER TABLE events ADD COLUMN outgoing {bool} NOT NULL DEFAULT 0;
CREATE INDEX events_outgoing ON events (position) WHERE outgoing = 1;
CREATE INDEX events_outgoing_room ON events (room_nid, position) WHERE outgoing = 1;
CREATE TABLE room_servers (
	room_nid INTEGER NOT NULL,
	server   TEXT NOT NULL,
	members  INTEGER NOT NULL,
	since    INTEGER NOT NULL,
	until    INTEGER NOT NULL,
	PRIMARY KEY (room_nid, server, since)
) {without rowid};
CREATE INDEX room_servers_server ON room_servers (server);
INSERT INTO room_servers (room_nid, server, members, since, until)
	SELECT room_nid, SUBSTR(user_id, {instr}(user_id, ':') + 1), COUNT(*), MIN(position), 0 FROM memberships
	WHERE local = 0 AND membership = 'join' AND user_id LIKE '%:_%'
	GROUP BY room_nid, SUBSTR(user_id, {instr}(user_id, ':') + 1);
`, `
CREATE TABLE outside (
	event_nid INTEGER PRIMARY KEY,
	event_id  TEXT NOT NULL,
	room_nid  INTEGER NOT NULL,
	version   TEXT NOT NULL,
	user_id   TEXT NOT NULL,
	position  INTEGER NOT NULL,
	replaces  INTEGER NOT NULL,
	json      {blob} NOT NULL,
	stripped  {blob}
);
CREATE INDEX outside_user ON outside (room_nid, user_id);
`, `
CREATE INDEX memberships_foreign ON memberships (room_nid) WHERE local = 0 AND membership = 'join';
`, `
ALTER TABLE events ADD COLUMN counted {bool} NOT NULL DEFAULT 0;
`, `
CREATE INDEX events_thread ON events (room_nid, thread, position) WHERE thread <> '';
`, `
ALTER TABLE rooms ADD COLUMN gap INTEGER NOT NULL DEFAULT 0;
`)

var (
	// A room that was known from outside only is made anew.
	insertRoom = db.SQL(`INSERT INTO rooms (room_nid, room_id, version, snapshot, extremities, joined, invited, unread)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
		ON CONFLICT (room_nid) DO UPDATE SET version = excluded.version, snapshot = excluded.snapshot,
			extremities = excluded.extremities, joined = excluded.joined, invited = excluded.invited, unread = excluded.unread`)
	updateRoom = db.SQL(`UPDATE rooms SET snapshot = $1, extremities = $2, joined = $3, invited = $4, unread = $5
		WHERE room_nid = $6`)
	roomByID  = db.SQL(`SELECT room_nid, room_id, version, snapshot, extremities, joined, invited, unread, gap FROM rooms WHERE room_id = $1`)
	roomByNID = db.SQL(`SELECT room_nid, room_id, version, snapshot, extremities, joined, invited, unread, gap FROM rooms WHERE room_nid = $1`)
	updateGap = db.SQL(`UPDATE rooms SET gap = $1 WHERE room_nid = $2`)

	insertKey  = db.SQL(`INSERT INTO state_keys (key_nid, type, state_key) VALUES ($1, $2, $3) ON CONFLICT (state_key, type) DO NOTHING`)
	keyByName  = db.SQL(`SELECT key_nid FROM state_keys WHERE state_key = $1 AND type = $2`)
	keysByNIDs = db.SQL(`SELECT key_nid, type, state_key FROM state_keys WHERE key_nid IN {ints $1}`)

	insertEvent = db.SQL(`INSERT INTO events (event_nid, event_id, room_nid, position, ts, key_nid, snapshot, resolved, replaces, redacted_by, flags, unread, thread, auth, outgoing, counted)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16)`)
	placeEvent = db.SQL(`UPDATE events SET position = $1, snapshot = $2, resolved = $3, replaces = $4, redacted_by = CASE WHEN CAST($5 AS BIGINT) = 0 THEN redacted_by ELSE CAST($5 AS BIGINT) END,
		flags = $6, unread = $7, thread = $8, outgoing = $9, counted = $10
		WHERE event_nid = $11`)
	insertJSON = db.SQL(`INSERT INTO event_json (event_nid, json) VALUES ($1, $2)`)
	updateJSON = db.SQL(`UPDATE event_json SET json = $1 WHERE event_nid = $2`)
	markRedact = db.SQL(`UPDATE events SET redacted_by = $1 WHERE event_nid = $2`)

	eventsByNIDs = db.SQL(selectEvents + `WHERE e.event_nid IN {ints $1}`)
	eventsByIDs  = db.SQL(selectEvents + `WHERE e.event_id IN {texts $1}`)
	timelineUp   = db.SQL(selectEvents + `WHERE e.room_nid = $1 AND e.position > $2 AND e.position <= $3 AND e.position <> 0 ORDER BY e.position LIMIT $4`)
	timelineDown = db.SQL(selectEvents + `WHERE e.room_nid = $1 AND e.position < $2 AND e.position > $3 AND e.position <> 0 ORDER BY e.position DESC LIMIT $4`)
	resolvedAt   = db.SQL(`SELECT resolved FROM events WHERE room_nid = $1 AND position <= $2 AND position <> 0 ORDER BY position DESC LIMIT 1`)
	nearestAfter = db.SQL(selectEvents + `WHERE e.room_nid = $1 AND e.ts >= $2 AND e.position <> 0 AND e.flags = 0 ORDER BY e.ts, e.position LIMIT 1`)
	nearestUpTo  = db.SQL(selectEvents + `WHERE e.room_nid = $1 AND e.ts <= $2 AND e.position <> 0 AND e.flags = 0 ORDER BY e.ts DESC, e.position DESC LIMIT 1`)

	insertSnapshot = db.SQL(`INSERT INTO snapshots (snapshot, parent, entries) VALUES ($1, $2, $3)`)
	snapshotLayer  = db.SQL(`SELECT parent, entries FROM snapshots WHERE snapshot = $1`)

	upsertMembership = db.SQL(`INSERT INTO memberships (user_id, room_nid, membership, event_nid, position, local, forgotten)
		VALUES ($1, $2, $3, $4, $5, $6, 0)
		ON CONFLICT (user_id, room_nid) DO UPDATE SET membership = excluded.membership, event_nid = excluded.event_nid,
			position = excluded.position, forgotten = 0`)
	membershipsOf = db.SQL(`SELECT m.room_nid, r.room_id, m.membership, m.event_nid, m.position, m.forgotten
		FROM memberships m JOIN rooms r ON r.room_nid = m.room_nid WHERE m.user_id = $1`)
	localMembers     = db.SQL(`SELECT user_id FROM memberships WHERE room_nid = $1 AND local = 1 AND membership = 'join'`)
	everLocal        = db.SQL(`SELECT user_id FROM memberships WHERE room_nid = $1 AND local = 1`)
	roomsAfter       = db.SQL(`SELECT DISTINCT room_nid FROM events WHERE position > $1`)
	deleteMembership = db.SQL(`DELETE FROM memberships WHERE user_id = $1 AND room_nid = $2`)
	markForgot       = db.SQL(`UPDATE memberships SET forgotten = 1 WHERE user_id = $1 AND room_nid = $2 AND membership IN ('leave', 'ban')`)

	insertRelation = db.SQL(`INSERT INTO relations (target, event_nid, rel_type, type, sender, rel_key, position) VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (target, rel_type, sender, event_nid) DO NOTHING`)
	deleteRelation = db.SQL(`DELETE FROM relations WHERE target = $1 AND rel_type = $2 AND sender = $3 AND event_nid = $4`)
	annotationBy   = db.SQL(`SELECT event_nid FROM relations WHERE target = $1 AND rel_type = 'm.annotation' AND sender = $2 AND rel_key = $3 AND type = $4 LIMIT 1`)
	relationsOf    = db.SQL(`SELECT target, event_nid, rel_type, type, sender, rel_key, position FROM relations WHERE target IN {texts $1} ORDER BY position, event_nid`)
	upsertThread   = db.SQL(`INSERT INTO threads (room_nid, root, latest, position, replies, unread) VALUES ($1, $2, $3, $4, 1, $5)
		ON CONFLICT (room_nid, root) DO UPDATE SET latest = excluded.latest, position = excluded.position,
			replies = threads.replies + 1, unread = excluded.unread`)
	// A reply of the past is the latest only of a thread that has none later.
	upsertPast = db.SQL(`INSERT INTO threads (room_nid, root, latest, position, replies, unread) VALUES ($1, $2, $3, $4, 1, 0)
		ON CONFLICT (room_nid, root) DO UPDATE SET replies = threads.replies + 1,
			latest = CASE WHEN excluded.position > threads.position THEN excluded.latest ELSE threads.latest END,
			position = {greatest}(excluded.position, threads.position)`)
	threadsByRoot = db.SQL(`SELECT root, latest, position, replies, unread FROM threads WHERE room_nid = $1 AND root IN {texts $2}`)
	threadsBefore = db.SQL(`SELECT root, latest, position, replies, unread FROM threads WHERE room_nid = $1 AND position < $2 AND replies > 0 ORDER BY position DESC LIMIT $3`)

	insertTxn = db.SQL(`INSERT INTO txns (user_id, device_id, path, txn_id, event_nid, ts) VALUES ($1, $2, $3, $4, $5, $6)`)
	txnsOf    = db.SQL(`SELECT path, txn_id, event_nid FROM txns WHERE user_id = $1 AND device_id = $2`)
	pruneTxns = db.SQL(`DELETE FROM txns WHERE ts < $1`)
)

const selectEvents = `SELECT e.event_nid, e.event_id, e.room_nid, e.position, e.key_nid, e.snapshot, e.resolved, e.replaces,
		e.redacted_by, e.flags, e.unread, e.counted, e.thread, e.auth, e.outgoing, j.json FROM events e JOIN event_json j ON j.event_nid = e.event_nid `

// roomRow is a row of rooms.
type roomRow struct {
	nid             RoomNID
	id              matrix.RoomID
	version         string
	snapshot        SnapshotNID
	extremities     []byte
	joined, invited int
	unread, gap     int64
}

func scanRoom(s db.Scanner) (r roomRow, err error) {
	err = s.Scan(&r.nid, &r.id, &r.version, &r.snapshot, &r.extremities, &r.joined, &r.invited, &r.unread, &r.gap)
	return r, err
}

// scanEvents returns the scanner of selectEvents. It needs the rooms of the
// events, which every reader has loaded before.
func (e *Engine) scanEvents(ctx context.Context) func(db.Scanner) (*Stored, error) {
	return func(s db.Scanner) (*Stored, error) {
		st := &Stored{}
		var id matrix.EventID
		var auth, json []byte
		if err := s.Scan(&st.NID, &id, &st.Room, &st.Position, &st.Key, &st.Snapshot, &st.Resolved, &st.Replaces,
			&st.RedactedBy, &st.Flags, &st.Unread, &st.Counted, &st.Thread, &auth, &st.Outgoing, &json); err != nil {
			return nil, err
		}
		name, err := e.roomName(ctx, st.Room)
		if err != nil {
			return nil, err
		}
		if st.Event, err = event.Load(name.version, id, name.id, json); err != nil {
			return nil, fmt.Errorf("event %s in the database: %w", id, err)
		}
		st.Relation = relationOf(st.Event)
		st.Auth, err = decodeNIDs(auth)
		return st, err
	}
}

// insertStored writes one event and what hangs on it, in the transaction that
// gave it its position.
func insertStored(tx *db.Tx, st *Stored) error {
	if err := tx.Exec(insertEvent, st.NID, st.ID, st.Room, st.Position, st.OriginServerTS, st.Key, st.Snapshot,
		st.Resolved, st.Replaces, st.RedactedBy, st.Flags, st.Unread, st.Thread, encodeNIDs(st.Auth), st.Outgoing, st.Counted); err != nil {
		return err
	}
	if err := tx.Exec(insertJSON, st.NID, st.JSON); err != nil {
		return err
	}
	return linkStored(tx, st)
}

// placeStored gives an event that is stored already its place in the history.
func placeStored(tx *db.Tx, st *Stored) error {
	if err := tx.Exec(placeEvent, st.Position, st.Snapshot, st.Resolved, st.Replaces, st.RedactedBy, st.Flags, st.Unread,
		st.Thread, st.Outgoing, st.Counted, st.NID); err != nil {
		return err
	}
	if st.RedactedBy != 0 {
		if err := tx.Exec(updateJSON, st.JSON, st.NID); err != nil {
			return err
		}
	}
	return linkStored(tx, st)
}

// linkStored adds the event to what it relates to.
func linkStored(tx *db.Tx, st *Stored) error {
	if st.Relation.Target != "" && st.Served() {
		if err := tx.Exec(insertRelation, st.Relation.Target, st.NID, st.Relation.Type, st.Type, st.Sender,
			st.Relation.Key, st.Position); err != nil {
			return err
		}
	}
	if st.Thread == "" || st.Position == 0 || !st.Served() || st.RedactedBy != 0 {
		return nil
	}
	if st.Position < 0 {
		return tx.Exec(upsertPast, st.Room, st.Thread, st.NID, st.Position)
	}
	return tx.Exec(upsertThread, st.Room, st.Thread, st.NID, st.Position, st.Unread)
}

// encodeNIDs packs a list of event numbers for its column; NULL if it is empty.
func encodeNIDs(nids []state.EventNID) []byte {
	var b []byte
	for _, n := range nids {
		b = binary.AppendUvarint(b, uint64(n))
	}
	return b
}

func decodeNIDs(b []byte) ([]state.EventNID, error) {
	var nids []state.EventNID
	for len(b) > 0 {
		v, n := binary.Uvarint(b)
		if n <= 0 {
			return nil, fmt.Errorf("damaged list of event numbers")
		}
		nids, b = append(nids, state.EventNID(v)), b[n:]
	}
	return nids, nil
}
