package main

import (
	"context"
	"database/sql"
	"strings"

	"github.com/jackc/pgx/v5"
	_ "github.com/mattn/go-sqlite3" // reads the server's file beside it
)

// stored is the size of the server's database in bytes, all indexes included.
func (b *bench) stored(ctx context.Context) (int64, error) {
	return b.ask(ctx,
		`SELECT (page_count - freelist_count) * page_size FROM pragma_page_count, pragma_freelist_count, pragma_page_size`,
		`SELECT pg_database_size(current_database())`)
}

// storedState is the size in bytes of the snapshots of all rooms, the overhead
// of a row included.
func (b *bench) storedState(ctx context.Context) (int64, error) {
	return b.ask(ctx,
		`SELECT SUM(length(entries) + 12) FROM snapshots`,
		`SELECT SUM(pg_column_size(entries) + 40)::bigint FROM snapshots`)
}

func (b *bench) ask(ctx context.Context, sqlite, postgres string) (n int64, err error) {
	if b.server.postgres() {
		c, err := pgx.Connect(ctx, b.server.database)
		if err != nil {
			return 0, err
		}
		defer c.Close(ctx)
		return n, c.QueryRow(ctx, postgres).Scan(&n)
	}
	d, err := sql.Open("sqlite3", "file:"+strings.TrimPrefix(b.server.database, "sqlite://")+"?mode=ro")
	if err != nil {
		return 0, err
	}
	defer d.Close()
	return n, d.QueryRowContext(ctx, sqlite).Scan(&n)
}
