package kit

import (
	"context"

	"github.com/teahouse-chat/teahouse/internal/db"
	"github.com/teahouse-chat/teahouse/internal/dialer"
)

// basis is what the database of every service has.
var basis = db.NewSet("kit", nil)

// The states of rows of the inbox and the outbox.
const (
	stateWaiting = 0
	stateDone    = 1
	stateAside   = 2 // inbox: set aside after too many failures; outbox: given up
)

// In kit_inbox, nid is the order in which events came. event is NULL once it is
// done. In kit_outbox, lane is what is sent in order: a room, a user whose direct
// chat is not known yet, or the address of a webhook; target is the row that the
// content relates to, and event_id what the homeserver made of the row.
var _ = basis.Schema("kit", `
CREATE TABLE kit_meta (
	name  TEXT PRIMARY KEY,
	value TEXT NOT NULL
) {without rowid};
CREATE TABLE kit_inbox (
	nid      INTEGER PRIMARY KEY,
	event_id TEXT NOT NULL UNIQUE,
	room_id  TEXT NOT NULL,
	event    {blob},
	state    INTEGER NOT NULL,
	attempts INTEGER NOT NULL,
	problem  TEXT,
	received INTEGER NOT NULL,
	finished INTEGER
);
CREATE INDEX kit_inbox_waiting ON kit_inbox (room_id, nid) WHERE state = 0;
CREATE INDEX kit_inbox_finished ON kit_inbox (finished) WHERE state = 1;
CREATE TABLE kit_outbox (
	nid      INTEGER PRIMARY KEY,
	lane     TEXT NOT NULL,
	room_id  TEXT NOT NULL,
	kind     TEXT NOT NULL,
	type     TEXT NOT NULL,
	subject  TEXT NOT NULL,
	target   INTEGER,
	content  {blob},
	state    INTEGER NOT NULL,
	attempts INTEGER NOT NULL,
	due      INTEGER NOT NULL,
	problem  TEXT,
	event_id TEXT,
	created  INTEGER NOT NULL,
	finished INTEGER
);
CREATE INDEX kit_outbox_waiting ON kit_outbox (lane, nid) WHERE state = 0;
CREATE INDEX kit_outbox_finished ON kit_outbox (finished) WHERE state <> 0;
CREATE TABLE kit_rooms (
	room_id   TEXT PRIMARY KEY,
	joined    {bool} NOT NULL,
	encrypted {bool} NOT NULL,
	direct    TEXT,
	seen      INTEGER NOT NULL,
	swept     TEXT
) {without rowid};
CREATE TABLE kit_users (
	user_id    TEXT PRIMARY KEY,
	language   TEXT,
	direct     TEXT,
	forewarned {bool} NOT NULL
) {without rowid};
`, `
CREATE TABLE kit_dialogs (
	room_id  TEXT NOT NULL,
	user_id  TEXT NOT NULL,
	name     TEXT NOT NULL,
	data     {blob} NOT NULL,
	choices  {blob} NOT NULL,
	question INTEGER NOT NULL,
	language TEXT NOT NULL,
	expires  INTEGER NOT NULL,
	PRIMARY KEY (room_id, user_id)
) {without rowid};
`, `
ALTER TABLE kit_rooms ADD COLUMN crowded {bool} NOT NULL DEFAULT 0;
ALTER TABLE kit_rooms ADD COLUMN made {bool} NOT NULL DEFAULT 0;
ALTER TABLE kit_rooms ADD COLUMN told {bool} NOT NULL DEFAULT 0;
CREATE INDEX kit_rooms_direct ON kit_rooms (direct) WHERE direct IS NOT NULL;
`, `
CREATE TABLE kit_links (
	hash     TEXT PRIMARY KEY,
	user_id  TEXT NOT NULL,
	room_id  TEXT NOT NULL,
	name     TEXT NOT NULL,
	text     TEXT NOT NULL,
	data     {blob} NOT NULL,
	language TEXT NOT NULL,
	expires  INTEGER NOT NULL
) {without rowid};
`, `
CREATE INDEX kit_outbox_event ON kit_outbox (event_id) WHERE event_id IS NOT NULL;
`, `
ALTER TABLE kit_rooms ADD COLUMN invited TEXT;
ALTER TABLE kit_rooms ADD COLUMN nameless INTEGER NOT NULL DEFAULT 0;
ALTER TABLE kit_rooms ADD COLUMN found INTEGER NOT NULL DEFAULT 0;
ALTER TABLE kit_rooms ADD COLUMN moved INTEGER NOT NULL DEFAULT 0;
`)

// What a service needs of the database is named here: bots outside this program
// cannot import its internal packages.
type (
	Stmt    = db.Stmt    // a statement, made by Schema.SQL
	Scanner = db.Scanner // one row of a result
	Querier = db.Querier // what reads: a *Tx, or a *Service for what is committed
	Rows    = db.Rows    // the result of Query
)

// ErrTooLarge is what reading an answer fails with that is larger than Config.Dialer's
// clients take.
var ErrTooLarge = dialer.ErrTooLarge

// Schema is the tables of a service, and its method SQL makes the statements on
// them. The texts are understood by SQLite and PostgreSQL: parameters are $1, $2 and
// so on; types are INTEGER, TEXT, REAL, {bool} (0 or 1) and {blob}; {ints $1} and
// {texts $1} are slices as tables.
type Schema = db.Set

// NewSchema registers the tables of a service. It is called for package-level
// variables, and takes migrations, which are numbered in order and never change once
// released. Names of tables that begin with kit_ are the kit's.
func NewSchema(name string, migrations ...string) *Schema {
	s := db.NewSet(name, basis)
	s.Schema(name, migrations...)
	return s
}

// All returns every row of a query, scanned.
func All[T any](ctx context.Context, q Querier, s *Stmt, scan func(Scanner) (T, error), args ...any) ([]T, error) {
	return db.All(ctx, q, s, scan, args...)
}

// One returns the first row of a query, scanned, if there is one.
func One[T any](ctx context.Context, q Querier, s *Stmt, scan func(Scanner) (T, error), args ...any) (T, bool, error) {
	return db.One(ctx, q, s, scan, args...)
}

// Each calls scan for every row of a query; scan must not query.
func Each(ctx context.Context, q Querier, s *Stmt, scan func(Scanner) error, args ...any) error {
	return db.Each(ctx, q, s, scan, args...)
}

var (
	insertMeta = basis.SQL(`INSERT INTO kit_meta (name, value) VALUES ($1, $2) ON CONFLICT (name) DO NOTHING`)
	selectMeta = basis.SQL(`SELECT value FROM kit_meta WHERE name = $1`)

	insertEvent = basis.SQL(`
		INSERT INTO kit_inbox (nid, event_id, room_id, event, state, attempts, received) VALUES ($1, $2, $3, $4, 0, 0, $5)
		ON CONFLICT (event_id) DO NOTHING`)
	selectWaitingRooms = basis.SQL(`SELECT DISTINCT room_id FROM kit_inbox WHERE state = 0`)
	selectWaiting      = basis.SQL(`
		SELECT nid, event_id, event, attempts, received FROM kit_inbox
		WHERE state = 0 AND room_id = $1 ORDER BY nid LIMIT $2`)
	finishEvent = basis.SQL(`UPDATE kit_inbox SET state = 1, event = NULL, problem = NULL, finished = $2 WHERE nid = $1 AND state = 0`)
	selectAside = basis.SQL(`SELECT room_id FROM kit_inbox WHERE state = 2`)
	retryEvents = basis.SQL(`UPDATE kit_inbox SET state = 0, attempts = 0 WHERE state = 2`)
	failEvent   = basis.SQL(`UPDATE kit_inbox SET attempts = attempts + 1, problem = $2, state = $3 WHERE nid = $1 AND state = 0`)

	insertRow = basis.SQL(`
		INSERT INTO kit_outbox (nid, lane, room_id, kind, type, subject, target, content, state, attempts, due, created)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, 0, 0, 0, $9)`)
	selectLanes = basis.SQL(`SELECT lane, max(due) FROM kit_outbox WHERE state = 0 GROUP BY lane`)
	selectHead  = basis.SQL(`
		SELECT o.nid, o.lane, o.room_id, o.kind, o.type, o.subject, o.target, o.content, o.attempts, o.created, t.event_id, t.room_id
		FROM kit_outbox AS o LEFT JOIN kit_outbox AS t ON t.nid = o.target
		WHERE o.state = 0 AND o.lane = $1 ORDER BY o.nid LIMIT 1`)
	selectSent = basis.SQL(`SELECT nid FROM kit_outbox WHERE event_id = $1`)
	selectRow  = basis.SQL(`SELECT lane, room_id, event_id FROM kit_outbox WHERE nid = $1`)
	finishRow  = basis.SQL(`
		UPDATE kit_outbox SET state = $2, event_id = $3, room_id = CASE WHEN $4 = '' THEN room_id ELSE $4 END,
			problem = $5, content = NULL, finished = $6 WHERE nid = $1 AND state = 0`)
	postponeRow = basis.SQL(`UPDATE kit_outbox SET attempts = attempts + 1, due = $2, problem = $3 WHERE nid = $1 AND state = 0`)
)

var countWaiting = basis.SQL(`
	SELECT (SELECT count(*) FROM kit_inbox WHERE state = 0), (SELECT count(*) FROM kit_outbox WHERE state = 0)`)

func scanText(r Scanner) (v string, err error) {
	err = r.Scan(&v)
	return v, err
}
