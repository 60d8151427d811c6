package simulation_test

import (
	"maps"
	"net/url"
	"slices"
	"time"

	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/internal/testrig"
	"github.com/teahouse-chat/teahouse/rooms"
	"github.com/teahouse-chat/teahouse/rooms/auth"
)

// gather lets somebody of every server be in the room and say something, one after
// the other, so that the branches come together.
func (w *world) gather() {
	w.say(w.founder(), 0)
	time.Sleep(10 * time.Second)
	for _, s := range w.sites[1:] {
		w.say(w.speaker(s), 0)
		time.Sleep(10 * time.Second)
	}
	for _, s := range w.sites[1:] {
		w.welcome(s.people[0])
	}
	w.must(w.founder(), "PUT", "/v3/rooms"+testrig.Path(w.room, "send", matrix.TypeMessage, "the end"), testrig.JSON{"body": "the end"})
	time.Sleep(10 * time.Minute)
}

// speaker is somebody of a server of whom this server and the founder's agree that
// they are in the room. If there is nobody, there may be a branch that only their own
// server has: of people who were let in under rules that no longer held for the
// others, so that whatever they say fails softly there, however well they do
// later. To end that, they leave and come back.
// spec: server-server#soft-failure
func (w *world) speaker(s *site) *person {
	for _, p := range s.people {
		if w.membership(p, p) == matrix.MembershipJoin && w.membership(w.founder(), p) == matrix.MembershipJoin {
			return p
		}
	}
	for _, p := range s.people {
		if w.membership(p, p) == matrix.MembershipJoin {
			w.must(p, "POST", "/v3/rooms"+testrig.Path(w.room, "leave"), testrig.JSON{})
		}
	}
	time.Sleep(10 * time.Second)
	w.welcome(s.people[0])
	return s.people[0]
}

// open lets everybody join.
func (w *world) open() {
	w.must(w.founder(), "PUT", "/v3/rooms"+testrig.Path(w.room, "state", matrix.TypeJoinRules)+"/", testrig.JSON{"join_rule": "public"})
	time.Sleep(10 * time.Second)
}

// welcome lets a person be in the room.
func (w *world) welcome(p *person) {
	if w.membership(w.founder(), p) == matrix.MembershipBan {
		w.must(w.founder(), "POST", "/v3/rooms"+testrig.Path(w.room, "unban"), testrig.JSON{"user_id": p.User})
		time.Sleep(10 * time.Second)
	}
	if w.membership(w.founder(), p) != matrix.MembershipJoin || w.membership(p, p) != matrix.MembershipJoin {
		w.open()
		w.join(p)
		time.Sleep(10 * time.Second)
	}
}

func (w *world) must(p *person, method, path string, body any) testrig.JSON {
	w.Helper()
	answer, ok := w.ask(p, method, path, body)
	if !ok {
		w.Fatalf("%s %s: %v", method, path, answer)
	}
	return answer
}

// membership is another's as a person is told it.
func (w *world) membership(p, other *person) string {
	w.Helper()
	answer, ok := w.ask(p, "GET", "/v3/rooms"+testrig.Path(w.room, "state", matrix.TypeMember, other.User), nil)
	if !ok {
		return matrix.MembershipLeave
	}
	return answer["membership"].(string)
}

// pages reads the room's history to its beginning.
func (w *world) pages(p *person) map[matrix.EventID]bool {
	w.Helper()
	seen := map[matrix.EventID]bool{}
	q := url.Values{"dir": {"b"}, "limit": {"50"}}
	for range 30 {
		answer := w.must(p, "GET", "/v3/rooms"+testrig.Path(w.room, "messages")+"?"+q.Encode(), nil)
		for _, raw := range answer["chunk"].([]any) {
			id := matrix.EventID(raw.(testrig.JSON)["event_id"].(string))
			if seen[id] {
				w.Errorf("%s is shown %s twice", p.User, id)
			}
			seen[id] = true
		}
		end, _ := answer["end"].(string)
		if end == "" {
			return seen
		}
		q.Set("from", end)
	}
	w.Errorf("the history of %s does not end", p.User)
	return seen
}

// agree checks that all servers have come to the same room, and tell their people so.
func (w *world) agree(databases []string) {
	shown := make([]map[matrix.EventID]bool, len(w.sites))
	for i, s := range w.sites {
		shown[i] = w.pages(s.people[0])
	}
	w.sameMembers()
	ledgers := make([]*ledger, len(w.sites))
	for i, s := range w.sites {
		s.rig.Stop()
		ledgers[i] = read(w.T, s.name, databases[i], w.room)
	}
	for _, l := range ledgers[1:] {
		w.sameState(ledgers[0], l)
	}
	w.sameEvents(ledgers)
	for i, l := range ledgers {
		for id, e := range l.events {
			if e.placed() && e.flags == 0 && !shown[i][id] {
				w.Errorf("%s does not show its people %s (%s), which is %v", l.server, id, e.typ, e)
			}
		}
	}
}

func (w *world) sameState(a, b *ledger) {
	if !slices.Equal(a.tips, b.tips) {
		w.Errorf("%s builds on %v, %s on %v", a.server, a.tips, b.server, b.tips)
	}
	keys := map[auth.Key]bool{}
	for _, l := range []*ledger{a, b} {
		for k := range l.state {
			keys[k] = true
		}
	}
	for k := range keys {
		if a.state[k] != b.state[k] {
			w.Errorf("the state %v is %q on %s, and %q on %s", k, a.state[k], a.server, b.state[k], b.server)
		}
	}
}

// sameEvents checks that what is in the history of one server is so for all. Whether
// an event fails softly depends on what a server knew when the event came; it stays
// out of that server's timeline.
func (w *world) sameEvents(ledgers []*ledger) {
	all := map[matrix.EventID]*ledger{}
	for _, l := range ledgers {
		for id, e := range l.events {
			if e.placed() {
				all[id] = l
			}
		}
	}
	for _, id := range slices.Sorted(maps.Keys(all)) {
		for _, l := range ledgers {
			if e := l.events[id]; !e.placed() && e.flags&rooms.SoftFailed == 0 {
				w.Errorf("%s (%s) is %v on %s, and %v on %s", id, all[id].events[id].typ, all[id].events[id], all[id].server, e, l.server)
			}
		}
	}
}

// sameMembers checks that all are told the same of who is in the room, and are in
// it themselves if that says so.
func (w *world) sameMembers() {
	var first map[string]string
	for _, s := range w.sites {
		members := map[string]string{}
		for _, raw := range w.must(s.people[0], "GET", "/v3/rooms"+testrig.Path(w.room, "members"), nil)["chunk"].([]any) {
			ev := raw.(testrig.JSON)
			members[ev["state_key"].(string)] = ev["content"].(testrig.JSON)["membership"].(string)
		}
		if first == nil {
			first = members
		}
		if !maps.Equal(first, members) {
			w.Errorf("%s has the members %v, and %s %v", w.sites[0].name, first, s.name, members)
		}
	}
	for _, p := range w.people {
		own := ""
		for membership, list := range p.Sync("", 0)["rooms"].(testrig.JSON) {
			if list.(testrig.JSON)[string(w.room)] != nil {
				own = membership
			}
		}
		if in := first[string(p.User)]; (in == matrix.MembershipJoin || in == matrix.MembershipInvite) && own != in || own != "" && own != "leave" && own != in {
			w.Errorf("%s is %q by the room, and %q by their own server", p.User, in, own)
		}
	}
}
