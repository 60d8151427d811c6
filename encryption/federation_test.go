package encryption

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/teahouse-chat/teahouse/internal/db"
	"github.com/teahouse-chat/teahouse/internal/matrix"
)

func worlds(t *testing.T, names []matrix.ServerName, f func(t *testing.T, w *world)) {
	for _, kind := range []string{"sqlite", "postgres"} {
		t.Run(kind, func(t *testing.T) { f(t, newWorld(t, kind, names...)) })
	}
}

// rename gives a device another name, as accounts do.
func (c *client) rename(name string) {
	c.Helper()
	err := c.DB.Write(c.Context(), func(tx *db.Tx) error {
		c.devices.mu.Lock()
		c.devices.all[c.user][c.id] = name
		c.devices.mu.Unlock()
		return c.e.Renamed(tx, c.user, c.id)
	})
	if err != nil {
		c.Fatal(err)
	}
}

// sees waits until a client is told the truth about a user.
func (w *world) sees(c *client, user matrix.UserID) {
	w.Helper()
	c.eventually(fmt.Sprintf("%s sees what is true of %s", c.user, user), func() bool {
		w.carry()
		return c.seen(user) == w.truth(user)
	})
}

// keeps waits until a server keeps the truth about a user, and relies upon it.
func (w *world) keeps(s *site, user matrix.UserID) {
	w.Helper()
	s.eventually(fmt.Sprintf("%s keeps what is true of %s", s.server, user), func() bool {
		w.carry()
		text, known, stale := s.remote(user)
		return known && !stale && text == w.truth(user)
	})
}

func TestListsAcrossServers(t *testing.T) {
	worlds(t, []matrix.ServerName{"a", "b"}, func(t *testing.T, w *world) {
		a, b := w.sites["a"], w.sites["b"]
		alice, bob := a.login("alice", "A1"), b.login("bob", "B1")
		h := a.found("alice")
		w.join(h, bob.user, "a")
		at := b.DB.Position()
		alice.upload(1)
		b.eventually("bob is told that alice has changed", func() bool {
			w.carry()
			changed, _ := bob.lists(at)
			return slices.Equal(changed, []matrix.UserID{alice.user})
		})
		// Whoever is told asks; nobody does before that.
		if n := a.requests("user/devices/{userId}") + a.requests("user/keys/query") + b.requests("user/devices/{userId}") + b.requests("user/keys/query"); n != 0 {
			t.Errorf("%d questions were asked that nobody had", n)
		}
		w.sees(bob, alice.user)
		w.keeps(b, alice.user)
		w.sees(alice, bob.user)
		w.keeps(a, bob.user)

		// A list that came without its place in the stream is asked for once more.
		alice.rename("Alice's pot")
		w.keeps(b, alice.user)

		// From now on everything comes by itself, piece by piece.
		asked := b.requests("user/devices/{userId}") + b.requests("user/keys/query")
		id := alice.identity()
		a2 := a.login("alice", "A2")
		for name, change := range []func(){
			func() { a2.upload(0) },
			func() { alice.rename("Alice's kettle") },
			func() { want[object](alice, "POST", crossPath, id.body("")) },
			func() { want[object](alice, "POST", "/v3/keys/signatures/upload", signDevice(id, alice)) },
		} {
			at := b.DB.Position()
			change()
			w.keeps(b, alice.user)
			if changed, _ := bob.lists(at); !slices.Equal(changed, []matrix.UserID{alice.user}) {
				t.Errorf("change %d: bob is told of %v", name, changed)
			}
			if got := bob.seen(alice.user); got != w.truth(alice.user) {
				t.Errorf("change %d: bob sees\n%s\nnot\n%s", name, got, w.truth(alice.user))
			}
		}
		a2.logout()
		w.keeps(b, alice.user)
		next := alice.identity()
		want[object](alice, "POST", crossPath, next.body(`,"auth":{"ok":true}`))
		w.keeps(b, alice.user)
		if n := b.requests("user/devices/{userId}") + b.requests("user/keys/query") - asked; n != 0 {
			t.Errorf("alice's server was asked %d times for what it had told", n)
		}
		if text := bob.seen(alice.user); strings.Contains(text, "A2") || !strings.Contains(text, "kettle") || !strings.Contains(text, public(next.self)) {
			t.Errorf("bob sees %s", text)
		}

		// Bob's verification of alice is his own server's to keep.
		his := bob.identity()
		bob.upload(0)
		want[object](bob, "POST", crossPath, his.body(""))
		verified := sign(t, next.bare(usageMaster, next.master), bob.user, public(his.other), his.other)
		want[object](bob, "POST", "/v3/keys/signatures/upload", fmt.Sprintf(`{%q:{%q:%s}}`, alice.user, public(next.master), verified))
		if text := bob.seen(alice.user); !strings.Contains(text, public(his.other)) {
			t.Errorf("bob does not see his own signature: %s", text)
		}

		// Who goes takes everything along.
		if err := a.e.Erase(t.Context(), alice.user); err != nil {
			t.Fatal(err)
		}
		alice.logout()
		w.keeps(b, alice.user)
		if text, _, _ := b.remote(alice.user); text != "" {
			t.Errorf("of alice there is left %s", text)
		}
	})
}

// A lost update is noticed by the next one, and by a server that was restarted.
func TestLostUpdate(t *testing.T) {
	worlds(t, []matrix.ServerName{"a", "b"}, func(t *testing.T, w *world) {
		a, b := w.sites["a"], w.sites["b"]
		alice, bob := a.login("alice", "A1"), b.login("bob", "B1")
		h := a.found("alice")
		w.join(h, bob.user, "a")
		alice.upload(0)
		w.sees(bob, alice.user)
		w.keeps(b, alice.user)

		b.eventually("b has no more questions", func() bool {
			b.e.resync.mu.Lock()
			defer b.e.resync.mu.Unlock()
			return len(b.e.resync.servers) == 0
		})
		id := alice.identity()
		want[object](alice, "POST", crossPath, id.body(""))
		a.eventually("the update is on its way", func() bool {
			return slices.ContainsFunc(a.mail("b", 10), func(l letter) bool { return l.typ == EDUSigningKeys })
		})
		a.discard("b", a.mail("b", 10)) // some of before it, too
		w.cut("a", "b", true)
		a.login("alice", "A2").upload(0)
		a.eventually("there is mail", func() bool { return len(a.mail("b", 1)) == 1 })
		w.carry()
		if _, _, stale := b.remote(alice.user); !stale {
			t.Error("the gap was not noticed")
		}
		a1 := want[answered](bob, "POST", "/v3/keys/query", `{"device_keys":{"@alice:a":[]}}`)
		if a1.failures["a"] != matrix.CodeConnectionFailed || a1.Devices[alice.user]["A1"] == nil {
			t.Errorf("failures: %v; devices: %v", a1.failures, a1.Devices)
		}
		w.cut("a", "b", false)
		b.restart()
		w.keeps(b, alice.user)
		w.sees(bob, alice.user)
	})
}

// Updates that come late, twice or in the wrong order do no harm.
func TestUpdatesInDisorder(t *testing.T) {
	w := newWorld(t, "sqlite", "a", "b")
	a, b := w.sites["a"], w.sites["b"]
	alice, bob := a.login("alice", "A1"), b.login("bob", "B1")
	h := a.found("alice")
	w.join(h, bob.user, "a")
	alice.upload(0)
	w.sees(bob, alice.user)
	w.keeps(b, alice.user)
	for i := range 4 {
		alice.rename(fmt.Sprint("name ", i))
		a.eventually("there is mail", func() bool { return len(a.mail("b", 10)) == i+1 })
	}
	list := a.mail("b", 10)
	a.discard("b", list)
	for _, i := range []int{2, 0, 0, 3, 1, 3} {
		a.deliver("b", list[i:i+1])
	}
	w.keeps(b, alice.user)
	a.deliver("b", list)
	w.keeps(b, alice.user)
	w.sees(bob, alice.user)
}

// However many changes there are before others are told, each device is told of
// once, and whoever would have to be told of very many is made to ask.
func TestBurst(t *testing.T) {
	worlds(t, []matrix.ServerName{"a", "b"}, func(t *testing.T, w *world) {
		a, b := w.sites["a"], w.sites["b"]
		alice, bob := a.login("alice", "A1"), b.login("bob", "B1")
		h := a.found("alice")
		w.join(h, bob.user, "a")
		alice.upload(0)
		w.sees(bob, alice.user)
		w.keeps(b, alice.user)

		a.stop()
		for i := range 100 {
			alice.rename(fmt.Sprint("name ", i))
		}
		if list := a.mail("b", 1000); len(list) != 0 {
			t.Fatalf("%d updates are sent already", len(list))
		}
		a.restart()
		a.eventually("the change is sent", func() bool { return len(a.mail("b", 1000)) > 0 })
		if list := a.mail("b", 1000); len(list) != 1 {
			t.Errorf("100 changes of a device make %d updates", len(list))
		}
		w.keeps(b, alice.user)

		a.stop()
		for i := range maxUpdates + 1 {
			a.login("alice", fmt.Sprint("N", i)).upload(0)
		}
		a.restart()
		a.eventually("the change is sent", func() bool { return len(a.mail("b", 1000)) > 0 })
		if list := a.mail("b", 1000); len(list) != 1 {
			t.Errorf("%d new devices make %d updates", maxUpdates+1, len(list))
		}
		asked := b.requests("user/devices/{userId}")
		w.keeps(b, alice.user)
		if b.requests("user/devices/{userId}") == asked {
			t.Error("the server did not ask")
		}

		// Removed devices are forgotten once there are many, but not their removal.
		a.stop()
		for i := range goneKept + 10 {
			c := a.login("alice", fmt.Sprint("G", i))
			c.upload(0)
			c.logout()
			a.settle()
		}
		a.restart()
		a.eventually("most removals are forgotten", func() bool {
			n, _, err := db.One(t.Context(), a.DB, countStreamChanges, scanInt, alice.user)
			return err == nil && n < maxUpdates+goneKept
		})
		w.keeps(b, alice.user)
	})
}

// A server that shares no room with a user learns their keys, which it needs to
// invite them, and no more than that; it is told of all once it shares one.
func TestStrangers(t *testing.T) {
	worlds(t, []matrix.ServerName{"a", "b"}, func(t *testing.T, w *world) {
		a, b := w.sites["a"], w.sites["b"]
		alice, bob := a.login("alice", "A1"), b.login("bob", "B1")
		alice.upload(0)
		if text := bob.seen(alice.user); !strings.Contains(text, "ed25519:A1") || strings.Contains(text, "alice's A1") {
			t.Errorf("a stranger sees %s", text)
		}
		got, err := b.UserDevices(t.Context(), "a", alice.user)
		if err != nil || len(got.Devices) != 1 || strings.Contains(string(got.Devices[0]), "alice's A1") {
			t.Errorf("a stranger is given %+v: %v", got, err)
		}
		if _, known, _ := b.remote(alice.user); known {
			t.Error("the list of a stranger is kept")
		}
		for _, user := range []matrix.UserID{"@nobody:a"} {
			if got, err := b.UserDevices(t.Context(), "a", user); err != nil || len(got.Devices) != 0 {
				t.Errorf("%s: %+v, %v", user, got, err)
			}
		}
		for _, user := range []matrix.UserID{"@bob:b", "nonsense"} {
			if _, err := b.UserDevices(t.Context(), "a", user); err == nil {
				t.Errorf("%s has devices on another server", user)
			}
		}
		var all Keys
		if err := b.ask(t.Context(), "a", "user/keys/query", nil, object{"device_keys": object{"@bob:b": []string{}, "x": []string{}, "@alice:a": []string{"A1", "A9"}}}, &all); err != nil || len(all.Devices) != 1 {
			t.Errorf("%v, %v", all, err)
		}
		for _, body := range []any{object{}, object{"device_keys": 7}, object{"device_keys": object{"@alice:a": object{}}}} {
			if err := b.ask(t.Context(), "a", "user/keys/query", nil, body, &all); err == nil {
				t.Errorf("%v is answered", body)
			}
			if err := b.ask(t.Context(), "a", "user/keys/claim", nil, body, &all); err == nil {
				t.Errorf("%v is answered", body)
			}
		}

		h := a.found("alice")
		w.join(h, bob.user, "a")
		w.sees(bob, alice.user)
		if text := bob.seen(alice.user); !strings.Contains(text, "alice's A1") {
			t.Errorf("company sees %s", text)
		}
	})
}

// The server of a user who joins tells the others of devices before they ask.
func TestFirstUpdates(t *testing.T) {
	worlds(t, []matrix.ServerName{"a", "b"}, func(t *testing.T, w *world) {
		a, b := w.sites["a"], w.sites["b"]
		a1 := a.login("alice", "A1") // has no keys
		a.login("alice", "A2").upload(0)
		bob := b.login("bob", "B1")
		h := b.found("bob")
		w.join(h, a1.user, "b")
		at := b.DB.Position()
		a.eventually("there is mail", func() bool { return len(a.mail("b", 10)) == 2 })
		var devices []string
		for _, l := range a.mail("b", 10) {
			var u deviceUpdate
			if err := json.Unmarshal(l.content, &u); err != nil || l.typ != EDUDeviceList || u.UserID != a1.user {
				t.Errorf("%s %s: %v", l.typ, l.content, err)
			}
			devices = append(devices, fmt.Sprintf("%s %t", u.DeviceID, len(u.Keys) > 0))
		}
		slices.Sort(devices)
		if !slices.Equal(devices, []string{"A1 false", "A2 true"}) {
			t.Errorf("devices: %v", devices)
		}
		// That there is a device without keys is no news to clients; but keys are.
		list := a.mail("b", 10)
		slices.SortFunc(list, func(x, y letter) int { return len(x.content) - len(y.content) })
		for i, told := range [][]matrix.UserID{nil, {a1.user}} {
			a.deliver("b", list[i:i+1])
			if changed, _ := bob.lists(at); !slices.Equal(changed, told) {
				t.Errorf("after %d updates bob is told of %v", i+1, changed)
			}
		}
		a.discard("b", list)
		w.sees(bob, a1.user)
		w.keeps(b, a1.user)
	})
}

// During a break in the company nobody tells a server of changes, so it forgets.
func TestPartAndMeet(t *testing.T) {
	worlds(t, []matrix.ServerName{"a", "b"}, func(t *testing.T, w *world) {
		a, b := w.sites["a"], w.sites["b"]
		alice, bob := a.login("alice", "A1"), b.login("bob", "B1")
		h := a.found("alice")
		w.join(h, bob.user, "a")
		alice.upload(0)
		w.sees(bob, alice.user)
		w.keeps(b, alice.user)
		for name, part := range map[string]func(){
			"alice goes": func() {
				a.member(h, alice.user, matrix.MembershipLeave)
				b.learn(h)
			},
			"bob goes": func() {
				b.member(h, bob.user, matrix.MembershipLeave)
				a.learn(h)
			},
		} {
			at := b.DB.Position()
			part()
			if _, left := bob.lists(at); !slices.Equal(left, []matrix.UserID{alice.user}) {
				t.Errorf("%s: bob is told that %v left", name, left)
			}
			if got := bob.seen(alice.user); strings.Contains(got, "alice's A1") {
				t.Errorf("%s: bob sees what was true of company: %s", name, got)
			}
			b.eventually("alice is forgotten", func() bool {
				_, known, _ := b.remote(alice.user)
				return !known
			})
			at = b.DB.Position()
			alice.rename("changed while " + name)
			if b.in(h) {
				w.join(h, alice.user, "b")
			} else {
				w.join(h, bob.user, "a")
			}
			w.learnAll(h)
			if changed, _ := bob.lists(at); !slices.Contains(changed, alice.user) {
				t.Errorf("%s and comes back: bob is told of %v", name, changed)
			}
			w.sees(bob, alice.user)
			w.keeps(b, alice.user)
		}
	})
}

// A list that was kept is in doubt from the moment on that its user leaves, even
// before it is looked into, and even if they come back at once.
func TestDoubt(t *testing.T) {
	w := newWorld(t, "sqlite", "a", "b")
	a, b := w.sites["a"], w.sites["b"]
	alice, bob := a.login("alice", "A1"), b.login("bob", "B1")
	h := a.found("alice")
	w.join(h, bob.user, "a")
	alice.upload(0)
	w.sees(bob, alice.user)
	w.keeps(b, alice.user)
	b.stop() // nobody looks into anything
	a.member(h, alice.user, matrix.MembershipLeave)
	b.learn(h)
	alice.rename("another")
	w.join(h, alice.user, "b")
	w.learnAll(h)
	if got := bob.seen(alice.user); got != w.truth(alice.user) {
		t.Errorf("bob sees %s, not %s", got, w.truth(alice.user))
	}
	// The same after a restart, before old lists were looked at.
	b.restart()
	b.stop()
	if got := bob.seen(alice.user); got != w.truth(alice.user) {
		t.Errorf("after a restart bob sees %s, not %s", got, w.truth(alice.user))
	}
	b.member(h, bob.user, matrix.MembershipLeave)
	a.learn(h)
	alice.rename("a third")
	w.join(h, bob.user, "a")
	if got := bob.seen(alice.user); got != w.truth(alice.user) {
		t.Errorf("after bob was away he sees %s, not %s", got, w.truth(alice.user))
	}
}

// One-time keys are claimed across servers, each once.
func TestClaimAcrossServers(t *testing.T) {
	worlds(t, []matrix.ServerName{"a", "b"}, func(t *testing.T, w *world) {
		alice, bob := w.sites["a"].login("alice", "A1"), w.sites["b"].login("bob", "B1")
		alice.upload(2)
		for _, id := range []string{"signed_curve25519:K000000", "signed_curve25519:K000001", ""} {
			if got := bob.claim(alice); got != id {
				t.Errorf("claimed %q, want %q", got, id)
			}
		}
		w.cut("a", "b", true)
		if got := bob.claim(alice); got != "" {
			t.Errorf("claimed %q of a server that is away", got)
		}
	})
}

// A server that asks before the join that entitles it is known here is told of
// what changed meanwhile.
func TestJoinOnItsWay(t *testing.T) {
	worlds(t, []matrix.ServerName{"a", "b", "c"}, func(t *testing.T, w *world) {
		a, b, c := w.sites["a"], w.sites["b"], w.sites["c"]
		alice, carol := a.login("alice", "A1"), c.login("carol", "C1")
		bob := b.login("bob", "B1")
		alice.upload(0)
		h := a.found("alice")
		w.join(h, bob.user, "a")
		w.join(h, carol.user, "b") // a does not know
		if got := carol.seen(alice.user); !strings.Contains(got, "ed25519:A1") {
			t.Errorf("carol sees %s", got)
		}
		alice.rename("another") // c is not told
		a.learn(h)
		w.keeps(c, alice.user)
		w.sees(carol, alice.user)
	})
}

// A server that asked before its join was known, and has all that it was to hear as a
// stranger, is told of the rest, though nothing changed since.
func TestKnownTooLate(t *testing.T) {
	worlds(t, []matrix.ServerName{"a", "b", "c"}, func(t *testing.T, w *world) {
		a, b, c := w.sites["a"], w.sites["b"], w.sites["c"]
		alice, carol := a.login("alice", "A1"), c.login("carol", "C1")
		bob := b.login("bob", "B1")
		alice.upload(0)
		h := a.found("alice")
		w.join(h, bob.user, "a")
		w.sees(bob, alice.user)
		w.keeps(b, alice.user)
		w.join(h, carol.user, "b") // a does not know
		if got := carol.seen(alice.user); !strings.Contains(got, "ed25519:A1") || strings.Contains(got, "alice's A1") {
			t.Errorf("carol sees %s", got)
		}
		// As after an update that was missed: now it has the newest place in the stream.
		late := fmt.Sprintf(`{"user_id":%q,"device_id":"A1","stream_id":2,"prev_id":[1]}`, alice.user)
		if err := c.handle("a", EDUDeviceList, []byte(late)); err != nil {
			t.Fatal(err)
		}
		c.eventually("c keeps what it was told as a stranger", func() bool {
			_, known, stale := c.remote(alice.user)
			return known && !stale && c.requests("user/devices/{userId}") > 0
		})
		a.learn(h)
		w.keeps(c, alice.user)
		w.sees(carol, alice.user)
		w.keeps(b, alice.user)
	})
}

// A client that does not notice a break in the company, as it asks for news only
// after it, looks again: before the break its question failed, and during it nobody
// told its server of changes.
func TestUnnoticedBreak(t *testing.T) {
	worlds(t, []matrix.ServerName{"a", "b"}, func(t *testing.T, w *world) {
		a, b := w.sites["a"], w.sites["b"]
		alice, bob := a.login("alice", "A1"), b.login("bob", "B1")
		h := b.found("bob")
		w.join(h, alice.user, "b")
		id := alice.identity()
		want[object](alice, "POST", crossPath, id.bareBody(""))
		w.cut("a", "b", true)
		if got := bob.seen(alice.user); strings.Contains(got, public(id.self)) {
			t.Fatalf("bob sees %s", got)
		}
		at := b.DB.Position()
		b.member(h, bob.user, matrix.MembershipLeave)
		b.eventually("alice is forgotten", func() bool {
			_, known, _ := b.remote(alice.user)
			return !known
		})
		w.cut("a", "b", false)
		b.e.Reachable("a")
		a.learn(h)
		w.join(h, bob.user, "a")
		w.learnAll(h)
		if changed, left := bob.lists(at); !slices.Contains(changed, alice.user) || len(left) > 0 {
			t.Errorf("bob is told of %v and %v", changed, left)
		}
		w.sees(bob, alice.user)
	})
}
