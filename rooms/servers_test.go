package rooms_test

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/teahouse-chat/teahouse/internal/db"
	"github.com/teahouse-chat/teahouse/internal/db/dbtest"
	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/push"
	"github.com/teahouse-chat/teahouse/rooms"
	"github.com/teahouse-chat/teahouse/rooms/auth"
	"github.com/teahouse-chat/teahouse/rooms/event"
	"github.com/teahouse-chat/teahouse/rooms/resolve/spec"
)

// server is an engine with a name of its own and one user.
type server struct {
	*rooms.Engine
	t    testing.TB
	name matrix.ServerName
	user matrix.UserID
	key  event.SigningKey
	room matrix.RoomID
	v    *event.Version
	url  string
}

// newServer makes a server with a database of the kind.
func newServer(t testing.TB, name, kind string) *server {
	t.Helper()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	s := &server{t: t, name: matrix.ServerName(name), user: matrix.UserID("@user:" + name), key: event.SigningKey{ID: "ed25519:1", Private: private}}
	s.url = dbtest.URL(t, kind)
	s.open()
	t.Cleanup(func() { s.DB.Close() })
	return s
}

func (s *server) open() {
	s.t.Helper()
	d, err := db.Open(context.Background(), s.url, db.Options{})
	if err != nil {
		s.t.Fatal(err)
	}
	s.Engine, err = rooms.New(rooms.Deps{DB: d, ServerName: s.name, Key: s.key, Now: time.Now, Rand: rand.Reader, Counts: push.Counts})
	if err != nil {
		s.t.Fatal(err)
	}
}

// restart starts the server anew, with nothing but the database.
func (s *server) restart() {
	s.t.Helper()
	if err := s.DB.Close(); err != nil {
		s.t.Fatal(err)
	}
	s.open()
}

// found makes a public room in which users need little power.
func (s *server) found(v *event.Version) {
	s.t.Helper()
	s.v = v
	r, err := s.Create(s.t.Context(), v, s.user, func(b *rooms.Builder) error {
		create, levels := map[string]any{"room_version": v.ID}, map[string]any{
			"state_default": 0, "kick": 50, "ban": 50, "redact": 50, "invite": 0,
		}
		if v.CreatorInContent {
			create["creator"] = s.user
		}
		users := map[string]any{"@user:b": 50, "@user:c": 50}
		if !v.CreatorPower {
			users[string(s.user)] = 100
		}
		levels["users"] = users
		for _, p := range []rooms.Proto{
			stateProto(matrix.TypeCreate, "", encode(create)),
			stateProto(matrix.TypeMember, string(s.user), `{"membership":"join"}`),
			stateProto(matrix.TypePowerLevels, "", encode(levels)),
			stateProto(matrix.TypeJoinRules, "", `{"join_rule":"public"}`),
		} {
			if _, err := b.Append(p); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		s.t.Fatal(err)
	}
	s.room = r.ID
}

func encode(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return string(b)
}

func (s *server) theRoom() *rooms.Room {
	s.t.Helper()
	r, err := s.Room(s.t.Context(), s.room)
	if err != nil {
		s.t.Fatal(err)
	}
	return r
}

// state is the room's current state by name.
func (s *server) state() spec.State {
	s.t.Helper()
	return s.named(s.theRoom().View().State.Len(), s.events())
}

func (s *server) events() []*rooms.Stored {
	s.t.Helper()
	events, err := s.StateEvents(s.t.Context(), s.theRoom().View().State, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	return events
}

func (s *server) named(n int, events []*rooms.Stored) spec.State {
	s.t.Helper()
	st := spec.State{}
	for _, ev := range events {
		st[auth.Key{Type: ev.Type, StateKey: ev.StateKey()}] = ev.ID
	}
	if len(st) != n {
		s.t.Fatalf("%s: %d entries, %d keys", s.name, n, len(st))
	}
	return st
}

func (s *server) extremities() []event.Ref {
	s.t.Helper()
	refs, err := s.theRoom().Extremities(s.t.Context())
	if err != nil {
		s.t.Fatal(err)
	}
	return refs
}

// draft is an event that a server builds by hand, on what it pleases.
type draft struct {
	sender  matrix.UserID
	typ     string
	key     *string
	content string
	prev    []event.Ref
	auth    []*event.Event // nil: what the rules select from from
	from    auth.State
	redacts matrix.EventID
	depth   int64
	ts      int64
}

// forge builds and signs an event without asking whether it is allowed.
func (s *server) forge(d draft) *event.Event {
	s.t.Helper()
	e := event.Draft{
		RoomID: s.room, Type: d.typ, StateKey: d.key, Sender: d.sender, Content: []byte(d.content),
		PrevEvents: d.prev, Depth: d.depth, OriginServerTS: d.ts, Redacts: d.redacts,
	}
	if d.ts == 0 {
		e.OriginServerTS = time.Now().UnixMilli()
	}
	if d.auth == nil {
		for _, k := range auth.Needed(s.v, d.typ, d.key, d.sender, e.Content) {
			if a := d.from.Event(k.Type, k.StateKey); a != nil {
				d.auth = append(d.auth, a)
			}
		}
	}
	for _, a := range d.auth {
		e.AuthEvents = append(e.AuthEvents, a.Ref())
	}
	ev, err := event.Build(s.v, e, d.sender.Server(), s.key)
	if err != nil {
		s.t.Fatal(err)
	}
	return ev
}

// current is a server's state for the rules.
type current []*rooms.Stored

func (c current) Event(typ, key string) *event.Event {
	for _, st := range c {
		if st.Is(typ, key) {
			return st.Event
		}
	}
	return nil
}

// wire is the event as it comes over the network.
func wire(t testing.TB, ev *event.Event) *event.Event {
	t.Helper()
	got, err := event.Parse(ev.Version, slices.Clone(ev.JSON))
	if err != nil {
		t.Fatal(err)
	}
	if got.ID != ev.ID {
		t.Fatalf("%s arrives as %s", ev.ID, got.ID)
	}
	return got
}

// give hands events over and returns what became of them.
func (s *server) give(events ...*event.Event) []rooms.Outcome {
	s.t.Helper()
	in := make([]rooms.Incoming, len(events))
	for i, ev := range events {
		in[i] = rooms.Incoming{Event: wire(s.t, ev)}
	}
	out, err := s.Receive(s.t.Context(), s.room, in)
	if err != nil {
		s.t.Fatal(err)
	}
	return out
}

// accept is give for events that must be taken in.
func (s *server) accept(events ...*event.Event) {
	s.t.Helper()
	for i, out := range s.give(events...) {
		if out.Event == nil || out.Why != nil || out.Event.Flags != 0 {
			s.t.Fatalf("%s: event %d, a %s, became %+v", s.name, i, events[i].Type, out)
		}
	}
}

// joinVia lets s join the room of which host is a member, as it is done between
// servers. It returns the join event, which is known to both.
func (s *server) joinVia(host *server) *event.Event {
	s.t.Helper()
	s.room, s.v = host.room, host.v
	before := host.events()
	join := s.forge(draft{
		sender: s.user, typ: matrix.TypeMember, key: (*string)(&s.user), content: `{"membership":"join"}`,
		prev: host.extremities(), from: current(before), depth: 10,
	})
	host.accept(join)
	st, chain := host.stateAndChain(before)
	if _, err := s.ImportState(s.t.Context(), s.v, s.room, st, chain, wire(s.t, join)); err != nil {
		s.t.Fatal(err)
	}
	return join
}

// stateAndChain is what a server answers a join with.
func (s *server) stateAndChain(before []*rooms.Stored) (st, chain []*event.Event) {
	s.t.Helper()
	all := map[matrix.EventID]*event.Event{}
	var queue []matrix.EventID
	for _, ev := range before {
		st = append(st, wire(s.t, ev.Event))
		queue = append(queue, ev.AuthEvents...)
	}
	for len(queue) > 0 {
		found, err := s.Stored(s.t.Context(), queue...)
		if err != nil {
			s.t.Fatal(err)
		}
		queue = nil
		for id, ev := range found {
			if all[id] == nil {
				all[id] = wire(s.t, ev.Event)
				queue = append(queue, ev.AuthEvents...)
			}
		}
	}
	return st, slices.Collect(maps.Values(all))
}

// say sends a message of the server's user.
func (s *server) say(text string) *event.Event {
	s.t.Helper()
	return s.send(message(text))
}

func (s *server) send(p rooms.Proto) *event.Event {
	s.t.Helper()
	st, err := s.Send(s.t.Context(), s.room, s.user, p, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	return st.Event
}

// three are servers a, b and c in a room that a has made.
func three(t testing.TB, v *event.Version, kind string) (a, b, c *server) {
	t.Helper()
	a, b, c = newServer(t, "a", kind), newServer(t, "b", "sqlite"), newServer(t, "c", "sqlite")
	a.found(v)
	b.joinVia(a)
	join := c.joinVia(a)
	b.accept(join)
	return a, b, c
}

func describe(got, want spec.State) string {
	var text string
	keys := maps.Clone(got)
	maps.Copy(keys, want)
	for k := range keys {
		if got[k] != want[k] {
			text += fmt.Sprintf("\n  %s %q: %s, want %s", k.Type, k.StateKey, got[k], want[k])
		}
	}
	return text
}
