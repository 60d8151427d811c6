package appservices_test

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/teahouse-chat/teahouse/internal/config"
	"github.com/teahouse-chat/teahouse/internal/db/dbtest"
	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/internal/testrig"
)

// TestGarbage: whatever a service answers, its events wait for it, what it said is
// noted on both databases, and it has everything once it is well. A 200 counts,
// whatever comes with it. Nothing follows it elsewhere.
func TestGarbage(t *testing.T) {
	testrig.Each(t, func(t *testing.T, s *testrig.Server) {
		irc, elsewhere := newBridge(t, s.Network, "irc"), newBridge(t, s.Network, "elsewhere")
		register(t, s, irc.registration(`{rooms: [{regex: '.*', exclusive: false}]}`, ephemeral))
		alice := s.Register("alice")
		room := alice.CreateRoom(testrig.JSON{})
		bodies := map[int]string{
			500: "a\x00b\x1b[2J\xff\xfe", 400: strings.Repeat("endless ", 1<<18), 418: "{", 503: "\x00", 302: "", 307: "",
		}
		for code, body := range bodies {
			irc.answers(func(r *http.Request, _ string) (int, string) { return code, body })
			irc.redirect("http://elsewhere:80/")
			said := alice.Say(room, fmt.Sprint(code), "hello")
			irc.mu.Lock()
			asked := len(irc.asked)
			irc.mu.Unlock()
			for range 2 {
				if err := s.Appservices.Retry(t.Context(), "irc"); err != nil {
					t.Fatal(err)
				}
				irc.until("the service is asked", func() bool { return len(irc.asked) > asked })
			}
			irc.answers(nil)
			irc.redirect("")
			if err := s.Appservices.Retry(t.Context(), "irc"); err != nil {
				t.Fatal(err)
			}
			irc.until("the message arrives", func() bool { return irc.seen[string(said)] })
		}
		if list, err := s.Appservices.List(t.Context()); err != nil || len(list) != 1 {
			t.Errorf("%+v %v", list, err)
		}
		irc.answers(func(*http.Request, string) (int, string) { return 200, "not { JSON \x00" })
		said := alice.Say(room, "last", "hello")
		irc.until("a garbled 200 counts", func() bool { return irc.seen[string(said)] })
		elsewhere.mu.Lock()
		defer elsewhere.mu.Unlock()
		if len(elsewhere.asked) > 0 {
			t.Errorf("a redirection is followed: %v", elsewhere.asked)
		}
	})
}

// TestProblemIsStored: what a service answers is kept for operators, also if no
// database could store it as it is.
func TestProblemIsStored(t *testing.T) {
	testrig.Each(t, func(t *testing.T, s *testrig.Server) {
		irc := newBridge(t, s.Network, "irc")
		irc.answers(func(*http.Request, string) (int, string) { return 500, "out of\x00 tea\xff" })
		register(t, s, irc.registration(`{rooms: [{regex: '.*', exclusive: false}]}`))
		s.Register("alice").CreateRoom(testrig.JSON{})
		irc.until("the problem is stored", func() bool {
			list, err := s.Appservices.List(t.Context())
			return err == nil && len(list) == 1 && strings.Contains(list[0].Problem, "out of  tea")
		})
	})
}

// TestEndlessAnswers: of an answer without end no more than a megabyte is read, be it
// to a transaction or to a look-up.
func TestEndlessAnswers(t *testing.T) {
	s := testrig.Start(t, testrig.Options{})
	irc := newBridge(t, s.Network, "irc")
	var read int
	irc.http.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.WriteHeader(500)
		n := 0
		for range 64 << 10 { // 256 MiB
			more, err := w.Write(make([]byte, 4096))
			if n += more; err != nil {
				break
			}
		}
		irc.mu.Lock()
		read = max(read, n)
		irc.asked = append(irc.asked, r.URL.Path)
		irc.mu.Unlock()
	})
	register(t, s, irc.registration(irc.mine(), "protocols: [irc]"))
	alice := s.Register("alice")
	alice.Fails(404, matrix.CodeNotFound, "GET", "/v3/profile/@_irc_none:test", nil)
	alice.Fails(404, matrix.CodeNotFound, "GET", "/v3/thirdparty/protocol/irc", nil)
	irc.client(s).Fails(502, matrix.CodeBadStatus, "POST", "/v1/appservice/irc/ping", testrig.JSON{})
	irc.until("it stops", func() bool { return len(irc.asked) >= 3 })
	irc.mu.Lock()
	defer irc.mu.Unlock()
	if read > 32<<20 {
		t.Errorf("%d bytes of an answer are read", read)
	}
}

// TestNUL: a NUL in what services say is a clean error or passed on, on both
// databases.
func TestNUL(t *testing.T) {
	testrig.Each(t, func(t *testing.T, s *testrig.Server) {
		irc := newBridge(t, s.Network, "irc")
		irc.answers(func(r *http.Request, _ string) (int, string) { return 200, "{}" })
		register(t, s, irc.registration(irc.mine(), ephemeral, encrypted, "protocols: [\"a\\0b\"]"))
		for _, broken := range []string{"id: \"a\\0b\"", "sender_localpart: \"a\\0b\""} {
			key, _, _ := strings.Cut(broken, ":")
			var lines []string
			for _, line := range strings.Split(irc.registration("{}"), "\n") {
				if strings.HasPrefix(line, key+":") {
					line = broken
				}
				lines = append(lines, line)
			}
			if _, err := s.Appservices.Add(t.Context(), "x", []byte(strings.Join(lines, "\n"))); !matrix.HasCode(err, matrix.CodeInvalidParam) {
				t.Errorf("%q is taken: %v", broken, err)
			}
		}
		alice := s.Register("alice")
		room, bot := shared(t, s, irc, alice)
		const as = "?user_id=@_irc_bob:test"
		for _, r := range []struct{ method, path string }{
			{"PUT", "/v3/directory/list/appservice/a%00b" + testrig.Path(room)},
			{"POST", "/v3/register"},
			{"PUT", "/v3/devices/a%00b" + as},
			{"GET", "/v3/account/whoami?user_id=a%00b"},
			{"GET", "/v3/account/whoami?user_id=@_irc_bob:test&device_id=a%00b"},
			{"GET", "/v3/thirdparty/user/a%00b?x=%00"},
			{"GET", "/v3/thirdparty/user?userid=@a%00b:test"},
		} {
			body := testrig.JSON{"type": "m.login.application_service", "username": "_irc_a\x00b", "visibility": "public", "display_name": "a\x00b"}
			status, answer, err := bot.Do(t.Context(), r.method, r.path, body)
			if err == nil && status >= 500 {
				t.Errorf("%s %s: %d %v", r.method, r.path, status, answer)
			}
		}
		makeDevice(t, bot, "D"+as)
		post(alice, "@_irc_bob:test", "1", "a\x00b")
		irc.until("the message arrives as it is", func() bool {
			got := irc.messages("to_device", "@_irc_bob:test", "D")
			return len(got) == 1 && got[0] == "a\x00b"
		})
	})
}

// TestRateLimits: limits are for the users of a service that asks for them, but never
// for its own user.
func TestRateLimits(t *testing.T) {
	s := testrig.Start(t, testrig.Options{Database: dbtest.URL(t, "sqlite"), Change: func(c *config.Config) {
		c.RateLimits.Enabled = true
		c.RateLimits.Send = config.Rate{PerSecond: 0.001, Burst: 3}
		c.RateLimits.Registration, c.RateLimits.Join = config.Rate{PerSecond: 100, Burst: 100}, config.Rate{PerSecond: 100, Burst: 100}
	}})
	for id, limited := range map[string]bool{"limited": true, "exempt": false} {
		b := newBridge(t, s.Network, id)
		text := b.registration(b.mine())
		if limited {
			text = strings.Replace(text, "rate_limited: false\n", "", 1)
		}
		register(t, s, text)
		bot := b.client(s)
		bot.Must("POST", "/v3/register", testrig.JSON{"type": "m.login.application_service", "username": "_" + id + "_bob", "inhibit_login": true})
		room := matrix.RoomID(bot.Must("POST", "/v3/createRoom", testrig.JSON{"preset": "public_chat"})["room_id"].(string))
		bot.Must("POST", "/v3/join"+testrig.Path(room)+"?user_id=@_"+id+"_bob:test", testrig.JSON{})
		refused := map[string]int{}
		for _, user := range []string{"_" + id, "_" + id + "_bob"} {
			for i := range 10 {
				path := "/v3/rooms" + testrig.Path(room, "send", "m.room.message", i) + "?user_id=@" + user + ":test"
				status, _, err := bot.Do(t.Context(), "PUT", path, testrig.JSON{"msgtype": "m.text", "body": "x"})
				if err != nil {
					t.Fatal(err)
				}
				if status == http.StatusTooManyRequests {
					refused[user]++
				}
			}
		}
		if refused["_"+id] != 0 || (refused["_"+id+"_bob"] > 0) != limited {
			t.Errorf("%s is refused: %v", id, refused)
		}
	}
}
