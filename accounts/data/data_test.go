package data

import (
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/teahouse-chat/teahouse/internal/db"
	"github.com/teahouse-chat/teahouse/internal/matrix"
)

const alice = "/v3/user/@alice:x"

func TestAccountData(t *testing.T) {
	each(t, func(g *rig) {
		const global, room = alice + "/account_data/org.example", alice + "/rooms/!r:x/account_data/org.example"
		g.want("alice", "GET", global, "", 404, "M_NOT_FOUND")
		g.want("alice", "PUT", global, `{"a": 1.5, "b":"\u0000"}`, 200, `{}`)
		g.want("alice", "PUT", room, `{"in":"room"}`, 200, `{}`)
		g.want("alice", "GET", global, "", 200, `{"a":1.5,"b":"\u0000"}`)
		g.want("alice", "GET", room, "", 200, `{"in":"room"}`)
		g.want("alice", "PUT", global, `{}`, 200, `{}`)
		g.want("alice", "GET", global, "", 200, `{}`)
		g.want("alice", "GET", "/r0/user/@alice:x/rooms/!r:x/account_data/org.example", "", 200, `{"in":"room"}`)
		g.want("bob", "GET", "/v3/user/@bob:x/rooms/!r:x/account_data/org.example", "", 404, "M_NOT_FOUND")
		// An id of room version 12, a type with a slash.
		v12 := alice + "/rooms/!31hneApxJ_1o-63DmFrpeqnkFfWppnzWso1JvH3ogLM/account_data/a%2Fb"
		g.want("alice", "PUT", v12, `{"x":1}`, 200, `{}`)
		g.want("alice", "GET", v12, "", 200, `{"x":1}`)
	})
}

func TestAccountDataRefusals(t *testing.T) {
	each(t, func(g *rig) {
		const global, room = alice + "/account_data/", alice + "/rooms/!r:x/account_data/"
		for _, c := range []struct {
			token, method, path, body string
			code                      int
			want                      string
		}{
			{"bob", "GET", global + "a", "", 403, "M_FORBIDDEN"},
			{"bob", "PUT", global + "a", `{}`, 403, "M_FORBIDDEN"},
			{"bob", "GET", room + "a", "", 403, "M_FORBIDDEN"},
			{"bob", "PUT", room + "a", `{}`, 403, "M_FORBIDDEN"},
			{"guest", "PUT", "/v3/user/@guest:x/account_data/a", `{}`, 403, "M_GUEST_ACCESS_FORBIDDEN"},
			{"", "GET", global + "a", "", 401, "M_MISSING_TOKEN"},
			{"alice", "PUT", global + "m.fully_read", `{}`, 405, "M_BAD_JSON"},
			{"alice", "PUT", global + "m.push_rules", `{}`, 405, "M_BAD_JSON"},
			{"alice", "PUT", room + "m.fully_read", `{}`, 405, "M_BAD_JSON"},
			{"alice", "PUT", room + "m.push_rules", `{}`, 405, "M_BAD_JSON"},
			{"alice", "PUT", global + "a", `[1]`, 400, "M_BAD_JSON"},
			{"alice", "PUT", global + "a", `{"a":`, 400, "M_NOT_JSON"},
			{"alice", "PUT", global + "a", ``, 400, "M_NOT_JSON"},
			{"alice", "PUT", global + "a", "{\"a\":\"\xff\"}", 400, "M_NOT_JSON"},
			{"alice", "PUT", alice + "/rooms/r:x/account_data/a", `{}`, 400, "M_INVALID_PARAM"},
			{"alice", "GET", alice + "/rooms/@a:x/account_data/a", ``, 400, "M_INVALID_PARAM"},
			{"alice", "PUT", global + "a%00b", `{}`, 400, "M_INVALID_PARAM"},
			{"alice", "PUT", global + strings.Repeat("t", MaxTypeBytes+1), `{}`, 400, "M_INVALID_PARAM"},
			{"alice", "PUT", global + "a", `{"a":"` + strings.Repeat("x", MaxContentBytes) + `"}`, 413, "M_TOO_LARGE"},
			{"alice", "PUT", global + "a", strings.Repeat(" ", MaxContentBytes) + `{}`, 200, `{}`},
		} {
			g.want(c.token, c.method, c.path, c.body, c.code, c.want)
		}
		if entries, err := g.All(g.Context(), g.db, "@alice:x"); err != nil || len(entries) != 1 {
			t.Errorf("only the default should be there: %v %v", entries, err)
		}
	})
}

func TestManagedTypesCanBeRead(t *testing.T) {
	each(t, func(g *rig) {
		g.want("alice", "GET", alice+"/account_data/m.push_rules", "", 200, `{"global":{"of":"@alice:x"}}`)
		g.want("alice", "GET", alice+"/rooms/!r:x/account_data/m.push_rules", "", 404, "M_NOT_FOUND")
		err := g.db.Write(g.Context(), func(tx *db.Tx) error {
			if err := Put(tx, "@alice:x", "", TypePushRules, json.RawMessage(`{"global":{}}`)); err != nil {
				return err
			}
			return Put(tx, "@alice:x", "!r:x", TypeFullyRead, json.RawMessage(`{"event_id":"$e"}`))
		})
		if err != nil {
			g.Fatal(err)
		}
		g.want("alice", "GET", alice+"/account_data/m.push_rules", "", 200, `{"global":{}}`)
		g.want("alice", "GET", alice+"/rooms/!r:x/account_data/m.fully_read", "", 200, `{"event_id":"$e"}`)
	})
}

func show(entries []Entry) string {
	var b strings.Builder
	for _, e := range entries {
		fmt.Fprintf(&b, "%s %s %s|", e.Room, e.Type, e.Content)
	}
	return b.String()
}

// What a client that catches up reads, plus what it knew, is what a client that
// starts afresh reads.
func TestSync(t *testing.T) {
	each(t, func(g *rig) {
		set := func(user matrix.UserID, room matrix.RoomID, typ, content string) int64 {
			g.Helper()
			if err := g.Set(g.Context(), user, room, typ, json.RawMessage(content)); err != nil {
				g.Fatal(err)
			}
			return g.db.Position()
		}
		all := func() string {
			g.Helper()
			entries, err := g.All(g.Context(), g.db, "@alice:x")
			if err != nil {
				g.Fatal(err)
			}
			return show(entries)
		}
		since := func(after, upTo int64) string {
			g.Helper()
			entries, err := g.Since(g.Context(), g.db, "@alice:x", after, upTo)
			if err != nil {
				g.Fatal(err)
			}
			for _, e := range entries {
				if e.Position <= after || e.Position > upTo {
					g.Errorf("%v lies outside of (%d, %d]", e, after, upTo)
				}
			}
			return show(entries)
		}
		const rules = ` m.push_rules {"global":{"of":"@alice:x"}}|`
		start := g.db.Position()
		p1 := set("@alice:x", "", "a", `{"v":1}`)
		p2 := set("@alice:x", "!r:x", "a", `{"v":2}`)
		set("@bob:x", "", "a", `{"v":"bob"}`)
		p3 := set("@alice:x", "", "b", `{"v":3}`)
		if got, want := all(), rules+` a {"v":1}| b {"v":3}|!r:x a {"v":2}|`; got != want {
			t.Errorf("all: %s\nwant %s", got, want)
		}
		if got, want := since(start, p3), ` a {"v":1}|!r:x a {"v":2}| b {"v":3}|`; got != want {
			t.Errorf("since the start: %s", got)
		}
		if got, want := since(p1, p2), `!r:x a {"v":2}|`; got != want {
			t.Errorf("the second: %s", got)
		}
		p4 := set("@alice:x", "", "a", `{}`)
		if got, want := since(p3, p4), ` a {}|`; got != want {
			t.Errorf("a removal: %s", got)
		}
		if got, want := all(), rules+` b {"v":3}|!r:x a {"v":2}|`; got != want {
			t.Errorf("all after a removal: %s", got)
		}
		if len(g.changes) != 5 {
			t.Fatalf("published %v", g.changes)
		}
		if c := g.changes[1]; c.User != "@alice:x" || c.Room != "!r:x" || c.Type != "a" || string(c.Content) != `{"v":2}` || c.Position != p2 {
			t.Errorf("published %+v", c)
		}
	})
}

func TestIgnored(t *testing.T) {
	each(t, func(g *rig) {
		const list = alice + "/account_data/m.ignored_user_list"
		check := func(want ...matrix.UserID) {
			g.Helper()
			for range 2 { // read, then remembered
				got, err := g.Ignored(g.Context(), "@alice:x")
				if err != nil || len(got) != len(want) {
					g.Errorf("%v %v, want %v", got, err, want)
				}
				for _, u := range want {
					if !got.Has(u) {
						g.Errorf("%s is not ignored", u)
					}
				}
			}
		}
		check()
		g.want("alice", "PUT", list, `{"ignored_users":{"@bob:x":{},"@eve:y":{"k":1},"@alice:x":{}}}`, 200, `{}`)
		check("@bob:x", "@eve:y") // not herself
		g.want("alice", "PUT", list, `{"ignored_users":{"@bob:x":{}}}`, 200, `{}`)
		check("@bob:x")
		// A list of the same type in a room is nobody's ignore list.
		g.want("alice", "PUT", alice+"/rooms/!r:x/account_data/m.ignored_user_list", `{"ignored_users":{"@eve:y":{}}}`, 200, `{}`)
		check("@bob:x")
		for _, odd := range []string{`{}`, `{"ignored_users":null}`, `{"ignored_users":["@bob:x"]}`, `{"ignored_users":"x"}`} {
			g.want("alice", "PUT", list, odd, 200, `{}`)
			check()
		}
		g.want("bob", "PUT", "/v3/user/@bob:x/account_data/m.ignored_user_list", `{"ignored_users":{"@alice:x":{}}}`, 200, `{}`)
		all, err := g.IgnoredBy(g.Context(), []matrix.UserID{"@alice:x", "@bob:x", "@carol:x"})
		if err != nil || len(all) != 1 || !all["@bob:x"].Has("@alice:x") {
			t.Errorf("%v %v", all, err)
		}
	})
}

// Whoever asks after a change was answered sees it, whatever is read meanwhile.
func TestIgnoredIsNeverStale(t *testing.T) {
	each(t, func(g *rig) {
		stop := make(chan struct{})
		var readers sync.WaitGroup
		for range 4 {
			readers.Go(func() {
				for {
					select {
					case <-stop:
						return
					default:
						g.Ignored(g.Context(), "@alice:x")
					}
				}
			})
		}
		defer readers.Wait()
		defer close(stop)
		for i := range 50 {
			bad := matrix.NewUserID(fmt.Sprint("bad", i), "x")
			content := fmt.Sprintf(`{"ignored_users":{%q:{}}}`, bad)
			if err := g.Set(g.Context(), "@alice:x", "", TypeIgnoredList, json.RawMessage(content)); err != nil {
				g.Fatal(err)
			}
			got, err := g.Ignored(g.Context(), "@alice:x")
			if err != nil || len(got) != 1 || !got.Has(bad) {
				g.Fatalf("ignored %s, but got %v, %v", bad, got, err)
			}
		}
	})
}

func TestErase(t *testing.T) {
	each(t, func(g *rig) {
		g.want("alice", "PUT", alice+"/account_data/m.ignored_user_list", `{"ignored_users":{"@bob:x":{}}}`, 200, `{}`)
		g.want("bob", "PUT", "/v3/user/@bob:x/account_data/a", `{"b":1}`, 200, `{}`)
		if got, _ := g.Ignored(g.Context(), "@alice:x"); len(got) != 1 {
			t.Errorf("ignored: %v", got)
		}
		token, _, err := g.IssueOpenID(g.Context(), "@alice:x")
		if err != nil {
			g.Fatal(err)
		}
		for range 2 {
			if err := g.Erase(g.Context(), "@alice:x"); err != nil {
				g.Fatal(err)
			}
		}
		g.want("alice", "GET", alice+"/account_data/m.ignored_user_list", "", 404, "M_NOT_FOUND")
		g.want("bob", "GET", "/v3/user/@bob:x/account_data/a", "", 200, `{"b":1}`)
		if got, _ := g.Ignored(g.Context(), "@alice:x"); len(got) != 0 {
			t.Errorf("ignored: %v", got)
		}
		if _, ok, _ := g.RedeemOpenID(g.Context(), token); ok {
			t.Error("the token of an erased user is good")
		}
	})
}

func TestCacheIsBounded(t *testing.T) {
	c := newCache()
	long := Users{}
	for i := range maxCachedUsers + 1 {
		long[matrix.NewUserID(fmt.Sprint(i), "y")] = struct{}{}
	}
	c.put([]matrix.UserID{"@long:x"}, map[matrix.UserID]Users{"@long:x": long}, 0)
	if len(c.lists) != 0 {
		t.Error("a long list is remembered")
	}
	for i := range maxCached + 10 {
		c.put([]matrix.UserID{matrix.NewUserID(fmt.Sprint(i), "x")}, nil, 0)
	}
	if len(c.lists) != maxCached {
		t.Errorf("%d are remembered", len(c.lists))
	}
}
