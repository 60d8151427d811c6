package rooms_test

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms"
	"github.com/teahouse-chat/teahouse/rooms/auth"
	"github.com/teahouse-chat/teahouse/rooms/event"
)

// two are servers a and b in a room that a has made.
func two(t testing.TB, v *event.Version) (a, b *server) {
	t.Helper()
	a, b = newServer(t, "a", "sqlite"), newServer(t, "b", "sqlite")
	a.found(v)
	b.joinVia(a)
	return a, b
}

func (s *server) outsider(t testing.TB) *server {
	t.Helper()
	evil := newServer(t, "evil", "sqlite")
	evil.room, evil.v = s.room, s.v
	return evil
}

// unseen checks that an event was turned down as flags say, and that nobody is
// shown it, nor the state that it would make.
func (s *server) unseen(ev *event.Event, flags rooms.Flags) {
	s.t.Helper()
	stored, err := s.Stored(s.t.Context(), ev.ID)
	if err != nil || stored[ev.ID] == nil {
		s.t.Fatalf("%s is not stored (%v)", ev.ID, err)
	}
	if got := stored[ev.ID].Flags; got != flags {
		s.t.Errorf("%s has the flags %d, not %d", ev.Type, got, flags)
	}
	r := s.theRoom()
	if _, err := s.EventByID(s.t.Context(), r, ev.ID); !matrix.HasCode(err, matrix.CodeNotFound) {
		s.t.Errorf("a turned down %s is served: %v", ev.Type, err)
	}
	timeline, err := s.Timeline(s.t.Context(), rooms.TimelineQuery{Room: r, From: 1 << 60, Backwards: true, Limit: 1000})
	if err != nil {
		s.t.Fatal(err)
	}
	is := func(st *rooms.Stored) bool { return st.ID == ev.ID }
	if slices.ContainsFunc(timeline, is) || slices.ContainsFunc(r.View().Recent, is) {
		s.t.Errorf("a turned down %s is in the timeline", ev.Type)
	}
	if slices.ContainsFunc(s.events(), is) {
		s.t.Errorf("a turned down %s is in the state", ev.Type)
	}
	if slices.ContainsFunc(s.extremities(), func(x event.Ref) bool { return x.ID == ev.ID }) {
		s.t.Errorf("a turned down %s is a forward extremity", ev.Type)
	}
}

// TestTurnedDownEventsStayOut lets events that break rules in different ways
// come in: none ever shows, not after a restart and not when others build on it.
func TestTurnedDownEventsStayOut(t *testing.T) {
	for _, v := range event.Versions() {
		t.Run("v"+v.ID, func(t *testing.T) {
			a, b := two(t, v)
			evil := a.outsider(t)
			st := current(a.events())
			tip := a.extremities()
			topic := func(s *server, d draft) *event.Event {
				d.typ, d.key, d.content, d.prev, d.depth = matrix.TypeTopic, key(""), `{"topic":"bad"}`, tip, 20
				if d.sender == "" {
					d.sender = s.user
				}
				if d.auth == nil && d.from == nil {
					d.from = st
				}
				return s.forge(d)
			}
			levels := st.Event(matrix.TypePowerLevels, "")
			cases := map[string]*event.Event{
				"not a member":             topic(evil, draft{}),
				"no auth events":           topic(b, draft{auth: []*event.Event{}}),
				"an auth event twice":      topic(b, draft{auth: []*event.Event{levels, levels}}),
				"an auth event too many":   topic(b, draft{auth: []*event.Event{st.Event(matrix.TypeJoinRules, "")}}),
				"nothing before it":        b.forge(draft{sender: b.user, typ: matrix.TypeTopic, key: key(""), content: `{}`, auth: []*event.Event{}}),
				"power that was not given": b.forge(draft{sender: b.user, typ: matrix.TypePowerLevels, key: key(""), content: `{"users":{"@user:b":1000}}`, prev: tip, from: st, depth: 20}),
				"somebody else's member":   b.forge(draft{sender: b.user, typ: matrix.TypeMember, key: key("@third:b"), content: `{"membership":"join"}`, prev: tip, from: st, depth: 20}),
			}
			for name, ev := range cases {
				out := a.give(ev)[0]
				if out.Event == nil || out.Why == nil || out.Event.Flags != rooms.Rejected {
					t.Fatalf("%s: %+v", name, out)
				}
				a.unseen(ev, rooms.Rejected)
			}
			// What names a rejected event as an auth event is rejected, too. What
			// only comes after one is judged by itself.
			join := cases["somebody else's member"]
			third := b.forge(draft{
				sender: "@third:b", typ: matrix.TypeTopic, key: key(""), content: `{"topic":"of a rejected member"}`, prev: tip, depth: 21,
				from: current(append(a.events(), &rooms.Stored{Event: join})),
			})
			if out := a.give(third)[0]; out.Event == nil || out.Event.Flags != rooms.Rejected {
				t.Errorf("an event that rests on a rejected one: %+v", out)
			}
			// This one would be allowed by every state.
			selected := []*event.Event{cases["power that was not given"], st.Event(matrix.TypeMember, string(b.user))}
			if !v.RoomIDHash {
				selected = append(selected, st.Event(matrix.TypeCreate, ""))
			}
			proud := topic(b, draft{auth: selected})
			if out := a.give(proud)[0]; out.Event == nil || out.Event.Flags != rooms.Rejected {
				t.Errorf("an event with a rejected auth event: %+v", out)
			}
			after := b.forge(draft{sender: b.user, typ: matrix.TypeMessage, content: `{"body":"innocent"}`, prev: []event.Ref{cases["not a member"].Ref()}, from: st, depth: 22})
			a.accept(after)
			before := a.state()
			a.restart()
			for _, ev := range cases {
				a.unseen(ev, rooms.Rejected)
				if out := a.give(ev)[0]; !out.Known || out.Event.Flags != rooms.Rejected {
					t.Errorf("a rejected event that comes again: %+v", out)
				}
			}
			a.unseen(third, rooms.Rejected)
			a.say("life goes on")
			if diff := describe(a.state(), before); diff != "" {
				t.Errorf("the state has changed:%s", diff)
			}
			if err := a.CheckConsistency(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestSoftFailure is the specification's own example: a banned user sets the
// topic on top of what was before the ban.
// spec: server-server#soft-failure
func TestSoftFailure(t *testing.T) {
	for _, v := range event.Versions() {
		t.Run("v"+v.ID, func(t *testing.T) {
			a, b := two(t, v)
			st, tip := current(a.events()), a.extremities()
			ban := a.send(stateProto(matrix.TypeMember, string(b.user), `{"membership":"ban"}`))
			topic := b.forge(draft{sender: b.user, typ: matrix.TypeTopic, key: key(""), content: `{"topic":"evaded"}`, prev: tip, from: st, depth: 20})
			words := b.forge(draft{sender: b.user, typ: matrix.TypeMessage, content: `{"body":"evaded"}`, prev: tip, from: st, depth: 20})
			for _, ev := range []*event.Event{topic, words} {
				out := a.give(ev)[0]
				var why *auth.Rejection
				if out.Event == nil || out.Event.Flags != rooms.SoftFailed || !errors.As(out.Why, &why) {
					t.Fatalf("an event that evades a ban: %+v", out)
				}
				a.unseen(ev, rooms.SoftFailed)
			}
			a.restart()
			a.unseen(topic, rooms.SoftFailed)
			a.unseen(words, rooms.SoftFailed)
			if next := a.say("after"); len(next.PrevEvents) != 1 || next.PrevEvents[0] != ban.ID {
				t.Errorf("the next event builds on %v, not on the ban %s", next.PrevEvents, ban.ID)
			}
			// The same is no failure where the ban is not known yet, and the ban
			// then does not undo it: it is resolved.
			b.accept(topic, ban)
			if n := len(b.extremities()); n != 2 {
				t.Errorf("%d extremities, not two", n)
			}
			if m, err := b.Membership(t.Context(), b.theRoom(), b.user); err != nil || m.Membership != matrix.MembershipBan {
				t.Errorf("the banned user is %+v (%v)", m, err)
			}
			if b.theRoom().IsLocalMember(b.user) {
				t.Error("the banned user is still a member")
			}
			if err := b.CheckConsistency(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestForeignEventsAreNotStored brings events of other rooms and of none.
func TestForeignEventsAreNotStored(t *testing.T) {
	for _, id := range []string{"1", "6", "12"} {
		v := lookup(t, id)
		a, b := two(t, v)
		copied := *a
		other := &copied // the same server, in another room
		other.found(v)
		foreign := other.say("in another room")
		st := current(a.events())
		out, err := a.Receive(t.Context(), a.room, []rooms.Incoming{{Event: foreign}})
		if err != nil || out[0].Event != nil || out[0].Why == nil {
			t.Errorf("version %s: an event of another room: %+v, %v", id, out, err)
		}
		onForeign := b.forge(draft{sender: b.user, typ: matrix.TypeMessage, content: `{}`, prev: []event.Ref{foreign.Ref()}, from: st})
		if out := a.give(onForeign)[0]; out.Event != nil || !slices.Equal(out.Missing, []matrix.EventID{foreign.ID}) {
			t.Errorf("version %s: an event on top of another room's: %+v", id, out)
		}
		// Auth events of another room never authorise.
		elsewhere := current(other.events())
		borrowed := a.forge(draft{
			sender: a.user, typ: matrix.TypeMessage, content: `{}`, prev: a.extremities(), depth: 20,
			auth: []*event.Event{elsewhere.Event(matrix.TypePowerLevels, ""), elsewhere.Event(matrix.TypeMember, string(a.user))},
		})
		if out := a.give(borrowed)[0]; out.Event == nil || out.Event.Flags != rooms.Rejected {
			t.Errorf("version %s: auth events of another room: %+v", id, out)
		}
	}
}

// TestSecondCreateEvent brings another create event, in each way.
func TestSecondCreateEvent(t *testing.T) {
	for _, id := range []string{"1", "6", "11"} { // from version 12 on the room id is the create event's hash
		v := lookup(t, id)
		a, b := two(t, v)
		content := `{"creator":"@evil:a"}`
		if !v.CreatorInContent {
			content = `{}`
		}
		second := a.forge(draft{sender: "@evil:a", typ: matrix.TypeCreate, key: key(""), content: content, auth: []*event.Event{}})
		before := a.state()
		if out, err := b.StoreOutliers(t.Context(), b.room, []*event.Event{second}); err != nil || out[0].Event == nil || out[0].Event.Flags&rooms.Rejected == 0 {
			t.Errorf("version %s: a second create event as outlier: %+v, %v", id, out, err)
		}
		if out := a.give(second)[0]; out.Event == nil || out.Event.Flags != rooms.Rejected {
			t.Errorf("version %s: a second create event: %+v", id, out)
		}
		join := a.forge(draft{
			sender: "@evil:a", typ: matrix.TypeMember, key: key("@evil:a"), content: `{"membership":"join"}`,
			prev: []event.Ref{second.Ref()}, auth: []*event.Event{second},
		})
		if out := a.give(join)[0]; out.Event == nil || out.Event.Flags != rooms.Rejected {
			t.Errorf("version %s: a member of a second create event: %+v", id, out)
		}
		if diff := describe(a.state(), before); diff != "" {
			t.Errorf("version %s: the state has changed:%s", id, diff)
		}
	}
}

// TestMissing checks that events wait for what they refer to, and that cycles
// are never taken in.
func TestMissing(t *testing.T) {
	for _, id := range []string{"1", "12"} {
		a, b := two(t, lookup(t, id))
		first, second := b.say("first"), b.say("second")
		out := a.give(second)[0]
		if out.Event != nil || !slices.Equal(out.Missing, []matrix.EventID{first.ID}) {
			t.Errorf("version %s: %+v", id, out)
		}
		if stored, err := a.Stored(t.Context(), second.ID); err != nil || len(stored) > 0 {
			t.Errorf("version %s: an event with a gap before it is stored (%v)", id, err)
		}
		a.accept(first, second)
		if out := a.give(second, first); !out[0].Known || !out[1].Known {
			t.Errorf("version %s: known events are %+v", id, out)
		}
	}
	a, b := two(t, lookup(t, "1"))
	st := current(a.events())
	cycle := func(prev string) *event.Event {
		return b.forge(draft{
			sender: b.user, typ: matrix.TypeMessage, content: fmt.Sprintf(`{"body":%q}`, prev),
			prev: []event.Ref{{ID: matrix.EventID(prev)}}, from: st, ts: 1,
		})
	}
	one := cycle("$placeholder:b")
	other := cycle(string(one.ID))
	for range 2 {
		if out := a.give(one, other); out[0].Event != nil || out[1].Event != nil {
			t.Errorf("events of a cycle: %+v", out)
		}
	}
}

// TestGarbledContent brings an event whose content was changed on the way: it
// counts as redacted.
// spec: server-server#validating-hashes-and-signatures-on-received-events
func TestGarbledContent(t *testing.T) {
	a, b := two(t, lookup(t, "12"))
	ev := b.say("original")
	changed := slices.Clone(ev.JSON)
	at := slices.Index(changed, 'g')
	for i := range changed {
		if string(changed[i:min(len(changed), i+8)]) == "original" {
			at = i
		}
	}
	changed[at] = 'O'
	garbled, err := event.Parse(ev.Version, changed)
	if err != nil {
		t.Fatal(err)
	}
	out, err := a.Receive(t.Context(), a.room, []rooms.Incoming{{Event: garbled}})
	if err != nil || out[0].Event == nil || string(out[0].Event.Content) != "{}" || out[0].Event.ID != ev.ID {
		t.Errorf("%+v, %v", out, err)
	}
}

// TestManyBranches lets one server pull a room into very many branches. Nothing
// takes long, and the others can go on and join them again.
func TestManyBranches(t *testing.T) {
	const n = 150
	for _, id := range []string{"2", "12"} {
		a, b := two(t, lookup(t, id))
		st, tip := current(a.events()), a.extremities()
		var wide []*event.Event
		for i := range n {
			wide = append(wide, b.forge(draft{
				sender: b.user, typ: matrix.TypeTopic, key: key(fmt.Sprint(i % 10)), content: fmt.Sprintf(`{"topic":"%d"}`, i),
				prev: tip, from: st, depth: 20, ts: int64(i + 1),
			}))
		}
		began := time.Now()
		a.accept(wide...)
		if took := time.Since(began); took > 5*time.Second {
			t.Errorf("version %s: %d branches take %v", id, n, took)
		}
		if got := len(a.extremities()); got != n {
			t.Fatalf("version %s: %d extremities, not %d", id, got, n)
		}
		a.restart()
		b.accept(wide...)
		for i := range n/19 + 1 {
			ev := a.say(fmt.Sprint(i))
			if len(ev.PrevEvents) > 20 {
				t.Fatalf("version %s: an event with %d previous events", id, len(ev.PrevEvents))
			}
			b.accept(ev)
		}
		if x, y := a.extremities(), b.extremities(); len(x) != 1 || !slices.Equal(x, y) {
			t.Errorf("version %s: extremities %d and %d", id, len(x), len(y))
		}
		if diff := describe(a.state(), b.state()); diff != "" {
			t.Errorf("version %s: the states differ:%s", id, diff)
		}
		for _, s := range []*server{a, b} {
			if err := s.CheckConsistency(t.Context()); err != nil {
				t.Error(err)
			}
		}
	}
}
