package history_test

import (
	"fmt"
	"testing"

	"github.com/teahouse-chat/teahouse/internal/db/dbtest"
	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms"
	. "github.com/teahouse-chat/teahouse/rooms/roomstest"
)

// fill appends many events, some at once.
func fill(g *Rig, r *rooms.Room, n, atOnce int, proto func(i int) rooms.Proto) {
	g.Helper()
	for i := 0; i < n; i += atOnce {
		_, err := g.Engine.Update(g.Context(), r.ID, User("alice"), func(b *rooms.Builder) error {
			for j := i; j < min(i+atOnce, n); j++ {
				if _, err := b.Append(proto(j)); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			g.Fatal(err)
		}
	}
}

// BenchmarkMessages reads back through 10,000 events in pages of 100.
func BenchmarkMessages(b *testing.B) {
	for _, kind := range []string{"sqlite", "postgres"} {
		b.Run(kind, func(b *testing.B) {
			g := New(b, dbtest.URL(b, kind), routes)
			r := g.Room("alice")
			fill(g, r, 10_000, 1000, func(i int) rooms.Proto {
				return Message(fmt.Sprint("hello, this is a message of about the usual length, number ", i))
			})
			g.Reload()
			b.ReportAllocs()
			b.ResetTimer()
			n, from := 0, ""
			for range b.N {
				page := Get[struct {
					Chunk []struct{} `json:"chunk"`
					End   string     `json:"end"`
				}](g, "alice", roomPath(r, "messages?dir=b&limit=100&from="+from))
				n, from = n+len(page.Chunk), page.End
			}
			b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "events/s")
		})
	}
}

// BenchmarkMembers lists the 5,000 members of a room, warm and as after a start.
func BenchmarkMembers(b *testing.B) {
	for _, kind := range []string{"sqlite", "postgres"} {
		g := New(b, dbtest.URL(b, kind), routes)
		r := g.Room("alice")
		fill(g, r, 5000, 20, func(i int) rooms.Proto {
			user := User(fmt.Sprint("user", i))
			p := State(matrix.TypeMember, string(user), fmt.Sprintf(`{"membership":"join","displayname":"User %d"}`, i))
			p.Sender = user
			return p
		})
		for _, cold := range []bool{false, true} {
			b.Run(fmt.Sprintf("%s/cold=%t", kind, cold), func(b *testing.B) {
				b.ReportAllocs()
				for range b.N {
					if cold {
						b.StopTimer()
						g.Reload()
						if _, err := g.Engine.Room(b.Context(), r.ID); err != nil {
							b.Fatal(err)
						}
						b.StartTimer()
					}
					if code, _ := g.Do("alice", "GET", roomPath(r, "members"), ""); code != 200 {
						b.Fatal(code)
					}
				}
			})
		}
	}
}
