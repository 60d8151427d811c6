package joining_test

import (
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/internal/testrig"
	"github.com/teahouse-chat/teahouse/rooms/event"
)

// letter is an invitation on its way, which a test may change.
type letter struct {
	t       *testing.T
	p       *testrig.Peer
	other   *testrig.Peer
	r       *testrig.PeerRoom
	path    string
	body    object
	by      *testrig.Peer
	bob     matrix.UserID
	invites *event.Event
}

// write makes an honest invitation of bob to a room of the peer's.
func write(t *testing.T, p, other *testrig.Peer, version string, bob matrix.UserID) *letter {
	t.Helper()
	h := newHost(t, p, version)
	l := &letter{t: t, p: p, other: other, r: h.PeerRoom, by: p, bob: bob}
	key := string(bob)
	l.event(h.Build(h.Draft(h.user, matrix.TypeMember, &key, object{"membership": "invite"})))
	l.body = object{"room_version": version, "event": json.RawMessage(l.invites.JSON), "invite_room_state": h.state()}
	return l
}

// event puts an event in the place of the invitation.
func (l *letter) event(ev *event.Event) {
	l.invites, l.path = ev, testrig.Path(ev.RoomID, ev.ID)
	if l.body != nil {
		l.body["event"] = json.RawMessage(ev.JSON)
	}
}

// like changes the invitation.
func (l *letter) like(change func(d *event.Draft)) {
	d := l.r.Like(l.invites)
	change(&d)
	l.event(l.r.Build(d))
}

// send sends the letter, in the first version of the interface if that is wanted.
func (l *letter) send(v1 bool) (int, matrix.Code) {
	l.t.Helper()
	if !v1 {
		return put(l.t, l.by, "here", federation+"/v2/invite"+l.path, l.body)
	}
	raw, err := json.Marshal(l.body["event"])
	if err != nil {
		l.t.Fatal(err)
	}
	body := object{}
	if json.Unmarshal(raw, &body) == nil {
		body["unsigned"] = object{"invite_room_state": l.body["invite_room_state"]}
	}
	return put(l.t, l.by, "here", federation+"/v1/invite"+l.path, body)
}

// falseLetters are invitations that nobody should believe. v12 tells that only
// rooms whose id is proven by the create event refuse it.
var falseLetters = map[string]struct {
	forge func(l *letter)
	v12   bool
}{
	"another room in the path":  {forge: func(l *letter) { l.path = testrig.Path("!other:evil", l.invites.ID) }},
	"another event in the path": {forge: func(l *letter) { l.path = testrig.Path(l.r.ID, "$other:evil") }},
	"no event id":               {forge: func(l *letter) { l.path = testrig.Path(l.r.ID, "other") }},
	"no event":                  {forge: func(l *letter) { l.body["event"] = object{} }},
	"another membership":        {forge: func(l *letter) { l.like(func(d *event.Draft) { d.Content = []byte(`{"membership":"join"}`) }) }},
	"another type":              {forge: func(l *letter) { l.like(func(d *event.Draft) { d.Type = "m.room.topic" }) }},
	"no state":                  {forge: func(l *letter) { l.like(func(d *event.Draft) { d.StateKey = nil }) }},
	"a user of theirs":          {forge: func(l *letter) { key := string(l.p.User("x")); l.like(func(d *event.Draft) { d.StateKey = &key }) }},
	"nobody":                    {forge: func(l *letter) { key := "@nobody:here"; l.like(func(d *event.Draft) { d.StateKey = &key }) }},
	"no user":                   {forge: func(l *letter) { key := "bob:here"; l.like(func(d *event.Draft) { d.StateKey = &key }) }},
	"one who is gone":           {forge: func(l *letter) { key := "@gone:here"; l.like(func(d *event.Draft) { d.StateKey = &key }) }},
	"by one of ours":            {forge: func(l *letter) { l.like(func(d *event.Draft) { d.Sender = l.bob }) }},
	"by one of others":          {forge: func(l *letter) { l.like(func(d *event.Draft) { d.Sender = l.other.User("x") }) }},
	"from another server":       {forge: func(l *letter) { l.by = l.other }},
	"unsigned":                  {forge: func(l *letter) { e := asObject(l.t, l.invites.JSON); e["signatures"] = object{}; l.body["event"] = e }},
	"a wrong hash": {forge: func(l *letter) {
		e := asObject(l.t, l.invites.JSON)
		e["content"].(object)["reason"] = "money"
		l.body["event"] = e
	}},
	"wrongly signed": {forge: func(l *letter) {
		ev, err := event.Build(l.r.Version, l.r.Like(l.invites), l.p.Name, event.SigningKey{ID: l.p.Key.ID, Private: l.other.Key.Private})
		if err != nil {
			l.t.Fatal(err)
		}
		l.event(ev)
	}},
	"a third party's, unsigned": {forge: func(l *letter) {
		l.like(func(d *event.Draft) {
			d.Content = []byte(`{"membership":"invite","third_party_invite":{"signed":{"mxid":"@bob:here","token":"t","signatures":{}}}}`)
		})
		e := asObject(l.t, l.invites.JSON)
		e["signatures"] = object{}
		l.body["event"] = e
	}},
	"no create event": {v12: true, forge: func(l *letter) { l.body["invite_room_state"] = l.body["invite_room_state"].([]any)[1:] }},
	"no room state":   {v12: true, forge: func(l *letter) { delete(l.body, "invite_room_state") }},
	"bare state": {v12: true, forge: func(l *letter) {
		l.body["invite_room_state"] = []any{object{"type": "m.room.create", "state_key": "", "sender": "@x:evil", "content": object{"room_version": "12"}}}
	}},
	"state of another room": {v12: true, forge: func(l *letter) {
		l.body["invite_room_state"] = append(l.body["invite_room_state"].([]any), json.RawMessage(l.p.Create("12", l.p.User("y")).Events[0].JSON))
	}},
	"wrongly signed state": {v12: true, forge: func(l *letter) {
		ev, err := event.Build(l.r.Version, l.r.Draft(l.p.User("x"), "m.room.name", new(string), object{"name": "Bank"}), l.p.Name,
			event.SigningKey{ID: l.p.Key.ID, Private: l.other.Key.Private})
		if err != nil {
			l.t.Fatal(err)
		}
		l.body["invite_room_state"] = append(l.body["invite_room_state"].([]any), json.RawMessage(ev.JSON))
	}},
	"a create event with another content": {v12: true, forge: func(l *letter) {
		e := asObject(l.t, l.body["invite_room_state"].([]any)[0].(json.RawMessage))
		e["content"].(object)["type"] = "m.space"
		l.body["invite_room_state"].([]any)[0] = e
	}},
}

// TestFalseInvitations: nothing is signed, and the user hears nothing (F1, F2,
// F20).
func TestFalseInvitations(t *testing.T) {
	for _, kind := range []string{"sqlite", "postgres"} {
		s, bob, p := here(t, kind)
		other := testrig.NewPeer(t, s.Network, "other")
		gone := s.Register("gone")
		if err := s.Accounts.Deactivate(t.Context(), gone.User, false); err != nil {
			t.Fatal(err)
		}
		for _, version := range some(t) {
			for name, c := range falseLetters {
				if c.v12 && version != "12" {
					continue
				}
				l := write(t, p, other, version, bob.User)
				c.forge(l)
				for _, v1 := range []bool{false, true} {
					if v1 && version != "1" {
						continue
					}
					if status, code := l.send(v1); status < 400 || status > 404 || code == "" {
						t.Errorf("%s, version %s, %s: %d %s", kind, version, name, status, code)
					}
				}
				if got := shown(bob, "invite", "invite_state", l.r.ID); len(got) > 0 {
					t.Errorf("%s, version %s, %s: bob is shown %v", kind, version, name, got)
				}
			}
			l := write(t, p, other, version, bob.User)
			l.body["room_version"] = "99"
			if status, code := l.send(false); status != 400 || code != matrix.CodeIncompatibleRoom {
				t.Errorf("%s: an unknown version: %d %s", kind, status, code)
			}
			l.body["room_version"] = version
			if status, code := l.send(version == "1"); status != 200 {
				t.Errorf("%s, version %s: an honest invitation: %d %s", kind, version, status, code)
			}
			if got := shown(bob, "invite", "invite_state", l.r.ID); got["m.room.create"] == nil || got["m.room.member"] == nil {
				t.Errorf("%s, version %s: bob is shown %v", kind, version, got)
			}
		}
		if err := s.CheckConsistency(t.Context()); err != nil {
			t.Error(err)
		}
	}
}

// TestMaliciousStrippedState comes with an invitation: the user's /sync goes on
// and stays small (F21).
func TestMaliciousStrippedState(t *testing.T) {
	_, bob, p := here(t, "sqlite")
	huge := strings.Repeat("x", 60_000)
	var flood []any
	for range 15 {
		flood = append(flood, object{"type": "m.room.name", "state_key": "", "sender": "@x:evil", "content": object{"name": huge}})
	}
	for name, state := range map[string][]any{
		"nothing":  {},
		"no lists": {1, nil, "x", []any{}, true},
		"fields missing": {object{}, object{"type": "m.room.name"}, object{"type": "m.room.name", "state_key": ""},
			object{"type": "m.room.name", "state_key": "", "content": object{}}, object{"type": "m.room.name", "state_key": "", "sender": "@x:evil"}},
		"other types": {object{"type": 1, "state_key": "", "sender": "@x:evil", "content": object{}},
			object{"type": "m.room.name", "state_key": 2, "sender": "@x:evil", "content": object{}},
			object{"type": "m.room.name", "state_key": "", "sender": 3, "content": object{}},
			object{"type": "m.room.name", "state_key": "", "sender": "@x:evil", "content": "x"},
			object{"type": "m.room.name", "state_key": "", "sender": "@x:evil", "content": nil},
			object{"type": "m.room.name", "state_key": "", "sender": "@x:evil", "content": object{"name": 1.5}}},
		"our own member": {object{"type": "m.room.member", "state_key": "@bob:here", "sender": "@x:evil", "content": object{"membership": "join"}}},
		"NUL":            {object{"type": "m.room.name", "state_key": "", "sender": "@x:evil", "content": object{"name": "a\u0000b"}}},
		"much":           flood,
	} {
		l := write(t, p, p, "6", bob.User)
		l.body["invite_room_state"] = state
		if status, code := l.send(false); status != 200 {
			t.Errorf("%s: %d %s", name, status, code)
			continue
		}
		got := shown(bob, "invite", "invite_state", l.r.ID)
		if m, _ := got["m.room.member"]["content"].(object); m["membership"] != "invite" {
			t.Errorf("%s: bob is shown %.500v", name, got)
		}
		raw, err := json.Marshal(got)
		if err != nil || len(raw) > 300_000 {
			t.Errorf("%s: %d bytes, %v", name, len(raw), err)
		}
		bob.Must("POST", "/v3/rooms"+testrig.Path(l.r.ID, "leave"), object{})
	}
}

// TestWrongVersion has an invitation claim a version that the room does not have:
// it keeps nobody from declining the next one, nor out of the room.
func TestWrongVersion(t *testing.T) {
	s, bob, p := here(t, "sqlite")
	other := testrig.NewPeer(t, s.Network, "other")
	h := newHost(t, p, "10")
	key := string(bob.User)
	claims := other.Create("6", other.User("x"))
	d := claims.Draft(other.User("x"), matrix.TypeMember, &key, object{"membership": "invite"})
	d.RoomID = h.ID
	wrong := claims.Build(d)
	if status, code := put(t, other, "here", federation+"/v2/invite"+testrig.Path(h.ID, wrong.ID),
		object{"room_version": "6", "event": json.RawMessage(wrong.JSON), "invite_room_state": []any{}}); status != 200 {
		t.Fatalf("%d %s", status, code)
	}
	invite := h.Set(h.user, matrix.TypeMember, key, object{"membership": "invite"})
	if status, code := put(t, p, "here", federation+"/v2/invite"+testrig.Path(h.ID, invite.ID),
		object{"room_version": "10", "event": json.RawMessage(invite.JSON), "invite_room_state": h.state()}); status != 200 {
		t.Errorf("%d %s", status, code)
	}
	left := make(chan *event.Event, 1)
	p.Handle("GET /_matrix/federation/v1/make_leave/{room}/{user}", func(w http.ResponseWriter, _ *http.Request) {
		d := h.Draft(bob.User, matrix.TypeMember, &key, object{"membership": "leave"})
		testrig.WriteJSON(w, http.StatusOK, object{"room_version": "10", "event": json.RawMessage(d.JSON(h.Version))})
	})
	p.Handle("PUT /_matrix/federation/v2/send_leave/{room}/{event}", func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		ev, err := event.Parse(h.Version, body)
		if err != nil {
			t.Error(err)
		}
		left <- ev
		testrig.WriteJSON(w, http.StatusOK, object{})
	})
	bob.Must("POST", "/v3/rooms"+testrig.Path(h.ID, "leave"), object{})
	select {
	case ev := <-left:
		if ev == nil || ev.Membership() != matrix.MembershipLeave {
			t.Errorf("the host heard %+v", ev)
		}
	default:
		t.Error("the host did not hear that the invitation was declined")
	}
	joinVia(bob, h.ID, "evil")
}
