package rooms_test

import (
	"maps"
	"slices"
	"sync"
	"testing"

	"github.com/teahouse-chat/teahouse/internal/db"
	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms"
	"github.com/teahouse-chat/teahouse/rooms/event"
	"github.com/teahouse-chat/teahouse/rooms/state"
)

// member is a member event of a user.
func member(u matrix.UserID, membership string) rooms.Proto {
	return stateProto(matrix.TypeMember, string(u), `{"membership":"`+membership+`"}`)
}

// sentTo are the events that a server is sent.
func (s *server) sentTo(name matrix.ServerName, after int64) (ids []matrix.EventID) {
	s.t.Helper()
	n, err := s.CountOutgoing(s.t.Context(), name, after, 1000)
	if err != nil {
		s.t.Fatal(err)
	}
	for {
		list, err := s.OutgoingTo(s.t.Context(), name, after, 2)
		if err != nil {
			s.t.Fatal(err)
		}
		if len(list) == 0 {
			if n != 0 {
				s.t.Errorf("%s: there should be %d more", name, n)
			}
			return ids
		}
		for _, d := range list {
			n--
			after = d.Position
			if st := s.departed(d); st.Sender.Server() != name {
				ids = append(ids, st.ID)
			}
		}
	}
}

func (s *server) departed(d rooms.Departure) *rooms.Stored {
	s.t.Helper()
	events, err := s.Events(s.t.Context(), []state.EventNID{d.NID})
	if err != nil || events[0].Position != d.Position || !events[0].Outgoing {
		s.t.Fatalf("%+v is %+v, %v", d, events, err)
	}
	return events[0]
}

// departures listens to what is to be sent to whom.
func (s *server) departures() func() map[matrix.ServerName][]matrix.EventID {
	var mu sync.Mutex
	sent := map[matrix.ServerName][]matrix.EventID{}
	s.DB.Subscribe(func(b db.Batch) {
		mu.Lock()
		defer mu.Unlock()
		for _, change := range b.Changes {
			if c, ok := change.(*rooms.Committed); ok {
				for name, events := range c.Departures() {
					for _, st := range events {
						sent[name] = append(sent[name], st.ID)
					}
				}
			}
		}
	})
	return func() map[matrix.ServerName][]matrix.EventID {
		mu.Lock()
		defer mu.Unlock()
		return maps.Clone(sent)
	}
}

// TestOutgoing sends events while servers come and go: each is sent what happens
// from its join to its kick, and the end of an invite, also after a restart.
func TestOutgoing(t *testing.T) {
	for _, kind := range kinds {
		t.Run(kind, func(t *testing.T) {
			a, b, c := newServer(t, "a", kind), newServer(t, "b", "sqlite"), newServer(t, "c", "sqlite")
			streamed := a.departures()
			a.found(lookup(t, "12"))
			a.say("nobody else is there")
			if got := a.theRoom().Servers(); len(got) != 0 {
				t.Errorf("servers %v", got)
			}
			b.joinVia(a)
			toB := []matrix.EventID{a.say("b is there").ID}
			c.joinVia(a)
			both := a.say("c is there").ID
			a.accept(b.forge(draft{sender: b.user, typ: matrix.TypeMessage, content: `{}`, prev: a.extremities(), from: current(a.events()), depth: 30}))
			kick := a.send(member(b.user, "leave")).ID
			later := a.say("b is gone").ID
			a.send(member("@guest:b", "invite"))
			rescinded := a.send(member("@guest:b", "leave")).ID
			last := a.say("the guest, too").ID
			toB = append(toB, both, kick, rescinded)
			toC := []matrix.EventID{both, kick, later}
			for name, ids := range streamed() {
				if want := a.sentTo(name, 0); !slices.Equal(ids, want) {
					t.Errorf("by the stream %s is sent %v, want %v", name, ids, want)
				}
			}
			for range 2 {
				if got := a.sentTo("b", 0); !slices.Equal(got, toB) {
					t.Errorf("b is sent %v, want %v", got, toB)
				}
				got := a.sentTo("c", 0)
				if len(got) != 6 || !slices.Equal(got[:3], toC) || got[5] != last {
					t.Errorf("c is sent %v, want %v", got, toC)
				}
				if got := a.sentTo("d", 0); len(got) != 0 {
					t.Errorf("d is sent %v", got)
				}
				if got := a.theRoom().Servers(); !slices.Equal(got, []matrix.ServerName{"c"}) || a.theRoom().HasServer("b") {
					t.Errorf("servers %v", got)
				}
				newest, err := a.NewestOutgoing(t.Context(), "b", 0)
				if err != nil || len(newest) != 1 || a.departed(newest[0]).ID != rescinded {
					t.Errorf("newest %v, %v", newest, err)
				}
				for after, want := range map[int64][]matrix.ServerName{0: {"b", "c"}, newest[0].Position: {"c"}, a.DB.Position(): nil} {
					if to, err := a.DestinationsAfter(t.Context(), after); err != nil || !slices.Equal(to, want) {
						t.Errorf("events behind %d go to %v, %v", after, to, err)
					}
				}
				with, err := a.RoomsWith(t.Context(), "c")
				if err != nil || !slices.Equal(with, []rooms.RoomNID{a.theRoom().NID}) {
					t.Errorf("rooms with c: %v, %v", with, err)
				}
				if with, err = a.RoomsWith(t.Context(), "b"); err != nil || len(with) != 0 {
					t.Errorf("rooms with b: %v, %v", with, err)
				}
				servers, err := a.ServersWith(t.Context(), a.user)
				if err != nil || !slices.Equal(servers, []matrix.ServerName{"c"}) {
					t.Errorf("servers with a's user: %v, %v", servers, err)
				}
				a.restart()
			}
		})
	}
}

// TestPrepare lets another server's user join by a template, and an invite be
// signed by two servers.
func TestPrepare(t *testing.T) {
	for _, v := range event.Versions() {
		a, b := two(t, v)
		user := "@second:c"
		p := member(matrix.UserID(user), "join")
		p.Sender = matrix.UserID(user)
		d, err := a.Template(t.Context(), a.theRoom(), p)
		if err != nil {
			t.Fatal(err)
		}
		d.Content = []byte(`{"membership":"join"}`)
		join, err := event.Build(v, d, "c", b.key)
		if err != nil {
			t.Fatal(err)
		}
		out, err := a.Receive(t.Context(), a.room, []rooms.Incoming{{Event: wire(t, join), Relay: true}})
		if err != nil || out[0].Event == nil || !out[0].Event.Outgoing || out[0].Why != nil {
			t.Fatalf("version %s: %+v, %v", v.ID, out, err)
		}
		if got := a.sentTo("b", out[0].Event.Position-1); !slices.Equal(got, []matrix.EventID{join.ID}) {
			t.Errorf("version %s: b is sent %v", v.ID, got)
		}
		if got := a.sentTo("c", out[0].Event.Position-1); len(got) != 0 {
			t.Errorf("version %s: c is sent %v", v.ID, got)
		}
		invite, err := a.Prepare(t.Context(), a.theRoom(), a.user, member("@third:d", "invite"))
		if err != nil {
			t.Fatal(err)
		}
		invite, err = wire(t, invite).Sign("d", b.key)
		if err != nil {
			t.Fatal(err)
		}
		out, err = a.Receive(t.Context(), a.room, []rooms.Incoming{{Event: invite, Relay: true}})
		if err != nil || out[0].Event == nil || !out[0].Event.Outgoing {
			t.Fatalf("version %s: %+v, %v", v.ID, out, err)
		}
		if _, err := a.Prepare(t.Context(), a.theRoom(), "@nobody:a", member("@fourth:d", "invite")); !matrix.HasCode(err, matrix.CodeForbidden) {
			t.Errorf("version %s: %v", v.ID, err)
		}
		p.Content = []byte(`{"membership":"ban"}`)
		if _, err := a.Template(t.Context(), a.theRoom(), p); !matrix.HasCode(err, matrix.CodeForbidden) {
			t.Errorf("version %s: %v", v.ID, err)
		}
		if err := a.CheckConsistency(t.Context()); err != nil {
			t.Error(err)
		}
	}
}
