package media

import (
	"testing"

	"github.com/teahouse-chat/teahouse/internal/db"
	"github.com/teahouse-chat/teahouse/internal/db/dbtest"
)

// TestNotesAreNotLost: that bytes may be unused is noted anew while an older note is
// looked at; what was found out then does not take the new note away.
func TestNotesAreNotLost(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, d *db.DB) {
		write := func(s *db.Stmt, args ...any) {
			t.Helper()
			if err := d.Write(t.Context(), func(tx *db.Tx) error { return tx.Exec(s, args...) }); err != nil {
				t.Fatal(err)
			}
		}
		noted := func() []unusedNote {
			t.Helper()
			list, err := db.All(t.Context(), d, selectUnused, scanUnused)
			if err != nil {
				t.Fatal(err)
			}
			return list
		}
		write(noteUnused, "bytes")
		seen := noted()
		write(noteUnused, "bytes")
		write(forgetUnused, seen[0].hash, seen[0].notes)
		again := noted()
		if len(again) != 1 {
			t.Fatalf("noted are %v", again)
		}
		write(forgetUnused, again[0].hash, again[0].notes)
		if left := noted(); len(left) > 0 {
			t.Fatalf("noted are %v", left)
		}
	})
}
