package outbound

import (
	"context"

	"github.com/teahouse-chat/teahouse/internal/db"
	"github.com/teahouse-chat/teahouse/internal/matrix"
)

// A destination whose cursor is below 0 stands where the head does. What an EDU
// is about is the user of a device list; else empty.
var _ = db.Schema("federation_outbound", `
CREATE TABLE outbound_head (
	id       INTEGER PRIMARY KEY,
	position INTEGER NOT NULL
);
INSERT INTO outbound_head (id, position) VALUES (1, 0);
CREATE TABLE outbound_destinations (
	server       TEXT PRIMARY KEY,
	cursor       INTEGER NOT NULL,
	failures     INTEGER NOT NULL,
	retry_at     INTEGER NOT NULL,
	last_success INTEGER NOT NULL,
	last_failure INTEGER NOT NULL,
	problem      TEXT NOT NULL
) {without rowid};
CREATE TABLE outbound_edus (
	server  TEXT NOT NULL,
	edu     INTEGER NOT NULL,
	about   TEXT NOT NULL,
	type    TEXT NOT NULL,
	content {blob} NOT NULL,
	PRIMARY KEY (server, edu)
) {without rowid};
CREATE INDEX outbound_edus_about ON outbound_edus (server, about) WHERE about <> '';
`)

var (
	selectHead = db.SQL(`SELECT position FROM outbound_head WHERE id = 1`)
	updateHead = db.SQL(`UPDATE outbound_head SET position = $1 WHERE id = 1`)

	selectDestinations = db.SQL(`SELECT server, cursor, failures, retry_at, last_success, last_failure, problem
		FROM outbound_destinations ORDER BY server`)
	upsertDestination = db.SQL(`INSERT INTO outbound_destinations (server, cursor, failures, retry_at, last_success, last_failure, problem)
		VALUES ($1, $2, $3, $4, $5, $6, $7)
		ON CONFLICT (server) DO UPDATE SET cursor = excluded.cursor, failures = excluded.failures, retry_at = excluded.retry_at,
			last_success = excluded.last_success, last_failure = excluded.last_failure, problem = excluded.problem`)
	noteSuccess = db.SQL(`INSERT INTO outbound_destinations (server, cursor, failures, retry_at, last_success, last_failure, problem)
		VALUES ($1, -1, 0, 0, $2, 0, '')
		ON CONFLICT (server) DO UPDATE SET last_success = excluded.last_success
			WHERE outbound_destinations.last_success < excluded.last_success - 86400000`)
	deleteDestination = db.SQL(`DELETE FROM outbound_destinations WHERE server = $1`)

	insertEDU = db.SQL(`INSERT INTO outbound_edus (server, edu, about, type, content)
		SELECT s.value, n.value, $3, $4, $5 FROM {texts $1} AS s JOIN {ints $2} AS n ON n.n = s.n`)
	selectEDUs    = db.SQL(`SELECT edu, type, content FROM outbound_edus WHERE server = $1 AND edu > $2 ORDER BY edu LIMIT $3`)
	selectWaiting = db.SQL(`SELECT DISTINCT server FROM outbound_edus`)
	countEDUs     = db.SQL(`SELECT server, COUNT(*) FROM outbound_edus GROUP BY server`)
	deleteSent    = db.SQL(`DELETE FROM outbound_edus WHERE server = $1 AND edu <= $2`)
	deleteEDUs    = db.SQL(`DELETE FROM outbound_edus WHERE server = $1`)
	// Of the changes of one user's devices the newest is enough: it names one that
	// the other server does not know, which makes it ask for the whole list.
	mergeDevices = db.SQL(`DELETE FROM outbound_edus WHERE server = $1 AND about <> '' AND EXISTS (SELECT 1 FROM outbound_edus l
		WHERE l.server = $1 AND l.about = outbound_edus.about AND l.edu > outbound_edus.edu)`)
	deleteOldest = db.SQL(`DELETE FROM outbound_edus WHERE server = $1 AND edu <=
		(SELECT edu FROM outbound_edus WHERE server = $1 ORDER BY edu DESC LIMIT 1 OFFSET $2)`)
)

// row is what the database knows of a destination.
type row struct {
	cursor      int64 // below 0: none
	failures    int
	retryAt     int64 // ms since 1970, as the others
	lastSuccess int64
	lastFailure int64
	problem     string
}

func (r *row) write(tx *db.Tx, server matrix.ServerName) error {
	return tx.Exec(upsertDestination, server, r.cursor, r.failures, r.retryAt, r.lastSuccess, r.lastFailure, r.problem)
}

func readRows(ctx context.Context, q db.Querier) (map[matrix.ServerName]row, error) {
	rows := map[matrix.ServerName]row{}
	return rows, db.Each(ctx, q, selectDestinations, func(s db.Scanner) error {
		var server matrix.ServerName
		var r row
		err := s.Scan(&server, &r.cursor, &r.failures, &r.retryAt, &r.lastSuccess, &r.lastFailure, &r.problem)
		rows[server] = r
		return err
	})
}

func scanServer(s db.Scanner) (server matrix.ServerName, err error) { return server, s.Scan(&server) }

func scanInt(s db.Scanner) (n int64, err error) { return n, s.Scan(&n) }
