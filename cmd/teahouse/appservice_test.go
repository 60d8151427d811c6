package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const ircRegistration = `id: irc
url: http://127.0.0.1:1
as_token: as-irc-secret
hs_token: hs-irc-secret
sender_localpart: _irc
namespaces: {users: [{regex: '@_irc_', exclusive: true}]}
`

func TestAppserviceCommands(t *testing.T) {
	s := newShell(t, "")
	file := filepath.Join(s.dir, "irc.yaml")
	if err := os.WriteFile(file, []byte(ircRegistration), 0o600); err != nil {
		t.Fatal(err)
	}
	if out := s.good("", "appservice", "add", file); out != "irc is registered\n" {
		t.Errorf("%q", out)
	}
	s.good(strings.ReplaceAll(ircRegistration, "irc", "xmpp"), "appservice", "add", "-")
	s.bad("irc.yaml: no such file", "appservice", "add", filepath.Join(s.dir, "nowhere", "irc.yaml"))
	greedy := filepath.Join(s.dir, "greedy.yaml")
	if err := os.WriteFile(greedy, []byte(strings.NewReplacer("@_irc_", "@_irc_x", "irc", "greedy").Replace(ircRegistration)), 0o600); err != nil {
		t.Fatal(err)
	}
	s.bad(`services "greedy" and "irc" both claim users`, "appservice", "add", greedy)
	for _, state := range []struct{ command, want string }{{"list", "good"}, {"pause", ""}, {"list", "paused"}, {"resume", ""}, {"retry", ""}, {"status", "good"}} {
		args := []string{"appservice", state.command}
		if state.want == "" {
			args = append(args, "irc")
		}
		if out := s.good("", args...); !strings.Contains(out, state.want) || state.want != "" && strings.Count(out, "\n") != 3 {
			t.Errorf("%v prints %q", args, out)
		}
	}
	if out := s.good("", "appservice", "status", "irc"); strings.Count(out, "\n") != 2 || !strings.Contains(out, "\nirc ") {
		t.Errorf("the status of irc is %q", out)
	}
	s.bad(`no application service with the id "none"`, "appservice", "status", "none")
	if out := s.good("", "appservice", "rotate", "irc"); strings.Contains(out, "as-irc-secret") || !strings.Contains(out, "id: irc\n") {
		t.Errorf("rotated is %q", out)
	}
	if out := s.good("", "appservice", "dead-letters", "irc") + s.good("", "appservice", "replay", "irc"); out != "0 will be sent again\n" {
		t.Errorf("%q", out)
	}
	s.bad("no dead letter with the number 7", "appservice", "replay", "irc", "--letter", "7")
	s.good("", "appservice", "remove", "irc")
	s.bad(`no application service with the id "irc"`, "appservice", "remove", "irc")
	s.good("", "appservice", "add", greedy)
}

// TestMisspeltFields: a field of a registration that does nothing is told of.
func TestMisspeltFields(t *testing.T) {
	s := newShell(t, "")
	want := "irc is registered\nnote: -:7: protocol: is not known"
	if out := s.good(ircRegistration+"protocol: [irc]\n", "appservice", "add", "-"); !strings.HasPrefix(out, want) {
		t.Errorf("%q", out)
	}
}

// TestMissingRegistrationFile: the commands and the server do their work without it,
// and say so; a check fails.
func TestMissingRegistrationFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "gone.yaml")
	s := newShell(t, "appservices: ["+file+"]\n")
	const want = "gone.yaml: cannot be read (no such file or directory); check the path and its permissions"
	s.bad(want, "check")
	if _, _, errs := s.do("", "appservice", "list", "--config", s.config); !strings.Contains(errs, want) {
		t.Errorf("a command does not tell of the file: %s", errs)
	}
	_, _, stop := s.serving("--config", s.config)
	if status := stop(); status != 0 {
		t.Errorf("the server ends with status %d", status)
	}
	if err := os.WriteFile(file, []byte(ircRegistration+"protocol: [irc]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if out := s.good("", "check"); !strings.Contains(out, "appservices: note: "+file+":7: protocol: is not known") {
		t.Errorf("%q", out)
	}
}

// TestCheckLooksAtRegistrations: what is wrong with a file of the configuration is
// told with its line.
func TestCheckLooksAtRegistrations(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "irc.yaml")
	s := newShell(t, "appservices: ["+file+"]\n")
	for _, c := range []struct{ text, want string }{
		{strings.Replace(ircRegistration, "url: http", "url: gopher", 1), "irc.yaml:2: url: "},
		{"id: irc", "irc.yaml:1: as_token: is missing"},
	} {
		if err := os.WriteFile(file, []byte(c.text), 0o600); err != nil {
			t.Fatal(err)
		}
		s.bad(c.want, "check")
	}
	if err := os.WriteFile(file, []byte(ircRegistration), 0o600); err != nil {
		t.Fatal(err)
	}
	s.good("", "check")
}
