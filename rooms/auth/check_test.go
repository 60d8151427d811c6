package auth_test

import (
	"testing"

	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms/auth"
	"github.com/teahouse-chat/teahouse/rooms/event"
)

// msg stands for "no state key".
const msg = "\x00"

// ruleCase is an event in a room and what each version says to it.
type ruleCase struct {
	name    string
	setup   func(r *room)
	typ     string
	key     string
	sender  string
	content string
	want    string
}

func joinRule(rule string) func(*room) { return func(r *room) { r.joinRule(rule) } }

func levels(content string) func(*room) { return func(r *room) { r.levels(content) } }

func member(user, membership string) func(*room) {
	return func(r *room) { r.member(user, membership) }
}

func without(typ, key string) func(*room) {
	return func(r *room) { delete(r.state, auth.Key{Type: typ, StateKey: key}) }
}

func all(steps ...func(*room)) func(*room) {
	return func(r *room) {
		for _, step := range steps {
			step(r)
		}
	}
}

func create(content string) func(*room) {
	return func(r *room) {
		r.last, r.create = nil, nil
		r.create = r.put(matrix.TypeCreate, "", alice, content)
		for key, e := range r.state {
			if key.Type != matrix.TypeCreate {
				r.put(key.Type, key.StateKey, string(e.Sender), string(e.Content))
			}
		}
	}
}

const everywhereOK = "1-12:ok"

var ruleCases = []ruleCase{
	// The room.
	{"no create event", without(matrix.TypeCreate, ""), "m.room.message", msg, bob, `{}`, "1-11:2.4 12:2"},
	{"another room's create event", func(r *room) {
		other := newRoom(r.t, r.v)
		other.create, other.last = nil, nil
		content := `{"creator":"` + alice + `","note":"another"}`
		d := event.Draft{Type: matrix.TypeCreate, StateKey: new(string), Sender: alice, Content: []byte(content)}
		if !r.v.RoomIDHash {
			d.RoomID = "!other:a.example"
		}
		r.state[auth.Key{Type: matrix.TypeCreate}] = other.buildDraft(d)
	}, "m.room.message", msg, bob, `{}`, "1-11:2.5 12:2"},
	{"not federated, other server", create(`{"creator":"` + alice + `","m.federate":false}`), "m.room.message", msg, bob, `{}`, "1-11:3 12:4"},
	{"not federated, same server", create(`{"creator":"` + alice + `","m.federate":false}`), "m.room.message", msg, mod, `{}`, everywhereOK},
	{"federated", create(`{"creator":"` + alice + `","m.federate":true}`), "m.room.message", msg, bob, `{}`, everywhereOK},

	// Aliases.
	{"aliases without state key", nil, matrix.TypeAliases, msg, bob, `{}`, "1-5:4.1 6-12:ok"},
	{"aliases of another server", nil, matrix.TypeAliases, "a.example", bob, `{}`, "1-5:4.2 6-11:7 12:8"},
	{"aliases of own server", nil, matrix.TypeAliases, "b.example", bob, `{}`, "1-5:ok 6-11:7 12:8"},
	{"aliases from outside", nil, matrix.TypeAliases, "e.example", eve, `{}`, "1-5:ok 6-11:5 12:6"},

	// Members.
	{"member without state key", nil, matrix.TypeMember, msg, bob, `{"membership":"join"}`, "1-5:5.1 6-11:4.1 12:5.1"},
	{"member without membership", nil, matrix.TypeMember, bob, bob, `{"displayname":"x"}`, "1-5:5.1 6-11:4.1 12:5.1"},
	{"unknown membership", nil, matrix.TypeMember, bob, bob, `{"membership":"dance"}`, "1-5:5.6 6:4.6 7:4.7 8-11:4.8 12:5.8"},
	{"membership is no text", nil, matrix.TypeMember, bob, bob, `{"membership":5}`, "1-5:5.6 6:4.6 7:4.7 8-11:4.8 12:5.8"},
	{"authoriser is no user", joinRule("public"), matrix.TypeMember, eve, eve,
		`{"membership":"join","join_authorised_via_users_server":"x"}`, "1-7:ok 8-11:4.2.1 12:5.2.1"},

	// Join.
	{"join for another", nil, matrix.TypeMember, carol, bob, `{"membership":"join"}`, "1-5:5.2.2 6-7:4.2.2 8-11:4.3.2 12:5.3.2"},
	{"join of the banned", joinRule("public"), matrix.TypeMember, dave, dave, `{"membership":"join"}`, "1-5:5.2.3 6-7:4.2.3 8-11:4.3.3 12:5.3.3"},
	{"join by invite", nil, matrix.TypeMember, carol, carol, `{"membership":"join"}`, everywhereOK},
	{"join without invite", nil, matrix.TypeMember, eve, eve, `{"membership":"join"}`, "1-5:5.2.6 6-7:4.2.6 8-11:4.3.7 12:5.3.7"},
	{"join again", nil, matrix.TypeMember, bob, bob, `{"membership":"join","displayname":"B"}`, everywhereOK},
	{"join a public room", joinRule("public"), matrix.TypeMember, eve, eve, `{"membership":"join"}`, everywhereOK},
	{"join a private room, invited", joinRule("private"), matrix.TypeMember, carol, carol, `{"membership":"join"}`, "1-5:5.2.6 6-7:4.2.6 8-11:4.3.7 12:5.3.7"},
	{"join without a join rule", all(without(matrix.TypeJoinRules, "")), matrix.TypeMember, eve, eve, `{"membership":"join"}`, "1-5:5.2.6 6-7:4.2.6 8-11:4.3.7 12:5.3.7"},
	{"join by invite without a join rule", all(without(matrix.TypeJoinRules, "")), matrix.TypeMember, carol, carol, `{"membership":"join"}`, everywhereOK},
	{"join by invite, join rule knock", joinRule("knock"), matrix.TypeMember, carol, carol, `{"membership":"join"}`, "1-5:5.2.6 6:4.2.6 7-12:ok"},
	{"join after a knock", all(joinRule("knock"), member(kate, "knock")), matrix.TypeMember, kate, kate, `{"membership":"join"}`, "7:4.2.6 8-11:4.3.7 12:5.3.7"},
	{"join by invite, restricted", joinRule("restricted"), matrix.TypeMember, carol, carol, `{"membership":"join"}`, "1-5:5.2.6 6-7:4.2.6 8-12:ok"},
	{"join by invite, knock_restricted", joinRule("knock_restricted"), matrix.TypeMember, carol, carol, `{"membership":"join"}`, "1-5:5.2.6 6-7:4.2.6 8-9:4.3.7 10-12:ok"},
	{"restricted join, nobody authorised", joinRule("restricted"), matrix.TypeMember, eve, eve, `{"membership":"join"}`, "1-5:5.2.6 6-7:4.2.6 8-11:4.3.5.2 12:5.3.5.2"},
	{"restricted join", joinRule("restricted"), matrix.TypeMember, eve, eve,
		`{"membership":"join","join_authorised_via_users_server":"` + bob + `"}`, "1-5:5.2.6 6-7:4.2.6 8-12:ok"},
	{"knock_restricted join", joinRule("knock_restricted"), matrix.TypeMember, eve, eve,
		`{"membership":"join","join_authorised_via_users_server":"` + bob + `"}`, "8-9:4.3.7 10-12:ok"},
	{"restricted join through the invited", joinRule("restricted"), matrix.TypeMember, eve, eve,
		`{"membership":"join","join_authorised_via_users_server":"` + carol + `"}`, "8-11:4.3.5.2 12:5.3.5.2"},
	{"restricted join through the weak", all(joinRule("restricted"), levels(`{"invite":50}`)), matrix.TypeMember, eve, eve,
		`{"membership":"join","join_authorised_via_users_server":"` + bob + `"}`, "8-11:4.3.5.2 12:5.3.5.2"},
	{"restricted join through the strong", all(joinRule("restricted"), levels(`{"invite":50}`)), matrix.TypeMember, eve, eve,
		`{"membership":"join","join_authorised_via_users_server":"` + mod + `"}`, "8-12:ok"},
	{"restricted join through a creator", all(joinRule("restricted"), levels(`{"invite":200}`)), matrix.TypeMember, eve, eve,
		`{"membership":"join","join_authorised_via_users_server":"` + alice + `"}`, "8-11:4.3.5.2 12:ok"},
	{"restricted join of the banned", joinRule("restricted"), matrix.TypeMember, dave, dave,
		`{"membership":"join","join_authorised_via_users_server":"` + mod + `"}`, "8-11:4.3.3 12:5.3.3"},

	// Invite.
	{"invite", nil, matrix.TypeMember, eve, bob, `{"membership":"invite"}`, everywhereOK},
	{"invite from outside", nil, matrix.TypeMember, eve, carol, `{"membership":"invite"}`, "1-5:5.3.2 6-7:4.3.2 8-11:4.4.2 12:5.4.2"},
	{"invite the joined", nil, matrix.TypeMember, mod, bob, `{"membership":"invite"}`, "1-5:5.3.3 6-7:4.3.3 8-11:4.4.3 12:5.4.3"},
	{"invite the banned", nil, matrix.TypeMember, dave, mod, `{"membership":"invite"}`, "1-5:5.3.3 6-7:4.3.3 8-11:4.4.3 12:5.4.3"},
	{"invite without power", levels(`{"invite":50}`), matrix.TypeMember, eve, bob, `{"membership":"invite"}`, "1-5:5.3.5 6-7:4.3.5 8-11:4.4.5 12:5.4.5"},
	{"invite the knocking", nil, matrix.TypeMember, kate, mod, `{"membership":"invite"}`, everywhereOK},

	// Leave.
	{"leave", nil, matrix.TypeMember, bob, bob, `{"membership":"leave"}`, everywhereOK},
	{"refuse an invite", nil, matrix.TypeMember, carol, carol, `{"membership":"leave"}`, everywhereOK},
	{"withdraw a knock", nil, matrix.TypeMember, kate, kate, `{"membership":"leave"}`, "1-5:5.4.1 6:4.4.1 7-12:ok"},
	{"leave when outside", nil, matrix.TypeMember, eve, eve, `{"membership":"leave"}`, "1-5:5.4.1 6-7:4.4.1 8-11:4.5.1 12:5.5.1"},
	{"leave when banned", nil, matrix.TypeMember, dave, dave, `{"membership":"leave"}`, "1-5:5.4.1 6-7:4.4.1 8-11:4.5.1 12:5.5.1"},
	{"kick", nil, matrix.TypeMember, bob, mod, `{"membership":"leave"}`, everywhereOK},
	{"kick from outside", nil, matrix.TypeMember, bob, eve, `{"membership":"leave"}`, "1-5:5.4.2 6-7:4.4.2 8-11:4.5.2 12:5.5.2"},
	{"unban without power", levels(`{"ban":60,"kick":40}`), matrix.TypeMember, dave, mod, `{"membership":"leave"}`, "1-5:5.4.3 6-7:4.4.3 8-11:4.5.3 12:5.5.3"},
	{"unban", nil, matrix.TypeMember, dave, mod, `{"membership":"leave"}`, everywhereOK},
	{"unban without kick level", levels(`{"ban":40,"kick":60}`), matrix.TypeMember, dave, mod, `{"membership":"leave"}`, "1-5:5.4.5 6-7:4.4.5 8-11:4.5.5 12:5.5.5"},
	{"kick without power", nil, matrix.TypeMember, carol, bob, `{"membership":"leave"}`, "1-5:5.4.5 6-7:4.4.5 8-11:4.5.5 12:5.5.5"},
	{"kick a peer", levels(`{"users":{"` + bob + `":50}}`), matrix.TypeMember, bob, mod, `{"membership":"leave"}`, "1-5:5.4.5 6-7:4.4.5 8-11:4.5.5 12:5.5.5"},
	{"kick the creator", levels(`{"users":{"` + adam + `":101}}`), matrix.TypeMember, alice, adam, `{"membership":"leave"}`, "1-11:ok 12:5.5.5"},

	// Ban.
	{"ban", nil, matrix.TypeMember, bob, mod, `{"membership":"ban"}`, everywhereOK},
	{"ban the unseen", nil, matrix.TypeMember, eve, mod, `{"membership":"ban"}`, everywhereOK},
	{"ban from outside", nil, matrix.TypeMember, bob, eve, `{"membership":"ban"}`, "1-5:5.5.1 6-7:4.5.1 8-11:4.6.1 12:5.6.1"},
	{"ban without power", nil, matrix.TypeMember, carol, bob, `{"membership":"ban"}`, "1-5:5.5.3 6-7:4.5.3 8-11:4.6.3 12:5.6.3"},
	{"ban a peer", levels(`{"users":{"` + bob + `":50}}`), matrix.TypeMember, bob, mod, `{"membership":"ban"}`, "1-5:5.5.3 6-7:4.5.3 8-11:4.6.3 12:5.6.3"},
	{"ban the creator", levels(`{"users":{"` + adam + `":101}}`), matrix.TypeMember, alice, adam, `{"membership":"ban"}`, "1-11:ok 12:5.6.3"},

	// Knock.
	{"knock", joinRule("knock"), matrix.TypeMember, eve, eve, `{"membership":"knock"}`, "1-5:5.6 6:4.6 7-12:ok"},
	{"knock again", joinRule("knock"), matrix.TypeMember, kate, kate, `{"membership":"knock"}`, "7-12:ok"},
	{"knock, knock_restricted", joinRule("knock_restricted"), matrix.TypeMember, eve, eve, `{"membership":"knock"}`, "7:4.6.1 8-9:4.7.1 10-12:ok"},
	{"knock on an invite-only room", nil, matrix.TypeMember, eve, eve, `{"membership":"knock"}`, "7:4.6.1 8-11:4.7.1 12:5.7.1"},
	{"knock for another", joinRule("knock"), matrix.TypeMember, eve, bob, `{"membership":"knock"}`, "7:4.6.2 8-11:4.7.2 12:5.7.2"},
	{"knock of the banned", joinRule("knock"), matrix.TypeMember, dave, dave, `{"membership":"knock"}`, "7:4.6.4 8-11:4.7.4 12:5.7.4"},
	{"knock of the invited", joinRule("knock"), matrix.TypeMember, carol, carol, `{"membership":"knock"}`, "7:4.6.4 8-11:4.7.4 12:5.7.4"},
	{"knock of the joined", joinRule("knock"), matrix.TypeMember, bob, bob, `{"membership":"knock"}`, "7:4.6.4 8-11:4.7.4 12:5.7.4"},

	// Everything else.
	{"message", nil, "m.room.message", msg, bob, `{}`, everywhereOK},
	{"message from outside", nil, "m.room.message", msg, eve, `{}`, "1-5:6 6-11:5 12:6"},
	{"message of the invited", nil, "m.room.message", msg, carol, `{}`, "1-5:6 6-11:5 12:6"},
	{"third-party invite", nil, matrix.TypeThirdPartyInvite, "token", bob, `{}`, everywhereOK},
	{"third-party invite without power", levels(`{"invite":50}`), matrix.TypeThirdPartyInvite, "token", bob, `{}`, "1-5:7.1 6-11:6.1 12:7.1"},
	{"state without power", nil, matrix.TypeTopic, "", bob, `{}`, "1-5:8 6-11:7 12:8"},
	{"state without power levels", without(matrix.TypePowerLevels, ""), matrix.TypeTopic, "", mod, `{}`, "1-5:8 6-11:7 12:8"},
	{"creator without power levels", without(matrix.TypePowerLevels, ""), matrix.TypeTopic, "", alice, `{}`, everywhereOK},
	{"state_default", levels(`{"state_default":0}`), matrix.TypeTopic, "", bob, `{}`, everywhereOK},
	{"events_default", levels(`{"events_default":1}`), "m.room.message", msg, bob, `{}`, "1-5:8 6-11:7 12:8"},
	{"users_default", levels(`{"events_default":1,"users_default":1}`), "m.room.message", msg, bob, `{}`, everywhereOK},
	{"events", levels(`{"events":{"m.room.message":1}}`), "m.room.message", msg, bob, `{}`, "1-5:8 6-11:7 12:8"},
	{"events over state_default", levels(`{"events":{"m.room.topic":0}}`), matrix.TypeTopic, "", bob, `{}`, everywhereOK},
	{"a creator stands above all", levels(`{"events":{"m.room.topic":101}}`), matrix.TypeTopic, "", alice, `{}`, "1-5:8 6-11:7 12:ok"},
	{"another user's state", levels(`{"state_default":0}`), "org.example.mine", alice, bob, `{}`, "1-5:9 6-11:8 12:9"},
	{"one's own state", levels(`{"state_default":0}`), "org.example.mine", bob, bob, `{}`, everywhereOK},

	// Redactions.
	{"redact", nil, matrix.TypeRedaction, msg, mod, `{}`, everywhereOK},
	{"redact without power", nil, matrix.TypeRedaction, msg, bob, `{}`, "1-2:11.3 3-12:ok"},
	{"redact with the level lowered", levels(`{"redact":0}`), matrix.TypeRedaction, msg, bob, `{}`, everywhereOK},
}

func TestRules(t *testing.T) {
	for _, c := range ruleCases {
		t.Run(c.name, func(t *testing.T) {
			for id, want := range wants(t, c.want) {
				v, _ := event.Lookup(id)
				r := newRoom(t, v)
				if c.setup != nil {
					c.setup(r)
				}
				key := &c.key
				if c.key == msg {
					key = nil
				}
				err := auth.Check(r.build(c.typ, key, c.sender, c.content), r)
				if got := verdict(t, v, err); got != want {
					t.Errorf("version %s: %s, want %s (%v)", id, got, want, err)
				}
			}
		})
	}
}

func TestRedactionOfOwnServersEvent(t *testing.T) {
	for _, target := range []struct {
		id   matrix.EventID
		want string
	}{{"$one:b.example", "ok"}, {"$one:a.example", "11.3"}, {"$one", "11.3"}} {
		v, _ := event.Lookup("2")
		r := newRoom(t, v)
		e := r.buildDraft(event.Draft{Type: matrix.TypeRedaction, Sender: bob, Content: []byte(`{}`), Redacts: target.id})
		if got := verdict(t, v, auth.Check(e, r)); got != target.want {
			t.Errorf("redacting %s: %s, want %s", target.id, got, target.want)
		}
	}
}

func TestFirstJoin(t *testing.T) {
	for _, v := range event.Versions() {
		r := newRoom(t, v)
		r.state = map[auth.Key]*event.Event{{Type: matrix.TypeCreate}: r.create}
		other := r.last
		for _, c := range []struct {
			name   string
			prev   *event.Event
			user   string
			sender string
			ok     bool
		}{
			{"the creator after the create event", r.create, alice, alice, true},
			{"another user after the create event", r.create, bob, bob, false},
			{"the creator later", other, alice, alice, false},
			// The page asks who joins, not who says so.
			{"the creator, sent by another", r.create, alice, bob, true},
		} {
			e := r.buildDraft(event.Draft{Type: matrix.TypeMember, StateKey: &c.user, Sender: matrix.UserID(c.sender),
				Content: []byte(`{"membership":"join"}`), PrevEvents: []event.Ref{c.prev.Ref()}})
			if err := auth.Check(e, r); (err == nil) != c.ok {
				t.Errorf("version %s: %s: %v", v.ID, c.name, err)
			}
		}
	}
}
