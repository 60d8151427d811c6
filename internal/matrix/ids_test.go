package matrix

import (
	"strings"
	"testing"
)

func TestServerNames(t *testing.T) {
	for name, host := range map[string]string{
		"matrix.org": "matrix.org", "matrix.org:8888": "matrix.org", "1.2.3.4": "1.2.3.4", "1.2.3.4:1234": "1.2.3.4", "localhost": "localhost",
		"[1234:5678::abcd]": "[1234:5678::abcd]", "[1234:5678::abcd]:5678": "[1234:5678::abcd]", "[::1]:1": "[::1]", "[::ffff:1.2.3.4]": "[::ffff:1.2.3.4]",
		"UPPER.Example": "UPPER.Example", "a-b.c": "a-b.c", "x:0": "x", strings.Repeat("a", 230): strings.Repeat("a", 230),
	} {
		got, err := ParseServerName(name)
		if err != nil || string(got) != name || got.Host() != host {
			t.Errorf("%q: %q, host %q, %v", name, got, got.Host(), err)
		}
	}
	for _, name := range []string{
		"", ":", ":80", "example.org:", "example.org:x", "example.org:123456", "example.org:-1", "example.org:80:80", "example.org:+80", "example.org: 80",
		"[::1]8448", "[::1]x", "[::1]]", "[::1]:", "[::1", "::1", "::1]", "[]", "[]:80", "[1.2.3.4]", "[example.org]", "[fe80::1%eth0]", "[[::1]]",
		"exa mple", "example.org/", "ex@mple", "exämple", "a_b", "a\x00", "\xff", "user@host", strings.Repeat("a", 231),
	} {
		if got, err := ParseServerName(name); !HasCode(err, CodeInvalidParam) {
			t.Errorf("%q parsed as %q, %v", name, got, err)
		}
	}
}

func TestUserIDs(t *testing.T) {
	for _, s := range []string{"@a:b", "@a:b:80", "@:b", "@A b#é\x01:example.org", "@a:[::1]:80", "@" + strings.Repeat("x", 252) + ":b"} {
		u, err := ParseUserID(s)
		if err != nil || NewUserID(u.Localpart(), u.Server()) != u {
			t.Errorf("%q: %q, %v", s, u, err)
		}
	}
	for _, s := range []string{"", "@", "a:b", "@a", "@a:", "#a:b", "@a\x00:b", "@\xff:b", "@a:b c", "@" + strings.Repeat("x", 253) + ":b", "@a:[::1]8448"} {
		if u, err := ParseUserID(s); !HasCode(err, CodeInvalidParam) {
			t.Errorf("%q parsed as %q, %v", s, u, err)
		}
	}
	for s, want := range map[string]bool{"alice": true, "a.b_c=d-e/f+9": true, "": false, "Alice": false, "a b": false, "é": false, "a:b": false, "@a": false} {
		if ValidNewLocalpart(s) != want {
			t.Errorf("ValidNewLocalpart(%q) is not %v", s, want)
		}
	}
}

func TestRoomIDsAliasesAndEventIDs(t *testing.T) {
	parsers := map[byte]func(string) error{
		'!': func(s string) error { _, err := ParseRoomID(s); return err },
		'$': func(s string) error { _, err := ParseEventID(s); return err },
		'#': func(s string) error { _, err := ParseRoomAlias(s); return err },
	}
	good := []string{
		"!a:b", "!a:b:80", "!" + strings.Repeat("h", 43), "$a:b", "$a", "$a/b+c", "$" + strings.Repeat("h", 43), "$a:b:c d", "#a:b", "#a b é:example.org",
	}
	bad := []string{
		"", "!", "a:b", "!a:b c", "!a:", "!a\x00:b", "!\xff", "$", "$\x00", "$\xff", "#", "#:b", "#a", "#a:", "#a:b c", "#a\x00:b", "#\xff:b",
		"!" + strings.Repeat("x", 255), "$" + strings.Repeat("x", 255), "#" + strings.Repeat("x", 253) + ":b",
	}
	for sigil, parse := range parsers {
		for _, s := range good {
			if err := parse(s); (err == nil) != (s[0] == sigil) {
				t.Errorf("%c parser on %q: %v", sigil, s, err)
			}
		}
		for _, s := range bad {
			if err := parse(s); !HasCode(err, CodeInvalidParam) {
				t.Errorf("%c parser took %q: %v", sigil, s, err)
			}
		}
	}
	if RoomID("!a:b:80").Server() != "b:80" || RoomID("!hash").Server() != "" || RoomAlias("#a:b").Localpart() != "a" || RoomAlias("#a:b").Server() != "b" {
		t.Error("parts of ids")
	}
	if UserID("").Localpart() != "" || UserID("").Server() != "" {
		t.Error("parts of an empty id")
	}
}

// An error text shows a long id only in part.
func TestErrorsClipIDs(t *testing.T) {
	_, err := ParseUserID(strings.Repeat("x", 10_000))
	if err == nil || len(err.Error()) > 300 {
		t.Errorf("%v", err)
	}
}
