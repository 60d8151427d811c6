package kit_test

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/teahouse-chat/teahouse/appservices/kit"
	"github.com/teahouse-chat/teahouse/appservices/kit/kittest"
)

// The bot of the example does what the tutorial shows.
func TestExample(t *testing.T) {
	each(t, func(t *testing.T, url string) {
		r := kittest.Start(t, kittest.Options{Name: "tally", Database: url, Open: func(ctx context.Context, c kit.Config) (kittest.Service, error) {
			s, err := open(ctx, c)
			return s, err
		}})
		alice := r.User("alice")
		room := alice.CreateRoom(r.Bot())
		r.User("bob").Join(room)
		r.Settle()
		alice.Say(room, "!tally drink")
		r.Settle()
		r.Kill()
		r.User("bob").Say(room, "!tally drink 3")
		r.Settle()
		if got := r.Said(room); !slices.Equal(got, []string{"That makes 1.", "That makes 4."}) {
			t.Errorf("the bot said %q", got)
		}
		alice.Say(room, "!tally help")
		if got := last(r, room); !strings.Contains(got, "drink CUPS – notes that tea was drunk") || strings.Contains(got, "language") {
			t.Errorf("the help is %q", got)
		}
	})
}

// The tutorial shows the example, as the program that it is.
func TestTutorial(t *testing.T) {
	example, err := os.ReadFile("example_test.go")
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(example), "\n"); n > 60 {
		t.Errorf("the example has %d lines, more than 60", n)
	}
	tutorial, err := os.ReadFile("../../docs/appservices.md")
	if err != nil {
		t.Fatal(err)
	}
	program := strings.NewReplacer("package kit_test", "package main", "func Example()", "func main()").Replace(string(example))
	if !strings.Contains(string(tutorial), "```go\n"+program+"```\n") {
		t.Error("docs/appservices.md does not have the program of example_test.go")
	}
}

func TestFromRegistration(t *testing.T) {
	write := func(text string) string {
		file := filepath.Join(t.TempDir(), "r.yaml")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	good := "id: tally\nurl: http://127.0.0.1:9999\nas_token: a\nhs_token: h\nsender_localpart: tally\n"
	c, err := kit.FromRegistration(write(good), "example.org")
	if err != nil || c.ID != "tally" || c.User != "@tally:example.org" || c.ASToken != "a" || c.HSToken != "h" || c.Listen != "127.0.0.1:9999" {
		t.Errorf("the configuration is %+v, %v", c, err)
	}
	for _, bad := range []string{"[", "id: x", strings.Replace(good, ":9999", "", 1)} {
		if _, err := kit.FromRegistration(write(bad), "example.org"); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
	if _, err := kit.Open(t.Context(), kit.Config{User: "@a:b"}); err == nil || !strings.Contains(err.Error(), "lacks ASToken, Database, HSToken, Homeserver, ID") {
		t.Errorf("an empty configuration is refused with %v", err)
	}
	for lang, texts := range map[string]map[string]string{"zh": {"a": "甲"}, "xx": {"a": "b"}} {
		c.Homeserver, c.Database, c.Texts = "http://h", "sqlite:///nowhere/x.db", kit.Catalogue{"en": {"a": "A", "b": "B"}, lang: texts}
		if _, err := kit.Open(t.Context(), c); err == nil || !strings.Contains(err.Error(), "catalogue") {
			t.Errorf("a catalogue with a gap is refused with %v", err)
		}
	}
}
