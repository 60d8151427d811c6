package encryption

import "github.com/teahouse-chat/teahouse/internal/db"

var countRows = map[string]*db.Stmt{
	"device_keys":       db.SQL(`SELECT count(*) FROM device_keys WHERE user_id = $1 AND device_id = $2`),
	"one_time_keys":     db.SQL(`SELECT count(*) FROM one_time_keys WHERE user_id = $1 AND device_id = $2`),
	"to_device":         db.SQL(`SELECT count(*) FROM to_device WHERE user_id = $1 AND device_id = $2`),
	"to_device_waiting": db.SQL(`SELECT count(*) FROM to_device_waiting WHERE user_id = $1 AND device_id = $2`),
}

// rows counts what a table keeps of a device.
func (g *rig) rows(table string, c *client) int64 {
	g.Helper()
	n, _, err := db.One(g.Context(), g.DB, countRows[table], scanInt, c.user, c.id)
	if err != nil {
		g.Fatal(err)
	}
	return n
}

var countStreamChanges = db.SQL(`SELECT count(*) FROM stream_changes WHERE user_id = $1`)

var countUserRows = map[string]*db.Stmt{
	"device_keys":        db.SQL(`SELECT count(*) FROM device_keys WHERE user_id = $1`),
	"cross_keys":         db.SQL(`SELECT count(*) FROM cross_keys WHERE user_id = $1`),
	"key_signatures":     db.SQL(`SELECT count(*) FROM key_signatures WHERE user_id = $1`),
	"one_time_keys":      db.SQL(`SELECT count(*) FROM one_time_keys WHERE user_id = $1`),
	"dehydrated_devices": db.SQL(`SELECT count(*) FROM dehydrated_devices WHERE user_id = $1`),
	"key_backups":        db.SQL(`SELECT count(*) FROM key_backups WHERE user_id = $1`),
	"backup_keys":        db.SQL(`SELECT count(*) FROM backup_keys WHERE user_id = $1`),
}
