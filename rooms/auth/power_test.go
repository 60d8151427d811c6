package auth_test

import (
	"testing"

	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms/auth"
	"github.com/teahouse-chat/teahouse/rooms/event"
)

// none stands for "no power levels before".
const none = ""

// levelCases are changes of the power levels.
var levelCases = []struct {
	name, before, after, sender, want string
}{
	{"the first", none, `{"ban":100}`, alice, "1-12:ok"},
	{"nothing", `{}`, `{}`, mod, "1-12:ok"},

	// Values.
	{"a text", `{}`, `{"ban":"50"}`, adam, "1-9:ok 10-11:9.1 12:10.1"},
	{"a padded text", `{}`, `{"ban":" +0050 "}`, adam, "1-9:ok"},
	{"a text that is no number", `{}`, `{"ban":"fifty"}`, adam, "1-5:10 6-9:9 10-11:9.1 12:10.1"},
	{"a text that is a float", `{}`, `{"ban":"50.5"}`, adam, "1-5:10 6-9:9 10-11:9.1 12:10.1"},
	{"a float", `{}`, `{"ban":5.05e1}`, adam, "1-5:ok"},
	{"null", `{}`, `{"ban":null}`, adam, "1-5:10 6-9:9 10-11:9.1 12:10.1"},
	{"a truth value", `{}`, `{"users_default":true}`, adam, "1-5:10 6-9:9 10-11:9.1 12:10.1"},
	{"events is a list", `{}`, `{"events":[]}`, adam, "1-5:10 6-9:9 10-11:9.2 12:10.2"},
	{"an event's level is a text", `{}`, `{"events":{"a":"1"}}`, adam, "1-9:ok 10-11:9.2 12:10.2"},
	{"notifications is a list", `{}`, `{"notifications":[]}`, adam, "1-5:ok 6-9:9 10-11:9.2 12:10.2"},
	{"a notification's level is a text", `{}`, `{"notifications":{"room":"1"}}`, adam, "1-9:ok 10-11:9.2 12:10.2"},
	{"users is a list", `{}`, `{"users":[]}`, adam, "1-5:10.1 6-9:9.1 10-11:9.3 12:10.3"},
	{"a user's level is a text", `{}`, `{"users":{"@x:a.example":"1"}}`, adam, "1-9:ok 10-11:9.3 12:10.3"},
	{"a user's level is a word", `{}`, `{"users":{"@x:a.example":"one"}}`, adam, "1-5:10.1 6-9:9.1 10-11:9.3 12:10.3"},
	{"a user that is none", `{}`, `{"users":{"x":1}}`, adam, "1-5:10.1 6-9:9.1 10-11:9.3 12:10.3"},
	{"a creator is listed", `{}`, `{"users":{"` + alice + `":100}}`, adam, "1-11:ok 12:10.4"},
	{"a creator is listed in the first", none, `{"users":{"` + alice + `":100}}`, alice, "1-11:ok 12:10.4"},

	// Single levels.
	{"raise one above oneself", `{"ban":50}`, `{"ban":51}`, mod, "1-5:10.3.2 6-9:9.3.2 10-11:9.5.2 12:10.6.2"},
	{"raise one to oneself", `{"ban":40}`, `{"ban":50}`, mod, "1-12:ok"},
	{"lower one from above oneself", `{"kick":60}`, `{"kick":50}`, mod, "1-5:10.3.1 6-9:9.3.1 10-11:9.5.1 12:10.6.1"},
	{"add one above oneself", `{}`, `{"invite":51}`, mod, "1-5:10.3.2 6-9:9.3.2 10-11:9.5.2 12:10.6.2"},
	{"add one", `{}`, `{"users_default":10}`, mod, "1-12:ok"},
	{"remove one above oneself", `{"events_default":51}`, `{}`, adam, "1-12:ok"},
	{"remove one as the weak", `{"state_default":51}`, `{}`, mod, "1-5:8 6-11:7 12:8"},
	{"remove redact as the weak", `{"redact":51}`, `{}`, mod, "1-5:10.3.1 6-9:9.3.1 10-11:9.5.1 12:10.6.1"},
	{"the same in other words", `{"redact":"60"}`, `{"redact":60}`, mod, "1-9:ok"},

	// Events and notifications.
	{"raise an event above oneself", `{"events":{"a":1}}`, `{"events":{"a":51}}`, mod, "1-5:10.5.1 6-9:9.5.1 10-11:9.7.1 12:10.8.1"},
	{"add an event above oneself", `{}`, `{"events":{"a":51}}`, mod, "1-5:10.5.1 6-9:9.5.1 10-11:9.7.1 12:10.8.1"},
	{"lower an event from above oneself", `{"events":{"a":51}}`, `{"events":{"a":1}}`, mod, "1-5:10.4.1 6-9:9.4.1 10-11:9.6.1 12:10.7.1"},
	{"remove an event from above oneself", `{"events":{"a":51}}`, `{}`, mod, "1-5:10.4.1 6-9:9.4.1 10-11:9.6.1 12:10.7.1"},
	{"change an event", `{"events":{"a":50,"b":60}}`, `{"events":{"a":1,"b":60,"c":50}}`, mod, "1-12:ok"},
	{"raise a notification above oneself", `{}`, `{"notifications":{"room":51}}`, mod, "1-5:ok 6-9:9.5.1 10-11:9.7.1 12:10.8.1"},
	{"lower a notification from above oneself", `{"notifications":{"room":51}}`, `{}`, mod, "1-5:ok 6-9:9.4.1 10-11:9.6.1 12:10.7.1"},

	// Users.
	{"demote the weaker", `{"users":{"` + bob + `":49}}`, `{"users":{"` + bob + `":0}}`, mod, "1-12:ok"},
	{"demote a peer", `{"users":{"` + bob + `":50}}`, `{"users":{"` + bob + `":0}}`, mod, "1-5:10.6.1 6-9:9.6.1 10-11:9.8.1 12:10.9.1"},
	{"remove a peer", `{"users":{"` + bob + `":50}}`, `{}`, mod, "1-5:10.6.1 6-9:9.6.1 10-11:9.8.1 12:10.9.1"},
	{"demote oneself", `{}`, `{"users":{"` + mod + `":10}}`, mod, "1-12:ok"},
	{"remove oneself", `{}`, `{"users":{"` + mod + `":null}}`, mod, "1-12:ok"},
	{"promote oneself", `{}`, `{"users":{"` + mod + `":51}}`, mod, "1-5:10.7.1 6-9:9.7.1 10-11:9.9.1 12:10.10.1"},
	{"promote to one's own", `{}`, `{"users":{"` + bob + `":50}}`, mod, "1-12:ok"},
	{"promote above oneself", `{}`, `{"users":{"` + bob + `":51}}`, mod, "1-5:10.7.1 6-9:9.7.1 10-11:9.9.1 12:10.10.1"},
}

func TestPowerLevelChanges(t *testing.T) {
	for _, c := range levelCases {
		t.Run(c.name, func(t *testing.T) {
			for id, want := range wants(t, c.want) {
				v, _ := event.Lookup(id)
				r := newRoom(t, v)
				r.levelsBefore(c.before)
				e := r.build(matrix.TypePowerLevels, new(string), c.sender, r.powers(c.after))
				if got := verdict(t, v, auth.Check(e, r)); got != want {
					t.Errorf("version %s: %s, want %s", id, got, want)
				}
			}
		})
	}
}

func (r *room) levelsBefore(content string) {
	if content == none {
		delete(r.state, auth.Key{Type: matrix.TypePowerLevels})
	} else {
		r.levels(content)
	}
}

func TestLevels(t *testing.T) {
	one, _ := event.Lookup("1")
	eleven, _ := event.Lookup("11")
	r := newRoom(t, one)
	r.put(matrix.TypePowerLevels, "", alice, `{"ban":50.57,"kick":"7","redact":-1e400,"invite":1e300,
		"users":{"`+bob+`":-2.9},"users_default":" 3 ","events":{"a":1},"events_default":2,"state_default":4,
		"notifications":{"room":"20"}}`)
	p := auth.Levels(r)
	got := []int64{p.Ban, p.Kick, p.Redact, p.Invite, p.User(bob), p.User(eve), p.Required("a", true),
		p.Required("b", false), p.Required("b", true), p.Notification("room"), p.Notification("x")}
	want := []int64{50, 7, 50, 1<<63 - 1, -2, 3, 1, 2, 4, 20, 50}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("level %d: %d, want %d", i, got[i], want[i])
		}
	}

	r = newRoom(t, eleven)
	delete(r.state, auth.Key{Type: matrix.TypePowerLevels})
	p = auth.Levels(r)
	got = []int64{p.Ban, p.Kick, p.Redact, p.Invite, p.User(alice), p.User(bob), p.Required("a", true), p.Required("b", false), p.Notification("room")}
	want = []int64{50, 50, 50, 0, 100, 0, 50, 0, 50}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("default level %d: %d, want %d", i, got[i], want[i])
		}
	}
	if p = auth.Levels(&room{}); p.User(alice) != 0 || p.IsCreator(alice) {
		t.Error("somebody has power in an empty room")
	}
}
