package profiles

import (
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/teahouse-chat/teahouse/internal/db"
	"github.com/teahouse-chat/teahouse/internal/matrix"
)

func TestFields(t *testing.T) {
	each(t, func(g *rig) {
		const alice = "/v3/profile/@alice:x"
		g.want("", "GET", alice, "", 200, `{}`)
		g.want("", "GET", alice+"/displayname", "", 404, "M_NOT_FOUND")
		g.want("alice", "PUT", alice+"/displayname", `{"displayname":"Alice <3"}`, 200, `{}`)
		g.want("alice", "PUT", alice+"/avatar_url", `{"avatar_url":"mxc://x/a"}`, 200, `{}`)
		g.want("alice", "PUT", alice+"/m.tz", `{"m.tz":"Europe/London"}`, 200, `{}`)
		g.want("alice", "PUT", alice+"/org.example.job-title", `{"org.example.job-title":{"a": [1.5, null, "\u0000"]}}`, 200, `{}`)
		g.want("alice", "PUT", alice+"/org.example.null", `{"org.example.null":null}`, 200, `{}`)
		g.want("", "GET", alice+"/displayname", "", 200, `{"displayname":"Alice <3"}`)
		g.want("", "GET", alice+"/org.example.job-title", "", 200, `{"org.example.job-title":{"a":[1.5,null,"\u0000"]}}`)
		g.want("bob", "GET", alice, "", 200,
			`{"avatar_url":"mxc://x/a","displayname":"Alice <3","m.tz":"Europe/London","org.example.job-title":{"a":[1.5,null,"\u0000"]},"org.example.null":null}`)

		g.want("alice", "DELETE", alice+"/org.example.null", "", 200, `{}`)
		g.want("alice", "DELETE", alice+"/org.example.null", "", 200, `{}`)
		g.want("", "GET", alice+"/org.example.null", "", 404, "M_NOT_FOUND")
		// An empty name is none, and so is null.
		g.want("alice", "PUT", alice+"/displayname", `{"displayname":""}`, 200, `{}`)
		g.want("alice", "PUT", alice+"/avatar_url", `{"avatar_url":null}`, 200, `{}`)
		g.want("", "GET", alice+"/displayname", "", 404, "M_NOT_FOUND")
		g.want("", "GET", alice+"/avatar_url", "", 404, "M_NOT_FOUND")
	})
}

func TestAliases(t *testing.T) {
	each(t, func(g *rig) {
		const unstable = "/unstable/uk.tcpip.msc4133/profile/@alice:x"
		g.want("alice", "PUT", unstable+"/us.cloke.msc4175.tz", `{"us.cloke.msc4175.tz":"Europe/Paris"}`, 200, `{}`)
		g.want("alice", "PUT", "/r0/profile/@alice:x/displayname", `{"displayname":"A"}`, 200, `{}`)
		g.want("", "GET", unstable, "", 200, `{"displayname":"A","us.cloke.msc4175.tz":"Europe/Paris"}`)
		g.want("alice", "DELETE", unstable+"/us.cloke.msc4175.tz", "", 200, `{}`)
		g.want("", "GET", "/r0/profile/@alice:x", "", 200, `{"displayname":"A"}`)
	})
}

func TestRefusals(t *testing.T) {
	each(t, func(g *rig) {
		const alice = "/v3/profile/@alice:x"
		long := strings.Repeat("k", MaxKeyBytes-2) + ".kkk"
		for _, c := range []struct {
			token, method, path, body string
			code                      int
			want                      string
		}{
			{"bob", "PUT", alice + "/displayname", `{"displayname":"A"}`, 403, "M_FORBIDDEN"},
			{"bob", "DELETE", alice + "/displayname", "", 403, "M_FORBIDDEN"},
			{"", "PUT", alice + "/displayname", `{"displayname":"A"}`, 401, "M_MISSING_TOKEN"},
			{"", "DELETE", alice + "/displayname", ``, 401, "M_MISSING_TOKEN"},
			{"guest", "PUT", "/v3/profile/@guest:x/displayname", `{"displayname":"G"}`, 200, `{}`},
			{"guest", "PUT", "/v3/profile/@guest:x/avatar_url", `{"avatar_url":"mxc://x/a"}`, 403, "M_GUEST_ACCESS_FORBIDDEN"},
			{"guest", "DELETE", "/v3/profile/@guest:x/m.tz", "", 403, "M_GUEST_ACCESS_FORBIDDEN"},
			{"guest", "DELETE", "/v3/profile/@guest:x/displayname", "", 200, `{}`},
			{"alice", "PUT", alice + "/displayname", `{"avatar_url":"A"}`, 400, "M_MISSING_PARAM"},
			{"alice", "PUT", alice + "/displayname", `{"displayname":5}`, 400, "M_BAD_JSON"},
			{"alice", "PUT", alice + "/displayname", `{"displayname":"a\u0000b"}`, 400, "M_BAD_JSON"},
			{"alice", "PUT", alice + "/displayname", `{"displayname":"` + strings.Repeat("ä", 257) + `"}`, 400, "M_INVALID_PARAM"},
			{"alice", "PUT", alice + "/displayname", `{"displayname":"` + strings.Repeat("ä", 256) + `"}`, 200, `{}`},
			{"alice", "PUT", alice + "/displayname", `"A"`, 400, "M_BAD_JSON"},
			{"alice", "PUT", alice + "/displayname", `{`, 400, "M_NOT_JSON"},
			{"alice", "PUT", alice + "/displayname", ``, 400, "M_NOT_JSON"},
			{"alice", "PUT", alice + "/avatar_url", `{"avatar_url":["mxc://x/a"]}`, 400, "M_BAD_JSON"},
			{"alice", "PUT", alice + "/m.tz", `{"m.tz":"Mars/Olympus"}`, 400, "M_INVALID_PARAM"},
			{"alice", "PUT", alice + "/m.tz", `{"m.tz":"Local"}`, 400, "M_INVALID_PARAM"},
			{"alice", "PUT", alice + "/m.tz", `{"m.tz":"../../etc/passwd"}`, 400, "M_INVALID_PARAM"},
			{"alice", "PUT", alice + "/m.tz", `{"m.tz":"UTC"}`, 200, `{}`},
			{"alice", "PUT", alice + "/" + long, `{"` + long + `":1}`, 400, "M_KEY_TOO_LARGE"},
			{"alice", "PUT", alice + "/" + long[2:], `{"` + long[2:] + `":1}`, 200, `{}`},
			{"alice", "PUT", alice + "/nonamespace", `{"nonamespace":1}`, 400, "M_INVALID_PARAM"},
			{"alice", "PUT", alice + "/Org.example", `{"Org.example":1}`, 400, "M_INVALID_PARAM"},
			{"alice", "PUT", alice + "/org..example", `{"org..example":1}`, 400, "M_INVALID_PARAM"},
			{"alice", "DELETE", alice + "/org%2Fexample", "", 400, "M_INVALID_PARAM"},
			{"", "GET", alice + "/.a", "", 400, "M_INVALID_PARAM"},
			{"", "GET", "/v3/profile/alice", "", 400, "M_INVALID_PARAM"},
			{"", "GET", "/v3/profile/@nobody:x", "", 404, "M_NOT_FOUND"},
			{"", "GET", "/v3/profile/@nobody:x/displayname", "", 404, "M_NOT_FOUND"},
			{"", "GET", "/v3/profile/@alice:elsewhere", "", 404, "M_NOT_FOUND"},
		} {
			g.want(c.token, c.method, c.path, c.body, c.code, c.want)
		}
	})
}

func TestProfileSize(t *testing.T) {
	each(t, func(g *rig) {
		const alice = "/v3/profile/@alice:x"
		put := func(key string, n int, code int, want string) {
			g.Helper()
			g.want("alice", "PUT", alice+"/"+key, fmt.Sprintf(`{%q: %q}`, key, strings.Repeat("a", n)), code, want)
		}
		// {"a.a":"…","a.b":"…"}: 2 braces, 1 comma, and 8 around each value.
		put("a.a", 1000, 200, `{}`)
		fill := MaxProfileBytes - 1000 - 2 - 1 - 2*8
		put("a.b", fill+1, 400, "M_PROFILE_TOO_LARGE")
		put("a.b", fill, 200, `{}`)
		put("a.c", 0, 400, "M_PROFILE_TOO_LARGE")
		put("a.b", fill, 200, `{}`)
		put("a.a", 1001, 400, "M_PROFILE_TOO_LARGE")
		put("a.a", 900, 200, `{}`)
		put("a.c", 10, 200, `{}`)
		if code, body := g.ask("", "GET", alice, ""); code != 200 || len(body) > MaxProfileBytes || len(body) < MaxProfileBytes-200 {
			t.Errorf("the profile is %d bytes", len(body))
		}
	})
}

func TestRoomsAreTold(t *testing.T) {
	each(t, func(g *rig) {
		const alice = "/v3/profile/@alice:x"
		g.want("alice", "PUT", alice+"/displayname", `{"displayname":"A"}`, 200, `{}`)
		g.want("alice", "PUT", alice+"/displayname", `{"displayname":"A"}`, 200, `{}`) // no change
		g.want("alice", "PUT", alice+"/m.tz", `{"m.tz":"UTC"}`, 200, `{}`)             // rooms do not show it
		g.want("alice", "PUT", alice+"/avatar_url", `{"avatar_url":"mxc://x/a"}`, 200, `{}`)
		g.want("alice", "DELETE", alice+"/displayname", ``, 200, `{}`)
		g.want("alice", "DELETE", alice+"/displayname", ``, 200, `{}`) // no change
		want := []string{"@alice:x A ", "@alice:x A mxc://x/a", "@alice:x  mxc://x/a"}
		if !slices.Equal(g.rooms.told, want) {
			t.Errorf("told %q, want %q", g.rooms.told, want)
		}
	})
}

// What the rooms did not hear because they failed, or because the server
// stopped, they hear later, once.
func TestRoomsAreToldLater(t *testing.T) {
	each(t, func(g *rig) {
		g.rooms.down = true
		g.want("alice", "PUT", "/v3/profile/@alice:x/displayname", `{"displayname":"A"}`, 200, `{}`)
		g.want("alice", "PUT", "/v3/profile/@alice:x/displayname", `{"displayname":"B"}`, 200, `{}`)
		g.want("bob", "PUT", "/v3/profile/@bob:x/displayname", `{"displayname":"Bob"}`, 200, `{}`)
		g.rooms.down = false

		again, err := New(Deps{DB: g.db, ServerName: "x", Users: everyone{}, Rooms: g.rooms, Log: slog.New(slog.DiscardHandler)})
		if err != nil {
			g.Fatal(err)
		}
		for range 2 {
			if err := again.Resume(g.Context()); err != nil {
				g.Fatal(err)
			}
		}
		if want := []string{"@alice:x B ", "@bob:x Bob "}; !slices.Equal(g.rooms.told, want) {
			t.Errorf("told %q, want %q", g.rooms.told, want)
		}
	})
}

// A debt that grew while the rooms were told is not crossed out.
func TestDebtGrowsMeanwhile(t *testing.T) {
	each(t, func(g *rig) {
		var first, second int64
		for _, round := range []*int64{&first, &second} {
			err := g.db.Write(g.Context(), func(tx *db.Tx) (err error) {
				*round, err = owe(g.Context(), tx, "@alice:x")
				return err
			})
			if err != nil {
				g.Fatal(err)
			}
		}
		if first == second {
			g.Fatalf("both rounds are %d", first)
		}
		g.pay(g.Context(), "@alice:x", first)
		if owed, _ := db.All(g.Context(), g.db, selectDebts, scanDebt); len(owed) != 1 {
			t.Errorf("paying the first round left %v", owed)
		}
		g.pay(g.Context(), "@alice:x", second)
		if owed, _ := db.All(g.Context(), g.db, selectDebts, scanDebt); len(owed) != 0 {
			t.Errorf("paying the last round left %v", owed)
		}
	})
}

func TestGetManyAndErase(t *testing.T) {
	each(t, func(g *rig) {
		var users []matrix.UserID
		for i := range 20 {
			u := matrix.NewUserID(fmt.Sprint("u", i), "x")
			users = append(users, u)
			if i%2 == 0 {
				if err := g.Set(g.Context(), u, KeyDisplayName, []byte(fmt.Sprintf(`"U%d"`, i))); err != nil {
					g.Fatal(err)
				}
			}
		}
		for range 2 { // from the database, then remembered
			got, err := g.Get(g.Context(), users)
			if err != nil || len(got) != 10 || got["@u4:x"].DisplayName() != "U4" {
				t.Fatalf("%v, %v", got, err)
			}
		}
		if err := g.Erase(g.Context(), "@u4:x"); err != nil {
			g.Fatal(err)
		}
		got, err := g.Get(g.Context(), users)
		if _, ok := got["@u4:x"]; ok || err != nil || len(got) != 9 {
			t.Errorf("after the erasure: %v, %v", got, err)
		}
	})
}

// Readers race with a writer; whoever asks after a write was answered sees it.
func TestCacheIsNeverStale(t *testing.T) {
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
						g.Get(g.Context(), []matrix.UserID{"@alice:x"})
					}
				}
			})
		}
		for i := range 50 {
			name := fmt.Sprint("A", i)
			if err := g.Set(g.Context(), "@alice:x", KeyDisplayName, []byte(`"`+name+`"`)); err != nil {
				g.Fatal(err)
			}
			got, err := g.Get(g.Context(), []matrix.UserID{"@alice:x"})
			if err != nil || got["@alice:x"].DisplayName() != name {
				t.Fatalf("wrote %q, read %q, %v", name, got["@alice:x"].DisplayName(), err)
			}
		}
		close(stop)
		readers.Wait()
	})
}

func TestCacheIsBounded(t *testing.T) {
	c := newCache()
	big := Fields{"a.b": []byte(`"` + strings.Repeat("x", maxCachedBytes) + `"`)}
	c.put(map[matrix.UserID]Fields{"@big:x": big}, 0)
	for i := range maxCached + 10 {
		c.put(map[matrix.UserID]Fields{matrix.NewUserID(fmt.Sprint(i), "x"): nil}, 0)
	}
	if len(c.users) != maxCached {
		t.Errorf("%d are remembered", len(c.users))
	}
	if _, ok := c.users["@big:x"]; ok {
		t.Error("a large profile is remembered")
	}
}
