package rooms_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms"
	"github.com/teahouse-chat/teahouse/rooms/event"
)

// ownMember is a member event of the user at host's room, by a sender, built on
// what host has.
func (s *server) ownMember(host *server, sender, user matrix.UserID, membership string) *event.Event {
	s.t.Helper()
	builder := *s
	builder.room, builder.v = host.room, host.v
	return builder.forge(draft{sender: sender, typ: matrix.TypeMember, key: key(string(user)), content: encode(map[string]string{"membership": membership}),
		prev: host.extremities(), from: current(host.events()), depth: 40})
}

// outside stores a member event at s from outside.
func (s *server) outside(ev *event.Event, stripped ...json.RawMessage) *rooms.Stored {
	s.t.Helper()
	st, err := s.StoreOutside(s.t.Context(), ev.Version, wire(s.t, ev), stripped)
	if err != nil {
		s.t.Fatal(err)
	}
	return st
}

// membership is what a user has in the room that s last dealt with.
func (s *server) membership(u matrix.UserID) rooms.Membership {
	s.t.Helper()
	m, err := s.Membership(s.t.Context(), s.theRoom(), u)
	if err != nil {
		s.t.Fatal(err)
	}
	return m
}

func (s *server) glimpse(st *rooms.Stored) string {
	s.t.Helper()
	events, err := s.OutsideState(s.t.Context(), st)
	if err != nil {
		s.t.Fatal(err)
	}
	return string(slices.Concat(events...))
}

func (s *server) consistent() {
	s.t.Helper()
	if err := s.CheckConsistency(s.t.Context()); err != nil {
		s.t.Errorf("%s: %v", s.name, err)
	}
}

const roomName = `{"content":{"name":"Tea"},"sender":"@user:a","state_key":"","type":"m.room.name"}`

// TestOutside lets a user be invited to a room that their server does not know,
// leave, be invited again and join, on both databases.
func TestOutside(t *testing.T) {
	for _, kind := range kinds {
		for _, v := range event.Versions() {
			t.Run(kind+" v"+v.ID, func(t *testing.T) {
				a, b := newServer(t, "a", "sqlite"), newServer(t, "b", kind)
				a.found(v)
				b.room, b.v = a.room, a.v
				if _, err := b.Memberships(t.Context(), b.user); err != nil {
					t.Fatal(err)
				}
				first := b.ownMember(a, a.user, b.user, "invite")
				st := b.outside(first, json.RawMessage(roomName))
				if again := b.outside(first); again.NID != st.NID {
					t.Errorf("the event is stored twice")
				}
				for range 2 {
					b.isShell()
					if m := b.membership(b.user); m.Membership != "invite" || m.Position != st.Position || m.Event != st.NID {
						t.Errorf("the membership is %+v, not that of %+v", m, st)
					}
					if got := b.glimpse(st); !strings.Contains(got, `"Tea"`) || strings.Count(got, "type") != 1 {
						t.Errorf("the user is shown %s", got)
					}
					b.consistent()
					b.restart()
				}
				leave := b.outside(b.ownMember(a, b.user, b.user, "leave"))
				if m := b.membership(b.user); m.Membership != "leave" || b.glimpse(st) != "" || leave.Replaces != st.NID {
					t.Errorf("after leaving: %+v, shown %s", m, b.glimpse(st))
				}
				if again := b.outside(first); again.NID != st.NID || b.membership(b.user).Membership != "leave" {
					t.Error("the old invite counts again")
				}
				if err := b.Forget(t.Context(), b.theRoom(), b.user); err != nil || !b.membership(b.user).Forgotten {
					t.Errorf("forgetting: %v", err)
				}
				b.restart()
				a.say("something new")
				second := b.ownMember(a, a.user, b.user, "invite")
				st = b.outside(second, json.RawMessage(roomName))
				if m := b.membership(b.user); m.Membership != "invite" || m.Forgotten {
					t.Errorf("after the second invite: %+v", m)
				}
				b.outside(b.ownMember(a, a.user, "@other:b", "ban"))
				b.consistent()
				a.accept(second)
				b.joinVia(a)
				for range 2 {
					if m := b.membership(b.user); m.Membership != "join" || b.glimpse(st) != "" || b.theRoom().Shell() {
						t.Errorf("after the join: %+v", m)
					}
					if m := b.membership("@other:b"); m.Membership != "ban" {
						t.Errorf("the other user's membership is %+v", m)
					}
					if diff := describe(b.state(), a.state()); diff != "" {
						t.Errorf("the state differs:%s", diff)
					}
					b.consistent()
					b.accept(a.say("welcome"))
					a.accept(b.say("thanks"))
					b.restart()
				}
			})
		}
	}
}

// isShell checks that the room gives nothing away and cannot be changed.
func (s *server) isShell() {
	s.t.Helper()
	r := s.theRoom()
	v := r.View()
	if !r.Shell() || v.State.Len() != 0 || len(v.Recent) != 0 || v.Joined != 0 || len(r.Servers()) != 0 || r.LocalMemberCount() != 0 {
		s.t.Errorf("%s: the room is %+v", s.name, v)
	}
	ctx := s.t.Context()
	if _, err := s.Access(ctx, r, s.user); !matrix.HasCode(err, matrix.CodeForbidden) {
		s.t.Errorf("%s: access: %v", s.name, err)
	}
	if events, err := s.Timeline(ctx, rooms.TimelineQuery{Room: r, Backwards: true, From: 1 << 60, Limit: 10}); err != nil || len(events) != 0 {
		s.t.Errorf("%s: the timeline has %d events, %v", s.name, len(events), err)
	}
	if _, err := s.Summary(ctx, r); err != nil {
		s.t.Errorf("%s: summary: %v", s.name, err)
	}
	for _, p := range []rooms.Proto{message("hello"), member(s.user, "join"), stateProto(matrix.TypeCreate, "", `{}`)} {
		if _, err := s.Send(ctx, s.room, s.user, p, nil); !matrix.HasCode(err, matrix.CodeNotFound) {
			s.t.Errorf("%s: sending a %s: %v", s.name, p.Type, err)
		}
		if _, err := s.Prepare(ctx, r, s.user, p); !matrix.HasCode(err, matrix.CodeNotFound) {
			s.t.Errorf("%s: preparing a %s: %v", s.name, p.Type, err)
		}
	}
	if _, err := s.Receive(ctx, s.room, nil); !matrix.HasCode(err, matrix.CodeNotFound) {
		s.t.Errorf("%s: receiving: %v", s.name, err)
	}
	if _, err := s.Backfill(ctx, s.room, nil); !matrix.HasCode(err, matrix.CodeNotFound) {
		s.t.Errorf("%s: filling in: %v", s.name, err)
	}
	if _, err := s.StoreOutliers(ctx, s.room, nil); !matrix.HasCode(err, matrix.CodeNotFound) {
		s.t.Errorf("%s: outliers: %v", s.name, err)
	}
}

// TestOutsideWrongVersion lets an invite lie about the room's version: the room
// can be joined all the same, and what was told before is still there.
func TestOutsideWrongVersion(t *testing.T) {
	a, b := newServer(t, "a", "sqlite"), newServer(t, "b", "sqlite")
	a.found(lookup(t, "9"))
	lie := *a
	lie.v = lookup(t, "5")
	b.room, b.v = a.room, a.v
	b.outside(lie.forge(draft{sender: "@mallory:m", typ: matrix.TypeMember, key: key(string(b.user)), content: `{"membership":"invite"}`,
		prev: a.extremities(), from: current(nil), depth: 3}), json.RawMessage(roomName))
	shell := b.theRoom()
	st := b.outside(b.ownMember(a, a.user, "@other:b", "invite"), json.RawMessage(roomName))
	b.joinVia(a)
	if r := b.theRoom(); r == shell || r.NID != shell.NID || r.Version != a.v {
		t.Errorf("the room is of version %s", r.Version.ID)
	}
	for range 2 {
		if m := b.membership("@other:b"); m.Membership != "invite" || m.Event != st.NID || !strings.Contains(b.glimpse(st), "Tea") {
			t.Errorf("the other user's membership is %+v", m)
		}
		b.consistent()
		b.accept(a.say("welcome"))
		b.restart()
	}
	// The invite is not part of the room, but can be ended all the same.
	b.outside(b.ownMember(a, "@other:b", "@other:b", "leave"))
	b.consistent()
	_, err := b.StoreOutside(t.Context(), b.v, b.ownMember(a, a.user, "@third:b", "invite"), nil)
	if err == nil {
		t.Error("an invite into a room that is joined is stored from outside")
	}
}

// TestOutsideStale invites a user to a room that they have left before, and of
// which their server has the state of then.
func TestOutsideStale(t *testing.T) {
	for _, kind := range kinds {
		a, b := newServer(t, "a", "sqlite"), newServer(t, "b", kind)
		a.found(lookup(t, "12"))
		b.joinVia(a)
		b.accept(a.say("while b was there"))
		a.accept(b.send(member(b.user, "leave")))
		a.say("while b was away")
		before, left := b.theRoom().View(), b.membership(b.user)
		invite := a.send(member(b.user, "invite"))
		st, err := a.Known(t.Context(), []matrix.EventID{invite.ID})
		if err != nil {
			t.Fatal(err)
		}
		told := b.outside(st[invite.ID].Event, json.RawMessage(roomName))
		for range 2 {
			v := b.theRoom().View()
			if v.Snapshot != before.Snapshot || v.Position != before.Position || b.theRoom().Shell() {
				t.Errorf("the room is %+v, was %+v", v, before)
			}
			access, err := b.Access(t.Context(), b.theRoom(), b.user)
			if err != nil || access.Joined || access.Until != left.Position {
				t.Errorf("access %+v, %v", access, err)
			}
			if m := b.membership(b.user); m.Membership != "invite" || m.Event != told.NID {
				t.Errorf("the membership is %+v", m)
			}
			p := member("@newcomer:c", "join")
			p.Sender = "@newcomer:c"
			if _, err := b.Template(t.Context(), b.theRoom(), p); !matrix.HasCode(err, matrix.CodeNotFound) {
				t.Errorf("a template by a server that has left: %v", err)
			}
			b.consistent()
			b.restart()
		}
		b.joinVia(a)
		if m := b.membership(b.user); m.Membership != "join" || b.glimpse(told) != "" {
			t.Errorf("the membership is %+v", m)
		}
		b.consistent()
		b.accept(a.say("welcome back"))
	}
}

// TestOutsideRefuses tries to store from outside what does not belong there.
func TestOutsideRefuses(t *testing.T) {
	a, b := newServer(t, "a", "sqlite"), newServer(t, "b", "sqlite")
	a.found(lookup(t, "12"))
	for name, ev := range map[string]*event.Event{
		"a join":              b.ownMember(a, b.user, b.user, "join"),
		"another server's":    b.ownMember(a, a.user, "@user:c", "invite"),
		"an odd membership":   b.ownMember(a, a.user, b.user, "odd"),
		"no member event":     a.say("hello"),
		"another state event": a.send(stateProto(matrix.TypeTopic, "", `{}`)),
	} {
		if _, err := b.StoreOutside(t.Context(), ev.Version, ev, nil); err == nil {
			t.Errorf("%s is stored", name)
		}
	}
	if _, err := b.Room(t.Context(), a.room); !matrix.HasCode(err, matrix.CodeNotFound) {
		t.Errorf("the room is there: %v", err)
	}
}

// THREATS F21: of stripped state that another server tells, only what is well
// formed and not too much is kept.
func TestOutsideState(t *testing.T) {
	a, b := newServer(t, "a", "sqlite"), newServer(t, "b", "sqlite")
	a.found(lookup(t, "12"))
	b.room, b.v = a.room, a.v
	big := strings.Repeat("x", 100<<10)
	stripped := []json.RawMessage{
		nil, json.RawMessage(`{`), json.RawMessage(`null`), json.RawMessage(`[]`), json.RawMessage(`"text"`), json.RawMessage(strings.Repeat("[", 1<<20)),
		json.RawMessage(`{"type":"m.room.name","sender":"@user:a","content":{}}`),
		json.RawMessage(`{"type":"m.room.name","state_key":3,"sender":"@user:a","content":{}}`),
		json.RawMessage(`{"type":"m.room.name","state_key":"","content":{}}`),
		json.RawMessage(`{"type":"m.room.name","state_key":"","sender":"nobody","content":{}}`),
		json.RawMessage(`{"type":"m.room.name","state_key":"","sender":"@user:a","content":[]}`),
		json.RawMessage(`{"type":"m.room.name","state_key":"","sender":"@user:a"}`),
		json.RawMessage(`{"type":"m.room.name","state_key":"","sender":"@user:a","content":{"a":1,"a":2}}`),
		json.RawMessage(fmt.Sprintf(`{"type":"m.room.member","state_key":%q,"sender":"@user:a","content":{"membership":"join"}}`, b.user)),
		json.RawMessage("{\"type\":\"m.room.name\",\"state_key\":\"\",\"sender\":\"@user:a\",\"content\":{\"name\":\"\xff\"}}"),
		json.RawMessage(` {"type":"m.room.name", "state_key":"","sender":"@user:a","content":{"name":"1"},"unsigned":{"x":1},"auth_events":[]} `),
	}
	for i := range 4 {
		stripped = append(stripped, json.RawMessage(fmt.Sprintf(`{"type":"big%d","state_key":"","sender":"@user:a","content":{"x":%q}}`, i, big)))
	}
	stripped = append(stripped, json.RawMessage(roomName))
	st := b.outside(b.ownMember(a, a.user, b.user, "invite"), stripped...)
	got := b.glimpse(st)
	var types []string
	for _, part := range strings.Split(got, `"type":"`)[1:] {
		name, _, _ := strings.Cut(part, `"`)
		types = append(types, name)
	}
	if !slices.Equal(types, []string{"m.room.name", "big0", "big1", "m.room.name"}) || strings.Contains(got, "unsigned") {
		t.Errorf("shown are %v: %.500s", types, got)
	}
}

// TestOutsideAtOnce lets invites of many users into a room come in while others
// of them join it: there is one room, and everybody ends with what came last.
func TestOutsideAtOnce(t *testing.T) {
	for _, kind := range kinds {
		a, b := newServer(t, "a", "sqlite"), newServer(t, "b", kind)
		a.found(lookup(t, "12"))
		b.room, b.v = a.room, a.v
		before := a.events()
		st, chain := a.stateAndChain(before)
		var wg sync.WaitGroup
		for i := range 8 {
			user := matrix.UserID(fmt.Sprintf("@user%d:b", i))
			invite, join := b.ownMember(a, a.user, user, "invite"), b.ownMember(a, user, user, "join")
			wg.Go(func() {
				// Once somebody has joined, the invites of others are not from outside.
				if _, err := b.StoreOutside(t.Context(), b.v, wire(t, invite), nil); err != nil && b.theRoom().LocalMemberCount() == 0 {
					t.Error(err)
				}
				if i%2 == 0 {
					if _, err := b.ImportState(t.Context(), b.v, b.room, st, chain, wire(t, join)); err != nil {
						t.Error(err)
					}
				}
			})
		}
		wg.Wait()
		for range 2 {
			if n := b.theRoom().LocalMemberCount(); n != 4 || b.theRoom().Shell() {
				t.Errorf("%s: %d members", kind, n)
			}
			b.consistent()
			b.restart()
		}
	}
}
