package main

import (
	"strings"
	"testing"
)

// The commands on files work on a trial that has none, and explain themselves.
func TestMediaCommands(t *testing.T) {
	dir := t.TempDir()
	for _, c := range []struct {
		args   string
		status int
		says   string
	}{
		{"media usage", 0, "WHOSE"},
		{"media usage --servers", 0, "WHOSE"},
		{"media check --repair", 0, "The files are as they should be."},
		{"media quarantine mxc://elsewhere/abc", 0, "1 files are in quarantine."},
		{"media release mxc://elsewhere/abc", 0, "1 files are released."},
		{"media delete @nobody:localhost", 0, "0 files are deleted."},
		{"media purge --server elsewhere --unused-for 1h", 0, "0 files are removed."},
		{"media quarantine nonsense", 1, "mxc://example.org/abc"},
		{"media quarantine", 2, "1 arguments are needed here"},
		{"media", 2, "usage, quarantine, release, delete, purge or check"},
	} {
		var out strings.Builder
		con := &console{in: strings.NewReader(""), out: &out, err: &out, getenv: func(string) string { return "" }, dir: dir}
		if status := run(t.Context(), con, strings.Fields(c.args)); status != c.status || !strings.Contains(out.String(), c.says) {
			t.Errorf("%s: %d %s", c.args, status, out.String())
		}
	}
}
