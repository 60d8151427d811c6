package media_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/teahouse-chat/teahouse/internal/testrig"
)

// files lists what a server keeps.
func files(t *testing.T, s *testrig.Server) []string { return below(t, s, "files") }

func below(t *testing.T, s *testrig.Server, dir string) []string {
	t.Helper()
	var list []string
	err := fs.WalkDir(os.DirFS(filepath.Join(s.Options.DataDir, "media", dir)), ".", func(name string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			list = append(list, name)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// nothingIsLeft checks that no temporary file stays behind.
func nothingIsLeft(t *testing.T, s *testrig.Server) {
	t.Helper()
	eventually(t, func() bool { return len(below(t, s, "incoming")) == 0 })
}

// eventually waits for what another goroutine is about to do.
func eventually(t *testing.T, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !ok(); {
		if time.Now().After(end) {
			t.Fatal("it does not come to be")
		}
		time.Sleep(5 * time.Millisecond)
	}
}
