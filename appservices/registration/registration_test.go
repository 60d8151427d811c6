package registration_test

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/teahouse-chat/teahouse/appservices/registration"
)

const whole = `id: irc
url: http://127.0.0.1:9999/
as_token: as-secret
hs_token: hs-secret
sender_localpart: ircbot
rate_limited: false
protocols: [irc]
receive_ephemeral: true
org.matrix.msc3202: true
io.element.msc4190: true
com.example.unknown: {kept: aside}
namespaces:
  users:
    - {regex: '@irc_.*:example\.org', exclusive: true}
  aliases:
    - regex: '#irc_'
      exclusive: false
  rooms: []
`

func TestParse(t *testing.T) {
	r, err := registration.Parse("irc.yaml", []byte(whole))
	if err != nil {
		t.Fatal(err)
	}
	if r.ID != "irc" || r.URL != "http://127.0.0.1:9999" || r.ASToken != "as-secret" || r.HSToken != "hs-secret" || r.RateLimited ||
		r.Sender("example.org") != "@ircbot:example.org" || len(r.Protocols) != 1 || !r.Ephemeral || !r.Devices {
		t.Errorf("%+v", r)
	}
	for _, name := range []string{"receive_ephemeral", "de.sorunome.msc2409.push_ephemeral", "push_ephemeral"} {
		for _, value := range []string{"true", "false"} {
			text := strings.Replace(whole, "receive_ephemeral: true\norg.matrix.msc3202: true", name+": "+value, 1)
			if r, err := registration.Parse("x", []byte(text)); err != nil || r.Ephemeral != (value == "true") || r.Devices {
				t.Errorf("%s: %s is read as %+v, %v", name, value, r, err)
			}
		}
	}
	for id, want := range map[string]bool{
		"@irc_bob:example.org": true, "@irc_bob:example.org.evil": true, "x@irc_bob:example.org": false, "@irc_bob:example-org": false,
	} {
		if r.Users.Match(id) != want || r.Users.MatchExclusive(id) != want {
			t.Errorf("users match %s: %v", id, !want)
		}
	}
	if !r.Aliases.Match("#irc_room:anywhere") || r.Aliases.MatchExclusive("#irc_room:anywhere") || r.Rooms.Match("!r:x") {
		t.Error("aliases or rooms are claimed wrongly")
	}
	if r, err = registration.Parse("x", []byte(strings.Replace(whole, "url: http://127.0.0.1:9999/", "url: null", 1))); err != nil || r.URL != "" {
		t.Error(r, err)
	}
}

// TestParseTellsWhatIsWrong: each error names the file, the line and the field, and
// all of them are told.
func TestParseTellsWhatIsWrong(t *testing.T) {
	for name, c := range map[string]struct {
		old, new string
		want     []string
	}{
		"no id":            {"id: irc\n", "", []string{"irc.yaml:1: id: is missing"}},
		"no url":           {"url: http://127.0.0.1:9999/\n", "", []string{"url: is missing"}},
		"a bad url":        {"http://127.0.0.1:9999/", "ftp://x", []string{"irc.yaml:2: url: is not the URL"}},
		"a url with query": {"http://127.0.0.1:9999/", "http://x/?a=b", []string{"irc.yaml:2: url: is not the URL"}},
		"a list as id":     {"id: irc", "id: [irc]", []string{"irc.yaml:1: id: must be a text"}},
		"a token twice":    {"hs_token: hs-secret", "hs_token: as-secret", []string{"irc.yaml:4: hs_token: is the same as as_token"}},
		"a token of words": {"as-secret", "'a b'", []string{"irc.yaml:3: as_token: has spaces"}},
		"ephemeral maybe":  {"receive_ephemeral: true", "receive_ephemeral: maybe", []string{"irc.yaml:8: receive_ephemeral: must be true or false"}},
		"a key twice":      {"protocols: [irc]", "id: other", []string{"irc.yaml:7: id: stands there twice"}},
		"a bad localpart":  {"ircbot", "IRC Bot", []string{"irc.yaml:5: sender_localpart: \"IRC Bot\" is not"}},
		"a number as flag": {"rate_limited: false", "rate_limited: 3", []string{"irc.yaml:6: rate_limited: must be true or false"}},
		"look-ahead":       {`'#irc_'`, `'#(?!irc_)'`, []string{"irc.yaml:16: namespaces.aliases[0].regex: is not a regular expression that is supported"}},
		"no regex":         {`regex: '#irc_'`, `rexeg: '#irc_'`, []string{"irc.yaml:16: namespaces.aliases[0].regex: is missing"}},
		"one user":         {"users:", "user:", []string{"irc.yaml:13: namespaces.user: is not known; use users, aliases, rooms"}},
		"exclusve":         {"      exclusive: false", "      exclusve: false", []string{"irc.yaml:17: namespaces.aliases[0].exclusve: is not known", "irc.yaml:16: namespaces.aliases[0].exclusive: is missing"}},
		"not exclusive":    {", exclusive: true}", "}", []string{"irc.yaml:14: namespaces.users[0].exclusive: is missing"}},
		"exclusive null":   {"exclusive: true}", "exclusive: null}", []string{"irc.yaml:14: namespaces.users[0].exclusive: is missing"}},
		"an open bracket":  {`'#irc_'`, `'[a-z'`, []string{"missing closing ]: `[a-z`"}},
		"a text as space":  {"rooms: []", "rooms: none", []string{"irc.yaml:18: namespaces.rooms: must be a list"}},
		"a map of spaces":  {"rooms: []", "rooms: [x]", []string{"irc.yaml:18: namespaces.rooms[0]: must be a mapping"}},
		"two at once":      {"id: irc\nurl: http://127.0.0.1:9999/\n", "id: ''\nurl: 7\n", []string{"irc.yaml:1: id: ", "irc.yaml:2: url: "}},
		"no YAML":          {"id: irc\n", "id: [irc\n", []string{"irc.yaml:", "is not YAML"}},
		"an alias":         {"protocols: [irc]", "protocols: &p [irc]\nother: *p", []string{"irc.yaml:8: other: is an alias"}},
	} {
		t.Run(name, func(t *testing.T) {
			text := strings.Replace(whole, c.old, c.new, 1)
			if text == whole {
				t.Fatal("nothing was replaced")
			}
			r, err := registration.Parse("irc.yaml", []byte(text))
			if err == nil {
				t.Fatalf("taken: %+v", r)
			}
			for _, want := range c.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%q is not in\n%v", want, err)
				}
			}
			if strings.Contains(err.Error(), "secret") {
				t.Errorf("a token is in the error: %v", err)
			}
		})
	}
	for _, text := range []string{"", "\n", "- a", "text", "null", "{}", "\x00", "a: b: c"} {
		if r, err := registration.Parse("f", []byte(text)); err == nil {
			t.Errorf("%q is taken: %+v", text, r)
		}
	}
}

func parse(t *testing.T, id, users string) *registration.Registration {
	t.Helper()
	r, err := registration.Parse(id, fmt.Appendf(nil, "id: %s\nurl: null\nas_token: as-%s\nhs_token: hs-%s\nsender_localpart: bot-%s\nnamespaces: {users: [%s]}\n", id, id, id, id, users))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestClash(t *testing.T) {
	exclusive := func(regex string) string { return fmt.Sprintf("{regex: '%s', exclusive: true}", regex) }
	shared := func(regex string) string { return fmt.Sprintf("{regex: '%s', exclusive: false}", regex) }
	for _, c := range []struct {
		a, b string
		want bool
	}{
		{exclusive("@irc_.*"), exclusive("@xmpp_.*"), false},
		{exclusive("@irc_.*"), exclusive("@irc_.*"), true},
		{exclusive("@irc_.*"), shared("@irc_.*"), false},
		{exclusive("@.*:example.org"), exclusive("@irc_.*"), true},
		{exclusive("@a+b:"), exclusive("@a{2}b:"), true},
		{exclusive("@a+b:"), exclusive("@b+a:"), false},
		{exclusive("@bot$"), exclusive("@bot_.*"), false},
		{exclusive("@bot"), exclusive("@bot_.*"), true},
		{exclusive("(?i)@IRC_"), exclusive("@irc_x"), true},
		{exclusive("@u[a-f]"), exclusive("@u[g-z]"), false},
		{exclusive("@u[^a-f]"), exclusive("@u[a-f]"), false},
		{exclusive("@u[^a-f]"), exclusive("@u[f-h]"), true},
		{exclusive("@x^y"), exclusive("@x"), false}, // the first matches nothing
		{exclusive("^@irc"), exclusive("@irc_a"), true},
		{exclusive("@bot-b:"), shared("@b"), true}, // the sender of b
	} {
		a, b := parse(t, "a", c.a), parse(t, "b", c.b)
		for _, p := range [][2]*registration.Registration{{a, b}, {b, a}} {
			err := registration.Clash(p[0], p[1], "example.org")
			if (err != nil) != c.want {
				t.Errorf("%s and %s: %v", c.a, c.b, err)
			}
			if err != nil && (!strings.Contains(err.Error(), `"a"`) || !strings.Contains(err.Error(), `"b"`)) {
				t.Errorf("the error does not name both: %v", err)
			}
		}
	}
}

// TestClashFindsCommonTexts: what two random expressions both match, a clash finds.
func TestClashFindsCommonTexts(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		piece := rapid.SampledFrom([]string{"a", "b", "[ab]", "[^a]", ".", "a*", "(?:ab|b)", "b?", "(?:a|bb)+", `\b`, "$", "(?i)A", "[b-d]{1,2}"})
		expression := rapid.Custom(func(t *rapid.T) string { return strings.Join(rapid.SliceOfN(piece, 1, 5).Draw(t, "pieces"), "") })
		first, second := expression.Draw(t, "first"), expression.Draw(t, "second")
		text := rapid.StringOfN(rapid.RuneFrom([]rune("abcd")), 0, 8, -1).Draw(t, "text")
		matches := func(e string) bool { return regexp.MustCompile(`\A(?:` + e + `)`).MatchString(text) }
		var regs [2]*registration.Registration
		for i, e := range []string{first, second} {
			n, err := registration.NewNamespace(e, true)
			if err != nil {
				t.Fatal(err)
			}
			if n.Matches(text) != matches(e) {
				t.Fatalf("%q against %q: %v", e, text, n.Matches(text))
			}
			id := fmt.Sprint(i)
			regs[i] = &registration.Registration{ID: id, ASToken: id, HSToken: "h" + id, SenderLocalpart: "~" + id, Aliases: registration.Namespaces{n}}
		}
		if matches(first) && matches(second) && registration.Clash(regs[0], regs[1], "x") == nil {
			t.Fatalf("%q and %q both match %q, and do not clash", first, second, text)
		}
	})
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(whole))
	f.Add([]byte("id: &a [*a]"))
	f.Add([]byte("? {a: b}\n: c"))
	f.Fuzz(func(t *testing.T, text []byte) {
		r, err := registration.Parse("f", text)
		if (r == nil) == (err == nil) {
			t.Fatalf("%+v, %v", r, err)
		}
		if err == nil && (r.ID == "" || r.ASToken == "" || r.HSToken == "" || r.SenderLocalpart == "") {
			t.Fatalf("%+v is not whole", r)
		}
	})
}

// TestRealRegistrations: the forms that bridges write are taken.
func TestRealRegistrations(t *testing.T) {
	files, err := filepath.Glob("testdata/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := registration.Parse(file, text); err != nil {
			t.Error(err)
		}
	}
}

// TestUnknownFields: those of the registration itself that are not known are told, but
// extensions are not.
func TestUnknownFields(t *testing.T) {
	text := strings.Replace(whole, "protocols: [irc]", "protocol: [irc]\nrate_limit: true", 1)
	r, err := registration.Parse("irc.yaml", []byte(text))
	if err != nil || len(r.Unknown) != 2 {
		t.Fatal(r, err)
	}
	for i, want := range []string{"irc.yaml:7: protocol: is not known", "irc.yaml:8: rate_limit: is not known"} {
		if !strings.HasPrefix(r.Unknown[i].Error(), want) {
			t.Errorf("%v, not %s", r.Unknown[i], want)
		}
	}
	if r, err := registration.Parse("irc.yaml", []byte(whole)); err != nil || len(r.Unknown) > 0 {
		t.Error(r, err)
	}
}
