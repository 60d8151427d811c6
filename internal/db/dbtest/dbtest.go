// Package dbtest opens databases for tests, on both engines.
//
// PostgreSQL is the server that TEAHOUSE_TEST_POSTGRES names (a URL whose user
// may create databases), or else a private cluster that lives while tests
// run. Where there is neither, the PostgreSQL half is skipped, unless
// TEAHOUSE_REQUIRE_POSTGRES=1 asks for its failure.
package dbtest

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/teahouse-chat/teahouse/internal/db"
)

// Each runs f as the subtests "sqlite" and "postgres", each with a new, empty
// database.
func Each(t *testing.T, f func(t *testing.T, d *db.DB)) {
	t.Helper()
	for _, kind := range []string{"sqlite", "postgres"} {
		t.Run(kind, func(t *testing.T) { f(t, Open(t, kind)) })
	}
}

// Open opens a new, empty database of the kind "sqlite" or "postgres" until the
// test ends.
func Open(t testing.TB, kind string) *db.DB {
	t.Helper()
	return OpenURL(t, URL(t, kind))
}

// OpenURL opens the database of an URL until the test ends.
func OpenURL(t testing.TB, url string) *db.DB {
	t.Helper()
	d, err := db.Open(t.Context(), url, db.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	return d
}

// URL names a new, empty database of the kind, which goes with the test.
func URL(t testing.TB, kind string) string {
	t.Helper()
	switch kind {
	case "sqlite":
		return "sqlite://" + filepath.Join(t.TempDir(), "test.db")
	case "postgres":
		return postgresURL(t)
	}
	t.Fatalf("no such kind of database: %q", kind)
	return ""
}

// EmptyURL is URL for a database of any set: it has no table yet.
func EmptyURL(t testing.TB, kind string) string {
	t.Helper()
	if kind == "postgres" {
		return BareURL(t)
	}
	return URL(t, kind)
}

// unavailable skips the test for want of PostgreSQL, or fails it.
func unavailable(t testing.TB, err error) {
	t.Helper()
	if os.Getenv("TEAHOUSE_REQUIRE_POSTGRES") == "1" {
		t.Fatalf("PostgreSQL is required, but: %v", err)
	}
	t.Skipf("PostgreSQL is not tested: %v", err)
}
