package db

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/mattn/go-sqlite3"
	"github.com/prometheus/client_golang/prometheus"
)

// Options are what Open needs beside the URL; the zero value works.
type Options struct {
	Log       *slog.Logger          // nil: slog.Default()
	Metrics   prometheus.Registerer // nil: nothing is measured
	ReadConns int                   // connections of the read pool; 0: a default
	Set       *Set                  // the kind of database; nil: the homeserver's
}

// readConns is the default size of the read pool. A connection is opened when
// it is first needed.
const readConns = 8

// DB is one open database.
type DB struct {
	set       *Set
	dialer    dialer
	readers   *pool
	writer    *writer
	sequences *sequences
}

// Open connects to the database that url names and brings it to the schema of its
// set. A url is sqlite:// and a path ("sqlite:///var/lib/x.db"; a relative
// path is fine), whose folder is made if it is missing, or a PostgreSQL one.
func Open(ctx context.Context, url string, o Options) (*DB, error) {
	dialer, err := newDialer(url)
	if err != nil {
		return nil, err
	}
	metrics, err := newMetrics(o.Metrics)
	if err != nil {
		return nil, fmt.Errorf("db: %w", err)
	}
	c, err := dialer.dial(ctx, true)
	if err != nil {
		return nil, err
	}
	d := &DB{dialer: dialer, set: o.Set}
	if d.set == nil {
		d.set = homeserver
	}
	head, err := d.load(ctx, c, o)
	if err != nil {
		c.close()
		return nil, err
	}
	log := o.Log
	if log == nil {
		log = slog.Default()
	}
	d.writer = newWriter(dialer, c, head, d.sequences, log, metrics)
	return d, nil
}

func newDialer(url string) (dialer, error) {
	scheme, rest, _ := strings.Cut(url, "://")
	switch {
	case scheme == "sqlite" && rest != "" && !strings.HasSuffix(rest, "/"):
		return newSQLiteDialer(rest)
	case scheme == "postgres" || scheme == "postgresql":
		return newPostgresDialer(url)
	}
	return nil, errors.New("db: the database must be given as sqlite:///path/to/file.db or postgres://user:password@host/name")
}

var selectSequences = common.SQL(`SELECT name, next FROM sequences`)

// load migrates and reads what the writer goes on from.
func (d *DB) load(ctx context.Context, c conn, o Options) (head int64, err error) {
	if err := migrate(ctx, c, d.dialer.engine(), d.set.features()); err != nil {
		return 0, err
	}
	err = eachOn(ctx, c, readHead, func(r Scanner) error { return r.Scan(&head) })
	if err != nil {
		return 0, err
	}
	size := o.ReadConns
	if size == 0 {
		size = readConns
	}
	d.readers = newPool(d.dialer, size)
	d.sequences = &sequences{byName: make(map[string]*Sequence)}
	if d.dialer.engine() == postgres {
		d.sequences.pool = d.readers
		return head, nil
	}
	d.sequences.stored = make(map[string]int64)
	err = eachOn(ctx, c, selectSequences, func(r Scanner) error {
		var name string
		var next int64
		err := r.Scan(&name, &next)
		d.sequences.stored[name] = next
		return err
	})
	return head, err
}

// Close commits the writes that were accepted and closes the connections.
// Later writes and reads fail.
func (d *DB) Close() error {
	d.writer.close()
	d.readers.close()
	return nil
}

// Write runs op in the next group commit and returns once it is durable, or
// with the error that undid it: op's own, or the database's.
//
// op runs on the writer's goroutine, never beside another op, and must not wait
// for anything but the database. It may run twice: if another op of its batch
// fails, all is rolled back and run again. So it sets results by assignment and
// has no effects elsewhere; those belong after Write, or into Publish. A panic
// of op is a *PanicError.
//
// If ctx ends first, Write returns its error; op is left out if it has not
// begun, but may also commit.
func (d *DB) Write(ctx context.Context, op func(tx *Tx) error) error {
	w := d.writer
	select {
	case w.slots <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	p := &Pending{op: op, ctx: ctx, slot: true}
	w.enqueue(p)
	return p.Wait(ctx)
}

// Submit is Write without waiting: op is in the queue when Submit returns, after
// all that were queued before. It never blocks; callers bound what they submit.
func (d *DB) Submit(op func(tx *Tx) error) *Pending {
	p := &Pending{op: op}
	d.writer.enqueue(p)
	return p
}

// SubmitThen is Submit with a function that is told of the outcome before Wait
// returns, and, if op failed, before any op that was submitted later runs (anew).
// It is called on the writer's goroutine, in the order of submission and after
// the subscribers, and must not block.
func (d *DB) SubmitThen(op func(tx *Tx) error, then func(error)) *Pending {
	p := &Pending{op: op, then: then}
	d.writer.enqueue(p)
	return p
}

// Subscribe calls fn for every commit that allotted a position or published a
// change, in commit order, on the writer's goroutine and before the callers get
// their answers. It must not block.
func (d *DB) Subscribe(fn func(Batch)) { d.writer.subscribe(fn) }

// Position is the last position that is committed and that all subscribers have
// been told of. Who is woken by a subscriber goes by Batch.Position, as Position
// moves a moment later.
func (d *DB) Position() int64 { return d.writer.position.Load() }

// Sequence returns the sequence of that name; it need not have been declared.
func (d *DB) Sequence(name string) *Sequence { return d.sequences.get(name) }

// IsUnique tells whether err is a violation of a unique constraint.
func IsUnique(err error) bool {
	var lite sqlite3.Error
	if errors.As(err, &lite) {
		return sqliteUnique(lite)
	}
	var pg *pgconn.PgError
	return errors.As(err, &pg) && pg.Code == "23505"
}

// isHeadMoved tells whether err is the refusal of moveHead.
func isHeadMoved(err error) bool {
	var lite sqlite3.Error
	if errors.As(err, &lite) {
		return sqliteHeadMoved(lite)
	}
	var pg *pgconn.PgError
	return errors.As(err, &pg) && pg.Code == "23502" && pg.TableName == "stream_head"
}
