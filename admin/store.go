package admin

import "github.com/teahouse-chat/teahouse/internal/db"

// What a report is not about is ”.
var _ = db.Schema("admin",
	`CREATE TABLE reports (
		id BIGINT NOT NULL PRIMARY KEY,
		reporter TEXT NOT NULL,
		room_id TEXT NOT NULL,
		event_id TEXT NOT NULL,
		user_id TEXT NOT NULL,
		reason TEXT NOT NULL,
		received_ts BIGINT NOT NULL
	)`,
)

var (
	insertReport = db.SQL(`INSERT INTO reports (id, reporter, room_id, event_id, user_id, reason, received_ts) VALUES ($1, $2, $3, $4, $5, $6, $7)`)
	deleteReport = db.SQL(`DELETE FROM reports WHERE id = $1`)

	selectReports = db.SQL(`SELECT id, reporter, room_id, event_id, user_id, reason, received_ts FROM reports WHERE id < $1 ORDER BY id DESC LIMIT $2`)
)

func scanReport(row db.Scanner) (Report, error) {
	var r Report
	err := row.Scan(&r.ID, (*string)(&r.Reporter), (*string)(&r.Room), (*string)(&r.Event), (*string)(&r.User), &r.Reason, &r.TS)
	return r, err
}
