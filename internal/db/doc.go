// Package db is the storage plumbing: one SQL text for SQLite and PostgreSQL, a
// single group-committing writer, a pool of readers, migrations and sequences.
//
// It knows no Matrix tables; a feature declares its own in its store.go:
//
//	var _ = db.Schema("rooms", `CREATE TABLE rooms (nid INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, json {blob} NOT NULL)`)
//	var selectRoom = db.SQL(`SELECT nid FROM rooms WHERE id = $1`)
package db
