package server_test

import (
	"encoding/json"
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/teahouse-chat/teahouse/internal/filter"
	"github.com/teahouse-chat/teahouse/internal/testrig"
)

// longest is what any one request of TestHostilePatterns may take. All of them
// take a small part of it; quadratic matching takes minutes.
const longest = 5 * time.Second

// THREATS A5: patterns and filters made to be slow are refused, or take time that
// grows with their size alone.
func TestHostilePatterns(t *testing.T) {
	s := testrig.Start(t, testrig.Options{})
	alice, bob := s.Register("alice"), s.Register("bob")
	room := alice.CreateRoom(object{"preset": "public_chat"})
	bob.Join(room)
	path := "/v3/rooms" + testrig.Path(room)
	slow := strings.Repeat("a", 240) // as an event's type
	for i := range 300 {
		alice.Must("PUT", path+"/send"+testrig.Path(slow, i), object{"url": "x", "body": strings.Repeat("a", 2000)})
	}
	since := bob.Sync("", 0)["next_batch"].(string)
	alice.Must("PUT", path+"/send"+testrig.Path(slow, "last"), object{"body": strings.Repeat("a ", 30000)})

	fill := filter.MaxBytes - 100
	hostile := map[string]object{
		"stars":                           {"types": []string{strings.Repeat("*", fill) + "b"}},
		"stars between":                   {"types": []string{strings.Repeat("a*", fill/2) + "b"}},
		"halves":                          {"types": []string{strings.Repeat("a", 120) + "*" + strings.Repeat("a", 120) + "b"}},
		"many patterns":                   {"types": many(fill/10, "*a*a*b")},
		"many refusals":                   {"not_types": many(fill/10, "*a*a*b")},
		"many senders":                    {"senders": many(fill/12, "@a:b.c")},
		"many not":                        {"not_senders": many(fill/12, "@a:b.c"), "types": []string{"*"}},
		"looks like a regular expression": {"types": []string{"(a+)+$", "(a|aa)+$", "[a-z]*b", `\1*`}},
		"many relations":                  {"related_by_rel_types": many(fill/16, "m.x"), "related_by_senders": many(fill/16, "@a:b")},
	}
	measure := func(name, method, target string, send any) {
		t.Helper()
		text, ok := send.(string)
		if raw, _ := json.Marshal(send); !ok && send != nil {
			text = string(raw)
		}
		began := time.Now()
		status, answer := body(t, s, bob, method, target, text) // not over the network, which refuses such long URLs
		took := time.Since(began)
		t.Logf("%s: %d after %v", name, status, took)
		if status >= 500 || took > longest {
			t.Errorf("%s: %s %.80s: %d after %v %.200s", name, method, target, status, took, answer)
		}
	}
	for name, f := range hostile {
		raw, _ := json.Marshal(f)
		q := url.QueryEscape(string(raw))
		measure(name, "GET", path+"/messages?dir=b&limit=1000&filter="+q, nil)
		sync, _ := json.Marshal(object{"room": object{"timeline": f}})
		measure(name, "POST", "/v3/user"+testrig.Path(bob.User, "filter"), string(sync))
		measure(name, "GET", "/v3/sync?timeout=0&filter="+url.QueryEscape(string(sync)), nil)
		measure(name, "GET", "/v3/sync?timeout=0&since="+since+"&filter="+url.QueryEscape(string(sync)), nil)
	}
	fields, _ := json.Marshal(object{"event_fields": many(fill/24, strings.Repeat("content.", 2)+"a")})
	measure("fields", "GET", "/v3/sync?timeout=0&filter="+url.QueryEscape(string(fields)), nil)
	deep, _ := json.Marshal(object{"event_fields": []string{strings.Repeat("a.", fill/4), strings.Repeat(`\.`, fill/8), strings.Repeat(`\`, fill/8)}})
	measure("deep fields", "GET", "/v3/sync?timeout=0&filter="+url.QueryEscape(string(deep)), nil)
	for _, term := range []string{"%", "_", "%%%%%%%%%", strings.Repeat("%_", 100), strings.Repeat("*", 200), "(a+)+$", strings.Repeat("a", 255), strings.Repeat("a", 100_000)} {
		measure("term", "POST", "/v3/user_directory/search", object{"search_term": term})
		measure("term", "POST", "/v3/publicRooms", object{"filter": object{"generic_search_term": term}})
	}
	// Names that push rules look for in every message.
	bob.Must("PUT", "/v3/profile"+testrig.Path(bob.User, "displayname"), object{"displayname": strings.Repeat("a ", 100) + "b"})
	began := time.Now()
	for i := range 20 {
		alice.Must("PUT", path+"/send"+testrig.Path("m.room.message", fmt.Sprint("n", i)), object{"msgtype": "m.text", "body": strings.Repeat("a ", 30000)})
	}
	bob.Sync(since, 0)
	if took := time.Since(began); took > longest {
		t.Errorf("messages that almost name somebody take %v", took)
	}
	// Wildcards of LIKE are none in searches.
	for _, term := range []string{"%", "_"} {
		if a := bob.Must("POST", "/v3/user_directory/search", object{"search_term": term}); len(list(a, "results")) != 0 {
			t.Errorf("%q finds %v", term, a)
		}
	}
}

func many(n int, text string) []string {
	all := make([]string, n)
	for i := range all {
		all[i] = text
	}
	return all
}
