package server_test

import (
	"os"
	"path/filepath"
	"reflect"
	"testing"

	"github.com/teahouse-chat/teahouse/internal/config"
	"github.com/teahouse-chat/teahouse/internal/testrig"
)

// keysOf asks one server, as a notary, for the keys of another.
func keysOf(s *testrig.Server, of string) []any {
	answer := s.Anonymous().Must("GET", "/_matrix/key/v2/query/"+of, nil)
	return answer["server_keys"].([]any)
}

// A server finds another by its name, over TLS, and hands its keys on.
func TestServersFindEachOther(t *testing.T) {
	for _, kind := range []string{"sqlite", "postgres"} {
		t.Run(kind, func(t *testing.T) {
			s := testrig.StartMany(t, kind, "a", "b")
			list := keysOf(s[0], "b")
			if len(list) != 1 {
				t.Fatalf("a knows %d answers of b: %v", len(list), list)
			}
			signatures := list[0].(object)["signatures"].(object)
			if signatures["a"] == nil || signatures["b"] == nil {
				t.Errorf("signed by %v", signatures)
			}
			answer := s[1].Anonymous().Must("GET", "/_matrix/federation/v1/version", nil)
			if answer["server"].(object)["name"] != "Teahouse" {
				t.Errorf("%v", answer)
			}
		})
	}
}

// A server that keeps to itself has nothing to tell others.
func TestNoFederation(t *testing.T) {
	s := testrig.Start(t, testrig.Options{})
	for _, path := range []string{"/_matrix/federation/v1/version", "/_matrix/key/v2/server"} {
		s.Anonymous().Fails(404, "M_UNRECOGNIZED", "GET", path, nil)
	}
}

// The signing key may come from outside of the data folder.
func TestKeyFromTheConfiguration(t *testing.T) {
	first := testrig.Start(t, testrig.Options{Federate: true})
	text, err := os.ReadFile(filepath.Join(first.Options.DataDir, "signing.key"))
	must(t, err)
	want := keysOf(first, "test")
	second := testrig.Start(t, testrig.Options{Federate: true, Change: func(c *config.Config) { c.SigningKey = config.Secret(text) }})
	got := keysOf(second, "test")
	if key := func(l []any) any { return l[0].(object)["verify_keys"] }; !reflect.DeepEqual(key(got), key(want)) {
		t.Errorf("%v is not %v", got, want)
	}
	if _, err := os.Stat(filepath.Join(second.Options.DataDir, "signing.key")); !os.IsNotExist(err) {
		t.Errorf("a key was made although there is one: %v", err)
	}
}
