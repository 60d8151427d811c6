package push_test

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/teahouse-chat/teahouse/internal/testrig"
)

// failures is a log that passes on which gateways fail, and why.
type failures struct {
	slog.Handler
	seen chan string
}

func (f failures) Handle(_ context.Context, r slog.Record) error {
	if r.Message != "a push gateway fails" {
		return nil
	}
	text := ""
	r.Attrs(func(a slog.Attr) bool { text += fmt.Sprint(a.Value, " "); return true })
	select {
	case f.seen <- text:
	default: // it is tried again and again
	}
	return nil
}

func (f failures) Enabled(context.Context, slog.Level) bool { return true }
func (f failures) WithAttrs([]slog.Attr) slog.Handler       { return f }
func (f failures) WithGroup(string) slog.Handler            { return f }

// THREATS S4: nobody gets into the server's network by way of a push gateway. The
// address is looked at when it is called, whatever name leads there.
func TestGatewaysAreOutside(t *testing.T) {
	log := failures{seen: make(chan string, 100)}
	s := testrig.Start(t, testrig.Options{Log: log})
	alice, bob := s.Register("alice"), s.Register("bob")
	room := alice.CreateRoom(object{"preset": "public_chat"})
	bob.Join(room)
	for i, host := range []string{"127.0.0.1", "[::1]", "[::ffff:10.0.0.1]", "169.254.169.254", "0.0.0.0", "192.168.0.1:8443"} {
		where := host
		if !strings.HasSuffix(where, ":8443") {
			where += ":443"
		}
		l, err := s.Network.Listen("tcp", where)
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			if c, err := l.Accept(); err == nil {
				c.Close()
				t.Errorf("%s was called", host)
			}
		}()
		setPusher(bob, object{
			"kind": "http", "app_id": "a", "pushkey": "k", "app_display_name": "A", "device_display_name": "D", "lang": "en",
			"data": object{"url": "https://" + host + "/_matrix/push/v1/notify"},
		})
		alice.Say(room, fmt.Sprint(i), "psst")
		for failed := ""; !strings.HasPrefix(failed, "https://"+host+" "); {
			select {
			case failed = <-log.seen:
			case <-time.After(patience):
				t.Fatalf("%s was not even tried", host)
			}
		}
		l.Close()
	}
}

// A gateway cannot send the server elsewhere, and gets the notification another
// time.
func TestRedirectsOfGatewaysAreNotFollowed(t *testing.T) {
	s := testrig.Start(t, testrig.Options{Change: plainHTTP})
	alice, bob, room := pair(s)
	inside, g := newGateway(t, s.Network, "inside.example"), newGateway(t, s.Network, "push.example")
	setPusher(bob, g.pusher("key", nil))
	g.does(func(w http.ResponseWriter, _ string) bool {
		w.Header().Set("Location", inside.url)
		w.WriteHeader(http.StatusTemporaryRedirect)
		return true
	})
	id := alice.Say(room, "1", "hello")
	g.about(id)
	g.does(nil)
	for again := false; !again; {
		s.Clock.Advance(time.Hour)
		select {
		case n := <-g.got:
			again = n["event_id"] == string(id)
		case <-time.After(time.Second):
		}
	}
	if len(inside.got) > 0 {
		t.Errorf("the redirect was followed with %v", <-inside.got)
	}
}
