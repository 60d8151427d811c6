package db

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
)

// Tx is one op's access to the transaction of its batch. It is valid until the
// op returns and belongs to the op's goroutine.
//
// Once a statement has failed the op has failed, whatever it returns: on
// PostgreSQL the transaction is of no more use. Where a conflict is expected,
// say ON CONFLICT DO NOTHING and look at what Changed returns.
type Tx struct {
	c     conn
	head  int64 // the last position allotted
	start int64 // the last position of the batch before
	fixed bool  // the row of stream_head is locked, so head is certain

	changes []any
	rows    *Rows
	wrote   bool  // this op may have changed the database
	err     error // what the first failed statement of this op said
	done    bool
}

// errFinished is the use of a Tx after its op.
var errFinished = errors.New("db: the operation of this transaction has returned")

// ready tells whether the op may run another statement.
func (tx *Tx) ready(s *Stmt) error {
	switch {
	case tx.done:
		return s.fail(errFinished)
	case tx.err != nil:
		return tx.err
	case tx.rows.open():
		return tx.fail(s.fail(errOpenRows))
	}
	return nil
}

func (tx *Tx) fail(err error) error {
	if tx.err == nil {
		tx.err = err
	}
	return err
}

// Query reads within the transaction. The context does not interrupt a query
// that runs: other ops share the transaction.
func (tx *Tx) Query(ctx context.Context, s *Stmt, args ...any) (*Rows, error) {
	if err := tx.ready(s); err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	tx.wrote = tx.wrote || !s.reads()
	cur, err := tx.c.query(ctx, s, args)
	if err != nil {
		return nil, tx.fail(err)
	}
	tx.rows = &Rows{stmt: s, cur: cur}
	return tx.rows, nil
}

// Exec runs a statement whose result is not needed. On PostgreSQL it is sent
// together with what follows, so that its error may come from a later call, or
// only make the op fail.
func (tx *Tx) Exec(s *Stmt, args ...any) error {
	if err := tx.ready(s); err != nil {
		return err
	}
	tx.wrote = true
	if err := tx.c.exec(s, args); err != nil {
		return tx.fail(err)
	}
	return nil
}

// Changed runs an INSERT, UPDATE or DELETE and counts the rows it affected.
func (tx *Tx) Changed(s *Stmt, args ...any) (int64, error) {
	if err := tx.ready(s); err != nil {
		return 0, err
	}
	tx.wrote = true
	n, err := tx.c.changed(s, args)
	if err != nil {
		return 0, tx.fail(err)
	}
	return n, nil
}

// Position allots the next stream position. Committed positions have no gaps
// and become visible in their order.
func (tx *Tx) Position() int64 {
	tx.head++
	return tx.head
}

// Publish hands change to the subscribers after the commit, in order.
func (tx *Tx) Publish(change any) { tx.changes = append(tx.changes, change) }

// run calls one op. clean tells that a failed op left nothing behind in the
// transaction, so that the batch can go on without it.
func (tx *Tx) run(op func(tx *Tx) error) (clean bool, err error) {
	head, changes := tx.head, len(tx.changes)
	tx.wrote, tx.err, tx.done = false, nil, false
	err = protect(op, tx)
	tx.done = true
	if tx.rows.open() {
		tx.rows.Close()
	}
	if tx.err != nil {
		if err == nil {
			err = tx.err
		}
		return false, err
	}
	if err != nil {
		tx.head, tx.changes = head, tx.changes[:changes]
		return !tx.wrote, err
	}
	return true, nil
}

// protect makes a panic of op its error.
func protect(op func(tx *Tx) error, tx *Tx) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = &PanicError{Value: v, Stack: debug.Stack()}
		}
	}()
	return op(tx)
}

// PanicError is the error of an op that panicked.
type PanicError struct {
	Value any
	Stack []byte
}

func (e *PanicError) Error() string {
	return fmt.Sprintf("db: panic in a write: %v\n%s", e.Value, e.Stack)
}

// Unwrap returns the value if it is an error.
func (e *PanicError) Unwrap() error {
	err, _ := e.Value.(error)
	return err
}
