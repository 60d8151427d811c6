package rooms_test

import (
	"crypto/ed25519"
	"crypto/rand"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/teahouse-chat/teahouse/internal/db"
	"github.com/teahouse-chat/teahouse/internal/db/dbtest"
	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/push"
	"github.com/teahouse-chat/teahouse/rooms"
	"github.com/teahouse-chat/teahouse/rooms/event"
)

const alice = matrix.UserID("@alice:test")

func newEngine(t testing.TB, d *db.DB) *rooms.Engine {
	t.Helper()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	e, err := rooms.New(rooms.Deps{
		DB: d, ServerName: "test", Key: event.SigningKey{ID: "ed25519:1", Private: private},
		Now: time.Now, Rand: rand.Reader, Counts: push.Counts,
	})
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// newRoom makes a public room of alice's.
func newRoom(t testing.TB, e *rooms.Engine, version string) *rooms.Room {
	t.Helper()
	v, ok := event.Lookup(version)
	if !ok {
		t.Fatal("no such room version")
	}
	r, err := e.Create(t.Context(), v, alice, func(b *rooms.Builder) error {
		create := `{"room_version":"` + version + `"}`
		if v.CreatorInContent {
			create = `{"room_version":"` + version + `","creator":"@alice:test"}`
		}
		levels := `{"users":{"@alice:test":100}}`
		if v.CreatorPower {
			levels = `{}`
		}
		for _, p := range []rooms.Proto{
			stateProto(matrix.TypeCreate, "", create),
			stateProto(matrix.TypeMember, string(alice), `{"membership":"join"}`),
			stateProto(matrix.TypePowerLevels, "", levels),
			stateProto(matrix.TypeJoinRules, "", `{"join_rule":"public"}`),
		} {
			if _, err := b.Append(p); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func stateProto(typ, key, content string) rooms.Proto {
	return rooms.Proto{Type: typ, StateKey: &key, Content: []byte(content)}
}

func message(text string) rooms.Proto {
	return rooms.Proto{Type: matrix.TypeMessage, Content: fmt.Appendf(nil, `{"msgtype":"m.text","body":%q}`, text)}
}

// TestSendAndReload sends into rooms of every version, and reads all of it back
// with an engine that knows nothing but the database.
func TestSendAndReload(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, d *db.DB) {
		e := newEngine(t, d)
		for _, v := range event.Versions() {
			r := newRoom(t, e, v.ID)
			var sent []matrix.EventID
			for i := range 50 {
				st, err := e.Send(t.Context(), r.ID, alice, message(fmt.Sprint(i)), nil)
				if err != nil {
					t.Fatal(err)
				}
				sent = append(sent, st.ID)
			}
			again := newEngine(t, d)
			r2, err := again.Room(t.Context(), r.ID)
			if err != nil {
				t.Fatal(err)
			}
			if a, b := r.View(), r2.View(); a.Position != b.Position || a.Snapshot != b.Snapshot || a.Joined != b.Joined || a.State.Len() != b.State.Len() {
				t.Fatalf("version %s: reloaded view %+v differs from %+v", v.ID, b, a)
			}
			events, err := again.Timeline(t.Context(), rooms.TimelineQuery{Room: r2, From: r2.View().Position + 1, Backwards: true, Limit: 50})
			if err != nil || len(events) != 50 {
				t.Fatalf("version %s: %d events, %v", v.ID, len(events), err)
			}
			for i, st := range events {
				if st.ID != sent[49-i] {
					t.Fatalf("version %s: event %d from the end is %s, not %s", v.ID, i, st.ID, sent[49-i])
				}
			}
			if _, err := again.Send(t.Context(), r.ID, alice, message("after the restart"), nil); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// TestConcurrentSends sends from many goroutines into one room: all events are
// committed, in a single line.
func TestConcurrentSends(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, d *db.DB) {
		e := newEngine(t, d)
		r := newRoom(t, e, "12")
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				for i := range 50 {
					if _, err := e.Send(t.Context(), r.ID, alice, message(fmt.Sprint(i)), nil); err != nil {
						t.Error(err)
					}
				}
			})
		}
		wg.Wait()
		events, err := e.Timeline(t.Context(), rooms.TimelineQuery{Room: r, Limit: 1000})
		if err != nil || len(events) != 404 {
			t.Fatalf("%d events, %v", len(events), err)
		}
		for i := 1; i < len(events); i++ {
			if len(events[i].PrevEvents) != 1 || events[i].PrevEvents[0] != events[i-1].ID {
				t.Fatalf("event %d builds on %v, not on %s", i, events[i].PrevEvents, events[i-1].ID)
			}
		}
	})
}

// BenchmarkSend sends from 16 goroutines into 10 rooms.
func BenchmarkSend(b *testing.B) {
	e := newEngine(b, dbtest.Open(b, "sqlite"))
	var list []matrix.RoomID
	for range 10 {
		list = append(list, newRoom(b, e, "12").ID)
	}
	p := message("hello, this is a message of about the usual length, which is not long")
	b.ReportAllocs()
	b.SetParallelism(8)
	var n atomic.Int64
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, err := e.Send(b.Context(), list[n.Add(1)%10], alice, p, nil); err != nil {
				b.Error(err)
			}
		}
	})
}
