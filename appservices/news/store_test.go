package news

import (
	"testing"

	"github.com/teahouse-chat/teahouse/internal/db"
	"github.com/teahouse-chat/teahouse/internal/db/dbtest"
)

// Both engines take every statement.
func TestPrepareAll(t *testing.T) {
	for _, kind := range []string{"sqlite", "postgres"} {
		t.Run(kind, func(t *testing.T) {
			d, err := db.Open(t.Context(), dbtest.EmptyURL(t, kind), db.Options{Set: schema})
			if err != nil {
				t.Fatal(err)
			}
			defer d.Close()
			if err := db.PrepareAll(t.Context(), d); err != nil {
				t.Error(err)
			}
		})
	}
}
