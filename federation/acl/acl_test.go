package acl_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/teahouse-chat/teahouse/federation/acl"
	"github.com/teahouse-chat/teahouse/internal/db/dbtest"
	"github.com/teahouse-chat/teahouse/internal/httpx"
	"github.com/teahouse-chat/teahouse/internal/matrix"
	. "github.com/teahouse-chat/teahouse/rooms/roomstest"
)

// TestList decides by ACLs of all kinds (F15).
func TestList(t *testing.T) {
	for content, servers := range map[string]map[matrix.ServerName]bool{
		`{"allow":["*"]}`: {"a.org": true, "a.org:8448": true, "1.2.3.4": true, "[::1]:80": true, "localhost": true},
		`{"allow":["*"],"deny":["evil.org","*.evil.org"]}`: {
			"evil.org": false, "evil.org:8448": false, "EVIL.org": false, "a.b.Evil.ORG:1": false, "notevil.org": true, "evil.org.uk": true, "evilorg": true,
		},
		`{"allow":["*"],"deny":["EVIL.org"]}`:         {"evil.org": false, "eViL.org:1": false},
		`{"allow":["good.org"]}`:                      {"good.org": true, "GOOD.org:1": true, "a.good.org": false, "other.org": false},
		`{"allow":["good.org"],"deny":["good.org"]}`:  {"good.org": false},
		`{"allow":["?.org"]}`:                         {"a.org": true, "ab.org": false, ".org": false},
		`{"allow":["*"],"allow_ip_literals":false}`:   {"1.2.3.4": false, "1.2.3.4:80": false, "999.2.3.4": false, "01.2.3.4": false, "[::1]": false, "[::ffff:1.2.3.4]:1": false, "a.org": true, "1.2.3.org": true, "1.2.3.4.5": true},
		`{"allow":["*"],"allow_ip_literals":true}`:    {"1.2.3.4": true, "[::1]": true},
		`{"allow":["*"],"allow_ip_literals":"false"}`: {"1.2.3.4": true},
		`{"allow":["*"],"allow_ip_literals":null}`:    {"1.2.3.4": true},
		`{"allow":["*"],"deny":["[::1]","1.2.3.*"]}`:  {"[::1]:8448": false, "1.2.3.4:1": false, "1.2.4.4": true, "[::2]": true},
		`{}`:                                    {"a.org": false},
		`{"allow":[]}`:                          {"a.org": false},
		`{"allow":"*"}`:                         {"a.org": false},
		`{"allow":{"0":"*"}}`:                   {"a.org": false},
		`{"allow":[1,null,["*"],"b.org"]}`:      {"a.org": false, "b.org": true},
		`{"allow":["*"],"deny":"a.org"}`:        {"a.org": true},
		`{"allow":["*"],"deny":[7,"a.org",{}]}`: {"a.org": false},
		`{"allow":["*"],"deny":["a.org "," a.org","ä"]}`:  {"a.org": true},
		`{"allow":["*"],"deny":["a.org:*","b.org:8448"]}`: {"a.org:8448": true, "b.org:8448": true}, // ports are not compared
		`{"allow":["*"],"deny":[""]}`:                     {"a.org": true},
		`{"allow":["*"],"deny":["***"]}`:                  {"a.org": false},
		`[]`:                                              {"a.org": false},
		``:                                                {"a.org": false},
	} {
		l := acl.Parse([]byte(content))
		for server, want := range servers {
			if got := l.Allows(server); got != want {
				t.Errorf("%s: %s: %v", content, server, got)
			}
		}
	}
}

// TestHostileLists are as large as an event can be, and made to be slow (F15).
func TestHostileLists(t *testing.T) {
	entries := func(entry string, n int) string { return `"` + strings.Repeat(entry+`","`, n/(len(entry)+3)) + `"` }
	server := matrix.ServerName(strings.Repeat("a", 228) + "bb")
	const size = 60 << 10
	for name, deny := range map[string]string{
		"stars":          `"` + strings.Repeat("*", size) + `c"`,
		"one long":       `"` + strings.Repeat("*a", size/2) + `c"`,
		"many short":     entries("*a*c", size),
		"many long":      entries(strings.Repeat("*a", 100)+"c", size),
		"question marks": entries("*?*?*?c", size),
		"half names":     entries("*"+strings.Repeat("a", 115)+"c", size),
		"every letter":   entries("abcdefghijklmnopqrstuvwxyz0123456789-.*", size),
		"foreign":        entries("äöü*", size),
		"nested":         strings.Repeat("[", 9000) + strings.Repeat("]", 9000),
	} {
		content := []byte(fmt.Sprintf(`{"allow":["*"],"deny":[%s]}`, deny))
		start := time.Now()
		l := acl.Parse(content)
		for range 100 {
			if !l.Allows(server) {
				t.Fatalf("%s: denied", name)
			}
		}
		if took := time.Since(start); took > 5*time.Second {
			t.Errorf("%s: a hundred checks took %v", name, took)
		}
	}
}

// TestAllows asks a room whose ACL changes.
func TestAllows(t *testing.T) {
	for _, kind := range []string{"sqlite", "postgres"} {
		t.Run(kind, func(t *testing.T) {
			g := New(t, dbtest.URL(t, kind), func(*Rig) []httpx.Route { return nil })
			r := g.Room("alice")
			want := func(server matrix.ServerName, want bool) {
				t.Helper()
				ok, err := acl.Allows(t.Context(), g.Engine, r, server)
				if err != nil || ok != want {
					t.Errorf("%s: %v, %v", server, ok, err)
				}
				if err := acl.Check(t.Context(), g.Engine, r, server); want != (err == nil) || !want && !matrix.HasCode(err, matrix.CodeForbidden) {
					t.Errorf("%s: %v", server, err)
				}
			}
			want("evil.org", true)
			g.Send(r, "alice", State(matrix.TypeServerACL, "", `{"allow":["*"],"deny":["evil.org"]}`))
			want("evil.org:1", false)
			want("good.org", true)
			want("evil.org", false)
			g.Send(r, "alice", State(matrix.TypeServerACL, "other", `{"deny":["good.org"]}`)) // no ACL: it has a state key
			want("good.org", true)
			g.Send(r, "alice", State(matrix.TypeServerACL, "", `{}`))
			want("good.org", false)
		})
	}
}

func FuzzParse(f *testing.F) {
	f.Add(`{"allow":["*"],"deny":["*.evil.org"],"allow_ip_literals":false}`, "a.evil.org:8448")
	f.Add(`{"allow":[1,"\ud800"]}`, "[::1")
	f.Fuzz(func(t *testing.T, content, server string) {
		l := acl.Parse([]byte(content))
		if l.Allows(matrix.ServerName(server)) != l.Allows(matrix.ServerName(strings.ToUpper(server))) && strings.EqualFold(strings.ToUpper(server), server) {
			t.Errorf("%s tells %q from its upper case", content, server)
		}
	})
}
