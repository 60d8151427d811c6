package auth_test

import (
	"slices"
	"testing"

	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms/auth"
	"github.com/teahouse-chat/teahouse/rooms/event"
)

func TestNeeded(t *testing.T) {
	create, levels, rules := auth.Key{Type: matrix.TypeCreate}, auth.Key{Type: matrix.TypePowerLevels}, auth.Key{Type: matrix.TypeJoinRules}
	user := func(u string) auth.Key { return auth.Key{Type: matrix.TypeMember, StateKey: u} }
	for _, c := range []struct {
		typ, key, content string
		since             int // the first version in which the last key is needed
		want              []auth.Key
	}{
		{matrix.TypeCreate, "", `{}`, 1, nil},
		{"m.room.message", msg, `{}`, 1, []auth.Key{create, levels, user(bob)}},
		{matrix.TypeTopic, "", `{}`, 1, []auth.Key{create, levels, user(bob)}},
		{matrix.TypeMember, bob, `{"membership":"leave"}`, 1, []auth.Key{create, levels, user(bob)}},
		{matrix.TypeMember, eve, `{"membership":"ban"}`, 1, []auth.Key{create, levels, user(bob), user(eve)}},
		{matrix.TypeMember, bob, `{"membership":"join"}`, 1, []auth.Key{create, levels, user(bob), rules}},
		{matrix.TypeMember, bob, `{"membership":"knock"}`, 1, []auth.Key{create, levels, user(bob), rules}},
		{matrix.TypeMember, eve, `{"membership":"invite"}`, 1, []auth.Key{create, levels, user(bob), user(eve), rules}},
		{matrix.TypeMember, eve, `{"membership":"invite","third_party_invite":{"signed":{"token":"tok"}}}`, 1,
			[]auth.Key{create, levels, user(bob), user(eve), rules, {Type: matrix.TypeThirdPartyInvite, StateKey: "tok"}}},
		{matrix.TypeMember, eve, `{"membership":"leave","third_party_invite":{"signed":{"token":"tok"}}}`, 1,
			[]auth.Key{create, levels, user(bob), user(eve)}},
		{matrix.TypeMember, bob, `{"membership":"join","join_authorised_via_users_server":"` + mod + `"}`, 8,
			[]auth.Key{create, levels, user(bob), rules, user(mod)}},
		{matrix.TypeMember, bob, `{"membership":"join","join_authorised_via_users_server":"` + bob + `"}`, 1,
			[]auth.Key{create, levels, user(bob), rules}},
		{matrix.TypeMember, eve, `{"membership":"invite","join_authorised_via_users_server":"` + mod + `"}`, 1,
			[]auth.Key{create, levels, user(bob), user(eve), rules}},
	} {
		for i, v := range event.Versions() {
			want := slices.Clone(c.want)
			if i+1 < c.since {
				want = want[:len(want)-1]
			}
			if v.ID == "12" {
				want = slices.DeleteFunc(want, func(k auth.Key) bool { return k == create })
			}
			key := &c.key
			if c.key == msg {
				key = nil
			}
			got := auth.Needed(v, c.typ, key, bob, []byte(c.content))
			if !slices.Equal(got, want) {
				t.Errorf("version %s: %s %s needs %v, want %v", v.ID, c.typ, c.content, got, want)
			}
		}
	}
}

func TestCheckAuthEvents(t *testing.T) {
	numbers := func(a, b, c string) string { return "1-11:" + a + " 12:" + b + " " + c }
	for _, c := range []struct {
		name   string
		change func(r *room, list []*event.Event) []*event.Event
		want   string
	}{
		{"as selected", nil, "1-12:ok"},
		{"fewer", func(r *room, list []*event.Event) []*event.Event { return list[:1] }, "1-12:ok"},
		{"the same twice", func(r *room, list []*event.Event) []*event.Event { return append(list, list[0]) }, numbers("2.1", "3.1", "")},
		{"the same place twice", func(r *room, list []*event.Event) []*event.Event {
			return append(list, r.build(matrix.TypePowerLevels, new(string), alice, `{"ban":1}`))
		}, numbers("2.1", "3.1", "")},
		{"one that does not belong", func(r *room, list []*event.Event) []*event.Event {
			return append(list, r.Event(matrix.TypeJoinRules, ""))
		}, numbers("2.2", "3.2", "")},
		{"another's membership", func(r *room, list []*event.Event) []*event.Event {
			return append(list, r.Event(matrix.TypeMember, mod))
		}, numbers("2.2", "3.2", "")},
		{"a message", func(r *room, list []*event.Event) []*event.Event {
			return append(list, r.build(matrix.TypePowerLevels, nil, alice, `{}`))
		}, numbers("2.2", "3.2", "")},
		{"the create event", func(r *room, list []*event.Event) []*event.Event {
			return append(slices.DeleteFunc(list, func(e *event.Event) bool { return e == r.create }), r.create)
		}, numbers("ok", "3.2", "")},
		{"no create event", func(r *room, list []*event.Event) []*event.Event {
			return slices.DeleteFunc(list, func(e *event.Event) bool { return e == r.create })
		}, numbers("2.4", "ok", "")},
		{"one of another room", func(r *room, list []*event.Event) []*event.Event {
			room := matrix.RoomID("!elsewhere:a.example")
			if r.v.RoomIDHash {
				room = matrix.RoomID("!" + string(r.last.ID[1:]))
			}
			d := event.Draft{RoomID: room, Type: matrix.TypeMember, StateKey: new(string), Sender: bob, Content: []byte(`{"membership":"join"}`)}
			*d.StateKey = bob
			return append(slices.DeleteFunc(list, func(e *event.Event) bool { return e.Type == matrix.TypeMember }), r.buildDraft(d))
		}, numbers("2.5", "3.4", "")},
	} {
		for id, want := range wants(t, c.want) {
			v, _ := event.Lookup(id)
			r := newRoom(t, v)
			var list []*event.Event
			for _, key := range auth.Needed(v, "m.room.message", nil, bob, []byte(`{}`)) {
				list = append(list, r.Event(key.Type, key.StateKey))
			}
			if c.change != nil {
				list = c.change(r, list)
			}
			d := event.Draft{Type: "m.room.message", Sender: bob, Content: []byte(`{}`)}
			for _, a := range list {
				d.AuthEvents = append(d.AuthEvents, a.Ref())
			}
			none := func(matrix.EventID) bool { return false }
			e := r.buildDraft(d)
			if got := verdict(t, v, auth.CheckAuthEvents(e, list, none)); got != want {
				t.Errorf("%s: version %s: %s, want %s", c.name, id, got, want)
			}
			if want != "ok" {
				continue
			}
			for _, bad := range list {
				err := auth.CheckAuthEvents(e, list, func(id matrix.EventID) bool { return id == bad.ID })
				if got := verdict(t, v, err); got != map[bool]string{true: "3.3", false: "2.3"}[v.ID == "12"] {
					t.Errorf("%s: version %s with a rejected %s: %s", c.name, id, bad.Type, got)
				}
			}
		}
	}
}

// A caller that has dropped the repetition from what it loaded does not hide it.
func TestRepeatedAuthEventIsSeenInTheEvent(t *testing.T) {
	v, _ := event.Lookup("12")
	r := newRoom(t, v)
	bobs := r.Event(matrix.TypeMember, bob)
	e := r.buildDraft(event.Draft{Type: "m.room.message", Sender: bob, Content: []byte(`{}`), AuthEvents: []event.Ref{bobs.Ref(), bobs.Ref()}})
	err := auth.CheckAuthEvents(e, []*event.Event{bobs}, func(matrix.EventID) bool { return false })
	if got := verdict(t, v, err); got != "3.1" {
		t.Errorf("%s, want 3.1", got)
	}
}

func TestCreateEventNamesNoAuthEvents(t *testing.T) {
	for _, v := range event.Versions() {
		r := newRoom(t, v)
		levels := r.Event(matrix.TypePowerLevels, "")
		d := event.Draft{Type: matrix.TypeCreate, StateKey: new(string), Sender: alice, Content: []byte(`{"creator":"` + alice + `"}`)}
		d.AuthEvents = []event.Ref{levels.Ref()}
		r.create, r.last = nil, nil
		err := auth.CheckAuthEvents(r.buildDraft(d), []*event.Event{levels}, func(matrix.EventID) bool { return false })
		if err == nil {
			t.Errorf("version %s lets a create event name auth events", v.ID)
		}
	}
}
