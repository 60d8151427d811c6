package db

import "context"

// Tx is a write operation's access to the database.
type Tx struct{}

// Query reads within the transaction.
func (tx *Tx) Query(ctx context.Context, s *Stmt, args ...any) (*Rows, error) {
	return nil, errNotBuilt
}

// Exec runs a statement whose result is not needed.
func (tx *Tx) Exec(s *Stmt, args ...any) error { return errNotBuilt }

// Changed runs a statement and returns the number of rows affected.
func (tx *Tx) Changed(s *Stmt, args ...any) (int64, error) { return 0, errNotBuilt }

// Position allots the next stream position.
func (tx *Tx) Position() int64 { return 0 }

// Publish hands change to the subscribers after commit.
func (tx *Tx) Publish(change any) {}

// Batch is what one commit published.
type Batch struct {
	Position int64 // the last committed
	Changes  []any
}

// Pending is a submitted write.
type Pending struct{ done chan struct{} }

// Wait waits for the commit.
func (p *Pending) Wait(ctx context.Context) error { return errNotBuilt }

// Done is closed once the op has committed or failed.
func (p *Pending) Done() <-chan struct{} { return p.done }

// Err is the result once Done is closed.
func (p *Pending) Err() error { return errNotBuilt }

// Write runs op in the next group commit and returns after it.
func (d *DB) Write(ctx context.Context, op func(tx *Tx) error) error { return errNotBuilt }

// Submit enqueues op for the next group commit.
func (d *DB) Submit(op func(tx *Tx) error) *Pending { return &Pending{} }

// Subscribe registers fn for what every commit publishes.
func (d *DB) Subscribe(fn func(Batch)) {}

// Position is the last committed and published position.
func (d *DB) Position() int64 { return 0 }

// Sequence returns the named sequence.
func (d *DB) Sequence(name string) *Sequence { return &Sequence{} }

// Sequence gives numbers that grow and are never reused.
type Sequence struct{}

// Next returns the next number.
func (s *Sequence) Next() int64 { return 0 }
