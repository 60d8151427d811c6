package db_test

import (
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/teahouse-chat/teahouse/internal/db"
	"github.com/teahouse-chat/teahouse/internal/db/dbtest"
)

// emptyURL is a database without even the tables of dbtest's template.
func emptyURL(t *testing.T, kind string) string {
	t.Helper()
	if kind == "postgres" {
		return dbtest.BareURL(t)
	}
	return dbtest.URL(t, kind)
}

func TestMigrations(t *testing.T) {
	const (
		first  = `CREATE TABLE teas (id INTEGER PRIMARY KEY, name TEXT NOT NULL, leaf {blob}); CREATE INDEX teas_name ON teas (name)`
		second = `ALTER TABLE teas ADD COLUMN hot {bool} NOT NULL DEFAULT 1; INSERT INTO teas (id, name) VALUES (9007199254740993, 'a;b')`
		broken = `CREATE TABLE cups (id INTEGER PRIMARY KEY); CREATE TABLE teas (id INTEGER)`
	)
	for _, kind := range []string{"sqlite", "postgres"} {
		t.Run(kind, func(t *testing.T) {
			url := emptyURL(t, kind)
			steps := []struct {
				name       string
				migrations []string
				err        string
			}{
				{"fails", []string{first, broken}, "migration 2 of teas"},
				{"leaves nothing of a failure", []string{first}, ""},
				{"is content with what is there", []string{first}, ""},
				{"adds what is new", []string{first, second}, ""},
				{"refuses a newer database", []string{first}, "newer than this program"},
				{"refuses an edited migration", []string{first + " ", second}, "migration 1 of teas is not the one"},
				{"still works", []string{first, second}, ""},
			}
			for _, s := range steps {
				err := db.MigrateAs(t.Context(), url, "teas", s.migrations...)
				if (err == nil) != (s.err == "") || err != nil && !strings.Contains(err.Error(), s.err) {
					t.Fatalf("%s: %v", s.name, err)
				}
			}
			if _, err := db.Open(t.Context(), url, db.Options{}); err == nil || !strings.Contains(err.Error(), "newer") {
				t.Errorf("a feature that this program doesn't know: %v", err)
			}
		})
	}
}

// TestMigrateAtOnce starts several programs on an empty database.
func TestMigrateAtOnce(t *testing.T) {
	for _, kind := range []string{"sqlite", "postgres"} {
		t.Run(kind, func(t *testing.T) {
			url := emptyURL(t, kind)
			var wg sync.WaitGroup
			for range 4 {
				wg.Go(func() {
					if err := db.MigrateAs(t.Context(), url, "teas", `CREATE TABLE teas (id INTEGER PRIMARY KEY)`); err != nil {
						t.Error(err)
					}
				})
			}
			wg.Wait()
		})
	}
}

func TestOpenRefuses(t *testing.T) {
	dir := t.TempDir()
	file := func(name, content string) string {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	file("gone.db-wal", "journal")
	file("gone2.db-journal", "journal")
	for url, want := range map[string]string{
		"":                              "sqlite:///path",
		"mysql://localhost/x":           "sqlite:///path",
		"sqlite://":                     "sqlite:///path",
		"sqlite://" + dir + "/":         "sqlite:///path",
		"sqlite://" + dir + "/gone.db":  "is the journal of a database that is not there",
		"sqlite://" + dir + "/gone2.db": "is the journal of a database that is not there",
		"sqlite://" + file("text.db", "hello, this is not a database at all, is it?"): "is not an SQLite database",
		"sqlite://" + file("notafolder", "x") + "/x.db":                               "folder",
		"postgres://nobody@127.0.0.1:1/x?connect_timeout=1":                           "connecting to PostgreSQL",
		"postgres://user:secret@:port/":                                               "URL of the database",
	} {
		_, err := db.Open(t.Context(), url, db.Options{})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", url, err, want)
		} else if strings.Contains(err.Error(), "secret") {
			t.Errorf("the password is in %q", err)
		}
	}
}

func TestOpenRefusesAForeignDatabase(t *testing.T) {
	for _, kind := range []string{"sqlite", "postgres"} {
		t.Run(kind, func(t *testing.T) {
			url := emptyURL(t, kind)
			if err := dbtest.Script(t, url, `CREATE TABLE events (id INTEGER)`); err != nil {
				t.Fatal(err)
			}
			_, err := db.Open(t.Context(), url, db.Options{})
			if err == nil || !strings.Contains(err.Error(), "database of its own") {
				t.Error(err)
			}
		})
	}
}

func TestFolderIsPrivate(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new", "folder with ? # % in it")
	dbtest.OpenURL(t, "sqlite://"+dir+"/my database%20.db")
	info, err := os.Stat(dir)
	if err != nil || info.Mode().Perm() != 0o700 {
		t.Error(info.Mode(), err)
	}
	if _, err := os.Stat(dir + "/my database%20.db"); err != nil {
		t.Error(err)
	}
}

func TestRender(t *testing.T) {
	for _, c := range []struct{ text, sqlite, postgres string }{
		{`a = $1 AND b = $12`, `a = ?1 AND b = ?12`, `a = $1 AND b = $12`},
		{`a IN {ints $2}`, `a IN (SELECT value FROM json_each(?2))`, `a = ANY ($2::bigint[])`},
		{`a not in {texts $1}`, `a NOT IN (SELECT value FROM json_each(?1))`, `a <> ALL ($1::text[])`},
		{`{texts $1}`, `(SELECT value, key AS n FROM json_each(?1))`, `(SELECT value, n - 1 AS n FROM unnest($1::text[]) WITH ORDINALITY AS u(value, n))`},
		{`{texts $1, ints $2}`, `(SELECT value, ?2 ->> key AS value2, key AS n FROM json_each(?1))`,
			`(SELECT value, value2, n - 1 AS n FROM unnest($1::text[], $2::bigint[]) WITH ORDINALITY AS u(value, value2, n))`},
		{`{instr}(a, ':')`, `instr(a, ':')`, `strpos(a, ':')`},
		{`{greatest}(a, {least}(b, 1))`, `max(a, min(b, 1))`, `greatest(a, least(b, 1))`},
	} {
		lite, pg := db.Render(c.text)
		if lite != c.sqlite || pg != c.postgres {
			t.Errorf("%s:\n%s\n%s", c.text, lite, pg)
		}
	}
	lite, pg := db.RenderDDL(`CREATE TABLE t (a INTEGER, b TEXT, c {blob}, d {bool}, e REAL) {without rowid}`)
	if lite != `CREATE TABLE t (a INTEGER, b TEXT, c BLOB, d INTEGER, e REAL) WITHOUT ROWID` ||
		pg != `CREATE TABLE t (a BIGINT, b TEXT COLLATE "C", c BYTEA, d SMALLINT, e DOUBLE PRECISION) ` {
		t.Errorf("\n%s\n%s", lite, pg)
	}
}
