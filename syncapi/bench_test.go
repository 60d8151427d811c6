package syncapi_test

import (
	"fmt"
	"io"
	"net/http"
	"net/url"
	"testing"

	"github.com/teahouse-chat/teahouse/internal/testrig"
)

// listener is a user in rooms with messages, whose answers are read and thrown
// away.
type listener struct {
	*testrig.Client
	server *testrig.Server
}

func busy(b *testing.B, rooms, messages int) listener {
	s := testrig.Start(b, testrig.Options{})
	alice, bob := s.Register("alice"), s.Register("bob")
	for i := range rooms {
		room := alice.CreateRoom(testrig.JSON{"preset": "public_chat", "name": fmt.Sprint("Room ", i)})
		bob.Join(room)
		for m := range messages {
			bob.Say(room, fmt.Sprint(i, "-", m), "a message of some length, as people write them")
		}
	}
	return listener{alice, s}
}

func (l listener) read(b *testing.B, query string) {
	b.Helper()
	req, err := http.NewRequestWithContext(b.Context(), http.MethodGet, "http://"+string(l.server.Name)+"/_matrix/client/v3/sync?"+query, nil)
	if err != nil {
		b.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+l.Token)
	res, err := l.server.Network.Client().Do(req)
	if err != nil {
		b.Fatal(err)
	}
	defer res.Body.Close()
	n, err := io.Copy(io.Discard, res.Body)
	if err != nil || res.StatusCode != http.StatusOK {
		b.Fatal(res.Status, err)
	}
	b.SetBytes(n)
}

func BenchmarkIdleSync(b *testing.B) {
	alice := busy(b, 20, 1)
	since := next(alice.Sync("", 0))
	b.ReportAllocs()
	for b.Loop() {
		alice.read(b, "since="+since)
	}
}

func BenchmarkInitialSync(b *testing.B) {
	for _, rooms := range []int{20, 1000} {
		b.Run(fmt.Sprint(rooms, "rooms"), func(b *testing.B) {
			alice := busy(b, rooms, 20)
			b.ReportAllocs()
			for b.Loop() {
				alice.read(b, "filter="+url.QueryEscape(`{"room":{"timeline":{"limit":20},"state":{"lazy_load_members":true}}}`))
			}
		})
	}
}
