package server_test

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/teahouse-chat/teahouse/internal/config"
	"github.com/teahouse-chat/teahouse/internal/httpx"
	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/internal/testrig"
)

type object = testrig.JSON

// concrete fills the wildcards of a route's path.
func concrete(path string, user matrix.UserID, room matrix.RoomID) string {
	return strings.NewReplacer(
		"/{$}", "/", "{roomId}", string(room), "{roomIdOrAlias}", string(room), "{userId}", string(user), "{user_id}", string(user),
		"{roomAlias}", "%23x:test", "{eventId}", "$x", "{eventType}", "m.x", "{stateKey}", "k", "{txnId}", "t", "{type}", "m.x",
		"{deviceId}", "D", "{filterId}", "0", "{tag}", "m.x", "{receiptType}", "m.read", "{kind}", "override", "{ruleId}", "r",
		"{keyName}", "displayname", "{stage}", "m.login.dummy", "{relType}", "m.thread",
	).Replace(path)
}

// guests lists all that guests may do.
// spec: client-server#client-behaviour-7
var guests = []string{
	"GET account/whoami", "GET devices", "GET devices/{deviceId}", "PUT devices/{deviceId}",
	"POST logout", "POST logout/all", "GET events", "GET events/{eventId}", "GET sync",
	"POST keys/upload", "POST keys/query", "POST keys/claim", "PUT sendToDevice/{eventType}/{txnId}",
	"GET user/{userId}/filter/{filterId}", "POST user/{userId}/filter",
	"PUT profile/{userId}/{keyName}", "DELETE profile/{userId}/{keyName}",
	"POST join/{roomIdOrAlias}", "POST rooms/{roomIdOrAlias}/join", "POST rooms/{roomId}/leave", "POST rooms/{roomId}/forget",
	"GET rooms/{roomId}/event/{eventId}", "GET rooms/{roomId}/context/{eventId}", "GET rooms/{roomId}/messages",
	"GET rooms/{roomId}/state", "GET rooms/{roomId}/state/{eventType}", "GET rooms/{roomId}/state/{eventType}/{stateKey}",
	"GET rooms/{roomId}/members", "GET rooms/{roomId}/initialSync", "PUT rooms/{roomId}/send/{eventType}/{txnId}",
	"POST publicRooms",
}

// THREATS A3: whoever has no session, or an account that may not act, is
// refused at every route there is, under each of its paths.
func TestEveryRouteByAccountState(t *testing.T) {
	testrig.Each(t, func(t *testing.T, s *testrig.Server) {
		owner := s.Register("owner")
		room := owner.CreateRoom(object{"preset": "public_chat"})
		people := map[string]*testrig.Client{}
		for _, name := range []string{"loggedout", "deactivated", "locked"} {
			people[name] = s.Register(name)
			people[name].Must("GET", "/v3/account/whoami", nil)
		}
		people["loggedout"].Must("POST", "/v3/logout", object{})
		must(t, s.Accounts.Deactivate(t.Context(), people["deactivated"].User, false))
		must(t, s.Accounts.SetLocked(t.Context(), people["locked"].User, true))
		people["nobody"] = s.Anonymous()
		people["guest"] = s.Guest()

		var allowed []string
		for _, rt := range s.Edge().Routes() {
			if rt.Access == httpx.AccessOpen || rt.Surface == "metrics" {
				continue
			}
			for _, path := range rt.Paths {
				for name, c := range people {
					want := map[string]string{
						"loggedout": "401 M_UNKNOWN_TOKEN", "deactivated": "401 M_UNKNOWN_TOKEN", "locked": "401 M_USER_LOCKED",
						"nobody": "401 M_MISSING_TOKEN", "guest": "403 M_GUEST_ACCESS_FORBIDDEN",
					}[name]
					switch {
					case name == "guest" && rt.Guests:
						continue
					case rt.Access == httpx.AccessOptional && (name == "nobody" || name == "guest"):
						continue // anybody may
					case strings.HasSuffix(rt.Path, "/login") || strings.HasSuffix(rt.Path, "/register"):
						continue // a lost token is not looked at
					case name == "locked" && strings.Contains(rt.Path, "/logout"):
						continue // tested at the end
					}
					status, answer, err := c.Do(t.Context(), rt.Method, concrete(path, owner.User, room), object{})
					must(t, err)
					if got := fmt.Sprint(status, " ", answer["errcode"]); got != want {
						t.Errorf("%s, %s %s: %s, not %s", name, rt.Method, path, got, want)
					}
				}
			}
			if short, ok := strings.CutPrefix(rt.Path, "/_matrix/client/v3/"); ok && rt.Guests && rt.Access == httpx.AccessToken {
				allowed = append(allowed, rt.Method+" "+short)
			}
		}
		for _, a := range allowed {
			if !slices.Contains(guests, a) {
				t.Errorf("guests may %s", a)
			}
		}
		for _, g := range guests {
			if !slices.Contains(allowed, g) {
				t.Errorf("guests may not %s", g)
			}
		}
		if len(allowed) < 20 {
			t.Fatalf("%d routes only: the list of routes is broken", len(allowed))
		}
		people["locked"].Must("POST", "/v3/logout", object{})
		people["guest"].Must("POST", "/v3/logout", object{})
		people["guest"].Fails(401, matrix.CodeUnknownToken, "GET", "/v3/account/whoami", nil)
	})
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// reply is what became of a request in the background.
type reply struct {
	status int
	body   object
	err    error
}

func later(t *testing.T, c *testrig.Client, method, path string, body any) <-chan reply {
	done := make(chan reply, 1)
	go func() {
		status, answer, err := c.Do(t.Context(), method, path, body)
		done <- reply{status, answer, err}
	}()
	return done
}

func within(t *testing.T, ch <-chan reply) reply {
	t.Helper()
	select {
	case r := <-ch:
		must(t, r.err)
		return r
	case <-time.After(10 * time.Second):
		t.Fatal("an open request is not answered")
		panic("unreachable")
	}
}

// THREATS A3: open requests end with the session or the account, and tell
// nothing more.
func TestOpenRequestsEndWithTheSession(t *testing.T) {
	ends := map[string]func(t *testing.T, s *testrig.Server, c *testrig.Client){
		"logout": func(_ *testing.T, _ *testrig.Server, c *testrig.Client) { c.Must("POST", "/v3/logout", object{}) },
		"logout of all": func(_ *testing.T, s *testrig.Server, c *testrig.Client) {
			s.Login(c.User.Localpart()).Must("POST", "/v3/logout/all", object{})
		},
		"deactivation": func(t *testing.T, s *testrig.Server, c *testrig.Client) {
			must(t, s.Accounts.Deactivate(t.Context(), c.User, true))
		},
		"lock": func(t *testing.T, s *testrig.Server, c *testrig.Client) {
			must(t, s.Accounts.SetLocked(t.Context(), c.User, true))
		},
		"new password": func(t *testing.T, s *testrig.Server, c *testrig.Client) {
			must(t, s.Accounts.SetPassword(t.Context(), c.User, "another", true))
		},
		"device deleted": func(_ *testing.T, s *testrig.Server, c *testrig.Client) {
			s.Login(c.User.Localpart()).Must("DELETE", "/v3/devices"+testrig.Path(c.Device), object{"auth": object{
				"type": "m.login.password", "password": "password", "identifier": object{"type": "m.id.user", "user": c.User},
			}})
		},
	}
	testrig.Each(t, func(t *testing.T, s *testrig.Server) {
		owner := s.Register("owner")
		room := owner.CreateRoom(object{"preset": "public_chat"})
		n := 0
		for name, end := range ends {
			t.Run(name, func(t *testing.T) {
				n++
				c := s.Register(fmt.Sprint("user", n))
				c.Join(room)
				since := c.Sync("", 0)["next_batch"].(string)
				from := c.Must("GET", "/v3/events?timeout=0", nil)["end"].(string)
				polls := map[string]<-chan reply{
					"sync":   later(t, c, "GET", "/v3/sync?timeout=30000&filter="+url.QueryEscape(`{"presence":{"types":[]}}`)+"&since="+since, nil),
					"events": later(t, c, "GET", "/v3/events?timeout=30000&from="+from, nil),
					"peek":   later(t, c, "GET", "/v3/events?timeout=30000&room_id="+string(room)+"&from="+from, nil),
				}
				time.Sleep(100 * time.Millisecond) // until they wait
				end(t, s, c)
				owner.Say(room, fmt.Sprint(n), "after the end")
				for which, ch := range polls {
					r := within(t, ch)
					if r.status != http.StatusUnauthorized && strings.Contains(fmt.Sprint(r.body), "after the end") {
						t.Errorf("%s goes on: %d %v", which, r.status, r.body)
					}
					if name != "deactivation" && r.status != http.StatusUnauthorized {
						t.Errorf("%s: %d %v", which, r.status, r.body)
					}
				}
			})
		}
	})
}

// THREATS A15: every class that a route is in has a rate by default, and what
// the table of threats names is in a class.
func TestEveryRouteClassHasARate(t *testing.T) {
	s := testrig.Start(t, testrig.Options{})
	rates := config.Default().RateLimits
	if !rates.Enabled {
		t.Error("limits are off by default")
	}
	classes := rates.Classes()
	byRoute := map[string]string{}
	for _, rt := range s.Edge().Routes() {
		byRoute[rt.Method+" "+rt.Path] = rt.Limit
		if rt.Limit == "" {
			continue
		}
		if r := classes[rt.Limit]; r.PerSecond <= 0 || r.Burst <= 0 {
			t.Errorf("%s %s is in the class %q, which has no rate", rt.Method, rt.Path, rt.Limit)
		}
	}
	const v3 = "/_matrix/client/v3/"
	for route, want := range map[string]string{
		"POST " + v3 + "login": "login", "POST " + v3 + "refresh": "login", "POST " + v3 + "account/password": "login",
		"POST " + v3 + "account/deactivate": "login", "POST /_matrix/client/v1/login/get_token": "login",
		"POST " + v3 + "register": "registration", "GET " + v3 + "register/available": "registration",
		"POST /_synapse/admin/v1/register":                          "registration",
		"PUT " + v3 + "rooms/{roomId}/send/{eventType}/{txnId}":     "send",
		"PUT " + v3 + "rooms/{roomId}/state/{eventType}":            "send",
		"PUT " + v3 + "rooms/{roomId}/state/{eventType}/{stateKey}": "send",
		"PUT " + v3 + "rooms/{roomId}/redact/{eventId}/{txnId}":     "send",
		"POST " + v3 + "rooms/{roomId}/kick":                        "send",
		"POST " + v3 + "rooms/{roomId}/ban":                         "send",
		"POST " + v3 + "rooms/{roomId}/unban":                       "send",
		"POST " + v3 + "user/{userId}/filter":                       "send",
		"PUT " + v3 + "user/{userId}/account_data/{type}":           "send",
		"PUT " + v3 + "directory/room/{roomAlias}":                  "send",
		"POST " + v3 + "createRoom":                                 "join",
		"POST " + v3 + "join/{roomIdOrAlias}":                       "join",
		"POST " + v3 + "rooms/{roomIdOrAlias}/join":                 "join",
		"POST " + v3 + "knock/{roomIdOrAlias}":                      "join",
		"POST " + v3 + "rooms/{roomId}/upgrade":                     "join",
		"POST " + v3 + "rooms/{roomId}/invite":                      "invite",
		"POST " + v3 + "user_directory/search":                      "search",
		"PUT " + v3 + "profile/{userId}/{keyName}":                  "profile",
	} {
		if got, ok := byRoute[route]; !ok || got != want {
			t.Errorf("%s is in the class %q, not %q (there: %v)", route, got, want, ok)
		}
	}
}

// THREATS A15: with the defaults, whoever does too much of anything is told to
// come back, in the way the specification says.
// spec: client-server#rate-limiting
func TestLimitsAreOnByDefault(t *testing.T) {
	rates := config.Default().RateLimits
	s := testrig.Start(t, testrig.Options{Change: func(c *config.Config) { c.RateLimits = rates }})
	alice := s.Register("alice")
	room := alice.CreateRoom(object{"preset": "public_chat"})
	name := "/v3/rooms" + testrig.Path(room)
	classes := rates.Classes()
	for class, do := range map[string]func(c *testrig.Client, i int) (int, object, error){
		"send": func(c *testrig.Client, i int) (int, object, error) {
			return c.Do(t.Context(), "PUT", name+"/send/m.room.message/"+fmt.Sprint(i), object{"body": "x"})
		},
		"join": func(c *testrig.Client, _ int) (int, object, error) {
			return c.Do(t.Context(), "POST", name+"/join", object{})
		},
		"invite": func(c *testrig.Client, i int) (int, object, error) {
			return c.Do(t.Context(), "POST", name+"/invite", object{"user_id": fmt.Sprintf("@user%d:test", i)})
		},
		"search": func(c *testrig.Client, _ int) (int, object, error) {
			return c.Do(t.Context(), "POST", "/v3/user_directory/search", object{"search_term": "x"})
		},
		"profile": func(c *testrig.Client, i int) (int, object, error) {
			return c.Do(t.Context(), "PUT", "/v3/profile"+testrig.Path(c.User, "displayname"), object{"displayname": fmt.Sprint(i)})
		},
		"openid": func(c *testrig.Client, _ int) (int, object, error) {
			return c.Do(t.Context(), "POST", "/v3/user"+testrig.Path(c.User, "openid", "request_token"), object{})
		},
		"report": func(c *testrig.Client, _ int) (int, object, error) {
			return c.Do(t.Context(), "POST", "/v3/users"+testrig.Path(c.User, "report"), object{"reason": "x"})
		},
		"login": func(_ *testrig.Client, i int) (int, object, error) {
			return s.Anonymous().Do(t.Context(), "POST", "/v3/login", object{"type": "m.login.password", "password": "x",
				"identifier": object{"type": "m.id.user", "user": fmt.Sprint("nobody", i)}})
		},
		"failed_login": func(_ *testrig.Client, i int) (int, object, error) {
			s.Clock.Advance(2 * time.Second) // within the class "login"
			return s.Anonymous().Do(t.Context(), "POST", "/v3/login", object{"type": "m.login.password", "password": "x",
				"identifier": object{"type": "m.id.user", "user": "alice"}})
		},
		"registration": func(_ *testrig.Client, i int) (int, object, error) {
			return s.Anonymous().Do(t.Context(), "GET", "/v3/register/available?username=x"+fmt.Sprint(i), nil)
		},
	} {
		t.Run(class, func(t *testing.T) {
			s.Clock.Advance(time.Hour)
			most := 2*classes[class].Burst + 10
			for i := range most {
				status, answer, err := do(alice, i)
				must(t, err)
				if status != http.StatusTooManyRequests {
					continue
				}
				wait, _ := answer["retry_after_ms"].(float64)
				if answer["errcode"] != "M_LIMIT_EXCEEDED" || wait <= 0 || wait > 60_000 {
					t.Errorf("%v", answer)
				}
				if i < classes[class].Burst/2 {
					t.Errorf("refused at %d", i)
				}
				s.Clock.Advance(time.Duration(wait) * time.Millisecond)
				if status, again, _ := do(alice, most); status == http.StatusTooManyRequests {
					t.Errorf("refused after the time that was named: %v, %v", answer, again)
				}
				return
			}
			t.Errorf("nothing was refused in %d requests", most)
		})
	}
}
