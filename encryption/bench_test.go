package encryption

import (
	"fmt"
	"strings"
	"testing"

	"github.com/teahouse-chat/teahouse/internal/db/dbtest"
)

func benchEach(b *testing.B, f func(b *testing.B, g *rig)) {
	for _, kind := range []string{"sqlite", "postgres"} {
		b.Run(kind, func(b *testing.B) { f(b, newRig(b, dbtest.URL(b, kind))) })
	}
}

func BenchmarkUpload50(b *testing.B) {
	benchEach(b, func(b *testing.B, g *rig) {
		bodies := make(chan *upload50, b.N)
		for i := range b.N {
			c := g.login(fmt.Sprint("u", i), "D")
			bodies <- &upload50{c, `{"device_keys":` + c.deviceKeys() + `,"one_time_keys":{` + c.oneTime(50) + `}}`}
		}
		b.ResetTimer()
		b.SetParallelism(8)
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				u := <-bodies
				if code, text := u.do("POST", "/v3/keys/upload", u.body); code != 200 {
					b.Error(text)
				}
			}
		})
	})
}

type upload50 struct {
	*client
	body string
}

func BenchmarkClaim(b *testing.B) {
	benchEach(b, func(b *testing.B, g *rig) {
		c := g.login("zoe", "Z")
		devices := make(chan *client, b.N)
		for i := 0; i < b.N; i += 1000 {
			d := g.login(fmt.Sprint("u", i), "D")
			if code, text := d.do("POST", "/v3/keys/upload", `{"one_time_keys":{`+d.oneTime(1000)+`}}`); code != 200 {
				b.Fatal(text)
			}
			for range min(1000, b.N-i) {
				devices <- d
			}
		}
		b.ResetTimer()
		b.SetParallelism(16)
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				if c.claim(<-devices) == "" {
					b.Error("no key")
				}
			}
		})
	})
}

func BenchmarkQuery20(b *testing.B) {
	benchEach(b, func(b *testing.B, g *rig) {
		var users []string
		for i := range 20 {
			c := g.login(fmt.Sprint("u", i), "D")
			c.upload(0)
			want[object](c, "POST", crossPath, c.identity().body(""))
			users = append(users, fmt.Sprintf(`%q:[]`, c.user))
		}
		c := g.login("u0", "D")
		body := `{"device_keys":{` + strings.Join(users, ",") + `}}`
		b.SetParallelism(4)
		b.ResetTimer()
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				if code, text := c.do("POST", "/v3/keys/query", body); code != 200 {
					b.Error(text)
				}
			}
		})
	})
}

func BenchmarkSendTo20(b *testing.B) {
	benchEach(b, func(b *testing.B, g *rig) {
		var to []string
		var all []*client
		for i := range 20 {
			c := g.login(fmt.Sprint("u", i), "D")
			all = append(all, c)
			to = append(to, fmt.Sprintf(`%q:{"D":{"algorithm":"m.olm.v1.curve25519-aes-sha2","ciphertext":%q}}`, c.user, strings.Repeat("x", 800)))
		}
		body := `{"messages":{` + strings.Join(to, ",") + `}}`
		senders := make(chan *client, 50)
		for i := range 50 {
			senders <- g.login(fmt.Sprint("s", i), "S")
		}
		ids := make(chan int, b.N)
		for i := range b.N {
			ids <- i
		}
		b.SetParallelism(8)
		b.ResetTimer()
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				s, i := <-senders, <-ids
				if code, text := s.do("PUT", fmt.Sprint("/v3/sendToDevice/m.room.encrypted/", i), body); code != 200 {
					b.Error(text)
				}
				senders <- s
				// The receivers keep up.
				if c := all[i%20]; i%5 == 0 {
					if _, _, err := g.e.ToDevice(b.Context(), c.user, c.id, g.DB.Position()-1000, matrixMax); err != nil {
						b.Error(err)
					}
				}
			}
		})
	})
}

const matrixMax = int64(1) << 60
