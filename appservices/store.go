package appservices

import (
	"context"

	"github.com/teahouse-chat/teahouse/internal/db"
	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms"
	"github.com/teahouse-chat/teahouse/rooms/state"
)

// A service has a row as long as it is registered, with the text of its
// registration as it was read last; file names the file of the configuration that
// it is from, "" if it was added at run time. What has to be delivered to it are the
// rows of appservice_events, until a transaction in appservice_txns has their text.
// ts is the time of the first event in a row of either. beside is the position up to
// which the service has been given receipts and changes of device lists, which are
// kept elsewhere. One whose file was taken out of the configuration is asleep, until
// the file is there again and clashes with no other.
var _ = db.Schema("appservices", `
CREATE TABLE appservices (
	service_nid  INTEGER PRIMARY KEY,
	id           TEXT NOT NULL UNIQUE,
	file         TEXT NOT NULL,
	registration {blob} NOT NULL,
	since        INTEGER NOT NULL,
	paused       {bool} NOT NULL,
	failures     INTEGER NOT NULL,
	retry_at     INTEGER NOT NULL,
	last_success INTEGER NOT NULL,
	problem      TEXT NOT NULL
);
CREATE TABLE appservice_events (
	service_nid INTEGER NOT NULL,
	position    INTEGER NOT NULL,
	event_nid   INTEGER NOT NULL,
	room_nid    INTEGER NOT NULL,
	ts          INTEGER NOT NULL,
	PRIMARY KEY (service_nid, position)
) {without rowid};
CREATE TABLE appservice_txns (
	txn         INTEGER PRIMARY KEY,
	service_nid INTEGER NOT NULL,
	place       INTEGER NOT NULL,
	part        {bool} NOT NULL,
	refusals    INTEGER NOT NULL,
	events      INTEGER NOT NULL,
	body        {blob} NOT NULL
);
CREATE INDEX appservice_txns_place ON appservice_txns (service_nid, place);
CREATE TABLE appservice_dead (
	dead_nid    INTEGER PRIMARY KEY,
	service_nid INTEGER NOT NULL,
	ts          INTEGER NOT NULL,
	problem     TEXT NOT NULL,
	body        {blob} NOT NULL
);
CREATE INDEX appservice_dead_service ON appservice_dead (service_nid);
CREATE TABLE appservice_progress (
	one      INTEGER PRIMARY KEY,
	version  INTEGER NOT NULL,
	position INTEGER NOT NULL
);
INSERT INTO appservice_progress (one, version, position) VALUES (1, 0, 0);
CREATE TABLE appservice_rooms (
	service_nid INTEGER NOT NULL,
	network     TEXT NOT NULL,
	room_id     TEXT NOT NULL,
	PRIMARY KEY (network, room_id, service_nid)
) {without rowid};
`, `
ALTER TABLE appservices ADD COLUMN beside INTEGER NOT NULL DEFAULT 0;
UPDATE appservices SET beside = (SELECT position FROM appservice_progress);
`, `
ALTER TABLE appservices ADD COLUMN asleep {bool} NOT NULL DEFAULT 0;
ALTER TABLE appservice_txns ADD COLUMN ts INTEGER NOT NULL DEFAULT 0;
`)

var (
	listServices  = db.SQL(`SELECT service_nid, id, file, registration, asleep, since, beside, paused, failures, retry_at, last_success, problem FROM appservices ORDER BY id`)
	upsertService = db.SQL(`INSERT INTO appservices (service_nid, id, file, registration, asleep, since, beside, paused, failures, retry_at, last_success, problem)
		VALUES ($1, $2, $3, $4, 0, $5, $5, 0, 0, 0, 0, '') ON CONFLICT (id) DO UPDATE SET file = excluded.file, registration = excluded.registration, asleep = 0`)
	sleepService   = db.SQL(`UPDATE appservices SET asleep = 1 WHERE service_nid = $1`)
	deleteService  = db.SQL(`DELETE FROM appservices WHERE service_nid = $1`)
	forgiveService = db.SQL(`UPDATE appservices SET failures = 0, retry_at = 0 WHERE id = $1`)
	updatePaused   = db.SQL(`UPDATE appservices SET paused = $1 WHERE id = $2`)
	updateOutcome  = db.SQL(`UPDATE appservices SET failures = $1, retry_at = $2, last_success = $3, problem = $4 WHERE service_nid = $5`)

	moveBeside = db.SQL(`UPDATE appservices SET beside = $1 WHERE service_nid = $2`)

	selectProgress = db.SQL(`SELECT version, position FROM appservice_progress`)
	bumpVersion    = db.SQL(`UPDATE appservice_progress SET version = version + 1`)
	moveProgress   = db.SQL(`UPDATE appservice_progress SET position = $1`)

	insertEvents = db.SQL(`INSERT INTO appservice_events (service_nid, position, event_nid, room_nid, ts)
		SELECT s.value, p.value, e.value, r.value, CAST($5 AS BIGINT) FROM {ints $1} AS s JOIN {ints $2} AS p ON p.n = s.n
		JOIN {ints $3} AS e ON e.n = s.n JOIN {ints $4} AS r ON r.n = s.n
		WHERE 1 = 1 ON CONFLICT (service_nid, position) DO NOTHING`)
	nextEvents = db.SQL(`SELECT position, event_nid, room_nid, ts FROM appservice_events WHERE service_nid = $1 ORDER BY position LIMIT $2`)
	takeEvents = db.SQL(`DELETE FROM appservice_events WHERE service_nid = $1 AND position <= $2`)
	dropEvents = db.SQL(`DELETE FROM appservice_events WHERE service_nid = $1`)

	countEvents = db.SQL(`SELECT service_nid, COUNT(*) FROM appservice_events GROUP BY service_nid`)
	oldestEvent = db.SQL(`SELECT service_nid, MIN(ts) FROM (SELECT service_nid, ts FROM appservice_events
		UNION ALL SELECT service_nid, ts FROM appservice_txns WHERE ts > 0) AS unaccepted GROUP BY service_nid`)
	countTxns = db.SQL(`SELECT service_nid, SUM(events) FROM appservice_txns GROUP BY service_nid`)
	countDead = db.SQL(`SELECT service_nid, COUNT(*) FROM appservice_dead GROUP BY service_nid`)

	firstTxn    = db.SQL(`SELECT txn, place, part, refusals, events, ts, body FROM appservice_txns WHERE service_nid = $1 ORDER BY place LIMIT 1`)
	insertTxn   = db.SQL(`INSERT INTO appservice_txns (txn, service_nid, place, part, refusals, events, ts, body) VALUES ($1, $2, $3, $4, 0, $5, $6, $7)`)
	shiftTxns   = db.SQL(`UPDATE appservice_txns SET place = place + 1 WHERE service_nid = $1 AND place > $2`)
	refusedTxn  = db.SQL(`UPDATE appservice_txns SET refusals = refusals + 1 WHERE txn = $1`)
	deleteTxn   = db.SQL(`DELETE FROM appservice_txns WHERE txn = $1`)
	dropTxns    = db.SQL(`DELETE FROM appservice_txns WHERE service_nid = $1`)
	insertDead  = db.SQL(`INSERT INTO appservice_dead (dead_nid, service_nid, ts, problem, body) VALUES ($1, $2, $3, $4, $5)`)
	listDead    = db.SQL(`SELECT dead_nid, ts, problem, body FROM appservice_dead WHERE service_nid = $1 AND dead_nid > $2 ORDER BY dead_nid LIMIT $3`)
	deadOf      = db.SQL(`SELECT dead_nid, body FROM appservice_dead WHERE service_nid = $1 AND (dead_nid = $2 OR $2 = 0) ORDER BY dead_nid`)
	lastPlace   = db.SQL(`SELECT COALESCE(MAX(place), 0) FROM appservice_txns WHERE service_nid = $1`)
	deleteDead  = db.SQL(`DELETE FROM appservice_dead WHERE dead_nid = $1`)
	dropDead    = db.SQL(`DELETE FROM appservice_dead WHERE service_nid = $1`)
	insertRoom  = db.SQL(`INSERT INTO appservice_rooms (service_nid, network, room_id) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING`)
	deleteRoom  = db.SQL(`DELETE FROM appservice_rooms WHERE service_nid = $1 AND network = $2 AND room_id = $3`)
	dropRooms   = db.SQL(`DELETE FROM appservice_rooms WHERE service_nid = $1`)
	listedRooms = db.SQL(`SELECT room_id FROM appservice_rooms WHERE service_nid = $1 AND network = $2 ORDER BY room_id`)
	everyRoom   = db.SQL(`SELECT DISTINCT room_id FROM appservice_rooms ORDER BY room_id`)
)

// record is a service's row.
type record struct {
	nid    int64
	id     string
	file   string // "" if it was added at run time
	text   []byte // of the registration
	asleep bool   // its file was taken out of the configuration
	since  int64  // the position from which on it gets events
	beside int64  // the position up to which it got receipts and device lists
	paused bool
	outcome
}

// outcome is how delivery to a service went lately.
type outcome struct {
	failures    int
	retryAt     int64 // ms; 0 for now
	lastSuccess int64 // ms; 0 for never
	problem     string
}

func scanRecord(s db.Scanner) (r record, err error) {
	err = s.Scan(&r.nid, &r.id, &r.file, &r.text, &r.asleep, &r.since, &r.beside, &r.paused, &r.failures, &r.retryAt, &r.lastSuccess, &r.problem)
	return r, err
}

type progress struct{ version, position int64 }

func readProgress(ctx context.Context, q db.Querier) (progress, error) {
	p, _, err := db.One(ctx, q, selectProgress, func(s db.Scanner) (p progress, err error) {
		err = s.Scan(&p.version, &p.position)
		return p, err
	})
	return p, err
}

// waiting is an event that has to be delivered.
type waiting struct {
	position int64
	event    state.EventNID
	room     rooms.RoomNID
	ts       int64 // when it was noted
}

func scanWaiting(s db.Scanner) (w waiting, err error) {
	err = s.Scan(&w.position, &w.event, &w.room, &w.ts)
	return w, err
}

// transaction is a request to a service, as it was first made.
type transaction struct {
	id       int64
	place    int64 // order among the service's
	part     bool  // of one that was refused; there may be others
	refusals int   // how often the service answered, but not with 200
	events   int
	ts       int64 // since when the first of its events has been waiting; 0 without events
	body     []byte
}

func scanTransaction(s db.Scanner) (t transaction, err error) {
	err = s.Scan(&t.id, &t.place, &t.part, &t.refusals, &t.events, &t.ts, &t.body)
	return t, err
}

func scanRoomID(s db.Scanner) (id matrix.RoomID, err error) {
	err = s.Scan(&id)
	return id, err
}

// counts reads a number for each service.
func counts(ctx context.Context, q db.Querier, stmt *db.Stmt) (map[int64]int64, error) {
	list := map[int64]int64{}
	err := db.Each(ctx, q, stmt, func(s db.Scanner) error {
		var nid, n int64
		err := s.Scan(&nid, &n)
		list[nid] = n
		return err
	})
	return list, err
}
