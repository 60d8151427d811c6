package simulation_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"

	"github.com/teahouse-chat/teahouse/internal/db/dbtest"
	"github.com/teahouse-chat/teahouse/rooms/event"
)

// TestServersAgree runs worlds and checks that the servers of each agree in the
// end, for every version of rooms. With TEAHOUSE_LONG set they are 200.
func TestServersAgree(t *testing.T) {
	seeds := map[string]int{"sqlite": len(event.Versions()), "postgres": 2}
	if os.Getenv("TEAHOUSE_LONG") != "" {
		seeds = map[string]int{"sqlite": 200, "postgres": len(event.Versions())}
	}
	for _, kind := range []string{"sqlite", "postgres"} {
		for seed := range seeds[kind] {
			t.Run(fmt.Sprintf("%s/seed=%d", kind, seed), func(t *testing.T) {
				t.Parallel()
				defer func() {
					if t.Failed() {
						t.Logf("run it again: TEAHOUSE_LONG=1 go test ./internal/simulation -run '%s$'", t.Name())
					}
				}()
				databases := make([]string, sizes[seed%len(sizes)])
				for i := range databases {
					databases[i] = database(t, kind)
				}
				synctest.Test(t, func(t *testing.T) {
					w := newWorld(t, seed, databases)
					w.live(20 + w.chance.IntN(40))
					w.settle()
					w.gather()
					w.agree(databases)
				})
			})
		}
	}
}

// database names a new database. Nothing here crashes, so SQLite's need not be on a
// disk, which would cost more than all else.
func database(t *testing.T, kind string) string {
	if kind != "sqlite" {
		return dbtest.URL(t, kind)
	}
	dir, err := os.MkdirTemp("/dev/shm", "teahouse-simulation-")
	if err != nil {
		return dbtest.URL(t, kind)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return "sqlite://" + filepath.Join(dir, "test.db")
}
