package db_test

import (
	"context"
	"strings"
	"testing"

	"github.com/teahouse-chat/teahouse/internal/db"
	"github.com/teahouse-chat/teahouse/internal/db/dbtest"
)

var (
	shelves = db.NewSet("shelves", nil)
	books   = db.NewSet("books", shelves)

	_ = shelves.Schema("shelves", `CREATE TABLE shelves (nid INTEGER PRIMARY KEY)`)
	_ = books.Schema("books", `CREATE TABLE books (nid INTEGER PRIMARY KEY)`)

	countShelves = shelves.SQL(`SELECT count(*) FROM shelves`)
	countBooks   = books.SQL(`SELECT count(*) FROM books`)
)

// A database has the schemas of its set and of those that it is based on, and no
// others; that each of its statements can be prepared shows the first half.
func TestSets(t *testing.T) {
	for _, kind := range []string{"sqlite", "postgres"} {
		t.Run(kind, func(t *testing.T) {
			url := dbtest.EmptyURL(t, kind)
			for range 2 {
				d, err := db.Open(t.Context(), url, db.Options{Set: books})
				if err != nil {
					t.Fatal(err)
				}
				if err := db.PrepareAll(t.Context(), d); err != nil {
					t.Error(err)
				}
				for _, s := range []*db.Stmt{countShelves, countBooks} {
					if _, _, err := db.One(t.Context(), d, s, scanInt); err != nil {
						t.Error(err)
					}
				}
				if _, _, err := db.One(t.Context(), d, countThings, scanInt); err == nil {
					t.Error("the database of books has the homeserver's tables")
				}
				if err := d.Close(); err != nil {
					t.Fatal(err)
				}
			}
			if _, err := db.Open(t.Context(), url, db.Options{}); err == nil || !strings.Contains(err.Error(), "a database of its own") {
				t.Errorf("the homeserver opened the database of books: %v", err)
			}
			if _, _, err := db.One(context.Background(), dbtest.Open(t, kind), countBooks, scanInt); err == nil {
				t.Error("the homeserver's database has books")
			}
		})
	}
}
