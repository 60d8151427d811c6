package rooms_test

import (
	"bytes"
	"slices"
	"testing"

	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms"
	"github.com/teahouse-chat/teahouse/rooms/event"
)

// TestCircles has events that build on each other in a circle, as they can where
// servers choose the ids: they come in only with a state that is told, and every
// walk past them ends.
func TestCircles(t *testing.T) {
	for _, version := range []string{"1", "2"} {
		a, b := two(t, lookup(t, version))
		from := current(a.events())
		said := func(prev event.Ref, depth int64) *event.Event {
			return b.forge(draft{sender: b.user, typ: matrix.TypeMessage, content: `{"body":"x"}`, prev: []event.Ref{prev}, from: from, depth: depth})
		}
		one := said(event.Ref{ID: "$two:b"}, 21)
		made := said(one.Ref(), 20)
		two, err := event.Parse(b.v, bytes.ReplaceAll(made.JSON, []byte(made.ID), []byte("$two:b")))
		if err != nil {
			t.Fatal(err)
		}
		self, err := event.Parse(b.v, bytes.ReplaceAll(one.JSON, []byte("$two:b"), []byte(one.ID)))
		if err != nil {
			t.Fatal(err)
		}
		state := idsOf(a.events())
		for _, out := range append(a.give(one, two, self), a.fill(rooms.Incoming{Event: one}, rooms.Incoming{Event: two}, rooms.Incoming{Event: self})...) {
			if out.Event != nil || len(out.Missing) == 0 {
				t.Errorf("version %s: a circle came in: %+v", version, out)
			}
		}
		top := said(one.Ref(), 22)
		if out, err := a.Receive(t.Context(), a.room, []rooms.Incoming{{Event: top, State: state}}); err != nil || out[0].Event == nil {
			t.Fatal(out, err)
		}
		out := a.fill(rooms.Incoming{Event: two}, rooms.Incoming{Event: wire(t, one), State: state}, rooms.Incoming{Event: two})
		if out[1].Event == nil || out[2].Event == nil {
			t.Errorf("version %s: with a state: %+v", version, out)
		}
		want := []matrix.EventID{top.ID, one.ID, two.ID}
		if got := a.before(100, top.ID); !slices.Equal(got, want) {
			t.Errorf("version %s: back through a circle: %v, want %v", version, got, want)
		}
		if got := a.between(nil, want[:1], 0, 100); len(got) != 2 {
			t.Errorf("version %s: between: %v", version, got)
		}
		if gaps, err := a.Backward(t.Context(), a.theRoom()); err != nil || len(gaps) != 0 {
			t.Errorf("version %s: gaps %v, %v", version, gaps, err)
		}
		if err := a.CheckConsistency(t.Context()); err != nil {
			t.Error(err)
		}
		a.say("the room goes on")
	}
}
