package syncapi_test

import (
	"fmt"
	"net/http"
	"testing"

	"github.com/teahouse-chat/teahouse/internal/testrig"
)

// busy is a user in rooms with messages.
func busy(b *testing.B, rooms, messages int) *testrig.Client {
	s := testrig.Start(b, testrig.Options{})
	alice, bob := s.Register("alice"), s.Register("bob")
	for i := range rooms {
		room := alice.CreateRoom(testrig.JSON{"preset": "public_chat", "name": fmt.Sprint("Room ", i)})
		bob.Join(room)
		for m := range messages {
			bob.Say(room, fmt.Sprint(i, "-", m), "a message of some length, as people write them")
		}
	}
	return alice
}

// read asks and throws the answer away, as far as it is whole.
func read(b *testing.B, c *testrig.Client, query string) {
	b.Helper()
	status, _, err := c.Do(b.Context(), http.MethodGet, "/v3/sync?"+query, nil)
	if err != nil || status != http.StatusOK {
		b.Fatal(status, err)
	}
}

func BenchmarkIdleSync(b *testing.B) {
	alice := busy(b, 20, 1)
	since := next(alice.Sync("", 0))
	b.ReportAllocs()
	for b.Loop() {
		read(b, alice, "since="+since)
	}
}

func BenchmarkInitialSync(b *testing.B) {
	for _, rooms := range []int{20, 1000} {
		b.Run(fmt.Sprint(rooms, "rooms"), func(b *testing.B) {
			alice := busy(b, rooms, 20)
			b.ReportAllocs()
			for b.Loop() {
				read(b, alice, `filter={"room":{"timeline":{"limit":20},"state":{"lazy_load_members":true}}}`)
			}
		})
	}
}
