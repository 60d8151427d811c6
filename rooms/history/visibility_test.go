package history_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms"
	. "github.com/teahouse-chat/teahouse/rooms/roomstest"
)

// A story is what happens to a reader. Alice says "1" before and one number
// more after each step; the topic is always the last number.
type story struct {
	name  string
	user  string
	steps []func(g *Rig, r *rooms.Room, user string)
	// seen are the numbers that the reader sees by history visibility.
	seen map[string]string
	// topic is what the reader knows of the state where the room is not
	// world-readable; "" for nothing at all.
	topic string
}

func join(g *Rig, r *rooms.Room, u string)   { g.Join(r, u) }
func invite(g *Rig, r *rooms.Room, u string) { g.Member(r, "alice", u, "invite") }
func leave(g *Rig, r *rooms.Room, u string)  { g.Member(r, u, u, "leave") }
func kick(g *Rig, r *rooms.Room, u string)   { g.Member(r, "alice", u, "leave") }
func ban(g *Rig, r *rooms.Room, u string)    { g.Member(r, "alice", u, "ban") }
func knock(g *Rig, r *rooms.Room, u string) {
	g.Send(r, "alice", State(matrix.TypeJoinRules, "", `{"join_rule":"knock"}`))
	g.Member(r, u, u, "knock")
}
func forget(g *Rig, r *rooms.Room, u string) {
	if err := g.Engine.Forget(g.Context(), r, User(u)); err != nil {
		g.Fatal(err)
	}
}

func seen(world, shared, invited, joined string) map[string]string {
	return map[string]string{"world_readable": world, "shared": shared, "invited": invited, "joined": joined}
}

type steps = []func(g *Rig, r *rooms.Room, user string)

var stories = []story{
	{"joined", "bob", steps{join}, seen("12", "12", "2", "2"), "2"},
	{"invited, then joined", "bob", steps{invite, join}, seen("123", "123", "23", "3"), "3"},
	{"left", "bob", steps{join, leave}, seen("123", "12", "2", "2"), "2"},
	{"kicked", "bob", steps{join, kick}, seen("123", "12", "2", "2"), "2"},
	{"banned", "bob", steps{join, ban}, seen("123", "12", "2", "2"), "2"},
	{"left, then banned", "bob", steps{join, leave, ban}, seen("1234", "12", "2", "2"), "2"},
	{"banned, then unbanned", "bob", steps{join, ban, kick}, seen("1234", "12", "2", "2"), "2"},
	{"left and came back", "bob", steps{join, leave, join}, seen("1234", "1234", "24", "24"), "4"},
	{"left and is invited again", "bob", steps{join, leave, invite}, seen("1234", "12", "2", "2"), "2"},
	{"left and knocks", "bob", steps{join, leave, knock}, seen("1234", "12", "2", "2"), "2"},
	{"left and forgot", "bob", steps{join, leave, forget}, seen("1234", "", "", ""), ""},
	{"invited", "bob", steps{invite}, seen("12", "", "", ""), ""},
	{"invited and declined", "bob", steps{invite, leave}, seen("123", "", "", ""), ""},
	{"knocking", "bob", steps{knock}, seen("12", "", "", ""), ""},
	{"banned without having been there", "bob", steps{ban}, seen("12", "", "", ""), ""},
	{"never there", "bob", nil, seen("1", "", "", ""), ""},
	{"guest, never there", "guest1", nil, seen("1", "", "", ""), ""},
	{"guest, joined", "guest1", steps{join}, seen("12", "12", "2", "2"), "2"},
}

// TestHistoryVisibility tells every story under every history visibility and
// looks through every door.
func TestHistoryVisibility(t *testing.T) {
	each(t, func(g *Rig) {
		for visibility := range seen("", "", "", "") {
			for _, s := range stories {
				t := tale{Rig: g, story: s, visibility: visibility}
				t.tell()
				t.look("warm")
			}
		}
		// And again by those who know only the database.
		var tales []*tale
		for visibility := range seen("", "", "", "") {
			for _, s := range stories {
				t := &tale{Rig: g, story: s, visibility: visibility}
				t.tell()
				tales = append(tales, t)
			}
		}
		g.Reload()
		for _, t := range tales {
			t.look("cold")
		}
	})
}

// tale is a story told under a visibility.
type tale struct {
	*Rig
	story
	visibility string
	room       *rooms.Room
	said       []matrix.EventID
}

func (t *tale) tell() {
	t.Helper()
	t.room = t.Room("alice", State(matrix.TypeHistoryVisibility, "", `{"history_visibility":"`+t.visibility+`"}`))
	say := func() {
		text := fmt.Sprint(len(t.said) + 1)
		t.Send(t.room, "alice", State(matrix.TypeTopic, "", `{"topic":"`+text+`"}`))
		t.said = append(t.said, t.Say(t.room, "alice", text))
	}
	say()
	for _, step := range t.steps {
		step(t.Rig, t.room, t.user)
		say()
	}
}

func (t *tale) look(how string) {
	t.Helper()
	want := t.seen[t.visibility]
	place := fmt.Sprintf("%s, %s, %s", t.name, t.visibility, how)
	outside := t.topic == "" && t.visibility != "world_readable"
	for i, id := range t.said {
		path := roomPath(t.room, "event/"+string(id))
		if strings.Contains(want, fmt.Sprint(i+1)) {
			Get[clientEvent](t.Rig, t.user, path)
			if alone := Get[clientEvent](t.Rig, t.user, "/v3/events/"+string(id)); alone.ID != id || alone.RoomID != t.room.ID {
				t.Errorf("%s: /events gives %s of %s", place, alone.ID, alone.RoomID)
			}
			Get[any](t.Rig, t.user, roomPath(t.room, "context/"+string(id)))
			Get[any](t.Rig, guestless(t.user), room1Path(t.room, "relations/"+string(id)))
			continue
		}
		t.Refused(t.user, "GET", path, "", 404, matrix.CodeNotFound)
		t.Refused(t.user, "GET", "/v3/events/"+string(id), "", 404, matrix.CodeNotFound)
		if !outside {
			t.Refused(t.user, "GET", roomPath(t.room, "context/"+string(id)), "", 404, matrix.CodeNotFound)
		}
	}
	doors := []string{
		roomPath(t.room, "messages?dir=b&limit=100"), roomPath(t.room, "messages?dir=f&limit=100"), roomPath(t.room, "state"),
		roomPath(t.room, "state/m.room.topic"), roomPath(t.room, "state/m.room.topic/"), roomPath(t.room, "members"),
		roomPath(t.room, "context/"+string(t.said[0])),
	}
	if guestless(t.user) == t.user {
		doors = append(doors, room1Path(t.room, "threads"), room1Path(t.room, "timestamp_to_event?ts=0&dir=f"),
			room1Path(t.room, "relations/"+string(t.said[0])))
	}
	if outside {
		for _, door := range doors {
			t.Refused(t.user, "GET", door, "", 403, matrix.CodeForbidden)
		}
		return
	}
	for _, door := range doors[:2] {
		page := Get[messagesAnswer](t.Rig, t.user, door)
		var got []string
		for _, e := range page.Chunk {
			if e.Type == matrix.TypeMessage {
				got = append(got, e.body())
			}
		}
		slices.Sort(got)
		if texts := strings.Join(got, ""); texts != want {
			t.Errorf("%s: %s gives %q, not %q", place, door[len(door)-20:], texts, want)
		}
	}
	topic := t.topic
	if t.visibility == "world_readable" {
		topic = fmt.Sprint(len(t.said))
	}
	t.lookAtState(place, topic)
}

func (t *tale) lookAtState(place, topic string) {
	t.Helper()
	for _, slash := range []string{"", "/"} {
		if got := Get[map[string]string](t.Rig, t.user, roomPath(t.room, "state/m.room.topic"+slash)); got["topic"] != topic {
			t.Errorf("%s: the topic is %q, not %q", place, got["topic"], topic)
		}
	}
	found := false
	for _, e := range Get[[]clientEvent](t.Rig, t.user, roomPath(t.room, "state")) {
		if e.Type == matrix.TypeTopic {
			found = true
			if e.Content["topic"] != topic {
				t.Errorf("%s: in all of the state, the topic is %q, not %q", place, e.Content["topic"], topic)
			}
		}
	}
	if !found {
		t.Errorf("%s: there is no topic in the state", place)
	}
}

// guestless is a user who is no guest and sees what the user does, as far as
// that is by what anyone sees.
func guestless(user string) string {
	if strings.HasPrefix(user, "guest") {
		return "alice"
	}
	return user
}
