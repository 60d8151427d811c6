// Package dbtest opens databases for tests, on both engines.
package dbtest

import (
	"testing"

	"github.com/teahouse-chat/teahouse/internal/db"
)

// Each runs f as the subtests "sqlite" and "postgres".
func Each(t *testing.T, f func(t *testing.T, d *db.DB)) {
	t.Helper()
	for _, kind := range []string{"sqlite", "postgres"} {
		t.Run(kind, func(t *testing.T) { f(t, Open(t, kind)) })
	}
}

// Open opens a new, empty database of the kind "sqlite" or "postgres".
func Open(t testing.TB, kind string) *db.DB {
	t.Helper()
	d, err := db.Open(t.Context(), URL(t, kind), db.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

// URL is the URL of a new, empty database.
func URL(t testing.TB, kind string) string {
	t.Helper()
	return "sqlite://" + t.TempDir() + "/test.db"
}
