package e2e

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/id"
)

// phones is a push gateway that may be out of order.
type phones struct {
	url string

	mu     sync.Mutex
	broken bool
	came   []notified // also what was answered with a failure
}

// notified is what the gateway was told.
type notified struct {
	Event  id.EventID `json:"event_id"`
	Counts struct {
		Unread *int `json:"unread"`
	} `json:"counts"`
	accepted bool
}

func newPhones(t *testing.T) *phones {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	g := &phones{url: "http://" + l.Addr().String() + "/_matrix/push/v1/notify"}
	srv := &http.Server{Handler: g}
	go func() { _ = srv.Serve(l) }()
	t.Cleanup(func() { _ = srv.Close() })
	return g
}

func (g *phones) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var body struct {
		Notification notified `json:"notification"`
	}
	if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	n := body.Notification
	n.accepted = !g.broken
	g.came = append(g.came, n)
	if g.broken {
		w.WriteHeader(http.StatusBadGateway)
		return
	}
	_, _ = w.Write([]byte(`{"rejected":[]}`))
}

// all is what has come.
func (g *phones) all() []notified {
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.Clone(g.came)
}

func (g *phones) breaks(broken bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.broken = broken
}

// until waits until what has come, of which there is a copy, is as it should be.
func (g *phones) until(t *testing.T, what string, ok func([]notified) bool) []notified {
	t.Helper()
	for end := time.Now().Add(2 * time.Minute); ; time.Sleep(10 * time.Millisecond) {
		came := g.all()
		if ok(came) {
			return came
		}
		if time.Now().After(end) {
			t.Fatalf("%s; the gateway was told %s", what, said(came))
		}
	}
}

// said lists what came.
func said(came []notified) (lines string) {
	for _, n := range came {
		count := 0
		if n.Counts.Unread != nil {
			count = *n.Counts.Unread
		}
		lines += fmt.Sprintf("\n%s with count %d, accepted: %v", n.Event, count, n.accepted)
	}
	return lines
}

// accepted counts how often an event was accepted.
func accepted(came []notified, ev id.EventID) (n int) {
	for _, one := range came {
		if one.accepted && one.Event == ev {
			n++
		}
	}
	return n
}

// last is the count that the gateway knows.
func last(came []notified) int {
	for i := len(came) - 1; i >= 0; i-- {
		if came[i].accepted {
			if came[i].Counts.Unread == nil {
				return 0
			}
			return *came[i].Counts.Unread
		}
	}
	return -1
}

// TestPushesSurviveKills: the server is killed again and again while somebody
// writes, and the gateway works, fails and works again. In the end every event was
// told, none is told for ever, and the count is that of the newest.
func TestPushesSurviveKills(t *testing.T) {
	for _, kind := range []string{"sqlite", "postgres"} {
		t.Run(kind, func(t *testing.T) {
			p := startAs(t, kind, t.TempDir(), "localhost", "", "federation: {enabled: false, allow_private_addresses: true}\n")
			alice, bob := register(t, p, "alice"), register(t, p, "bob")
			room := ok(alice.CreateRoom(t.Context(), &mautrix.ReqCreateRoom{Preset: "public_chat"})).RoomID
			ok(bob.JoinRoomByID(t.Context(), room))
			g := newPhones(t)
			ok(bob.MakeRequest(t.Context(), "POST", bob.BuildClientURL("v3", "pushers", "set"), object{
				"kind": "http", "app_id": "org.example.app", "pushkey": "key", "app_display_name": "App", "device_display_name": "Phone",
				"lang": "en", "data": object{"url": g.url},
			}, nil))
			var sent []id.EventID
			write := func(n int) {
				for range n {
					sent = append(sent, sendUntilAnswered(t, alice, room, fmt.Sprint("message ", len(sent))))
				}
			}
			restart := func() { p.kill(); p.run() }

			write(3)
			restart() // while what was written just now is on its way, or not yet
			write(2)
			g.until(t, "what was written before and after a kill is not told", func(came []notified) bool {
				return accepted(came, sent[2]) > 0 && accepted(came, sent[4]) > 0 && last(came) == 5
			})
			g.breaks(true)
			write(3)
			g.until(t, "a gateway that fails is not even asked", func(came []notified) bool { return !came[len(came)-1].accepted })
			restart()
			write(3) // 6 wait, no more than are kept for one pusher
			restart()
			g.breaks(false)
			write(1)
			g.until(t, "what came while the gateway failed is not told", func(came []notified) bool {
				for _, ev := range sent {
					if accepted(came, ev) == 0 {
						return false
					}
				}
				return last(came) == len(sent)
			})

			// What was accepted may come again until the server has noted it down, which
			// it does now and then.
			for patience := time.Second; ; patience *= 2 {
				time.Sleep(patience)
				p.kill()
				before := len(g.all())
				p.run()
				write(1)
				newest := sent[len(sent)-1]
				came := g.until(t, "what is written after a kill is not told", func(came []notified) bool { return accepted(came, newest) > 0 })
				if !slices.ContainsFunc(came[before:], func(n notified) bool { return n.Event != newest }) {
					break
				}
				if patience > 30*time.Second {
					t.Fatalf("what was accepted comes again and again:%s", said(came[before:]))
				}
			}
			if n := last(g.all()); n != len(sent) {
				t.Errorf("%d are unread of %d", n, len(sent))
			}
		})
	}
}
