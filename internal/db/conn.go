package db

import (
	"context"
	"database/sql/driver"
	"errors"
)

// conn is one connection to either engine, used by one goroutine at a time. At
// most one cursor is open on it at a time.
type conn interface {
	// begin starts a transaction: the writer's, or a read-only one that sees
	// one snapshot.
	begin(write bool) error
	// exec runs a statement whose result is not needed; it may run later, up to
	// the next call of another method.
	exec(s *Stmt, args []any) error
	// changed runs a statement and counts the rows it affected.
	changed(s *Stmt, args []any) (int64, error)
	query(ctx context.Context, s *Stmt, args []any) (cursor, error)
	// commit ends the transaction. An error that is errLost means that nobody
	// knows whether it committed; after any other it has been rolled back.
	commit() error
	rollback()

	// script runs statements without arguments, for migrations.
	script(text string) error
	// check prepares a statement and forgets it.
	check(text string) error
	// lost tells that the connection is of no more use.
	lost() bool
	close() error
}

// cursor is the rows of one query. A row is valid until the next call.
type cursor interface {
	next() (row []driver.Value, err error) // nil, nil at the end
	close() error
}

var (
	beginWrite = common.SQL(`{begin write}`)
	beginRead  = common.SQL(`{begin read}`)
	commit     = common.SQL(`COMMIT`)
	rollback   = common.SQL(`ROLLBACK`)
)

// errLost is a connection that broke.
var errLost = errors.New("the connection to the database was lost")

// dialer opens connections to one database.
type dialer interface {
	engine() engine
	dial(ctx context.Context, write bool) (conn, error)
}
