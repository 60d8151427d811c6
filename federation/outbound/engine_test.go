package outbound_test

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"log/slog"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/teahouse-chat/teahouse/federation/outbound"
	"github.com/teahouse-chat/teahouse/federation/transport"
	"github.com/teahouse-chat/teahouse/internal/db/dbtest"
	"github.com/teahouse-chat/teahouse/internal/httpx"
	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms"
	"github.com/teahouse-chat/teahouse/rooms/auth"
	"github.com/teahouse-chat/teahouse/rooms/event"
	"github.com/teahouse-chat/teahouse/rooms/roomstest"
)

// engine is the queues on a real room engine.
type engine struct {
	*roomstest.Rig
	net    *network
	queues *outbound.Queues
	key    event.SigningKey // of all other servers
}

func newEngine(t testing.TB, url string) *engine {
	t.Helper()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	e := &engine{net: &network{t: t, us: roomstest.Server, peers: map[matrix.ServerName]*peer{}}, key: event.SigningKey{ID: "ed25519:1", Private: private}}
	e.Rig = roomstest.New(t, url, func(g *roomstest.Rig) []httpx.Route {
		if e.queues, err = outbound.New(outbound.Deps{
			DB: g.DB, ServerName: roomstest.Server, Rooms: g.Engine, Sender: e.net, Now: time.Now, Rand: rand.Reader, Log: slog.New(slog.DiscardHandler),
		}); err != nil {
			t.Fatal(err)
		}
		if err := e.queues.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		return nil
	})
	t.Cleanup(func() { e.queues.Crash() })
	return e
}

func (e *engine) crash() {
	e.Helper()
	e.queues.Crash()
	e.Reload()
}

// joins lets a user of another server join; relayed says whether we tell others.
func (e *engine) joins(r *rooms.Room, user matrix.UserID, relayed bool) {
	e.Helper()
	events, err := e.Engine.StateEvents(e.Context(), r.View().State, nil)
	if err != nil {
		e.Fatal(err)
	}
	prev, err := r.Extremities(e.Context())
	if err != nil {
		e.Fatal(err)
	}
	key := string(user)
	d := event.Draft{
		RoomID: r.ID, Type: matrix.TypeMember, StateKey: &key, Sender: user, Content: []byte(`{"membership":"join"}`),
		Depth: 100, OriginServerTS: 1, PrevEvents: prev,
	}
	for _, k := range auth.Needed(r.Version, d.Type, d.StateKey, user, d.Content) {
		for _, st := range events {
			if st.Is(k.Type, k.StateKey) {
				d.AuthEvents = append(d.AuthEvents, st.Ref())
			}
		}
	}
	ev, err := event.Build(r.Version, d, user.Server(), e.key)
	if err != nil {
		e.Fatal(err)
	}
	out, err := e.Engine.Receive(e.Context(), r.ID, []rooms.Incoming{{Event: ev, Relay: relayed}})
	if err != nil || out[0].Why != nil {
		e.Fatalf("%+v, %v", out, err)
	}
}

// bodies lists what a server was told, messages by their text, member events by
// the user.
func (e *engine) bodies(server matrix.ServerName) (list []string) {
	p := e.net.peer(server)
	e.net.mu.Lock()
	defer e.net.mu.Unlock()
	for _, pdu := range p.pdus {
		var ev struct {
			StateKey string `json:"state_key"`
			Content  struct{ Body, Membership string }
		}
		if err := json.Unmarshal([]byte(pdu), &ev); err != nil {
			e.Error(err)
		}
		if name := ev.Content.Body + ev.Content.Membership + ev.StateKey; !slices.Contains(list, name) {
			list = append(list, name)
		}
	}
	return list
}

// With the engine: servers come and go, and are told what happens meanwhile.
func TestWithTheRoomEngine(t *testing.T) {
	for _, kind := range []string{"sqlite", "postgres"} {
		t.Run(kind, func(t *testing.T) {
			url := dbtest.URL(t, kind)
			synctest.Test(t, func(t *testing.T) {
				e := newEngine(t, url)
				r := e.Room("alice")
				e.Say(r, "alice", "1")
				e.joins(r, "@bob:b", false)
				e.Say(r, "alice", "2")
				e.net.change("c", func(p *peer) { p.answer = remote("c", 502, "") })
				e.joins(r, "@carol:c", true)
				e.Say(r, "alice", "3")
				pass(time.Minute)
				e.crash()
				r, err := e.Engine.Room(t.Context(), r.ID)
				if err != nil {
					t.Fatal(err)
				}
				e.Say(r, "alice", "4")
				e.Send(r, "alice", roomstest.State(matrix.TypeMember, "@bob:b", `{"membership":"leave"}`))
				e.Say(r, "alice", "5")
				for i := range 1000 {
					e.Say(r, "alice", fmt.Sprint("m", i))
				}
				pass(time.Second)
				e.crash()
				pass(time.Second)
				e.net.change("c", func(p *peer) { p.answer = nil })
				pass(2 * time.Hour)
				if got := e.bodies("b"); !slices.Equal(got, []string{"2", "join@carol:c", "3", "4", "leave@bob:b"}) {
					t.Errorf("b got %v", got)
				}
				got := e.bodies("c")
				if len(got) != 1004 || !slices.Equal(got[:5], []string{"3", "4", "leave@bob:b", "5", "m0"}) || got[1003] != "m999" {
					t.Errorf("c got %d: %.100v", len(got), got)
				}
			})
		})
	}
}

// BenchmarkEngineCatchUp lets a server catch up with 10,000 events that the room
// engine has to read from the database.
func BenchmarkEngineCatchUp(b *testing.B) {
	const events = 10_000
	e := newEngine(b, dbtest.URL(b, "sqlite"))
	net := &quick{dead: func(matrix.ServerName) bool { return false }}
	down := true
	e.net.change("b", func(p *peer) { p.answer = remote("b", 502, "") })
	r := e.Room("alice")
	e.joins(r, "@bob:b", false)
	for i := range events {
		e.Say(r, "alice", fmt.Sprint("a message like others, number ", i))
	}
	sender := senderFunc(func(ctx context.Context, req transport.Request) ([]byte, error) {
		if down {
			return nil, remote("b", 502, "")
		}
		return net.Do(ctx, req)
	})
	b.ResetTimer()
	for range b.N {
		b.StopTimer()
		e.crash()
		e.queues.Crash()
		q, err := outbound.New(outbound.Deps{
			DB: e.DB, ServerName: roomstest.Server, Rooms: e.Engine, Sender: sender, Now: time.Now, Rand: rand.Reader, Log: slog.New(slog.DiscardHandler),
		})
		if err != nil {
			b.Fatal(err)
		}
		down = false
		last := e.DB.Position()
		b.StartTimer()
		if err := q.Start(b.Context()); err != nil {
			b.Fatal(err)
		}
		for q.Sent("b") < last {
			q.Retry("b")
			time.Sleep(time.Millisecond)
		}
		b.StopTimer()
		q.Crash()
	}
	b.ReportMetric(float64(events*b.N)/b.Elapsed().Seconds(), "events/s")
}
