package kit_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/teahouse-chat/teahouse/appservices/kit/kittest"
	"github.com/teahouse-chat/teahouse/internal/db/dbtest"
)

// BenchmarkKit is what an event costs a service, from the homeserver's transaction to
// the answer that is sent for it.
func BenchmarkKit(b *testing.B) {
	for _, kind := range []string{"sqlite", "postgres"} {
		b.Run(kind, func(b *testing.B) {
			r := kittest.Start(b, kittest.Options{Database: dbtest.EmptyURL(b, kind), Open: echo})
			alice := r.User("alice")
			var rooms []string
			for range 20 {
				rooms = append(rooms, string(alice.CreateRoom(r.Bot())))
			}
			r.Settle()
			b.ResetTimer()
			for n := 0; n < b.N; n += 100 {
				var events []string
				for i := range 100 {
					events = append(events, fmt.Sprintf(`{"type":"m.room.message","event_id":"$b%d","room_id":"%s","sender":"@alice:test","content":{"msgtype":"m.text","body":"%d"}}`,
						n+i, rooms[i%len(rooms)], i))
				}
				if code := r.Put(fmt.Sprint(n), `{"events":[`+strings.Join(events, ",")+`]}`); code != http.StatusOK {
					b.Fatal(code)
				}
			}
			for {
				events, sends, err := r.Service().Waiting(b.Context())
				if err != nil {
					b.Fatal(err)
				}
				if events+sends == 0 {
					break
				}
				time.Sleep(time.Millisecond)
			}
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "events/s")
		})
	}
}
