package db

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgconn/ctxwatch"
)

// postgresDialer opens connections to one database.
type postgresDialer struct{ config *pgx.ConnConfig }

func newPostgresDialer(url string) (*postgresDialer, error) {
	config, err := pgx.ParseConfig(url)
	if err != nil {
		return nil, fmt.Errorf("db: the URL of the database: %w", err) // pgx leaves the password out
	}
	// Statements are prepared when they are first used and stay so; there are
	// never more than are registered.
	config.StatementCacheCapacity = 8192
	config.DescriptionCacheCapacity = 0
	config.DefaultQueryExecMode = pgx.QueryExecModeCacheStatement
	config.RuntimeParams["application_name"] = "teahouse"
	config.RuntimeParams["client_encoding"] = "UTF8"
	// The default of PostgreSQL, which an administrator can lower.
	config.RuntimeParams["synchronous_commit"] = "on"
	// A reader who goes away cancels the query, not the connection.
	config.BuildContextWatcherHandler = func(c *pgconn.PgConn) ctxwatch.Handler {
		return &pgconn.CancelRequestContextWatcherHandler{Conn: c, DeadlineDelay: 5 * time.Second}
	}
	return &postgresDialer{config}, nil
}

func (d *postgresDialer) engine() engine { return postgres }

func (d *postgresDialer) dial(ctx context.Context, write bool) (conn, error) {
	config := d.config.Copy()
	if !write {
		config.RuntimeParams["default_transaction_read_only"] = "on"
	}
	raw, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return nil, fmt.Errorf("db: connecting to PostgreSQL: %w", err)
	}
	if enc := raw.PgConn().ParameterStatus("server_encoding"); enc != "UTF8" {
		raw.Close(ctx)
		return nil, fmt.Errorf("db: the database %q has the encoding %s: create it with ENCODING 'UTF8' TEMPLATE template0",
			config.Database, enc)
	}
	return &postgresConn{c: raw, write: write}, nil
}

const (
	// maxPipeline statements are sent together at most, so that neither side's
	// buffers fill while nobody reads.
	maxPipeline = 200
	// A round trip of the writer takes no longer, or the connection is given up.
	writerTimeout = time.Minute
)

// postgresConn is one connection. What a transaction runs is queued, and sent
// with the first statement whose result is needed: a batch that only writes
// takes a single round trip, commit included.
type postgresConn struct {
	c     *pgx.Conn
	write bool
	batch *pgx.Batch
	stmts []*Stmt // of batch
	inTx  bool
	cur   postgresCursor
}

// queue adds a statement to the pipeline.
func (c *postgresConn) queue(s *Stmt, args []any) error {
	values, err := bindPostgres(s, args)
	if err != nil {
		return err
	}
	if c.batch == nil {
		c.batch = &pgx.Batch{}
	}
	c.batch.Queue(s.on(postgres), values...)
	c.stmts = append(c.stmts, s)
	return nil
}

func bindPostgres(s *Stmt, args []any) ([]any, error) {
	values := make([]any, 0, len(args))
	err := bindable(s, args, func(v any) { values = append(values, v) })
	return values, err
}

// flush sends the pipeline and returns the tag of the last statement.
func (c *postgresConn) flush() (pgconn.CommandTag, error) {
	if len(c.stmts) == 0 {
		return pgconn.CommandTag{}, nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), writerTimeout)
	defer cancel()
	results, last, err := c.send(ctx)
	if err != nil {
		return pgconn.CommandTag{}, err
	}
	tag, err := results.Exec()
	return tag, c.finish(results, last, err)
}

// send sends the pipeline and reads the results of all but its last statement.
func (c *postgresConn) send(ctx context.Context) (pgx.BatchResults, *Stmt, error) {
	batch, stmts := c.batch, c.stmts
	c.batch, c.stmts = nil, c.stmts[:0]
	c.inTx = true
	results := c.c.SendBatch(ctx, batch)
	for _, s := range stmts[:len(stmts)-1] {
		if _, err := results.Exec(); err != nil {
			return nil, nil, c.finish(results, s, err)
		}
	}
	return results, stmts[len(stmts)-1], nil
}

// finish ends a pipeline.
func (c *postgresConn) finish(results pgx.BatchResults, s *Stmt, err error) error {
	if closeErr := results.Close(); err == nil {
		err = closeErr
	}
	return c.explain(s, err)
}

// explain names the statement, and whether the connection broke.
func (c *postgresConn) explain(s *Stmt, err error) error {
	if err == nil {
		return nil
	}
	if c.lost() {
		err = fmt.Errorf("%w: %w", errLost, err)
	}
	return s.fail(err)
}

func (c *postgresConn) begin(write bool) error {
	if write {
		return c.queue(beginWrite, nil)
	}
	return c.queue(beginRead, nil)
}

func (c *postgresConn) exec(s *Stmt, args []any) error {
	if err := c.queue(s, args); err != nil {
		return err
	}
	if len(c.stmts) >= maxPipeline {
		_, err := c.flush()
		return err
	}
	return nil
}

func (c *postgresConn) changed(s *Stmt, args []any) (int64, error) {
	if err := c.queue(s, args); err != nil {
		return 0, err
	}
	tag, err := c.flush()
	return tag.RowsAffected(), err
}

func (c *postgresConn) query(ctx context.Context, s *Stmt, args []any) (cursor, error) {
	cancel := context.CancelFunc(func() {})
	if c.write { // an op's caller must not interrupt the batch
		ctx, cancel = context.WithTimeout(context.Background(), writerTimeout)
	}
	c.cur = postgresCursor{row: c.cur.row[:0], cancel: cancel}
	if len(c.stmts) == 0 {
		values, err := bindPostgres(s, args)
		if err != nil {
			cancel()
			return nil, err
		}
		c.cur.rows, err = c.c.Query(ctx, s.on(postgres), values...)
		if err != nil {
			cancel()
			return nil, c.explain(s, err)
		}
	} else {
		if err := c.queue(s, args); err != nil {
			cancel()
			return nil, err
		}
		results, _, err := c.send(ctx)
		if err != nil {
			cancel()
			return nil, err
		}
		c.cur.results = results
		c.cur.rows, err = results.Query()
		if err != nil {
			cancel()
			return nil, c.finish(results, s, err)
		}
	}
	// Errors of the query are those of its first row.
	c.cur.first = c.cur.rows.Next()
	if err := c.cur.rows.Err(); err != nil {
		c.cur.close()
		return nil, c.explain(s, err)
	}
	return &c.cur, nil
}

func (c *postgresConn) commit() error {
	if err := c.queue(commit, nil); err != nil {
		return err
	}
	tag, err := c.flush()
	if err != nil {
		c.rollback()
		return err
	}
	c.inTx = false
	if tag.String() != "COMMIT" {
		return errors.New("db: PostgreSQL rolled the transaction back")
	}
	return nil
}

func (c *postgresConn) rollback() {
	c.batch, c.stmts = nil, c.stmts[:0]
	if !c.inTx || c.lost() {
		return
	}
	c.inTx = false
	if c.c.PgConn().TxStatus() == 'I' {
		return
	}
	if err := c.script("ROLLBACK"); err != nil {
		c.close()
	}
}

// script uses the simple protocol, which takes several statements at once.
func (c *postgresConn) script(text string) error {
	if _, err := c.flush(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Hour)
	defer cancel()
	_, err := c.c.PgConn().Exec(ctx, text).ReadAll()
	return err
}

func (c *postgresConn) check(text string) error {
	_, err := c.c.PgConn().Prepare(context.Background(), "", text, nil)
	return err
}

func (c *postgresConn) lost() bool { return c.c.IsClosed() }

func (c *postgresConn) close() error {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	return c.c.Close(ctx)
}

type postgresCursor struct {
	rows    pgx.Rows
	results pgx.BatchResults // the pipeline that the rows are the end of, or nil
	row     []driver.Value
	first   bool // the first row has been moved to
	begun   bool
	cancel  context.CancelFunc
}

func (c *postgresCursor) next() ([]driver.Value, error) {
	more := c.first
	if c.begun {
		more = c.rows.Next()
	}
	c.begun = true
	if !more {
		return nil, c.rows.Err()
	}
	fields := c.rows.FieldDescriptions()
	c.row = c.row[:0]
	for i, raw := range c.rows.RawValues() {
		v, err := decodePostgres(fields[i].DataTypeOID, fields[i].Format, raw)
		if err != nil {
			return nil, fmt.Errorf("column %d: %w", i+1, err)
		}
		c.row = append(c.row, v)
	}
	return c.row, nil
}

func (c *postgresCursor) close() error {
	c.rows.Close()
	err := c.rows.Err()
	if c.results != nil {
		if closeErr := c.results.Close(); err == nil {
			err = closeErr
		}
	}
	c.cancel()
	return err
}
