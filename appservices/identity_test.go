package appservices_test

import (
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/teahouse-chat/teahouse/internal/config"
	"github.com/teahouse-chat/teahouse/internal/db/dbtest"
	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/internal/testrig"
)

// TestNamespaces: only the service makes and plays the users that it claims, and
// makes the aliases.
func TestNamespaces(t *testing.T) {
	testrig.Each(t, func(t *testing.T, s *testrig.Server) {
		irc, other := newBridge(t, s.Network, "irc"), newBridge(t, s.Network, "other")
		register(t, s, irc.registration(irc.mine()))
		register(t, s, other.registration(`{users: [{regex: '@_.*', exclusive: false}]}`))
		bot := irc.client(s)
		if who := bot.Must("GET", "/v3/account/whoami", nil); who["user_id"] != "@_irc:test" {
			t.Errorf("the service is %v", who)
		}
		join := func(name string) testrig.JSON {
			return testrig.JSON{"type": "m.login.application_service", "username": name, "inhibit_login": true}
		}
		bot.Must("POST", "/v3/register", join("_irc_bob"))
		bot.Fails(400, matrix.CodeUserInUse, "POST", "/v3/register", join("_irc_bob"))
		bot.Fails(400, matrix.CodeExclusive, "POST", "/v3/register", join("somebody"))
		other.client(s).Fails(400, matrix.CodeExclusive, "POST", "/v3/register", join("_irc_carol"))
		s.Anonymous().Fails(401, matrix.CodeUnknownToken, "POST", "/v3/register?access_token=wrong", join("_irc_dave"))
		bot.Fails(403, matrix.CodeForbidden, "GET", "/v3/account/whoami?user_id=@alice:test", nil)
		bot.Fails(403, matrix.CodeForbidden, "GET", "/v3/account/whoami?user_id=@_irc_nobody:test", nil)
		bot.Fails(400, "M_UNKNOWN_DEVICE", "GET", "/v3/account/whoami?user_id=@_irc_bob:test&device_id=D", nil)
		if status, answer, err := bot.Do(t.Context(), "PUT", "/v3/devices/D?user_id=@_irc_bob:test", testrig.JSON{"display_name": "made without a login"}); err != nil || status != 201 {
			t.Errorf("making a device: %d %v %v", status, answer, err)
		}
		if who := bot.Must("GET", "/v3/account/whoami?user_id=@_irc_bob:test&device_id=D", nil); who["device_id"] != "D" || who["user_id"] != "@_irc_bob:test" {
			t.Errorf("the service is %v", who)
		}
		bot.Must("DELETE", "/v3/devices/D?user_id=@_irc_bob:test", testrig.JSON{})
		logged := bot.Must("POST", "/v3/login", testrig.JSON{"type": "m.login.application_service", "identifier": testrig.JSON{"type": "m.id.user", "user": "_irc_bob"}})
		if logged["user_id"] != "@_irc_bob:test" || logged["access_token"] == "" {
			t.Errorf("a login gives %v", logged)
		}
		alice := s.Register("alice")
		room := alice.CreateRoom(testrig.JSON{"preset": "public_chat"})
		alice.Fails(400, matrix.CodeExclusive, "PUT", "/v3/directory/room"+testrig.Path("#_irc_room:test"), testrig.JSON{"room_id": room})
		bot.Must("POST", "/v3/join"+testrig.Path(room), testrig.JSON{})
		bot.Must("PUT", "/v3/directory/room"+testrig.Path("#_irc_room:test"), testrig.JSON{"room_id": room})
		if err := s.Appservices.Remove(t.Context(), "irc"); err != nil {
			t.Fatal(err)
		}
		bot.Fails(401, matrix.CodeUnknownToken, "GET", "/v3/account/whoami", nil)
	})
}

// TestPing tells a service whether it is reached, and sends what waits.
func TestPing(t *testing.T) {
	s := testrig.Start(t, testrig.Options{})
	irc := newBridge(t, s.Network, "irc")
	register(t, s, irc.registration(`{rooms: [{regex: '.*', exclusive: false}]}`))
	register(t, s, "id: mute\nurl: null\nas_token: as-mute\nhs_token: hs-mute\nsender_localpart: _mute\nnamespaces: {}\n")
	register(t, s, "id: away\nurl: http://nowhere:80\nas_token: as-away\nhs_token: hs-away\nsender_localpart: _away\nnamespaces: {}\n")
	const path = "/v1/appservice/irc/ping"
	bot := irc.client(s)
	if answer := bot.Must("POST", path, testrig.JSON{"transaction_id": "meow"}); answer["duration_ms"] == nil {
		t.Errorf("%v", answer)
	}
	irc.mu.Lock()
	if got := irc.asked[len(irc.asked)-1]; got != "POST /_matrix/app/v1/ping" {
		t.Errorf("the service was asked %s", got)
	}
	irc.mu.Unlock()
	irc.answers(status(403))
	if answer := bot.Fails(502, "M_BAD_STATUS", "POST", path, testrig.JSON{}); answer["status"] != float64(403) || !strings.Contains(answer["body"].(string), "M_UNKNOWN") {
		t.Errorf("%v", answer)
	}
	as := func(name string) *testrig.Client {
		c := s.Anonymous()
		c.Token = "as-" + name
		return c
	}
	as("mute").Fails(400, "M_URL_NOT_SET", "POST", "/v1/appservice/mute/ping", testrig.JSON{})
	as("away").Fails(502, "M_CONNECTION_FAILED", "POST", "/v1/appservice/away/ping", testrig.JSON{})
	as("mute").Fails(403, matrix.CodeForbidden, "POST", path, testrig.JSON{})
	alice := s.Register("alice")
	alice.Fails(403, matrix.CodeForbidden, "POST", path, testrig.JSON{})

	irc.answers(status(503))
	message := alice.Say(alice.CreateRoom(testrig.JSON{}), "1", "waits for the ping")
	for range 6 { // rests grow beyond what this test takes
		if err := s.Appservices.Retry(t.Context(), "irc"); err != nil {
			t.Fatal(err)
		}
	}
	irc.answers(nil)
	bot.Must("POST", path, testrig.JSON{})
	irc.until("the message arrives", func() bool { return irc.seen[string(message)] })
}

// TestLookups: a service makes what is asked for; it is not asked again and again,
// and not behind its transactions.
func TestLookups(t *testing.T) {
	s := testrig.Start(t, testrig.Options{})
	irc := newBridge(t, s.Network, "irc")
	register(t, s, irc.registration(irc.mine()))
	bot := irc.client(s)
	making := func(r *http.Request, _ string) (int, string) {
		switch r.URL.Path {
		case "/_matrix/app/v1/users/@_irc_new:test", "/_matrix/app/v1/rooms/#_irc_new:test":
			return 200, "{}"
		}
		if strings.HasPrefix(r.URL.Path, "/_matrix/app/v1/transactions/") {
			return 503, "{}"
		}
		return 404, `{"errcode": "M_NOT_FOUND"}`
	}
	// What the service makes meanwhile it makes before it answers.
	bot.Must("POST", "/v3/register", testrig.JSON{"type": "m.login.application_service", "username": "_irc_maker", "inhibit_login": true})
	irc.answers(func(r *http.Request, body string) (int, string) {
		n, answer := making(r, body)
		if n == 200 && strings.Contains(r.URL.Path, "/users/") {
			bot.Do(t.Context(), "POST", "/v3/register", testrig.JSON{"type": "m.login.application_service", "username": "_irc_new", "inhibit_login": true})
		}
		if n == 200 && strings.Contains(r.URL.Path, "/rooms/") {
			bot.Do(t.Context(), "POST", "/v3/createRoom?user_id=@_irc_maker:test", testrig.JSON{"room_alias_name": "_irc_new", "preset": "public_chat"})
		}
		return n, answer
	})
	alice := s.Register("alice")
	alice.Must("GET", "/v3/profile/@_irc_new:test", nil)
	answer := alice.Must("POST", "/v3/join"+testrig.Path("#_irc_new:test"), testrig.JSON{})
	alice.Say(matrix.RoomID(answer["room_id"].(string)), "1", "I am in")
	for range 3 {
		alice.Fails(404, matrix.CodeNotFound, "GET", "/v3/profile/@_irc_none:test", nil)
		alice.Fails(404, matrix.CodeNotFound, "GET", "/v3/directory/room"+testrig.Path("#_irc_none:test"), nil)
		alice.Fails(404, matrix.CodeNotFound, "GET", "/v3/profile/@nobody:test", nil)
	}
	irc.mu.Lock()
	asked := strings.Join(irc.asked, "\n")
	irc.mu.Unlock()
	for path, want := range map[string]int{"users/@_irc_none:test": 1, "rooms/%23_irc_none:test": 1, "@nobody": 0} {
		if n := strings.Count(asked, path); n != want {
			t.Errorf("the service was asked for %s %d times and not %d:\n%s", path, n, want, asked)
		}
	}
	s.Clock.Advance(2 * time.Minute)
	alice.Fails(404, matrix.CodeNotFound, "GET", "/v3/profile/@_irc_none:test", nil)
	irc.mu.Lock()
	defer irc.mu.Unlock()
	if n := strings.Count(strings.Join(irc.asked, "\n"), "users/@_irc_none:test"); n != 2 {
		t.Errorf("after a while the service was asked %d times", n)
	}
}

// TestThirdPartyNetworks are described and searched by the services that know them.
func TestThirdPartyNetworks(t *testing.T) {
	s := testrig.Start(t, testrig.Options{})
	a, b := newBridge(t, s.Network, "a"), newBridge(t, s.Network, "b")
	register(t, s, a.registration(a.mine(), "protocols: [irc]"))
	register(t, s, b.registration(b.mine(), "protocols: [irc, xmpp]"))
	describe := func(name string) func(*http.Request, string) (int, string) {
		return func(r *http.Request, _ string) (int, string) {
			switch r.URL.Path {
			case "/_matrix/app/v1/thirdparty/protocol/irc":
				return 200, fmt.Sprintf(`{"user_fields": ["nick"], "location_fields": ["channel"], "icon": "mxc://x/y", "field_types": {}, "instances": [{"network_id": %q, "desc": %q, "fields": {}}]}`, name, name)
			case "/_matrix/app/v1/thirdparty/user/irc":
				return 200, fmt.Sprintf(`[{"userid": "@_%s_%s:test", "protocol": "irc", "fields": {}}]`, name, r.URL.Query().Get("nick"))
			case "/_matrix/app/v1/thirdparty/location":
				return 200, `"garbage"`
			}
			return 404, "<html>"
		}
	}
	a.answers(describe("a"))
	b.answers(describe("b"))
	alice := s.Register("alice")
	all := alice.Must("GET", "/v3/thirdparty/protocols", nil)
	irc, _ := all["irc"].(testrig.JSON)
	if len(all) != 1 || irc == nil || len(irc["instances"].([]any)) != 2 {
		t.Fatalf("%v", all)
	}
	if first := irc["instances"].([]any)[0].(testrig.JSON); first["instance_id"] != "a|a" {
		t.Errorf("%v", first)
	}
	alice.Must("GET", "/v3/thirdparty/protocol/irc", nil)
	alice.Fails(404, matrix.CodeNotFound, "GET", "/v3/thirdparty/protocol/xmpp", nil)
	alice.Fails(404, matrix.CodeNotFound, "GET", "/v3/thirdparty/user/icq?nick=x", nil)
	alice.Fails(404, matrix.CodeNotFound, "GET", "/v3/thirdparty/location?alias=%23x:test", nil)
	// The answer is a list, which a client of the rig does not read.
	if _, _, err := alice.Do(t.Context(), "GET", "/v3/thirdparty/user/irc?nick=zoe", nil); err == nil ||
		!strings.Contains(err.Error(), `{\"userid\":\"@_a_zoe:test\"`) || !strings.Contains(err.Error(), `{\"userid\":\"@_b_zoe:test\"`) {
		t.Errorf("%v", err)
	}

	room := alice.CreateRoom(testrig.JSON{"preset": "public_chat", "name": "bridged"})
	a.client(s).Must("PUT", "/v3/directory/list/appservice/a"+testrig.Path(room), testrig.JSON{"visibility": "public"})
	alice.Fails(403, matrix.CodeForbidden, "PUT", "/v3/directory/list/appservice/a"+testrig.Path(room), testrig.JSON{"visibility": "public"})
	for query, want := range map[string]int{"a|a": 1, "b|a": 0, "a|b": 0} {
		listed := alice.Must("POST", "/v3/publicRooms", testrig.JSON{"third_party_instance_id": query})
		if n := len(listed["chunk"].([]any)); n != want {
			t.Errorf("%s lists %d rooms", query, n)
		}
	}
	if listed := alice.Must("POST", "/v3/publicRooms", testrig.JSON{"include_all_networks": true}); len(listed["chunk"].([]any)) != 1 {
		t.Errorf("all networks list %v", listed)
	}
	if listed := alice.Must("POST", "/v3/publicRooms", testrig.JSON{}); len(listed["chunk"].([]any)) != 0 {
		t.Errorf("the server's own directory lists %v", listed)
	}
}

// TestFiles of the configuration are taken up while the server runs; one that is
// wrong does no harm, and what it said before stays in force.
func TestFiles(t *testing.T) {
	dir := t.TempDir()
	file, wrong := filepath.Join(dir, "irc.yaml"), filepath.Join(dir, "wrong.yaml")
	network := testrig.NewNetwork()
	irc := newBridge(t, network, "irc")
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(name+".new", []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(name+".new", name); err != nil {
			t.Fatal(err)
		}
	}
	write(file, irc.registration(irc.mine()))
	write(wrong, "id: [")
	s := testrig.Start(t, testrig.Options{Network: network, Log: slog.DiscardHandler, Change: func(c *config.Config) { c.Appservices = []string{file, wrong} }})
	bot := irc.client(s)
	bot.Must("GET", "/v3/account/whoami", nil)
	if err := s.Appservices.Remove(t.Context(), "irc"); !matrix.HasCode(err, matrix.CodeInvalidParam) {
		t.Errorf("a service of a file can be removed: %v", err)
	}
	renamed := strings.Replace(irc.registration(irc.mine()), "as-irc", "as-other", 1)
	write(file, renamed+"\nprotocols: {}")
	if err := s.Appservices.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	bot.Must("GET", "/v3/account/whoami", nil)
	write(file, renamed)
	if err := s.Appservices.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	bot.Fails(401, matrix.CodeUnknownToken, "GET", "/v3/account/whoami", nil)
	bot.Token = "as-other"
	bot.Must("GET", "/v3/account/whoami", nil)
	write(wrong, strings.Replace(renamed, "id: irc", "id: irc2", 1))
	if err := s.Appservices.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	bot.Must("GET", "/v3/account/whoami", nil)
	if list, err := s.Appservices.List(t.Context()); err != nil || len(list) != 1 || list[0].ID != "irc" {
		t.Errorf("%+v %v", list, err)
	}
	s = s.Restart()
	bot = irc.client(s)
	bot.Token = "as-other"
	bot.Must("GET", "/v3/account/whoami", nil)
}

// TestFileComesBack: while a file is not in the configuration, what it claims is free.
// If it comes back to find that taken, it is refused with both names, and taken once
// it clashes no more.
func TestFileComesBack(t *testing.T) {
	for _, kind := range []string{"sqlite", "postgres"} {
		t.Run(kind, func(t *testing.T) {
			network := testrig.NewNetwork()
			irc, heir := newBridge(t, network, "irc"), newBridge(t, network, "heir")
			file := filepath.Join(t.TempDir(), "irc.yaml")
			if err := os.WriteFile(file, []byte(irc.registration(irc.mine())), 0o600); err != nil {
				t.Fatal(err)
			}
			log := &testrig.Journal{}
			files := []string{file}
			s := testrig.Start(t, testrig.Options{Network: network, Database: dbtest.URL(t, kind), Log: slog.NewTextHandler(log, nil),
				Change: func(c *config.Config) { c.Appservices = files }})
			active := func(want string) {
				t.Helper()
				for _, b := range []*bridge{irc, heir} {
					if b.id == want {
						b.client(s).Must("GET", "/v3/account/whoami", nil)
					} else {
						b.client(s).Fails(401, matrix.CodeUnknownToken, "GET", "/v3/account/whoami", nil)
					}
				}
			}
			active("irc")
			files = nil
			s = s.Restart()
			active("")
			register(t, s, heir.registration(irc.mine()))
			files = []string{file}
			for range 2 {
				s = s.Restart()
				active("heir")
			}
			if err := s.Appservices.Remove(t.Context(), "heir"); err != nil {
				t.Fatal(err)
			}
			if err := s.Appservices.Reload(t.Context()); err != nil {
				t.Fatal(err)
			}
			active("irc")
			if !strings.Contains(log.String(), `services \"irc\" and \"heir\" both claim users`) {
				t.Errorf("the log does not tell of the clash:\n%s", log)
			}
		})
	}
}

// TestRotate: the old tokens are worth nothing, the new ones are what is shown.
func TestRotate(t *testing.T) {
	s := testrig.Start(t, testrig.Options{})
	irc := newBridge(t, s.Network, "irc")
	register(t, s, irc.registration(irc.mine(), "# a comment that stays"))
	text, err := s.Appservices.Rotate(t.Context(), "irc")
	if err != nil || strings.Contains(string(text), "as-irc") || !strings.Contains(string(text), "a comment that stays") {
		t.Fatalf("%s, %v", text, err)
	}
	bot := irc.client(s)
	bot.Fails(401, matrix.CodeUnknownToken, "GET", "/v3/account/whoami", nil)
	for _, line := range strings.Split(string(text), "\n") {
		if token, ok := strings.CutPrefix(line, "as_token: "); ok {
			bot.Token = token
		}
	}
	bot.Must("GET", "/v3/account/whoami", nil)
	if _, err := s.Appservices.Rotate(t.Context(), "none"); !matrix.HasCode(err, matrix.CodeNotFound) {
		t.Error(err)
	}
}
