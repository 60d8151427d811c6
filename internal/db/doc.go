// Package db is the storage plumbing: one SQL text for SQLite and PostgreSQL, a
// group-committing writer, a pool of readers, migrations and sequences. It knows
// no Matrix tables. A feature declares its own in its store.go:
//
//	var _ = db.Schema("rooms", `CREATE TABLE rooms (
//		nid     INTEGER PRIMARY KEY,
//		id      TEXT NOT NULL UNIQUE,
//		hidden  {bool} NOT NULL,
//		summary {blob}
//	)`)
//
//	var selectRoom = db.SQL(`SELECT nid FROM rooms WHERE id = $1`)
//
// A service that keeps a database of its own has a Set of its own.
//
// # What holds
//
//   - One goroutine writes. It takes what is queued, up to 512 ops, runs them in
//     order in one transaction, commits once, tells the subscribers, answers the
//     callers, and begins again. There is no timer: while a commit waits for the
//     disk, the next batch gathers.
//   - A caller is answered after its op is durable. An op either commits whole or
//     leaves nothing: no rows, no positions, no publication. Another op of its
//     batch can't make it fail, only make it run again.
//   - Positions count 1, 2, 3 and so on over all that is committed, also where
//     several processes write to one PostgreSQL database. Whoever can see a
//     position can see all before it.
//   - Subscribers hear of commits in commit order, and of nothing else.
//   - Reads never wait for writes, and a read outside the writer never writes.
//
// # The SQL
//
// Parameters are $1, $2 ...; one may be used several times. A parameter that
// nothing compares or stores has no type on PostgreSQL: CAST($1 AS TEXT) IS NULL.
//
// Columns are INTEGER (64 bits), TEXT, REAL (64 bits), {bool} or {blob}, on both
// engines; texts sort by their bytes and LIKE heeds case. A {bool} is stored as 0
// or 1: compare it with = 1. A table with a TEXT or composite primary key is
// smaller on SQLite with {without rowid} after the closing parenthesis. Column
// names that are keywords of either engine don't work unquoted.
//
// Further tokens: IN {ints $1}, NOT IN {ints $1} and IN {texts $1} test for
// membership of a slice. Elsewhere {ints $1} AS x is a table with the columns
// value and n (0, 1 ...), and {ints $1, texts $2} AS x one with value, value2 and
// n, of slices of the same length, which inserts or joins many rows at once:
//
//	INSERT INTO edges (nid, prev) SELECT a.value, a.value2
//	FROM {ints $1, ints $2} AS a
//
// {greatest}(a, b) and {least}(a, b) are max and min of values, not of rows; give
// them no NULLs. {instr}(text, part) is where part begins in text, counted from
// 1; 0 if it is not there. INSERT ... ON CONFLICT ... DO UPDATE and RETURNING read the same
// on both. The types that a CAST may name are TEXT and BIGINT.
//
// # Values
//
// Arguments and scanned columns are integers, bool, float64, string, []byte and
// types based on them (matrix.UserID), pointers to these for what may be NULL,
// and, as arguments, slices of integers and of strings. A nil []byte is NULL, a
// nil list is empty. Give TEXT columns strings and {blob} columns []byte. Times
// are stored as integers, mostly milliseconds. Text with U+0000 or broken UTF-8,
// which PostgreSQL can't store, is refused on both with a 400; JSON from users is
// therefore best stored as a {blob}.
package db
