package push_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/teahouse-chat/teahouse/internal/config"
	"github.com/teahouse-chat/teahouse/internal/db/dbtest"
	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/internal/testrig"
)

type object = testrig.JSON

// patience is how long a test waits for what has to happen; the machine may be
// busy.
const patience = 90 * time.Second

// gateway is a push gateway that does what a test wants.
type gateway struct {
	t    *testing.T
	url  string
	got  chan object // notifications, in the order in which they came
	mu   sync.Mutex
	fail func(w http.ResponseWriter, pushkey string) bool // answers itself if it is true
}

// newGateway opens a gateway on the server's network, at a host of its own.
func newGateway(t *testing.T, n *testrig.Network, host string) *gateway {
	t.Helper()
	g := &gateway{t: t, url: "http://" + host + "/_matrix/push/v1/notify", got: make(chan object, 1000)}
	l, err := n.Listen("tcp", host+":80")
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: g}
	go s.Serve(l)
	t.Cleanup(func() { s.Close() })
	return g
}

func (g *gateway) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	raw, _ := io.ReadAll(r.Body)
	var body struct{ Notification object }
	if err := json.Unmarshal(raw, &body); err != nil || r.Method != "POST" || r.URL.Path != "/_matrix/push/v1/notify" {
		g.t.Errorf("%s %s: %s", r.Method, r.URL, raw)
	}
	g.mu.Lock()
	fail := g.fail
	g.mu.Unlock()
	g.got <- body.Notification
	if fail != nil && fail(w, at(body.Notification, "devices", 0, "pushkey").(string)) {
		return
	}
	io.WriteString(w, `{"rejected":[]}`)
}

func (g *gateway) does(fail func(w http.ResponseWriter, pushkey string) bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.fail = fail
}

func fails(status int) func(http.ResponseWriter, string) bool {
	return func(w http.ResponseWriter, _ string) bool { w.WriteHeader(status); return true }
}

// next is the next notification.
func (g *gateway) next() object {
	g.t.Helper()
	select {
	case n := <-g.got:
		return n
	case <-time.After(patience):
		g.t.Fatal("no notification came")
		return nil
	}
}

// about waits for the notification of an event; others may come before it.
func (g *gateway) about(id matrix.EventID) object {
	g.t.Helper()
	for {
		if n := g.next(); n["event_id"] == string(id) {
			return n
		}
	}
}

// badge waits for a notification with such a count, and returns it.
func (g *gateway) badge(want float64) object {
	g.t.Helper()
	for {
		if n := g.next(); at(n, "counts", "unread") == want {
			return n
		}
	}
}

// at looks into JSON.
func at(v any, path ...any) any {
	for _, p := range path {
		switch p := p.(type) {
		case int:
			list, _ := v.([]any)
			if p >= len(list) {
				return nil
			}
			v = list[p]
		default:
			m, _ := v.(object)
			v = m[fmt.Sprint(p)]
		}
	}
	return v
}

// each runs a test with a server on each database whose gateways may have http
// URLs.
func each(t *testing.T, test func(t *testing.T, s *testrig.Server)) {
	for _, kind := range []string{"sqlite", "postgres"} {
		t.Run(kind, func(t *testing.T) {
			test(t, testrig.Start(t, testrig.Options{Database: dbtest.URL(t, kind), Change: plainHTTP}))
		})
	}
}

func plainHTTP(c *config.Config) { c.Federation.AllowPrivateAddresses = true }

// pusher is the body that sets a pusher.
func (g *gateway) pusher(key string, more object) object {
	body := object{
		"kind": "http", "app_id": "org.example.app", "pushkey": key, "app_display_name": "App", "device_display_name": "Phone",
		"lang": "en", "data": object{"url": g.url, "brand": "tea"},
	}
	for k, v := range more {
		body[k] = v
	}
	return body
}

func setPusher(c *testrig.Client, body object) {
	c.Must("POST", "/v3/pushers/set", body)
}

// pair is two users in a room with a name.
func pair(s *testrig.Server) (alice, bob *testrig.Client, room matrix.RoomID) {
	alice, bob = s.Register("alice"), s.Register("bob")
	room = alice.CreateRoom(object{"preset": "public_chat", "name": "Tea"})
	bob.Join(room)
	return alice, bob, room
}

func read(c *testrig.Client, room matrix.RoomID, id matrix.EventID) {
	c.Must("POST", "/v3/rooms"+testrig.Path(room, "receipt", "m.read", id), object{})
}

func send(c *testrig.Client, room matrix.RoomID, typ, txn string, content object) matrix.EventID {
	return matrix.EventID(c.Must("PUT", "/v3/rooms"+testrig.Path(room, "send", typ, txn), content)["event_id"].(string))
}

func TestWhatGatewaysAreTold(t *testing.T) {
	each(t, func(t *testing.T, s *testrig.Server) {
		alice, bob, room := pair(s)
		g := newGateway(t, s.Network, "push.example")
		setPusher(bob, g.pusher("key", nil))
		first := alice.Say(room, "1", "tea is ready")
		n := g.about(first)
		for want, got := range map[string]any{
			string(room): n["room_id"], "m.room.message": n["type"], "@alice:test": n["sender"], "alice": n["sender_display_name"],
			"Tea": n["room_name"], "high": n["prio"], "tea is ready": at(n, "content", "body"), "1": fmt.Sprint(at(n, "counts", "unread")),
			"org.example.app": at(n, "devices", 0, "app_id"), "key": at(n, "devices", 0, "pushkey"), "tea": at(n, "devices", 0, "data", "brand"),
			"default": at(n, "devices", 0, "tweaks", "sound"),
		} {
			if got != want {
				t.Errorf("%v, not %s, in %v", got, want, n)
			}
		}
		if at(n, "devices", 0, "data", "url") != nil || n["user_is_target"] != nil {
			t.Errorf("too much in %v", n)
		}
		// A receipt takes the number from the icon, and nothing else.
		read(bob, room, first)
		if n := g.badge(0); n["event_id"] != nil || n["room_id"] != nil || at(n, "devices", 0, "tweaks") != nil {
			t.Errorf("the badge comes with %v", n)
		}
		// Ids alone, if the app wants no more.
		setPusher(bob, g.pusher("key", object{"data": object{"url": g.url, "format": "event_id_only"}}))
		secret := send(alice, room, "m.room.encrypted", "2", object{"algorithm": "m.megolm.v1.aes-sha2"})
		n = g.about(secret)
		if n["type"] != nil || n["sender"] != nil || n["content"] != nil || n["room_id"] != string(room) ||
			n["prio"] != "high" || at(n, "devices", 0, "data", "format") != "event_id_only" || at(n, "counts", "unread") != 1.0 {
			t.Errorf("ids alone: %v", n)
		}
		bob.Say(room, "3", "coming") // whoever writes has read
		g.badge(0)
		// An invite, and not what happens in rooms that the user is not in.
		setPusher(bob, g.pusher("key", nil))
		other := alice.CreateRoom(object{"invite": []matrix.UserID{bob.User}, "name": "Cakes"})
		n = g.next()
		if n["room_id"] != string(other) || n["user_is_target"] != true || at(n, "content", "membership") != "invite" || n["room_name"] != "Cakes" {
			t.Errorf("the invite is %v", n)
		}
		alice.Say(other, "4", "not for bob yet")
		fourth := alice.Say(room, "5", "tea is cold")
		if n := g.next(); n["event_id"] != string(fourth) {
			t.Errorf("after the invite comes %v", n)
		}
	})
}

func TestAGatewayThatFails(t *testing.T) {
	each(t, func(t *testing.T, s *testrig.Server) {
		alice, bob, room := pair(s)
		carol := s.Register("carol")
		carol.Join(room)
		bad, good := newGateway(t, s.Network, "bad.example"), newGateway(t, s.Network, "good.example")
		setPusher(bob, bad.pusher("bob", nil))
		setPusher(carol, good.pusher("carol", nil))
		hang := make(chan struct{})
		bad.does(func(w http.ResponseWriter, _ string) bool { <-hang; w.WriteHeader(502); return true })
		ids := []matrix.EventID{alice.Say(room, "0", "hello")}
		bad.about(ids[0])
		good.about(ids[0]) // while the other one hangs
		bad.does(fails(502))
		close(hang)
		for i := range 30 {
			ids = append(ids, alice.Say(room, fmt.Sprint("n", i), "more"))
		}
		good.about(ids[30])
		// The gateway is tried again and again, later and later, also over a
		// restart.
		for range 4 {
			s.Clock.Advance(time.Hour)
			bad.next()
		}
		s = s.Restart()
		bad.does(nil)
		for len(bad.got) > 0 {
			<-bad.got
		}
		s.Clock.Advance(6 * time.Hour) // the clock of before is forgotten
		// Of what came meanwhile the newest is told, and no flood.
		var told []string
		for {
			n := bad.next()
			told = append(told, fmt.Sprint(n["event_id"]))
			if n["event_id"] == string(ids[30]) {
				break
			}
		}
		if len(told) > 16 {
			t.Errorf("%d notifications come at once", len(told))
		}
		bob = s.Login("bob")
		read(bob, room, ids[30])
		bad.badge(0)
		// What is too old by then is not told any more.
		bad.does(fails(500))
		alice = s.Login("alice")
		old := alice.Say(room, "old", "old")
		bad.about(old)
		s.Clock.Advance(25 * time.Hour)
		bad.does(nil)
		read(bob, room, old)
		fresh := alice.Say(room, "fresh", "fresh")
		for {
			n := bad.next()
			if n["event_id"] == string(fresh) {
				break
			}
		}
	})
}

func TestPushersThatAreRejected(t *testing.T) {
	each(t, func(t *testing.T, s *testrig.Server) {
		alice, bob, room := pair(s)
		g := newGateway(t, s.Network, "push.example")
		setPusher(bob, g.pusher("gone", nil))
		setPusher(bob, g.pusher("stays", nil))
		setPusher(bob, g.pusher("410", nil))
		g.does(func(w http.ResponseWriter, key string) bool {
			switch key {
			case "gone":
				io.WriteString(w, `{"rejected":["gone"]}`)
			case "410":
				w.WriteHeader(410)
			}
			return key != "stays"
		})
		alice.Say(room, "1", "hello")
		eventually(t, func() bool { return keys(bob) == "stays" }, func() string { return keys(bob) })
		s = s.Restart()
		if got := keys(s.Login("bob")); got != "stays" {
			t.Errorf("after a restart there are %s", got)
		}
	})
}

// keys lists the keys of a user's pushers.
func keys(c *testrig.Client) string {
	var all []string
	list, _ := c.Must("GET", "/v3/pushers", nil)["pushers"].([]any)
	for _, p := range list {
		all = append(all, at(p, "pushkey").(string))
	}
	return strings.Join(all, " ")
}

// eventually waits until something holds.
func eventually(t *testing.T, holds func() bool, now func() string) {
	t.Helper()
	for end := time.Now().Add(patience); !holds(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal(now())
		}
	}
}

// THREATS A3: a pusher ends with its session.
func TestPushersGoWithTheirSessions(t *testing.T) {
	each(t, func(t *testing.T, s *testrig.Server) {
		s.Register("bob")
		g := newGateway(t, s.Network, "push.example")
		one, two, three := s.Login("bob"), s.Login("bob"), s.Login("bob")
		setPusher(one, g.pusher("one", nil))
		setPusher(two, g.pusher("two", nil))
		setPusher(three, g.pusher("three", nil))
		two.Must("POST", "/v3/logout", object{})
		gone := func(want string) {
			t.Helper()
			eventually(t, func() bool { return keys(one) == want }, func() string { return keys(one) + ", not " + want })
		}
		gone("one three")
		one.Must("POST", "/v3/account/password", object{"new_password": "other", "auth": object{
			"type": "m.login.password", "password": "password", "identifier": object{"type": "m.id.user", "user": "bob"},
		}})
		gone("one")
		// The same app with the same key: another's, unless it says append.
		eve := s.Register("eve")
		setPusher(eve, g.pusher("one", object{"append": true}))
		gone("one")
		setPusher(eve, g.pusher("one", nil))
		gone("")
		if got := keys(eve); got != "one" {
			t.Errorf("eve has %s", got)
		}
		setPusher(one, g.pusher("one", object{"kind": nil}))
		setPusher(eve, g.pusher("one", object{"lang": "de"}))
		list := eve.Must("GET", "/v3/pushers", nil)["pushers"].([]any)
		if len(list) != 1 || at(list, 0, "lang") != "de" || at(list, 0, "kind") != "http" || at(list, 0, "data", "url") != g.url {
			t.Errorf("eve's are %v", list)
		}
		setPusher(eve, object{"kind": nil, "app_id": "org.example.app", "pushkey": "one"})
		if got := keys(eve); got != "" {
			t.Errorf("eve has %s", got)
		}
	})
}

func TestPusherRefusals(t *testing.T) {
	s := testrig.Start(t, testrig.Options{}) // https alone
	bob := s.Register("bob")
	set := func(status int, code matrix.Code, change object) {
		t.Helper()
		body := object{
			"kind": "http", "app_id": "a", "pushkey": "k", "app_display_name": "A", "device_display_name": "D", "lang": "en",
			"data": object{"url": "https://push.example/_matrix/push/v1/notify"},
		}
		for k, v := range change {
			body[k] = v
			if v == "absent" {
				delete(body, k)
			}
		}
		bob.Fails(status, code, "POST", "/v3/pushers/set", body)
	}
	url := func(u string) object { return object{"data": object{"url": u}} }
	for _, k := range []string{"kind", "app_id", "pushkey", "app_display_name", "device_display_name", "lang", "data"} {
		set(400, matrix.CodeMissingParam, object{k: "absent"})
	}
	set(400, matrix.CodeMissingParam, object{"data": object{}})
	set(400, matrix.CodeBadJSON, object{"data": "x"})
	set(400, matrix.CodeBadJSON, object{"kind": 5})
	set(400, matrix.CodeInvalidParam, object{"kind": "email"})
	set(400, matrix.CodeInvalidParam, object{"kind": "pigeon"})
	set(400, matrix.CodeInvalidParam, object{"app_id": strings.Repeat("a", 65)})
	set(400, matrix.CodeInvalidParam, object{"pushkey": strings.Repeat("k", 513)})
	set(400, matrix.CodeInvalidParam, object{"lang": strings.Repeat("k", 513)})
	set(400, matrix.CodeInvalidParam, object{"data": object{"url": "https://push.example/_matrix/push/v1/notify", "x": strings.Repeat("x", 9<<10)}})
	for _, bad := range []string{
		"http://push.example/_matrix/push/v1/notify", "https://push.example/", "https://push.example/_matrix/push/v1/notify/",
		"push.example/_matrix/push/v1/notify", "file:///_matrix/push/v1/notify", "https:///_matrix/push/v1/notify",
		"https://a:b@push.example/_matrix/push/v1/notify", "https://push.example/" + strings.Repeat("x", 3000),
	} {
		set(400, matrix.CodeInvalidParam, url(bad))
	}
}

// THREATS A4: whose membership has ended is told nothing of what is said since.
func TestNothingIsPushedAfterTheEndOfAMembership(t *testing.T) {
	each(t, func(t *testing.T, s *testrig.Server) {
		alice, bob, room := pair(s)
		g := newGateway(t, s.Network, "push.example")
		setPusher(bob, g.pusher("key", nil))
		g.about(alice.Say(room, "1", "hello"))
		for i, how := range []string{"kick", "ban", "leave"} {
			left := alice.CreateRoom(object{"preset": "public_chat"})
			bob.Join(left)
			g.about(alice.Say(left, fmt.Sprint("before", i), "what bob may read"))
			if how == "leave" {
				bob.Must("POST", "/v3/rooms"+testrig.Path(left, how), object{})
			} else {
				alice.Must("POST", "/v3/rooms"+testrig.Path(left, how), object{"user_id": bob.User})
			}
			alice.Say(left, fmt.Sprint("after", i), "@bob:test top secret")
			for next := alice.Say(room, fmt.Sprint("next", i), "elsewhere"); ; {
				n := g.next()
				if strings.Contains(fmt.Sprint(n), "top secret") {
					t.Errorf("after %s comes %v", how, n)
				}
				if n["event_id"] == string(next) {
					break
				}
			}
		}
	})
}
