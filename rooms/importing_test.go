package rooms_test

import (
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms"
	"github.com/teahouse-chat/teahouse/rooms/event"
)

// TestImport joins a room of another server, on both databases: it is there at
// once with all its members, also after a restart.
func TestImport(t *testing.T) {
	for _, kind := range kinds {
		for _, v := range event.Versions() {
			a := newServer(t, "a", "sqlite")
			a.found(v)
			for i := range 5 {
				a.send(stateProto(matrix.TypeMember, fmt.Sprintf("@guest%d:c", i), `{"membership":"invite"}`))
			}
			b := newServer(t, "b", kind)
			join := b.joinVia(a)
			if _, err := b.Memberships(t.Context(), b.user); err != nil {
				t.Fatal(err)
			}
			for range 2 {
				view := b.theRoom().View()
				if view.Joined != 2 || view.Invited != 5 || len(view.Recent) != 1 || view.Recent[0].ID != join.ID {
					t.Errorf("version %s: %d joined, %d invited, %d events", v.ID, view.Joined, view.Invited, len(view.Recent))
				}
				if diff := describe(b.state(), a.state()); diff != "" {
					t.Errorf("version %s: the state differs:%s", v.ID, diff)
				}
				m, err := b.Membership(t.Context(), b.theRoom(), b.user)
				if err != nil || m.Membership != matrix.MembershipJoin || m.Position != view.Position {
					t.Errorf("version %s: %+v, %v", v.ID, m, err)
				}
				if err := b.CheckConsistency(t.Context()); err != nil {
					t.Error(err)
				}
				b.restart()
			}
			b.accept(a.say("welcome"))
			a.accept(b.say("thanks"))
		}
	}
}

// TestImportRefuses lets a join fail: nothing of the room is there then.
func TestImportRefuses(t *testing.T) {
	a := newServer(t, "a", "sqlite")
	a.found(lookup(t, "12"))
	before := a.events()
	st, chain := a.stateAndChain(before)
	b := newServer(t, "b", "sqlite")
	b.room, b.v = a.room, a.v
	join := func(membership string, auth []*event.Event) *event.Event {
		return b.forge(draft{sender: b.user, typ: matrix.TypeMember, key: key(string(b.user)), content: fmt.Sprintf(`{"membership":%q}`, membership),
			prev: a.extremities(), from: current(before), auth: auth, depth: 10})
	}
	without := slices.DeleteFunc(slices.Clone(st), func(ev *event.Event) bool { return ev.Type == matrix.TypeCreate })
	ownCreate := b.forge(draft{sender: b.user, typ: matrix.TypeTopic, key: key(""), content: `{}`, auth: []*event.Event{}})
	for name, c := range map[string]struct {
		st, chain []*event.Event
		join      *event.Event
	}{
		"a join that is not allowed":  {st, chain, join("knock", nil)},
		"no create event":             {without, nil, join("join", nil)},
		"an auth event is missing":    {st[:2], nil, join("join", nil)},
		"an auth event of elsewhere":  {st, chain, join("join", []*event.Event{ownCreate})},
		"a member without any rights": {st, chain, join("join", []*event.Event{})},
	} {
		if joined, err := b.ImportState(t.Context(), b.v, b.room, c.st, c.chain, c.join); err == nil {
			t.Errorf("%s: %+v", name, joined)
		}
		if _, err := b.Room(t.Context(), b.room); !matrix.HasCode(err, matrix.CodeNotFound) {
			t.Errorf("%s: the room is there: %v", name, err)
		}
		if err := b.CheckConsistency(t.Context()); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	// In this version the room id is the create event's hash.
	if _, err := b.ImportState(t.Context(), b.v, matrix.RoomID("!"+ownCreate.ID[1:]), st, chain, join("join", nil)); err == nil {
		t.Error("a room has the id of another")
	}
	if _, err := b.ImportState(t.Context(), b.v, b.room, st, chain, join("join", nil)); err != nil {
		t.Error(err)
	}
}

// TestImportAgain leaves a room and comes back after the others have gone on:
// what was missed does not come between.
func TestImportAgain(t *testing.T) {
	for _, id := range []string{"1", "6", "12"} {
		a, b := two(t, lookup(t, id))
		leave := b.send(stateProto(matrix.TypeMember, string(b.user), `{"membership":"leave"}`))
		a.accept(leave)
		for i := range 30 {
			a.send(stateProto(matrix.TypeTopic, "", fmt.Sprintf(`{"topic":"%d"}`, i)))
			a.send(stateProto(matrix.TypeMember, fmt.Sprintf("@guest%d:c", i), `{"membership":"invite"}`))
		}
		b.joinVia(a)
		if diff := describe(b.state(), a.state()); diff != "" {
			t.Errorf("version %s: the state differs:%s", id, diff)
		}
		if x, y := b.extremities(), a.extremities(); !slices.Equal(x, y) {
			t.Errorf("version %s: extremities %v and %v", id, x, y)
		}
		if n := b.theRoom().View().Invited; n != 30 {
			t.Errorf("version %s: %d invited", id, n)
		}
		if !b.theRoom().IsLocalMember(b.user) {
			t.Errorf("version %s: the user is no member", id)
		}
		b.accept(a.say("welcome back"))
		b.restart()
		a.accept(b.say("thanks"))
		if err := b.CheckConsistency(t.Context()); err != nil {
			t.Error(err)
		}
	}
}

// TestImportUnheard lets a user join through a server that has not heard yet that
// another user of theirs has left: they stay away, here and, once it hears, there.
func TestImportUnheard(t *testing.T) {
	for _, id := range []string{"1", "6", "12"} {
		a, b := two(t, lookup(t, id))
		gone := b.user
		for i := range 3 {
			a.send(stateProto(matrix.TypeTopic, "", fmt.Sprintf(`{"topic":"%d"}`, i)))
		}
		leave := b.send(stateProto(matrix.TypeMember, string(gone), `{"membership":"leave"}`))
		b.user = "@other:b"
		b.joinVia(a)
		for range 2 {
			if b.membership(gone).Membership != "leave" || b.membership(b.user).Membership != "join" || b.theRoom().IsLocalMember(gone) {
				t.Errorf("version %s: the memberships are %+v and %+v", id, b.membership(gone), b.membership(b.user))
			}
			b.consistent()
			b.restart()
		}
		a.accept(leave)
		if diff := describe(b.state(), a.state()); diff != "" {
			t.Errorf("version %s: the state differs:%s", id, diff)
		}
		a.accept(b.say("hello"))
		b.accept(a.say("welcome"))
	}
}

// TestImportOnce lets several joins of one room come in at the same time, and
// readers ask for it meanwhile: there is one room.
func TestImportOnce(t *testing.T) {
	a := newServer(t, "a", "sqlite")
	a.found(lookup(t, "12"))
	b := newServer(t, "b", "sqlite")
	b.room, b.v = a.room, a.v
	before := a.events()
	st, chain := a.stateAndChain(before)
	var wg sync.WaitGroup
	found := make([]*rooms.Room, 16)
	for i := range 8 {
		user := matrix.UserID(fmt.Sprintf("@user%d:b", i))
		join := b.forge(draft{sender: user, typ: matrix.TypeMember, key: key(string(user)), content: `{"membership":"join"}`,
			prev: a.extremities(), from: current(before), depth: 10})
		wg.Go(func() {
			if _, err := b.ImportState(t.Context(), b.v, b.room, st, chain, join); err != nil {
				t.Error(err)
			}
			found[i], _ = b.Room(t.Context(), b.room)
		})
		wg.Go(func() {
			for found[8+i] == nil {
				found[8+i], _ = b.Room(t.Context(), b.room)
			}
		})
	}
	wg.Wait()
	for _, r := range found {
		if r != found[0] {
			t.Error("there are two rooms")
		}
	}
	if n := b.theRoom().LocalMemberCount(); n != 8 {
		t.Errorf("%d members", n)
	}
	if err := b.CheckConsistency(t.Context()); err != nil {
		t.Error(err)
	}
}

// TestGivenState fills a gap by the state that another server tells.
func TestGivenState(t *testing.T) {
	a, b := two(t, lookup(t, "12"))
	a.send(stateProto(matrix.TypeTopic, "", `{"topic":"unheard"}`))
	unheard := a.say("unheard")
	st, chain := a.stateAndChain(a.events())
	words := a.say("heard")
	if out := b.give(words)[0]; out.Event != nil || len(out.Missing) != 1 {
		t.Fatalf("%+v", out)
	}
	if _, err := b.StoreOutliers(t.Context(), b.room, append(st, chain...)); err != nil {
		t.Fatal(err)
	}
	var ids []matrix.EventID
	for _, ev := range st {
		ids = append(ids, ev.ID)
	}
	out, err := b.Receive(t.Context(), b.room, []rooms.Incoming{{Event: wire(t, words), State: ids}})
	if err != nil || out[0].Event == nil || out[0].Event.Flags != 0 {
		t.Fatalf("%+v, %v", out, err)
	}
	if diff := describe(b.state(), a.state()); diff != "" {
		t.Errorf("the state differs:%s", diff)
	}
	before := b.extremities()
	// What was missing comes late: it is history, nothing builds on it again.
	if stored, _ := a.Stored(t.Context(), unheard.PrevEvents...); len(stored) != 1 {
		t.Fatal("the topic is not known")
	} else {
		b.give(stored[unheard.PrevEvents[0]].Event, unheard)
	}
	if after := b.extremities(); slices.ContainsFunc(after, func(x event.Ref) bool { return x.ID == unheard.ID }) {
		t.Errorf("extremities %v, before %v", after, before)
	}
	if err := b.CheckConsistency(t.Context()); err != nil {
		t.Error(err)
	}
}
