package db

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/mattn/go-sqlite3"
)

// The driver is used below database/sql: a writer that runs a few statements
// per op and point reads that take 10 µs would pay as much again for its locks,
// contexts and conversions.

// sqliteDialer opens connections to one file.
type sqliteDialer struct {
	path string
}

// newSQLiteDialer makes the file's folder and looks at what is there.
func newSQLiteDialer(path string) (*sqliteDialer, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("db: making the folder of the database: %w", err)
	}
	_, err := os.Stat(path)
	if err == nil {
		return &sqliteDialer{path}, nil
	}
	if !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("db: %w", err)
	}
	// SQLite would delete, or play back, the journal of another database.
	for _, suffix := range []string{"-wal", "-journal"} {
		journal := path + suffix
		left, err := os.Stat(journal)
		if err != nil || left.Size() == 0 {
			continue
		}
		if _, err := os.Stat(path); err == nil { // another process has begun it meanwhile
			continue
		}
		return nil, fmt.Errorf("db: %s is the journal of a database that is not there any more: "+
			"put %s back beside it, or move it away to start with an empty database", journal, path)
	}
	return &sqliteDialer{path}, nil
}

func (d *sqliteDialer) engine() engine { return sqlite }

const (
	// A checkpoint costs two fsyncs on the writer, and pages that were written
	// several times are copied once: every 16 MB, not every 4.
	sqliteWriter = `PRAGMA synchronous = FULL;
		PRAGMA wal_autocheckpoint = 4000; PRAGMA journal_size_limit = 67108864; PRAGMA cache_size = -16000;`
	sqliteReader = `PRAGMA query_only = ON; PRAGMA cache_size = -4000;`
	// LIKE heeds case, as PostgreSQL's does.
	sqliteBoth = `PRAGMA foreign_keys = OFF; PRAGMA temp_store = MEMORY; PRAGMA case_sensitive_like = ON;`
)

func (d *sqliteDialer) dial(_ context.Context, write bool) (conn, error) {
	mode, setup := "ro", sqliteReader+sqliteBoth
	if write {
		mode, setup = "rwc", sqliteWriter+sqliteBoth
	}
	name := (&url.URL{Path: d.path}).EscapedPath()
	raw, err := (&sqlite3.SQLiteDriver{}).Open("file:" + name + "?mode=" + mode + "&_mutex=no&_busy_timeout=10000")
	if err != nil {
		return nil, d.explain(err)
	}
	c := &sqliteConn{c: raw.(*sqlite3.SQLiteConn), write: write}
	if write {
		err = d.writeAhead(c)
	}
	if err == nil {
		err = c.script(setup)
	}
	if err != nil {
		c.close()
		return nil, d.explain(err)
	}
	return c, nil
}

// writeAhead turns the write-ahead log on. While another process does the same to
// a new file, SQLite says at once that it is busy, whatever its timeout.
func (d *sqliteDialer) writeAhead(c *sqliteConn) error {
	const patience, pause = 10 * time.Second, 5 * time.Millisecond
	if err := c.script(`PRAGMA page_size = 4096`); err != nil {
		return err
	}
	for waited := time.Duration(0); ; waited += pause {
		var mode string
		err := c.scalar("PRAGMA journal_mode = WAL", &mode)
		var e sqlite3.Error
		switch {
		case errors.As(err, &e) && e.Code == sqlite3.ErrBusy && waited < patience:
			time.Sleep(pause)
		case err == nil && mode != "wal":
			return fmt.Errorf("it can't have a write-ahead log (journal mode %q): keep the database on a local file system", mode)
		default:
			return err
		}
	}
}

// explain says what to do about an error of opening.
func (d *sqliteDialer) explain(err error) error {
	var e sqlite3.Error
	if errors.As(err, &e) {
		switch e.Code {
		case sqlite3.ErrNotADB:
			return fmt.Errorf("db: %s is not an SQLite database: name another file, or move it away (%w)", d.path, err)
		case sqlite3.ErrCantOpen, sqlite3.ErrReadonly, sqlite3.ErrPerm:
			return fmt.Errorf("db: %s can't be opened for writing: check who owns it and its folder (%w)", d.path, err)
		}
	}
	return fmt.Errorf("db: opening %s: %w", d.path, err)
}

// sqliteConn is one connection and its prepared statements.
type sqliteConn struct {
	c     *sqlite3.SQLiteConn
	write bool
	stmts []*sqlite3.SQLiteStmt // by Stmt.index
	args  []driver.NamedValue   // scratch
	cur   sqliteCursor
}

func (c *sqliteConn) prepared(s *Stmt) (*sqlite3.SQLiteStmt, error) {
	if s.index < len(c.stmts) && c.stmts[s.index] != nil {
		return c.stmts[s.index], nil
	}
	st, err := c.c.Prepare(s.on(sqlite))
	if err != nil {
		return nil, err
	}
	for len(c.stmts) <= s.index {
		c.stmts = append(c.stmts, nil)
	}
	c.stmts[s.index] = st.(*sqlite3.SQLiteStmt)
	return c.stmts[s.index], nil
}

// bind puts args into the form that the driver takes.
func (c *sqliteConn) bind(s *Stmt, args []any) ([]driver.NamedValue, error) {
	c.args = c.args[:0]
	err := bindable(s, args, func(v any) {
		switch list := v.(type) {
		case []int64:
			v = jsonInts(list)
		case []string:
			v = jsonTexts(list)
		}
		c.args = append(c.args, driver.NamedValue{Ordinal: len(c.args) + 1, Value: v})
	})
	return c.args, err
}

// start runs a statement up to its first row. The driver's query path is the
// cheaper one also for statements without rows: it resets, binds and steps in
// one call into C.
func (c *sqliteConn) start(ctx context.Context, s *Stmt, args []any) (driver.Rows, error) {
	st, err := c.prepared(s)
	if err != nil {
		return nil, s.fail(err)
	}
	values, err := c.bind(s, args)
	if err != nil {
		return nil, err
	}
	rows, err := st.QueryContext(ctx, values)
	if err != nil {
		return nil, s.fail(err)
	}
	return rows, nil
}

func (c *sqliteConn) exec(s *Stmt, args []any) error {
	rows, err := c.start(context.Background(), s, args)
	if err != nil {
		return err
	}
	if len(rows.Columns()) == 0 {
		return nil // it is done, so there is nothing to reset
	}
	if err := rows.Close(); err != nil {
		return s.fail(err)
	}
	return nil
}

func (c *sqliteConn) changed(s *Stmt, args []any) (int64, error) {
	st, err := c.prepared(s)
	if err != nil {
		return 0, s.fail(err)
	}
	values, err := c.bind(s, args)
	if err != nil {
		return 0, err
	}
	result, err := st.ExecContext(context.Background(), values)
	if err != nil {
		return 0, s.fail(err)
	}
	return result.RowsAffected()
}

func (c *sqliteConn) query(ctx context.Context, s *Stmt, args []any) (cursor, error) {
	if c.write {
		ctx = context.Background() // an op's caller must not interrupt the batch
	}
	rows, err := c.start(ctx, s, args)
	if err != nil {
		return nil, err
	}
	n := len(rows.Columns())
	if cap(c.cur.row) < n {
		c.cur.row = make([]driver.Value, n)
	}
	c.cur.rows, c.cur.row = rows, c.cur.row[:n]
	return &c.cur, nil
}

type sqliteCursor struct {
	rows driver.Rows
	row  []driver.Value
}

func (c *sqliteCursor) next() ([]driver.Value, error) {
	if err := c.rows.Next(c.row); err != nil {
		if err == io.EOF {
			err = nil
		}
		return nil, err
	}
	return c.row, nil
}

func (c *sqliteCursor) close() error {
	clear(c.row)
	return c.rows.Close()
}

func (c *sqliteConn) begin(write bool) error {
	if write {
		return c.exec(beginWrite, nil)
	}
	return c.exec(beginRead, nil)
}

func (c *sqliteConn) commit() error {
	err := c.exec(commit, nil)
	if err != nil {
		c.rollback()
	}
	return err
}

func (c *sqliteConn) rollback() {
	if !c.c.AutoCommit() {
		c.exec(rollback, nil)
	}
}

func (c *sqliteConn) script(text string) error {
	_, err := c.c.ExecContext(context.Background(), text, nil)
	return err
}

// scalar reads one value.
func (c *sqliteConn) scalar(text string, dest any) error {
	rows, err := c.c.QueryContext(context.Background(), text, nil)
	if err != nil {
		return err
	}
	defer rows.Close()
	row := make([]driver.Value, 1)
	if err := rows.Next(row); err != nil {
		return err
	}
	return assign(dest, row[0])
}

func (c *sqliteConn) check(text string) error {
	st, err := c.c.Prepare(text)
	if err != nil {
		return err
	}
	return st.Close()
}

func (c *sqliteConn) lost() bool { return false }

func (c *sqliteConn) close() error {
	for _, st := range c.stmts {
		if st != nil {
			st.Close()
		}
	}
	return c.c.Close()
}

func sqliteUnique(e sqlite3.Error) bool {
	switch e.ExtendedCode {
	case sqlite3.ErrConstraintUnique, sqlite3.ErrConstraintPrimaryKey, sqlite3.ErrConstraintRowID:
		return true
	}
	return false
}

func sqliteHeadMoved(e sqlite3.Error) bool {
	return e.ExtendedCode == sqlite3.ErrConstraintNotNull && strings.Contains(e.Error(), "stream_head.position")
}
