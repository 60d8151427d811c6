package rooms_test

import (
	"fmt"
	"maps"
	"math/rand"
	"slices"
	"testing"

	"github.com/teahouse-chat/teahouse/internal/db"
	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms"
	"github.com/teahouse-chat/teahouse/rooms/event"
	"github.com/teahouse-chat/teahouse/rooms/state"
)

// traffic is a room of server a, in which users of other servers come and go.
type traffic struct {
	t       *testing.T
	random  *rand.Rand
	a       *server
	others  []*server // without an engine: they forge
	users   []matrix.UserID
	relayed map[matrix.EventID]bool
	past    []moment // what later events may fork off from
}

// moment is the room at some time.
type moment struct {
	prev []event.Ref
	st   current
}

func newTraffic(t *testing.T, seed int64, kind string, v *event.Version) *traffic {
	tr := &traffic{t: t, random: rand.New(rand.NewSource(seed)), a: newServer(t, "a", kind), relayed: map[matrix.EventID]bool{}}
	tr.a.found(v)
	for _, name := range []matrix.ServerName{"b", "c", "d:8448"} {
		other := *tr.a
		other.name = name
		tr.others = append(tr.others, &other)
		for i := range 2 {
			tr.users = append(tr.users, matrix.NewUserID(fmt.Sprint("u", i), name))
		}
	}
	tr.remember()
	return tr
}

func (tr *traffic) remember() {
	tr.past = append(tr.past, moment{tr.a.extremities(), current(tr.a.events())})
	if len(tr.past) > 6 {
		tr.past = tr.past[1:]
	}
}

// local lets a's user do something, which the room may forbid.
func (tr *traffic) local(p rooms.Proto) {
	tr.t.Helper()
	st, err := tr.a.Send(tr.t.Context(), tr.a.room, tr.a.user, p, nil)
	if err == nil {
		tr.relayed[st.ID] = true
	} else if !matrix.HasCode(err, matrix.CodeForbidden) {
		tr.t.Fatal(err)
	}
}

// foreign brings in events of other servers' users, on what the room is or was.
func (tr *traffic) foreign(n int) {
	tr.t.Helper()
	var in []rooms.Incoming
	m := tr.past[len(tr.past)-1]
	if tr.random.Intn(3) == 0 {
		m = tr.past[tr.random.Intn(len(tr.past))]
	}
	prev := m.prev
	for range n {
		u := tr.users[tr.random.Intn(len(tr.users))]
		d := draft{sender: u, typ: matrix.TypeMember, key: (*string)(&u), content: `{"membership":"join"}`, prev: prev, from: m.st, depth: 50,
			ts: 1_600_000_000_000 + int64(len(tr.relayed))} // no two events are the same
		switch tr.random.Intn(5) {
		case 0:
			d.content = `{"membership":"leave"}`
		case 1:
			d.typ, d.key, d.content = matrix.TypeMessage, nil, `{"body":"x"}`
		}
		ev := tr.others[0].forge(d)
		relay := tr.random.Intn(2) == 0
		tr.relayed[ev.ID] = relay
		in = append(in, rooms.Incoming{Event: wire(tr.t, ev), Relay: relay})
		if tr.random.Intn(2) == 0 {
			prev = []event.Ref{ev.Ref()}
		}
	}
	if _, err := tr.a.Receive(tr.t.Context(), tr.a.room, in); err != nil {
		tr.t.Fatal(err)
	}
}

func (tr *traffic) step() {
	tr.t.Helper()
	u := tr.users[tr.random.Intn(len(tr.users))]
	switch tr.random.Intn(9) {
	case 0:
		tr.local(message("hello"))
	case 1:
		tr.local(stateProto(matrix.TypeTopic, "", fmt.Sprintf(`{"topic":"%d"}`, tr.random.Int())))
	case 2:
		tr.local(member(u, "leave"))
	case 3:
		tr.local(member(u, "ban"))
	case 4:
		tr.local(member(u, "invite"))
	case 5, 6:
		tr.foreign(1)
	default:
		tr.foreign(4)
	}
	tr.remember()
}

// servers are those with joined members in a state.
func (tr *traffic) servers(n rooms.SnapshotNID) map[matrix.ServerName]bool {
	tr.t.Helper()
	m, err := tr.a.Snapshot(tr.t.Context(), n)
	if err != nil {
		tr.t.Fatal(err)
	}
	members, err := tr.a.StateEvents(tr.t.Context(), m, rooms.MemberKey)
	if err != nil {
		tr.t.Fatal(err)
	}
	found := map[matrix.ServerName]bool{}
	for _, st := range members {
		if server := matrix.UserID(st.StateKey()).Server(); st.Membership() == matrix.MembershipJoin && server != tr.a.name {
			found[server] = true
		}
	}
	return found
}

// want works out from the states before and after each event who is sent it.
func (tr *traffic) want() map[matrix.ServerName][]matrix.EventID {
	tr.t.Helper()
	events, err := tr.a.Timeline(tr.t.Context(), rooms.TimelineQuery{Room: tr.a.theRoom(), Limit: 10_000})
	if err != nil {
		tr.t.Fatal(err)
	}
	want := map[matrix.ServerName][]matrix.EventID{}
	before := map[matrix.ServerName]bool{}
	for _, st := range events {
		after := tr.servers(st.Resolved)
		to := maps.Clone(after)
		maps.Copy(to, before)
		before = after
		if server := tr.dismissed(st); server != "" {
			to[server] = true
		}
		delete(to, st.Sender.Server())
		for server := range to {
			if tr.relayed[st.ID] {
				want[server] = append(want[server], st.ID)
			}
		}
	}
	return want
}

// dismissed is the server whose user's invite or knock an event ends.
func (tr *traffic) dismissed(st *rooms.Stored) matrix.ServerName {
	tr.t.Helper()
	if st.Type != matrix.TypeMember || st.Replaces == 0 {
		return ""
	}
	old, err := tr.a.Events(tr.t.Context(), []state.EventNID{st.Replaces})
	if err != nil {
		tr.t.Fatal(err)
	}
	ended := []string{matrix.MembershipLeave, matrix.MembershipBan}
	pending := []string{matrix.MembershipInvite, matrix.MembershipKnock}
	if slices.Contains(ended, st.Membership()) && slices.Contains(pending, old[0].Membership()) {
		return matrix.UserID(st.StateKey()).Server()
	}
	return ""
}

// differ describes the events that are in one list only.
func (tr *traffic) differ(got, want []matrix.EventID) (text string) {
	tr.t.Helper()
	if slices.Equal(got, want) {
		return ""
	}
	known, err := tr.a.Known(tr.t.Context(), slices.Concat(got, want))
	if err != nil {
		tr.t.Fatal(err)
	}
	for id, st := range known {
		if slices.Contains(got, id) != slices.Contains(want, id) {
			text += fmt.Sprintf("\n  wanted %t: position %d, %s by %s of %q, %s", slices.Contains(want, id), st.Position, st.Type, st.Sender, st.StateKey(), st.Content)
		}
	}
	return text + fmt.Sprintf("\n  %d events, want %d", len(got), len(want))
}

// check compares what servers are sent with what they should be.
func (tr *traffic) check(streamed map[matrix.ServerName][]matrix.EventID) {
	tr.t.Helper()
	want := tr.want()
	for _, other := range tr.others {
		if diff := tr.differ(tr.a.sentTo(other.name, 0), want[other.name]); diff != "" {
			tr.t.Errorf("%s is not sent what it should be:%s", other.name, diff)
		}
		if diff := tr.differ(streamed[other.name], want[other.name]); diff != "" {
			tr.t.Errorf("by the stream %s is not sent what it should be:%s", other.name, diff)
		}
	}
	there := slices.Sorted(maps.Keys(tr.servers(tr.a.theRoom().View().Snapshot)))
	if got := tr.a.theRoom().Servers(); !slices.Equal(got, there) {
		tr.t.Errorf("the room has the servers %v, not %v", got, there)
	}
	tr.a.consistent()
}

// TestDestinations lets users of other servers come and go, in forks, too, with
// restarts between: each server is sent what was passed on or came from here
// while it was there, and the numbers of members are always right.
func TestDestinations(t *testing.T) {
	for seed := range int64(24) {
		kind := "sqlite"
		if seed%8 == 0 {
			kind = "postgres"
		}
		v := event.Versions()[seed%12]
		t.Run(fmt.Sprintf("seed %d", seed), func(t *testing.T) {
			tr := newTraffic(t, seed, kind, v)
			streamed := map[matrix.ServerName][]matrix.EventID{}
			for range 3 {
				heard := tr.a.departures()
				for range 15 {
					tr.step()
				}
				for name, ids := range heard() {
					streamed[name] = append(streamed[name], ids...)
				}
				tr.check(streamed)
				tr.a.restart()
			}
			tr.check(streamed)
		})
	}
}

// TestEndOfAKnock lets a user of a server that is not in the room knock: the
// server hears of the answer.
func TestEndOfAKnock(t *testing.T) {
	for _, answer := range []string{"leave", "ban"} {
		a, b := two(t, lookup(t, "12"))
		a.send(stateProto(matrix.TypeJoinRules, "", `{"join_rule":"knock"}`))
		p := member("@caller:c", "knock")
		p.Sender = "@caller:c"
		d, err := a.Template(t.Context(), a.theRoom(), p)
		if err != nil {
			t.Fatal(err)
		}
		knock, err := event.Build(a.v, d, "c", b.key)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := a.Receive(t.Context(), a.room, []rooms.Incoming{{Event: wire(t, knock), Relay: true}}); err != nil {
			t.Fatal(err)
		}
		a.say("not for c")
		ended := a.send(member("@caller:c", answer))
		a.say("not for c either")
		if got := a.sentTo("c", 0); !slices.Equal(got, []matrix.EventID{ended.ID}) {
			t.Errorf("%s: c is sent %v", answer, got)
		}
		if got := a.sentTo("b", 0); !slices.Contains(got, knock.ID) || !slices.Contains(got, ended.ID) {
			t.Errorf("%s: b is sent %v", answer, got)
		}
		a.consistent()
	}
}

// What the third migration of rooms did, taken back.
var beforeServers = []*db.Stmt{
	db.SQL(`DROP INDEX events_outgoing`), db.SQL(`DROP INDEX events_outgoing_room`),
	db.SQL(`ALTER TABLE events DROP COLUMN outgoing`), db.SQL(`DROP TABLE room_servers`),
	db.SQL(`DELETE FROM schema_migrations WHERE feature = 'rooms' AND number = 3`),
}

// TestOldDatabase opens a database of the time when servers were not counted.
func TestOldDatabase(t *testing.T) {
	for _, kind := range kinds {
		a, b, _ := three(t, lookup(t, "12"), kind)
		for _, u := range []matrix.UserID{"@x:b", "@y:b", "@z:d:8448"} {
			other := *a
			other.user = u
			join := other.forge(draft{sender: u, typ: matrix.TypeMember, key: (*string)(&u), content: `{"membership":"join"}`,
				prev: a.extremities(), from: current(a.events()), depth: 20})
			a.accept(join)
			b.accept(join)
		}
		b.accept(a.send(member("@y:b", "leave")))
		err := a.DB.Write(t.Context(), func(tx *db.Tx) error {
			for _, stmt := range beforeServers {
				if err := tx.Exec(stmt); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		a.restart()
		if got := a.theRoom().Servers(); !slices.Equal(got, []matrix.ServerName{"b", "c", "d:8448"}) {
			t.Errorf("%s: the room has the servers %v", kind, got)
		}
		a.consistent()
		last := a.say("hello")
		for _, name := range a.theRoom().Servers() {
			if got := a.sentTo(name, 0); !slices.Equal(got, []matrix.EventID{last.ID}) {
				t.Errorf("%s: %s is sent %v", kind, name, got)
			}
		}
	}
}
