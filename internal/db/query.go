package db

import "context"

// Scanner is one row; see Rows.Scan for what it scans into.
type Scanner interface{ Scan(dest ...any) error }

// Querier runs reads: a *DB, a *Tx or a *Snapshot.
type Querier interface {
	Query(ctx context.Context, s *Stmt, args ...any) (*Rows, error)
}

// Rows is the result of a query; it must be closed.
type Rows struct{}

// Next moves to the next row.
func (r *Rows) Next() bool { return false }

// Scan copies the columns of the row.
func (r *Rows) Scan(dest ...any) error { return errNotBuilt }

// Err is what ended the rows, if not their end.
func (r *Rows) Err() error { return nil }

// Close releases the connection.
func (r *Rows) Close() {}

// All returns every row.
func All[T any](ctx context.Context, q Querier, s *Stmt, scan func(Scanner) (T, error), args ...any) ([]T, error) {
	return nil, errNotBuilt
}

// One returns the first row, if there is one.
func One[T any](ctx context.Context, q Querier, s *Stmt, scan func(Scanner) (T, error), args ...any) (v T, found bool, err error) {
	return v, false, errNotBuilt
}

// Each calls scan for every row.
func Each(ctx context.Context, q Querier, s *Stmt, scan func(Scanner) error, args ...any) error {
	return errNotBuilt
}

// Query reads from the read pool.
func (d *DB) Query(ctx context.Context, s *Stmt, args ...any) (*Rows, error) {
	return nil, errNotBuilt
}

// Snapshot is a consistent read transaction.
type Snapshot struct{}

// Query reads from the snapshot.
func (s *Snapshot) Query(ctx context.Context, st *Stmt, args ...any) (*Rows, error) {
	return nil, errNotBuilt
}

// View runs fn on one consistent read transaction.
func (d *DB) View(ctx context.Context, fn func(q Querier) error) error { return errNotBuilt }
