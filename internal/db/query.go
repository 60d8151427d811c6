package db

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
)

// Scanner is one row. Scan copies its columns into the variables that dest
// points to: integers, bool, float64, string, []byte and types based on them,
// and, for columns that may be NULL, pointers to these. A NULL []byte is nil.
type Scanner interface{ Scan(dest ...any) error }

// Querier runs reads. A *DB reads what is committed, each query by itself; a
// *Snapshot (from View) sees one state of the database throughout; a *Tx sees
// its own writes.
type Querier interface {
	Query(ctx context.Context, s *Stmt, args ...any) (*Rows, error)
}

// Rows is the result of a query. It must be closed, or read to its end, before
// the next query on the same *Tx or *Snapshot.
type Rows struct {
	stmt *Stmt
	cur  cursor // nil once closed
	row  []driver.Value
	err  error
	done func() // gives the connection back; nil on a *Tx or *Snapshot, which keep it
}

// Next moves to the next row; false at the end or after an error.
func (r *Rows) Next() bool {
	if r.cur == nil {
		return false
	}
	row, err := r.cur.next()
	if row == nil || err != nil {
		r.end(err)
		return false
	}
	r.row = row
	return true
}

// Scan copies the columns of the row that Next moved to.
func (r *Rows) Scan(dest ...any) error {
	if r.cur == nil || r.row == nil {
		return r.stmt.fail(errors.New("Scan without a row"))
	}
	if len(dest) != len(r.row) {
		return r.stmt.fail(fmt.Errorf("it has %d columns, but Scan got %d variables", len(r.row), len(dest)))
	}
	for i := range dest {
		if err := assign(dest[i], r.row[i]); err != nil {
			return r.stmt.fail(fmt.Errorf("column %d: %w", i+1, err))
		}
	}
	return nil
}

// Err is what ended the rows early, nil at their proper end.
func (r *Rows) Err() error { return r.err }

// Close gives the connection back. It may be called again.
func (r *Rows) Close() { r.end(nil) }

func (r *Rows) end(err error) {
	if r.cur == nil {
		return
	}
	if closeErr := r.cur.close(); err == nil {
		err = closeErr
	}
	r.cur, r.row = nil, nil
	if err != nil {
		r.err = r.stmt.fail(err)
	}
	if r.done != nil {
		r.done()
	}
}

func (r *Rows) open() bool { return r != nil && r.cur != nil }

// All returns every row, scanned.
func All[T any](ctx context.Context, q Querier, s *Stmt, scan func(Scanner) (T, error), args ...any) ([]T, error) {
	rows, err := q.Query(ctx, s, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var all []T
	for rows.Next() {
		v, err := scan(rows)
		if err != nil {
			return nil, err
		}
		all = append(all, v)
	}
	return all, rows.Err()
}

// One returns the first row, scanned, if there is one.
func One[T any](ctx context.Context, q Querier, s *Stmt, scan func(Scanner) (T, error), args ...any) (v T, found bool, err error) {
	rows, err := q.Query(ctx, s, args...)
	if err != nil {
		return v, false, err
	}
	defer rows.Close()
	if !rows.Next() {
		return v, false, rows.Err()
	}
	if v, err = scan(rows); err != nil {
		return v, false, err
	}
	return v, true, nil
}

// Each calls scan for every row. The rows are open while it runs, so it must
// not query: a *Tx and a *Snapshot refuse that, and on a *DB it could wait for
// a connection that waits for it.
func Each(ctx context.Context, q Querier, s *Stmt, scan func(Scanner) error, args ...any) error {
	rows, err := q.Query(ctx, s, args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		if err := scan(rows); err != nil {
			return err
		}
	}
	return rows.Err()
}

// Query reads what is committed.
func (d *DB) Query(ctx context.Context, s *Stmt, args ...any) (*Rows, error) {
	for {
		c, used, err := d.readers.get(ctx)
		if err != nil {
			return nil, err
		}
		cur, err := c.query(ctx, s, args)
		if err == nil {
			return &Rows{stmt: s, cur: cur, done: func() { d.readers.put(c) }}, nil
		}
		stale := used && c.lost() && ctx.Err() == nil
		d.readers.put(c)
		if !stale {
			return nil, err
		}
	}
}

// Snapshot is a read transaction: all of its queries see one state.
type Snapshot struct {
	db      *DB
	c       conn
	used    bool // c has been used before this snapshot
	started bool // a query has succeeded, so the state is fixed
	rows    *Rows
	closed  bool
}

var errOpenRows = errors.New("the rows of the query before are still open")

// Query reads from the snapshot.
func (s *Snapshot) Query(ctx context.Context, st *Stmt, args ...any) (*Rows, error) {
	switch {
	case s.closed:
		return nil, st.fail(errors.New("the snapshot has ended"))
	case s.rows.open():
		return nil, st.fail(errOpenRows)
	}
	for {
		cur, err := s.c.query(ctx, st, args)
		if err == nil {
			s.started, s.rows = true, &Rows{stmt: st, cur: cur}
			return s.rows, nil
		}
		if s.started || !s.used || !s.c.lost() || ctx.Err() != nil {
			return nil, err
		}
		s.db.readers.put(s.c)
		if err := s.begin(ctx); err != nil {
			return nil, err
		}
	}
}

// begin takes a connection from the pool and starts the transaction. Without
// one the snapshot is closed.
func (s *Snapshot) begin(ctx context.Context) (err error) {
	s.closed = true
	if s.c, s.used, err = s.db.readers.get(ctx); err != nil {
		return err
	}
	if err := s.c.begin(false); err != nil {
		s.db.readers.put(s.c)
		return err
	}
	s.closed = false
	return nil
}

// View runs fn on one consistent read transaction, which ends when fn returns.
// It should be short: on SQLite the write-ahead log grows meanwhile.
func (d *DB) View(ctx context.Context, fn func(q Querier) error) error {
	s := &Snapshot{db: d}
	if err := s.begin(ctx); err != nil {
		return err
	}
	defer func() {
		if !s.closed {
			s.closed = true
			if s.rows.open() {
				s.rows.Close()
			}
			s.c.rollback()
			d.readers.put(s.c)
		}
	}()
	return fn(s)
}
