package appservices_test

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/internal/testrig"
)

const ephemeral = "receive_ephemeral: true"

// beside collects what is in a service's transactions under a key, each transaction
// once. b.mu is held.
func (b *bridge) beside(key string) []testrig.JSON {
	var all []testrig.JSON
	for _, txn := range b.order {
		for _, ev := range list(txn[key]) {
			all = append(all, ev.(testrig.JSON))
		}
	}
	return all
}

func list(v any) []any {
	l, _ := v.([]any)
	return l
}

// has tells whether a service was given an event beside events. b.mu is held.
func (b *bridge) has(key string, ok func(testrig.JSON) bool) bool {
	return slices.ContainsFunc(b.beside(key), ok)
}

func types(who ...string) func(testrig.JSON) bool {
	return func(ev testrig.JSON) bool {
		users := list(ev["content"].(testrig.JSON)["user_ids"])
		return ev["type"] == "m.typing" && ev["room_id"] != nil && fmt.Sprint(users) == fmt.Sprint(who)
	}
}

func read(typ string, at matrix.EventID, who string) func(testrig.JSON) bool {
	return func(ev testrig.JSON) bool {
		types, _ := ev["content"].(testrig.JSON)[string(at)].(testrig.JSON)
		users, _ := types[typ].(testrig.JSON)
		return ev["type"] == "m.receipt" && ev["room_id"] != nil && users[who] != nil
	}
}

func isThere(who, state string) func(testrig.JSON) bool {
	return func(ev testrig.JSON) bool {
		return ev["type"] == "m.presence" && ev["sender"] == who && ev["content"].(testrig.JSON)["presence"] == state
	}
}

// shared makes a room of alice with the service's user bob in it, and returns what
// bob is reached by.
func shared(t *testing.T, s *testrig.Server, b *bridge, alice *testrig.Client) (matrix.RoomID, *testrig.Client) {
	t.Helper()
	bot := b.client(s)
	bot.Must("POST", "/v3/register", testrig.JSON{"type": "m.login.application_service", "username": "_" + b.id + "_bob", "inhibit_login": true})
	room := alice.CreateRoom(testrig.JSON{"preset": "public_chat"})
	bot.Must("POST", "/v3/rooms"+testrig.Path(room, "join")+"?user_id=@_"+b.id+"_bob:test", testrig.JSON{})
	return room, bot
}

// TestEphemeral: a service that asks for it is told who types, who is there and who
// has read what, in its rooms and of its users, under both names; one that does not
// ask, or has nothing to do with the room, is not. Private receipts are told of its
// own users only.
func TestEphemeral(t *testing.T) {
	testrig.Each(t, func(t *testing.T, s *testrig.Server) {
		irc, silent, other := newBridge(t, s.Network, "irc"), newBridge(t, s.Network, "silent"), newBridge(t, s.Network, "other")
		register(t, s, irc.registration(irc.mine(), "de.sorunome.msc2409.push_ephemeral: true"))
		register(t, s, silent.registration(`{rooms: [{regex: '.*', exclusive: false}]}`))
		register(t, s, other.registration(other.mine(), ephemeral))
		alice := s.Register("alice")
		room, bot := shared(t, s, irc, alice)
		said := alice.Say(room, "1", "hello")
		const bob = "@_irc_bob:test"
		as := "?user_id=" + bob
		alice.Must("PUT", "/v3/rooms"+testrig.Path(room, "typing", alice.User), testrig.JSON{"typing": true, "timeout": 60000})
		alice.Must("POST", "/v3/rooms"+testrig.Path(room, "receipt", "m.read", said), testrig.JSON{"thread_id": "main"})
		alice.Must("POST", "/v3/rooms"+testrig.Path(room, "receipt", "m.read.private", said), testrig.JSON{})
		alice.Must("PUT", "/v3/presence"+testrig.Path(alice.User, "status"), testrig.JSON{"presence": "online", "status_msg": "here"})
		bot.Must("POST", "/v3/rooms"+testrig.Path(room, "receipt", "m.read.private", said)+as, testrig.JSON{})
		bot.Must("PUT", "/v3/presence"+testrig.Path(bob, "status")+as, testrig.JSON{"presence": "unavailable"})
		for _, key := range []string{"ephemeral", "de.sorunome.msc2409.ephemeral"} {
			irc.until(key+" tells all", func() bool {
				return irc.has(key, types(string(alice.User))) && irc.has(key, read("m.read", said, string(alice.User))) &&
					irc.has(key, isThere(string(alice.User), "online")) && irc.has(key, read("m.read.private", said, bob)) &&
					irc.has(key, isThere(bob, "unavailable"))
			})
		}
		alice.Must("PUT", "/v3/rooms"+testrig.Path(room, "typing", alice.User), testrig.JSON{"typing": false})
		last := alice.Say(room, "2", "goodbye")
		irc.until("that alice has stopped typing is told", func() bool { return irc.seen[string(last)] && irc.has("ephemeral", types()) })
		silent.until("the other services have got the last event", func() bool { return silent.seen[string(last)] })
		irc.mu.Lock()
		defer irc.mu.Unlock()
		if irc.has("ephemeral", read("m.read.private", said, string(alice.User))) {
			t.Error("the service is told of a private receipt of somebody else")
		}
		for _, b := range []*bridge{silent, other} {
			b.hasNone(t, "ephemeral")
		}
	})
}

// hasNone holds a bridge to having been told nothing of a kind beside events.
func (b *bridge) hasNone(t *testing.T, kind string) {
	t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	if got := b.beside(kind); len(got) > 0 {
		t.Errorf("%s is told %v", b.id, got)
	}
}

// TestEphemeralOfServiceThatIsDown: while a service is down, the newest of each kind
// is kept, and receipts are kept over a restart of the server; events are neither
// delayed nor reordered by it.
func TestEphemeralOfServiceThatIsDown(t *testing.T) {
	testrig.Each(t, func(t *testing.T, s *testrig.Server) {
		irc := newBridge(t, s.Network, "irc")
		register(t, s, irc.registration(irc.mine(), ephemeral))
		alice := s.Register("alice")
		room, _ := shared(t, s, irc, alice)
		irc.until("the join arrives", func() bool { return len(irc.ids) == 1 })
		irc.answers(status(503))
		var said []matrix.EventID
		for i := range 5 {
			said = append(said, alice.Say(room, fmt.Sprint(i), "while the service is down"))
			alice.Must("POST", "/v3/rooms"+testrig.Path(room, "receipt", "m.read", said[i]), testrig.JSON{})
			for _, typing := range []bool{true, false} {
				alice.Must("PUT", "/v3/rooms"+testrig.Path(room, "typing", alice.User), testrig.JSON{"typing": typing, "timeout": 60000})
			}
		}
		irc.until("the service has refused something", func() bool { return len(irc.asked) > 1 })
		token := alice.Token
		s = s.Restart()
		alice = s.Anonymous()
		alice.Token = token
		irc.answers(nil)
		if err := s.Appservices.Retry(t.Context(), "irc"); err != nil {
			t.Fatal(err)
		}
		irc.until("the newest receipt arrives", func() bool { return irc.has("ephemeral", read("m.read", said[4], "@alice:test")) })
		irc.gets(append([]matrix.EventID{matrix.EventID(irc.ids[0])}, said...)...)
		irc.mu.Lock()
		defer irc.mu.Unlock()
		typed := 0
		for _, ev := range irc.beside("ephemeral") {
			if ev["type"] == "m.typing" {
				typed++
			}
		}
		if typed > 2 {
			t.Errorf("the service is told %d times of typing that was over when it came back", typed)
		}
		irc.mu.Unlock()
		s = s.Restart()
		alice = s.Anonymous()
		alice.Token = token
		last := alice.Say(room, "last", "the server was restarted")
		alice.Must("POST", "/v3/rooms"+testrig.Path(room, "receipt", "m.read", last), testrig.JSON{})
		irc.until("the last receipt arrives", func() bool { return irc.has("ephemeral", read("m.read", last, "@alice:test")) })
		irc.mu.Lock()
		again := slices.DeleteFunc(irc.beside("ephemeral"), func(ev testrig.JSON) bool { return !read("m.read", said[4], "@alice:test")(ev) })
		if len(again) != 1 {
			t.Errorf("a receipt is told %d times", len(again))
		}
	})
}

// TestPoisonBesideEvents: a service that cannot take what comes beside events gets
// its events all the same.
func TestPoisonBesideEvents(t *testing.T) {
	s := testrig.Start(t, testrig.Options{})
	irc := newBridge(t, s.Network, "irc")
	register(t, s, irc.registration(irc.mine(), ephemeral))
	alice := s.Register("alice")
	room, _ := shared(t, s, irc, alice)
	irc.until("the join arrives", func() bool { return len(irc.ids) == 1 })
	irc.answers(func(_ *http.Request, body string) (int, string) {
		if strings.Contains(body, "m.typing") {
			return 500, "cannot"
		}
		return 200, "{}"
	})
	if err := s.Appservices.Pause(t.Context(), "irc", true); err != nil {
		t.Fatal(err)
	}
	alice.Must("PUT", "/v3/rooms"+testrig.Path(room, "typing", alice.User), testrig.JSON{"typing": true, "timeout": 60000})
	said := alice.Say(room, "1", "hello")
	if err := s.Appservices.Pause(t.Context(), "irc", false); err != nil {
		t.Fatal(err)
	}
	for i := 0; ; i++ {
		irc.mu.Lock()
		asked, there := len(irc.asked), irc.seen[string(said)]
		irc.mu.Unlock()
		if there {
			break
		}
		if i == 30 {
			t.Fatal("the event never arrives")
		}
		if err := s.Appservices.Retry(t.Context(), "irc"); err != nil {
			t.Fatal(err)
		}
		irc.until("the service is asked again", func() bool { return len(irc.asked) > asked || irc.seen[string(said)] })
	}
}
