package dbtest

import (
	"database/sql"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	_ "github.com/mattn/go-sqlite3" // the engine of script on a file
)

// Script runs statements on the database of an URL, past the package db.
func Script(t testing.TB, url, text string) error {
	t.Helper()
	if path, ok := strings.CutPrefix(url, "sqlite://"); ok {
		d, err := sql.Open("sqlite3", path)
		if err != nil {
			return err
		}
		defer d.Close()
		_, err = d.Exec(text)
		return err
	}
	c, err := pgx.Connect(t.Context(), url)
	if err != nil {
		return err
	}
	defer c.Close(t.Context())
	_, err = c.Exec(t.Context(), text)
	return err
}
