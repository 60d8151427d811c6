package auth_test

import (
	"testing"

	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms/auth"
	"github.com/teahouse-chat/teahouse/rooms/event"
)

func TestCreate(t *testing.T) {
	const creator = `"creator":"` + alice + `"`
	for _, c := range []struct {
		name    string
		content string
		sender  string
		prev    bool
		want    string
	}{
		{"plain", `{` + creator + `}`, alice, false, "1-12:ok"},
		{"with previous events", `{` + creator + `}`, alice, true, "1-12:1.1"},
		{"by another server than the room's", `{` + creator + `}`, bob, false, "1-11:1.2 12:ok"},
		{"of an unknown version", `{` + creator + `,"room_version":"9000"}`, alice, false, "1-12:1.3"},
		{"of a version that is no text", `{` + creator + `,"room_version":1}`, alice, false, "1-12:1.3"},
		{"without creator", `{}`, alice, false, "1-10:1.4 11-12:ok"},
		{"with more creators", `{` + creator + `,"additional_creators":["` + bob + `","@HISTORIC user:b.example"]}`, alice, false, "1-12:ok"},
		{"with no more creators", `{` + creator + `,"additional_creators":[]}`, alice, false, "1-12:ok"},
		{"with creators that are no list", `{` + creator + `,"additional_creators":"` + bob + `"}`, alice, false, "1-11:ok 12:1.4"},
		{"with creators that are null", `{` + creator + `,"additional_creators":null}`, alice, false, "1-11:ok 12:1.4"},
		{"with a creator that is no text", `{` + creator + `,"additional_creators":[5]}`, alice, false, "1-11:ok 12:1.4"},
		{"with a creator that is no user", `{` + creator + `,"additional_creators":["bob"]}`, alice, false, "1-11:ok 12:1.4"},
	} {
		for id, want := range wants(t, c.want) {
			v, _ := event.Lookup(id)
			r := newRoom(t, v)
			d := event.Draft{Type: matrix.TypeCreate, StateKey: new(string), Sender: matrix.UserID(c.sender), Content: []byte(c.content)}
			if c.prev {
				d.PrevEvents = []event.Ref{r.last.Ref()}
			}
			r.last, r.create, r.state = nil, nil, nil
			e := r.buildDraft(d)
			if got := verdict(t, v, auth.Check(e, r)); got != want {
				t.Errorf("%s: version %s: %s, want %s", c.name, id, got, want)
			}
			again := auth.Check(e, &room{state: map[auth.Key]*event.Event{{Type: matrix.TypeCreate}: e}})
			if got := verdict(t, v, again); got != want {
				t.Errorf("%s: version %s, judged against itself: %s, want %s", c.name, id, got, want)
			}
		}
	}
}

// A create event makes no other room than the one it names by its hash.
func TestRoomIDIsTheHash(t *testing.T) {
	v, _ := event.Lookup("12")
	r := newRoom(t, v)
	e, err := event.Load(v, r.create.ID, "!AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", r.create.JSON)
	if err != nil {
		t.Fatal(err)
	}
	if got := verdict(t, v, auth.Check(e, &room{})); got != "1.2" {
		t.Errorf("%s, want 1.2", got)
	}
}

// A room has one create event; nobody takes it over with a second.
func TestSecondCreate(t *testing.T) {
	for _, v := range event.Versions() {
		r := newRoom(t, v)
		second := newRoom(t, v)
		second.last, second.create = nil, nil
		e := second.put(matrix.TypeCreate, "", adam, `{"creator":"`+adam+`"}`)
		if got := verdict(t, v, auth.Check(e, r)); got != "1" {
			t.Errorf("version %s: %s, want 1", v.ID, got)
		}
	}
}

func TestCreatorsStandAboveAll(t *testing.T) {
	v, _ := event.Lookup("12")
	r := newRoom(t, v)
	r.last, r.create = nil, nil
	r.create = r.put(matrix.TypeCreate, "", alice, `{"additional_creators":["`+bob+`"]}`)
	r.levels(`{"events":{"m.room.topic":9007199254740991}}`)
	for _, user := range []string{alice, adam, mod, bob, carol} {
		r.member(user, matrix.MembershipJoin)
	}
	p := auth.Levels(r)
	for user, want := range map[matrix.UserID]bool{alice: true, bob: true, adam: false} {
		if p.IsCreator(user) != want || (p.User(user) > 1<<60) != want {
			t.Errorf("%s: creator %v with power %d, want %v", user, p.IsCreator(user), p.User(user), want)
		}
	}
	for _, c := range []struct {
		typ, key, sender, content, want string
	}{
		{matrix.TypeTopic, "", bob, `{}`, "ok"},
		{matrix.TypeTopic, "", adam, `{}`, "8"},
		{matrix.TypeMember, bob, alice, `{"membership":"ban"}`, "5.6.3"},
		{matrix.TypeMember, alice, bob, `{"membership":"leave"}`, "5.5.5"},
		{matrix.TypeMember, adam, bob, `{"membership":"ban"}`, "ok"},
		{matrix.TypePowerLevels, "", adam, `{"users":{"` + bob + `":0}}`, "10.4"},
		{matrix.TypePowerLevels, "", bob, `{"users":{"` + alice + `":100}}`, "10.4"},
		{matrix.TypePowerLevels, "", bob, `{"users":{"` + carol + `":9007199254740991}}`, "ok"},
	} {
		if got := verdict(t, v, auth.Check(r.build(c.typ, &c.key, c.sender, c.content), r)); got != c.want {
			t.Errorf("%s sends %s %s: %s, want %s", c.sender, c.typ, c.content, got, c.want)
		}
	}
}
