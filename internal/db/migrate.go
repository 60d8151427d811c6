package db

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
)

var _ = common.Schema("db", `
CREATE TABLE stream_head (
	id       INTEGER PRIMARY KEY,
	position INTEGER NOT NULL
);
INSERT INTO stream_head (id, position) VALUES (1, 0);
CREATE TABLE sequences (
	name TEXT PRIMARY KEY,
	next INTEGER NOT NULL
) {without rowid};
`)

// migrations is the table of what has been applied.
const migrations = `
CREATE TABLE IF NOT EXISTS schema_migrations (
	feature  TEXT NOT NULL,
	number   INTEGER NOT NULL,
	checksum TEXT NOT NULL,
	PRIMARY KEY (feature, number)
)`

// migrationLock is the advisory lock of migrating, on PostgreSQL.
const migrationLock = `SELECT pg_advisory_xact_lock(7307497709430117736)`

var (
	selectTables     = common.SQL(`SELECT count(*) FROM {tables} AS t WHERE name <> 'schema_migrations'`)
	selectMigrations = common.SQL(`SELECT feature, number, checksum FROM schema_migrations ORDER BY feature, number`)
	insertMigration  = common.SQL(`INSERT INTO schema_migrations (feature, number, checksum) VALUES ($1, $2, $3)`)
)

// migrate brings the database to the schema of the features in one transaction: it
// has all of the migrations or none.
func migrate(ctx context.Context, c conn, e engine, features []*feature) error {
	if err := c.begin(true); err != nil {
		return err
	}
	if err := migrateIn(ctx, c, e, features); err != nil {
		c.rollback()
		return err
	}
	return c.commit()
}

func migrateIn(ctx context.Context, c conn, e engine, features []*feature) error {
	if e == postgres {
		if err := c.script(migrationLock); err != nil {
			return err
		}
	}
	if err := c.script(renderDDL(migrations, e)); err != nil {
		return err
	}
	applied, err := readMigrations(ctx, c)
	if err != nil {
		return err
	}
	if len(applied) == 0 {
		if err := checkEmpty(ctx, c); err != nil {
			return err
		}
	}
	for _, f := range features {
		for i, text := range f.migrations {
			key := migration{f.name, i + 1}
			sum := checksum(text)
			had, ok := applied[key]
			delete(applied, key)
			switch {
			case ok && had != sum:
				return fmt.Errorf("db: migration %d of %s is not the one that made this database: "+
					"run the version of Teahouse that it was last used with, or restore a backup; "+
					"a released migration must not be edited, only followed by another", key.number, key.feature)
			case ok:
				continue
			}
			if err := c.script(renderDDL(text, e)); err != nil {
				return fmt.Errorf("db: migration %d of %s: %w", key.number, key.feature, err)
			}
			if err := c.exec(insertMigration, []any{key.feature, key.number, sum}); err != nil {
				return err
			}
		}
	}
	for key := range applied {
		if set, ok := setOf(key.feature); ok && !slices.ContainsFunc(features, func(f *feature) bool { return f.name == key.feature }) {
			return fmt.Errorf("db: this is a database of another kind (%s): every service, and the homeserver, needs a database of its own", set)
		}
		return fmt.Errorf("db: this database is newer than this program (it has migration %d of %s): "+
			"run the newer version of Teahouse, or restore a backup from before the upgrade", key.number, key.feature)
	}
	return nil
}

type migration struct {
	feature string
	number  int
}

func checksum(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:])
}

func readMigrations(ctx context.Context, c conn) (map[migration]string, error) {
	applied := make(map[migration]string)
	err := eachOn(ctx, c, selectMigrations, func(r Scanner) error {
		var m migration
		var sum string
		err := r.Scan(&m.feature, &m.number, &sum)
		applied[m] = sum
		return err
	})
	return applied, err
}

// checkEmpty keeps Teahouse's tables out of a database of something else.
func checkEmpty(ctx context.Context, c conn) error {
	var tables int
	err := eachOn(ctx, c, selectTables, func(r Scanner) error { return r.Scan(&tables) })
	if err == nil && tables > 0 {
		err = errors.New("db: this database has tables that Teahouse did not make: give Teahouse a database of its own")
	}
	return err
}

// eachOn is Each on a bare connection.
func eachOn(ctx context.Context, c conn, s *Stmt, scan func(Scanner) error, args ...any) error {
	cur, err := c.query(ctx, s, args)
	if err != nil {
		return err
	}
	rows := Rows{stmt: s, cur: cur}
	defer rows.Close()
	for rows.Next() {
		if err := scan(&rows); err != nil {
			return err
		}
	}
	return rows.Err()
}

// PrepareAll prepares every statement of d's set on d's engine, for the test of a
// package that links all features.
func PrepareAll(ctx context.Context, d *DB) error {
	c, err := d.dialer.dial(ctx, true)
	if err != nil {
		return err
	}
	defer c.close()
	var errs []error
	for _, s := range d.set.statements() {
		if err := c.check(s.on(d.dialer.engine())); err != nil {
			errs = append(errs, s.fail(err))
		}
	}
	return errors.Join(errs...)
}
