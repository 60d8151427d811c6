package rooms_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms"
	"github.com/teahouse-chat/teahouse/rooms/event"
)

// member lets a user of another server change their membership at s.
func (s *server) member(of *server, u matrix.UserID, membership string) *event.Event {
	s.t.Helper()
	of.room, of.v = s.room, s.v
	ev := of.forge(draft{sender: u, typ: matrix.TypeMember, key: (*string)(&u), content: fmt.Sprintf(`{"membership":%q}`, membership),
		prev: s.extremities(), from: current(s.events()), depth: 50})
	s.accept(ev)
	return ev
}

// visibleTo tells of each event whether a server may see it.
func (s *server) visibleTo(name matrix.ServerName, ids ...matrix.EventID) []bool {
	s.t.Helper()
	known, err := s.Known(s.t.Context(), ids)
	if err != nil {
		s.t.Fatal(err)
	}
	events := make([]*rooms.Stored, len(ids))
	for i, id := range ids {
		events[i] = known[id]
	}
	visible, err := s.VisibleTo(s.t.Context(), s.theRoom(), name, events)
	if err != nil {
		s.t.Fatal(err)
	}
	return visible
}

// TestVisibleTo has a server that was never there, then invited, then in the
// room, then gone, under each history visibility.
func TestVisibleTo(t *testing.T) {
	all := []bool{true, true, true, true, true, true, true}
	want := map[string][]bool{ // never, the invite, invited, the join, in, the leave, left
		"":               all,
		"unheard of":     all,
		"shared":         all,
		"world_readable": all,
		"invited":        {false, true, true, true, true, true, false},
		"joined":         {false, false, false, true, true, true, false},
	}
	for _, kind := range kinds {
		for visibility, want := range want {
			t.Run(kind+" "+visibility, func(t *testing.T) {
				a, b := newServer(t, "a", kind), newServer(t, "b", "sqlite")
				a.found(lookup(t, "12"))
				if visibility != "" {
					a.send(stateProto(matrix.TypeHistoryVisibility, "", fmt.Sprintf(`{"history_visibility":%q}`, visibility)))
				}
				u := matrix.UserID("@guest:b")
				events := []*event.Event{a.say("never"), a.send(stateProto(matrix.TypeMember, string(u), `{"membership":"invite"}`)), a.say("invited")}
				events = append(events, a.member(b, u, "join"), a.say("in"), a.member(b, u, "leave"), a.say("left"))
				ids := make([]matrix.EventID, len(events))
				for i, ev := range events {
					ids[i] = ev.ID
				}
				open := want[0]
				for range 2 {
					if got := a.visibleTo("b", ids...); !slices.Equal(got, want) {
						t.Errorf("%v, want %v", got, want)
					}
					if got := a.visibleTo("never.b", ids...); slices.Contains(got, !open) {
						t.Errorf("a server that was never there: %v", got)
					}
					if got := a.visibleTo("a", ids...); slices.Contains(got, false) {
						t.Errorf("the server itself: %v", got)
					}
					a.restart()
				}
				// Users that come later change the answer for what comes later.
				a.member(b, "@other:b", "join")
				if got := a.visibleTo("b", a.say("in again").ID, ids[6]); !got[0] || got[1] != open {
					t.Errorf("after another user has joined: %v", got)
				}
			})
		}
	}
}

// TestVisibleToChange changes the visibility: of the change itself, the more open
// of both counts.
func TestVisibleToChange(t *testing.T) {
	a := newServer(t, "a", "sqlite")
	a.found(lookup(t, "12"))
	set := func(v string) matrix.EventID {
		return a.send(stateProto(matrix.TypeHistoryVisibility, "", fmt.Sprintf(`{"history_visibility":%q}`, v))).ID
	}
	ids := []matrix.EventID{a.say("open").ID, set("joined"), a.say("closed").ID, set("invited"), set("shared"), a.say("open again").ID}
	want := []bool{true, true, false, false, true, true}
	if got := a.visibleTo("other", ids...); !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

// TestNotVisibleTo has events that no server is given, whatever the visibility.
func TestNotVisibleTo(t *testing.T) {
	a, b := two(t, lookup(t, "12"))
	a.send(stateProto(matrix.TypeHistoryVisibility, "", `{"history_visibility":"world_readable"}`))
	st, tip := current(a.events()), a.extremities()
	rejected := b.forge(draft{sender: "@third:b", typ: matrix.TypeMessage, content: `{}`, prev: tip, from: st, depth: 20})
	a.give(rejected)
	a.send(stateProto(matrix.TypeMember, string(b.user), `{"membership":"ban"}`))
	soft := b.forge(draft{sender: b.user, typ: matrix.TypeMessage, content: `{}`, prev: tip, from: st, depth: 20})
	a.give(soft)
	outlier := b.forge(draft{sender: b.user, typ: matrix.TypeTopic, key: key(""), content: `{}`, prev: tip, from: st, depth: 20})
	if _, err := a.StoreOutliers(t.Context(), a.room, []*event.Event{outlier}); err != nil {
		t.Fatal(err)
	}
	held := a.forge(draft{sender: a.user, typ: matrix.TypeRedaction, redacts: "$unknown", content: `{}`, prev: a.extremities(), from: current(a.events()), depth: 30})
	a.give(held)
	home := a.room
	a.found(lookup(t, "12"))
	elsewhere := a.say("in another room")
	a.room = home
	if got := a.visibleTo("b", rejected.ID, soft.ID, outlier.ID, elsewhere.ID); slices.Contains(got, true) {
		t.Errorf("rejected, soft-failed, outlier, of another room: %v", got)
	}
	if got := a.visibleTo("b", held.ID); !got[0] {
		t.Error("a redaction that waits is kept from those who may wait for it")
	}
}
