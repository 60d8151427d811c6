package server

import (
	"context"
	"fmt"

	"github.com/teahouse-chat/teahouse/internal/db"
	"github.com/teahouse-chat/teahouse/internal/matrix"
)

var _ = db.Schema("server", `CREATE TABLE server (name TEXT NOT NULL PRIMARY KEY)`)

var (
	serverName = db.SQL(`SELECT name FROM server`)
	insertName = db.SQL(`INSERT INTO server (name) VALUES ($1)`)
)

// checkName ties a database to the server name that it was first used with: all
// users, rooms and signatures in it carry the name.
func checkName(ctx context.Context, d *db.DB, name matrix.ServerName) error {
	there, found, err := db.One(ctx, d, serverName, func(s db.Scanner) (n matrix.ServerName, err error) {
		err = s.Scan(&n)
		return n, err
	})
	if err != nil {
		return err
	}
	if !found {
		return d.Write(ctx, func(tx *db.Tx) error { return tx.Exec(insertName, name) })
	}
	if there != name {
		return fmt.Errorf("the database belongs to the server %q, but server_name is %q: a server's name cannot be changed; set server_name back or use another database", there, name)
	}
	return nil
}
