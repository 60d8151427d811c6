package joining_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/internal/testrig"
	"github.com/teahouse-chat/teahouse/rooms/event"
)

// told is what an answer to send_join says.
type told struct {
	Origin  string              `json:"origin"`
	Partial bool                `json:"members_omitted"`
	Servers []matrix.ServerName `json:"servers_in_room"`
	Event   json.RawMessage     `json:"event"`
	State   []json.RawMessage   `json:"state"`
	Chain   []json.RawMessage   `json:"auth_chain"`
}

// askToJoin joins at a peer's hands and reads the answer.
func askToJoin(t *testing.T, p *testrig.Peer, room matrix.RoomID, user matrix.UserID, query string) (*testrig.PeerRoom, *told) {
	t.Helper()
	r, ev := p.TryJoin("here", room, user)
	status, answer := p.Ask(t.Context(), "here", "PUT", federation+"/v2/send_join"+testrig.Path(room, ev.ID)+query, json.RawMessage(ev.JSON))
	if status != 200 {
		t.Fatalf("%d %v", status, answer)
	}
	raw, err := json.Marshal(answer)
	if err != nil {
		t.Fatal(err)
	}
	a := &told{}
	if err := json.Unmarshal(raw, a); err != nil {
		t.Fatal(err)
	}
	return r, a
}

// parsed reads the events of an answer, by type and state key.
func parsed(t *testing.T, v *event.Version, list []json.RawMessage) map[string]*event.Event {
	t.Helper()
	all := map[string]*event.Event{}
	for _, raw := range list {
		ev, err := event.Parse(v, raw)
		if err != nil {
			t.Fatal(err)
		}
		name := ev.Type + " " + ev.StateKey()
		if all[name] != nil {
			t.Errorf("%s is there twice", name)
		}
		all[name] = ev
	}
	return all
}

// TestAnswers tells servers that join what the room is: all of it, or without
// members that they do not ask for.
func TestAnswers(t *testing.T) {
	for _, kind := range []string{"sqlite", "postgres"} {
		s, alice, p := here(t, kind)
		for _, version := range []string{"6", "12"} {
			room := alice.CreateRoom(object{"preset": "public_chat", "room_version": version})
			for i := range 8 {
				s.Register(fmt.Sprintf("member%d-%s", i, version)).Join(room)
			}
			r, full := askToJoin(t, p, room, p.User("one"), "")
			state := parsed(t, r.Version, full.State)
			if full.Origin != "here" || full.Partial || full.Event != nil || !slices.Equal(full.Servers, []matrix.ServerName{"here"}) {
				t.Errorf("%s, version %s: %+v", kind, version, full)
			}
			if n := count(state, "m.room.member "); n != 9 || state["m.room.member "+string(p.User("one"))] != nil || state["m.room.create "] == nil {
				t.Errorf("%s, version %s: %d members in %v", kind, version, n, state)
			}
			known := map[matrix.EventID]bool{}
			for _, list := range [][]json.RawMessage{full.State, full.Chain} {
				for _, raw := range list {
					ev, _ := event.Parse(r.Version, raw)
					known[ev.ID] = true
				}
			}
			for _, ev := range state {
				for _, id := range ev.AuthEvents {
					if !known[id] {
						t.Errorf("%s, version %s: what authorises %s is missing", kind, version, ev.Type)
					}
				}
			}

			r, part := askToJoin(t, p, room, p.User("two"), "?omit_members=true")
			state = parsed(t, r.Version, part.State)
			if !part.Partial || !slices.Equal(part.Servers, []matrix.ServerName{"evil", "here"}) {
				t.Errorf("%s, version %s: %+v", kind, version, part)
			}
			if n := count(state, "m.room.member "); n != 5 || state["m.room.power_levels "] == nil {
				t.Errorf("%s, version %s: %d members in %v", kind, version, n, state)
			}
			for name := range parsed(t, r.Version, part.Chain) {
				if state[name] != nil {
					t.Errorf("%s, version %s: %s is in the chain, too", kind, version, name)
				}
			}
			alice.Must("PUT", "/v3/rooms"+testrig.Path(room, "state", "m.room.name", ""), object{"name": "Tea"})
			r, part = askToJoin(t, p, room, p.User("three"), "?omit_members=true")
			if n := count(parsed(t, r.Version, part.State), "m.room.member "); n != 0 {
				t.Errorf("%s, version %s: %d members", kind, version, n)
			}
		}
	}
}

func count(events map[string]*event.Event, prefix string) (n int) {
	for name := range events {
		if strings.HasPrefix(name, prefix) {
			n++
		}
	}
	return n
}

// TestTemplates asks for templates that there should or should not be.
func TestTemplates(t *testing.T) {
	s, alice, p := here(t, "sqlite")
	space := alice.CreateRoom(object{"preset": "public_chat"})
	elsewhere := p.Create("12", p.User("x")).ID
	restricted := func(version string, rooms ...matrix.RoomID) matrix.RoomID {
		var allow []any
		for _, r := range rooms {
			allow = append(allow, object{"type": "m.room_membership", "room_id": r})
		}
		return alice.CreateRoom(object{"room_version": version, "power_level_content_override": object{"invite": 100}, "initial_state": []any{
			object{"type": "m.room.join_rules", "state_key": "", "content": object{"join_rule": "restricted", "allow": allow}},
		}})
	}
	knocking := alice.CreateRoom(object{"initial_state": []any{
		object{"type": "m.room.join_rules", "state_key": "", "content": object{"join_rule": "knock"}},
	}})
	open := alice.CreateRoom(object{"preset": "public_chat", "room_version": "10"})
	closed := alice.CreateRoom(object{})
	left := alice.CreateRoom(object{"preset": "public_chat"})
	alice.Must("POST", "/v3/rooms"+testrig.Path(left, "leave"), object{})
	nobody := restricted("8", space) // in which alice, in the end, may not invite
	s.Register("carol").Join(space)
	alice.Must("PUT", "/v3/rooms"+testrig.Path(nobody, "state", "m.room.power_levels", ""), object{"users": object{string(alice.User): 50}, "invite": 100})
	p.Join("here", space, p.User("eve"))
	p.Join("here", open, p.User("member"))
	for _, c := range []struct {
		path   string
		user   matrix.UserID
		room   matrix.RoomID
		query  string
		status int
		code   matrix.Code
	}{
		{"make_join", p.User("eve"), open, "?ver=1&ver=10", 200, ""},
		{"make_join", p.User("eve"), open, "?ver=1&ver=11", 400, matrix.CodeIncompatibleRoom},
		{"make_join", p.User("eve"), open, "", 400, matrix.CodeIncompatibleRoom},
		{"make_join", alice.User, open, "?ver=10", 403, matrix.CodeForbidden},
		{"make_join", "@eve:other", open, "?ver=10", 403, matrix.CodeForbidden},
		{"make_join", "eve", open, "?ver=10", 400, matrix.CodeInvalidParam},
		{"make_join", p.User("eve"), closed, "?ver=12", 403, matrix.CodeForbidden},
		{"make_join", p.User("eve"), "!nowhere:here", "?ver=12", 404, matrix.CodeNotFound},
		{"make_join", p.User("eve"), left, "?ver=12", 404, matrix.CodeNotFound},
		{"make_join", p.User("eve"), restricted("8", space), "?ver=8", 200, ""},
		{"make_join", p.User("eve"), restricted("12", elsewhere, space), "?ver=12", 200, ""},
		{"make_join", p.User("other"), restricted("12", elsewhere, space), "?ver=12", 403, matrix.CodeForbidden},
		{"make_join", p.User("eve"), restricted("12", elsewhere), "?ver=12", 400, matrix.CodeUnableToAuthoriseJoin},
		{"make_join", p.User("eve"), restricted("12"), "?ver=12", 403, matrix.CodeForbidden},
		{"make_join", p.User("eve"), nobody, "?ver=8", 400, matrix.CodeUnableToGrantJoin},
		{"make_leave", p.User("member"), open, "", 200, ""},
		{"make_leave", p.User("eve"), open, "", 403, matrix.CodeForbidden},
		{"make_leave", alice.User, open, "", 403, matrix.CodeForbidden},
		{"make_leave", p.User("member"), "!nowhere:here", "", 404, matrix.CodeNotFound},
		{"make_knock", p.User("eve"), knocking, "?ver=12", 200, ""},
		{"make_knock", p.User("eve"), knocking, "?ver=7", 400, matrix.CodeIncompatibleRoom},
		{"make_knock", p.User("eve"), closed, "?ver=12", 403, matrix.CodeForbidden},
		{"make_knock", p.User("eve"), open, "?ver=10", 403, matrix.CodeForbidden},
		{"make_knock", alice.User, knocking, "?ver=12", 403, matrix.CodeForbidden},
	} {
		status, answer := p.Ask(t.Context(), "here", "GET", federation+"/v1/"+c.path+testrig.Path(c.room, c.user)+c.query, nil)
		if code, _ := answer["errcode"].(string); status != c.status || code != string(c.code) {
			t.Errorf("%+v: %d %v", c, status, answer)
		}
		if c.code == matrix.CodeIncompatibleRoom && answer["room_version"] == nil {
			t.Errorf("%+v: %v", c, answer)
		}
	}
}

// TestForgedAuthorisation hands joins in that name one of our users as the one
// who lets their sender in, without our having said so: they are not signed.
func TestForgedAuthorisation(t *testing.T) {
	s, alice, p := here(t, "sqlite")
	carol := s.Register("carol")
	for _, version := range []string{"8", "12"} {
		space := alice.CreateRoom(object{"preset": "public_chat", "room_version": version})
		room := alice.CreateRoom(object{"room_version": version, "initial_state": []any{
			object{"type": "m.room.join_rules", "state_key": "", "content": object{
				"join_rule": "restricted", "allow": []any{object{"type": "m.room_membership", "room_id": space}},
			}},
		}})
		eve := p.User("eve")
		p.Join("here", space, eve)
		r, ev := p.TryJoin("here", room, eve)
		hand := func(ev *event.Event) (int, matrix.Code) {
			return put(t, p, "here", federation+"/v2/send_join"+testrig.Path(room, ev.ID), json.RawMessage(ev.JSON))
		}
		for name, change := range map[string]func(d *event.Draft){
			"nobody": func(d *event.Draft) { d.Content = []byte(`{"membership":"join"}`) },
			"no member": func(d *event.Draft) {
				d.Content = fmt.Appendf(nil, `{"membership":"join","join_authorised_via_users_server":%q}`, carol.User)
			},
			"one of theirs": func(d *event.Draft) {
				d.Content = fmt.Appendf(nil, `{"membership":"join","join_authorised_via_users_server":%q}`, p.User("x"))
			},
			"no user": func(d *event.Draft) {
				d.Content = []byte(`{"membership":"join","join_authorised_via_users_server":"here"}`)
			},
			"somebody else joins": func(d *event.Draft) { key := string(p.User("x")); d.StateKey, d.Sender = &key, p.User("x") },
		} {
			d := r.Like(ev)
			change(&d)
			if status, code := hand(r.Build(d)); status != 400 && status != 403 {
				t.Errorf("version %s, %s: %d %s", version, name, status, code)
			}
		}
		p.Try("here", space, eve, "leave")
		leaving, leave := p.Try("here", space, eve, "leave")
		if status, _ := put(t, p, "here", federation+"/v2/send_leave"+testrig.Path(leaving.ID, leave.ID), json.RawMessage(leave.JSON)); status != 200 {
			t.Fatal(status)
		}
		// Who has left the space meanwhile is let in no more.
		if status, code := hand(ev); status != 403 {
			t.Errorf("version %s, left: %d %s", version, status, code)
		}
		if m := membership(alice, room, eve); m != "" {
			t.Errorf("version %s: eve's membership is %s", version, m)
		}
		p.Join("here", space, eve)
		if status, code := hand(ev); status != 200 {
			t.Errorf("version %s: %d %s", version, status, code)
		}
	}
}

// TestInvitedWhereWeAre invites a local user into a room that other local users
// are in already: the user hears of it at once.
func TestInvitedWhereWeAre(t *testing.T) {
	for _, kind := range []string{"sqlite", "postgres"} {
		s, bob, p := here(t, kind)
		alice, carol := s.Register("alice"), s.Register("carol")
		for _, version := range some(t) {
			h := newHost(t, p, version)
			joinVia(alice, h.ID, "evil")
			h.keep(h.lastSent())
			invite := func(u matrix.UserID) (int, matrix.Code) {
				ev := h.Set(h.user, matrix.TypeMember, string(u), object{"membership": "invite"})
				return put(t, p, "here", federation+"/v2/invite"+testrig.Path(h.ID, ev.ID),
					object{"room_version": version, "event": json.RawMessage(ev.JSON), "invite_room_state": h.state()})
			}
			if status, code := invite(bob.User); status != 200 {
				t.Errorf("%s, version %s: %d %s", kind, version, status, code)
			}
			if got := shown(bob, "invite", "invite_state", h.ID); got["m.room.create"] == nil || got["m.room.member"] == nil {
				t.Errorf("%s, version %s: bob is shown %v", kind, version, got)
			}
			bob.Join(h.ID)
			if status, code := invite(bob.User); status != 403 {
				t.Errorf("%s, version %s: bob, who is joined, is invited: %d %s", kind, version, status, code)
			}
			// What comes before this invitation has not come, so that it has no place yet;
			// it is agreed to all the same.
			h.Set(h.user, "m.room.topic", "", object{"topic": "unheard"})
			if status, code := invite(carol.User); status != 200 {
				t.Errorf("%s, version %s: %d %s", kind, version, status, code)
			}
		}
	}
}
