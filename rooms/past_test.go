package rooms_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms"
	"github.com/teahouse-chat/teahouse/rooms/event"
)

// pastOf has a server join after some things were said, and fetch them in chunks.
func (s *server) pastOf(host *server, said []*event.Event, chunk int) {
	s.t.Helper()
	for part := range slices.Chunk(reversed(said), chunk) {
		var in []rooms.Incoming
		for _, ev := range part {
			in = append(in, rooms.Incoming{Event: wire(s.t, ev)})
		}
		oldest := &in[len(in)-1]
		oldest.State = s.stateIDs(host, oldest.Event.ID)
		for i, out := range s.fill(in...) {
			if out.Event == nil || out.Why != nil {
				s.t.Fatalf("event %d, a %s, became %+v", i, in[i].Event.Type, out)
			}
		}
	}
}

func (s *server) one(id matrix.EventID) *rooms.Stored {
	s.t.Helper()
	known, err := s.Known(s.t.Context(), []matrix.EventID{id})
	if err != nil || known[id] == nil {
		s.t.Fatal(id, err)
	}
	return known[id]
}

// TestBackfillRedacted fetches redactions and what they redact, in chunks that
// put them together or apart, and with a redaction that came before its target.
func TestBackfillRedacted(t *testing.T) {
	for _, kind := range kinds {
		for _, version := range []string{"1", "6", "12"} {
			for _, chunk := range []int{1, 2, 10} {
				t.Run(fmt.Sprintf("%s v%s by %d", kind, version, chunk), func(t *testing.T) {
					a, b := newServer(t, "a", "sqlite"), newServer(t, "b", kind)
					a.found(lookup(t, version))
					redact := func(ev *event.Event) *event.Event {
						return a.send(rooms.Proto{Type: matrix.TypeRedaction, Redacts: ev.ID, Content: []byte(`{}`)})
					}
					secret, kept := a.say("secret"), a.say("kept")
					// b gets the events as they were first sent, with their content.
					said := []*event.Event{secret, kept, redact(secret), a.say("between")}
					later := a.say("redacted later")
					said = append(said, later)
					b.joinVia(a)
					late := redact(later)
					b.give(late)
					b.pastOf(a, said, chunk)
					for range 2 {
						for _, ev := range []*event.Event{secret, later} {
							if st := b.one(ev.ID); st.RedactedBy == 0 || string(st.Content) != "{}" {
								t.Errorf("a redacted event is %s", st.Content)
							}
						}
						if st := b.one(kept.ID); st.RedactedBy != 0 {
							t.Error("what was not redacted is")
						}
						for _, ev := range []*event.Event{said[2], late} {
							if st := b.one(ev.ID); !st.Served() || st.Position == 0 {
								t.Errorf("a redaction that had its effect is not shown: flags %d, position %d", st.Flags, st.Position)
							}
						}
						if err := b.CheckConsistency(t.Context()); err != nil {
							t.Error(err)
						}
						b.restart()
					}
				})
			}
		}
	}
}

// TestBackfillRedactsThePresent fills a gap with a redaction of what is shown.
func TestBackfillRedactsThePresent(t *testing.T) {
	a, b := two(t, lookup(t, "12"))
	secret := a.say("secret")
	b.accept(secret)
	redaction := a.send(rooms.Proto{Type: matrix.TypeRedaction, Redacts: secret.ID, Content: []byte(`{}`)})
	after := a.say("after")
	if out, err := b.Receive(t.Context(), b.room, []rooms.Incoming{{Event: wire(t, after), State: b.stateIDs(a, after.ID)}}); err != nil || out[0].Event == nil {
		t.Fatal(out, err)
	}
	b.fill(rooms.Incoming{Event: wire(t, redaction)})
	for _, st := range b.theRoom().View().Recent {
		if st.ID == secret.ID && (st.RedactedBy == 0 || string(st.Content) != "{}") {
			t.Errorf("the room shows %s", st.Content)
		}
	}
	if st := b.one(secret.ID); st.RedactedBy == 0 || st.Position <= 0 {
		t.Errorf("the event is %+v", st)
	}
	if err := b.CheckConsistency(t.Context()); err != nil {
		t.Error(err)
	}
}

// TestBackfillOutlierRedacted has a state event that was redacted while its place
// was not known.
func TestBackfillOutlierRedacted(t *testing.T) {
	a := newServer(t, "a", "sqlite")
	a.found(lookup(t, "12"))
	topic := a.send(stateProto(matrix.TypeTopic, "", `{"topic":"secret"}`))
	b := newServer(t, "b", "sqlite")
	b.joinVia(a)
	b.send(rooms.Proto{Type: matrix.TypeRedaction, Redacts: topic.ID, Content: []byte(`{}`)})
	b.pastOf(a, []*event.Event{topic}, 1)
	for range 2 {
		if st := b.one(topic.ID); st.RedactedBy == 0 || string(st.Content) != "{}" || st.Position >= 0 {
			t.Errorf("the topic is %s, redacted by %d, at %d", st.Content, st.RedactedBy, st.Position)
		}
		b.restart()
	}
}

// TestBackfillThreads fetches a thread, newest part first: what is known of it is
// right at every step.
func TestBackfillThreads(t *testing.T) {
	for _, kind := range kinds {
		a, b := newServer(t, "a", "sqlite"), newServer(t, "b", kind)
		a.found(lookup(t, "12"))
		root := a.say("root")
		reply := func() *event.Event {
			return a.send(rooms.Proto{Type: matrix.TypeMessage, Content: fmt.Appendf(nil,
				`{"msgtype":"m.text","body":"x","m.relates_to":{"rel_type":"m.thread","event_id":%q}}`, root.ID)})
		}
		thread := func(replies int64, latest matrix.EventID) {
			t.Helper()
			threads, err := b.Threads(t.Context(), b.theRoom(), []matrix.EventID{root.ID})
			if err != nil || threads[root.ID].Replies != replies || threads[root.ID].Latest != b.one(latest).NID ||
				threads[root.ID].Position != b.one(latest).Position {
				t.Errorf("%s: the thread is %+v, %v", kind, threads[root.ID], err)
			}
		}
		old := []*event.Event{reply(), reply(), reply(), reply()}
		b.joinVia(a)
		b.pastOf(a, old[2:], 1)
		thread(2, old[3].ID)
		fresh := reply()
		b.accept(fresh)
		thread(3, fresh.ID)
		b.pastOf(a, append([]*event.Event{root}, old[:2]...), 10)
		thread(5, fresh.ID)
		redaction := a.send(rooms.Proto{Type: matrix.TypeRedaction, Redacts: old[0].ID, Content: []byte(`{}`)})
		b.accept(redaction)
		thread(4, fresh.ID)
		list, err := b.ThreadsBefore(t.Context(), b.theRoom(), 1<<60, 10)
		if err != nil || len(list) != 1 || list[0].Unread != 1 {
			t.Errorf("%s: threads %+v, %v", kind, list, err)
		}
		if err := b.CheckConsistency(t.Context()); err != nil {
			t.Error(err)
		}
	}
}

// TestBackfillSeen fills a gap that came after one user had left: who was there
// sees what was said in it, who had gone does not, who comes later does if the
// history is shared.
func TestBackfillSeen(t *testing.T) {
	for _, visibility := range []string{"shared", "joined"} {
		a, b := two(t, lookup(t, "12"))
		a.send(stateProto(matrix.TypeHistoryVisibility, "", fmt.Sprintf(`{"history_visibility":%q}`, visibility)))
		b.give(a.one(a.extremities()[0].ID).Event)
		users := map[string]matrix.UserID{"gone": "@gone:b", "late": "@late:b", "there": b.user, "back": "@back:b"}
		member := func(who, membership string) {
			u := users[who]
			p := stateProto(matrix.TypeMember, string(u), fmt.Sprintf(`{"membership":%q}`, membership))
			p.Sender = u
			a.accept(b.send(p))
		}
		member("gone", "join")
		member("back", "join")
		b.accept(a.say("before"))
		member("gone", "leave")
		member("back", "leave")
		// b is away.
		missed := []*event.Event{a.say("missed"), a.send(stateProto(matrix.TypeTopic, "", `{"topic":"missed"}`)), a.say("missed, too")}
		after := a.say("after")
		if out, err := b.Receive(t.Context(), b.room, []rooms.Incoming{{Event: wire(t, after), State: b.stateIDs(a, after.ID)}}); err != nil || out[0].Event == nil {
			t.Fatal(out, err)
		}
		member("late", "join")
		member("back", "join")
		member("back", "leave")
		b.pastOf(a, missed, 2)
		for who, sees := range map[string]bool{"gone": false, "late": visibility == "shared", "there": true, "back": visibility == "shared"} {
			for _, ev := range missed {
				visible, err := b.Visible(t.Context(), b.theRoom(), users[who], []*rooms.Stored{b.one(ev.ID)})
				if err != nil || (len(visible) > 0) != sees {
					t.Errorf("%s history, %s: sees %v, want %v (%v)", visibility, who, !sees, sees, err)
				}
			}
		}
	}
}
