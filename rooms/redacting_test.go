package rooms_test

import (
	"strings"
	"testing"

	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms"
	"github.com/teahouse-chat/teahouse/rooms/event"
)

// redaction is a redaction by s of an event, on top of what s knows.
func (s *server) redaction(sender matrix.UserID, target *event.Event, prev []event.Ref) *event.Event {
	s.t.Helper()
	return s.forge(draft{
		sender: sender, typ: matrix.TypeRedaction, content: `{}`, redacts: target.ID, prev: prev, from: current(s.events()), depth: 50,
	})
}

// shows tells whether clients see an event, and its text.
func (s *server) shows(id matrix.EventID) (text string, ok bool) {
	s.t.Helper()
	events, err := s.Timeline(s.t.Context(), rooms.TimelineQuery{Room: s.theRoom(), Limit: 1000})
	if err != nil {
		s.t.Fatal(err)
	}
	for _, st := range events {
		if st.ID == id {
			return string(st.Content), true
		}
	}
	return "", false
}

// TestRedactions brings redactions of all kinds, before and after their targets.
func TestRedactions(t *testing.T) {
	for _, v := range event.Versions() {
		t.Run("v"+v.ID, func(t *testing.T) {
			a, b := two(t, v)
			secret := a.say("secret of a")
			b.accept(secret)
			tip := b.extremities()

			// b has the power of 50 that redacting takes.
			by := b.redaction(b.user, secret, tip)
			a.accept(by)
			if text, _ := a.shows(secret.ID); strings.Contains(text, "secret") {
				t.Errorf("a redacted event says %s", text)
			}
			if _, ok := a.shows(by.ID); !ok {
				t.Error("the redaction is not shown")
			}

			// The redaction comes first, on another branch than its target.
			late := b.forge(draft{sender: b.user, typ: matrix.TypeMessage, content: `{"body":"late secret"}`, prev: tip, from: current(b.events()), depth: 51})
			early := b.redaction(b.user, late, tip)
			out := a.give(early)[0]
			if v.RedactionRule != (out.Event != nil && out.Event.Flags == 0) {
				t.Errorf("a redaction without its target: %+v", out)
			}
			if _, ok := a.shows(early.ID); ok != v.RedactionRule {
				t.Error("a redaction that has no effect yet is shown, or one that stands by itself is not")
			}
			a.restart()
			a.accept(late)
			if text, ok := a.shows(late.ID); !ok || strings.Contains(text, "secret") {
				t.Errorf("an event that was redacted before it came says %s", text)
			}
			if _, ok := a.shows(early.ID); !ok {
				t.Error("a redaction with an effect is not shown")
			}
			last := a.theRoom().View().Recent
			if st := last[len(last)-1]; (st.ID == late.ID) != v.RedactionRule || strings.Contains(string(st.Content), "secret") {
				t.Errorf("the newest event is a %s that says %s", st.Type, st.Content)
			}
			a.restart()
			if text, _ := a.shows(late.ID); strings.Contains(text, "secret") {
				t.Errorf("after a restart the redacted event says %s", text)
			}

			// Both in one batch, in the wrong order.
			both := b.forge(draft{sender: b.user, typ: matrix.TypeMessage, content: `{"body":"third secret"}`, prev: tip, from: current(b.events()), depth: 52})
			a.give(b.redaction(b.user, both, tip), both)
			if text, ok := a.shows(both.ID); !ok || strings.Contains(text, "secret") {
				t.Errorf("an event that came with its redaction says %s", text)
			}
			if err := a.CheckConsistency(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestRedactionWithoutPower: whoever may not redact an event of another server's
// user does not.
func TestRedactionWithoutPower(t *testing.T) {
	for _, v := range event.Versions() {
		t.Run("v"+v.ID, func(t *testing.T) {
			a, b := two(t, v)
			other := b.outsider(t)
			join := other.forge(draft{sender: other.user, typ: matrix.TypeMember, key: key(string(other.user)), content: `{"membership":"join"}`,
				prev: a.extremities(), from: current(a.events()), depth: 20})
			a.accept(join)
			words := a.say("stays")
			other.Engine = a.Engine // to look things up
			by := other.redaction(other.user, words, a.extremities())
			out := a.give(by)[0]
			if out.Event == nil || out.Event.Flags == 0 {
				t.Errorf("a redaction without power: %+v", out)
			}
			if want := rooms.Rejected; v.RedactionRule && out.Event.Flags != want {
				t.Errorf("a redaction without power has the flags %d, not %d", out.Event.Flags, want)
			}
			if text, _ := a.shows(words.ID); !strings.Contains(text, "stays") {
				t.Errorf("the event says %s", text)
			}
			if _, ok := a.shows(by.ID); ok {
				t.Error("a redaction without an effect is shown")
			}
			a.restart()
			a.say("next")
			if err := a.CheckConsistency(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestRedactUnseen redacts events that only another server has: one that is late,
// and one of the time before this server came. Both come redacted.
func TestRedactUnseen(t *testing.T) {
	for _, kind := range kinds {
		for _, version := range []string{"1", "6", "11", "12"} {
			a, b := newServer(t, "a", "sqlite"), newServer(t, "b", kind)
			a.found(lookup(t, version))
			old := a.say("old secret")
			b.joinVia(a)
			late := a.say("late secret")
			redact := func(who matrix.UserID, target matrix.EventID) (*rooms.Stored, error) {
				return b.Send(t.Context(), b.room, who, rooms.Proto{Type: matrix.TypeRedaction, Redacts: target, Content: []byte(`{}`)}, nil)
			}
			if _, err := redact("@weak:b", late.ID); !matrix.HasCode(err, matrix.CodeNotFound) {
				t.Errorf("without power: %v", err)
			}
			for _, target := range []*event.Event{old, late} {
				by, err := redact(b.user, target.ID)
				if err != nil {
					t.Fatal(err)
				}
				if by.Position <= 0 || !by.Outgoing {
					t.Errorf("the redaction is not sent: %+v", by)
				}
				a.accept(wire(t, by.Event))
			}
			b.restart()
			b.accept(late)
			b.pastOf(a, []*event.Event{old}, 1)
			for range 2 {
				for _, target := range []*event.Event{old, late} {
					for _, s := range []*server{a, b} {
						if st := s.one(target.ID); !st.Served() || st.RedactedBy == 0 || strings.Contains(string(st.Content), "secret") {
							t.Errorf("version %s: %s shows %s", version, s.name, st.Content)
						}
					}
				}
				b.restart()
			}
			for _, s := range []*server{a, b} {
				if err := s.CheckConsistency(t.Context()); err != nil {
					t.Error(err)
				}
			}
		}
	}
	alone := newServer(t, "alone", "sqlite")
	alone.found(lookup(t, "12"))
	_, err := alone.Send(t.Context(), alone.room, alone.user, rooms.Proto{Type: matrix.TypeRedaction, Redacts: "$nothing", Content: []byte(`{}`)}, nil)
	if !matrix.HasCode(err, matrix.CodeNotFound) {
		t.Errorf("where nobody can have it: %v", err)
	}
}
