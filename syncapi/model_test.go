package syncapi_test

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/internal/testrig"
)

// observer is one device of a user, which knows nothing of the rooms but what
// /sync says, asked for in its own way.
type observer struct {
	name   string
	client *testrig.Client
	params []string
	after  bool    // it reads state_after instead of state and timeline
	eager  float64 // how often it asks
	since  string
	rooms  map[matrix.RoomID]*known
	owed   map[matrix.RoomID][]string // messages that it has to be told of or be told of a gap
}

// known is a room as an observer knows it.
type known struct {
	membership string
	state      map[string]string // type and state key to event id
	joined     any               // as the summary says
}

func stateKey(ev any) string { return fmt.Sprint(at(ev, "type"), " ", at(ev, "state_key")) }

// look asks and takes in what is told.
func (o *observer) look(t *testing.T) {
	t.Helper()
	a := ask(t, o.client, o.since, o.params...)
	o.since = next(a)
	join, _ := at(a, "rooms", "join").(object)
	for id, section := range join {
		room := matrix.RoomID(id)
		k := o.rooms[room]
		if k == nil || k.membership != "join" {
			k = &known{state: map[string]string{}}
			o.rooms[room] = k
		}
		k.membership = "join"
		o.fold(k, section)
		if n := at(section, "summary", "m.joined_member_count"); n != nil {
			k.joined = n
		}
		o.timeline(t, room, section)
	}
	left, _ := at(a, "rooms", "leave").(object)
	for id, section := range left {
		room := matrix.RoomID(id)
		o.rooms[room] = &known{membership: "leave"}
		list := events(section, "timeline")
		if o.name != "messages only" && (len(list) == 0 || !strings.HasSuffix(stateKey(list[len(list)-1]), string(o.client.User))) {
			t.Errorf("%s: the end in %s is %s", o.name, room, briefly(list))
		}
		o.timeline(t, room, section)
		delete(o.owed, room)
	}
	invited, _ := at(a, "rooms", "invite").(object)
	for id := range invited {
		o.rooms[matrix.RoomID(id)] = &known{membership: "invite"}
	}
	// Of a room that came and went between two answers nothing is owed.
	for room := range o.owed {
		if join[string(room)] == nil {
			t.Errorf("%s: was not told of %v", o.name, o.owed[room])
			delete(o.owed, room)
		}
	}
}

func (o *observer) fold(k *known, section any) {
	name := "state"
	if o.after {
		name = "state_after"
	}
	for _, ev := range events(section, name) {
		k.state[stateKey(ev)] = at(ev, "event_id").(string)
	}
	if o.after {
		return
	}
	for _, ev := range events(section, "timeline") {
		if at(ev, "state_key") != nil {
			k.state[stateKey(ev)] = at(ev, "event_id").(string)
		}
	}
}

// timeline checks that the messages are those that were owed: all, or behind a
// gap the newest.
func (o *observer) timeline(t *testing.T, room matrix.RoomID, section any) {
	t.Helper()
	var told []string
	for _, ev := range events(section, "timeline") {
		if at(ev, "type") == "m.room.message" {
			told = append(told, at(ev, "content", "body").(string))
		}
	}
	owed := o.owed[room]
	delete(o.owed, room)
	if at(section, "timeline", "limited") == true {
		if n := min(len(owed), len(told)); !slices.Equal(owed[len(owed)-n:], told[len(told)-n:]) {
			t.Errorf("%s: behind a gap told of %v, owed %v", o.name, told, owed)
		}
		return
	}
	// A room that is new comes with messages from before, too.
	if len(told) < len(owed) || !slices.Equal(told[len(told)-len(owed):], owed) {
		t.Errorf("%s: told of %v, owed %v", o.name, told, owed)
	}
}

// check compares what is known of a room with what the server says of it.
func (o *observer) check(t *testing.T, room matrix.RoomID, joined bool) {
	t.Helper()
	k := o.rooms[room]
	if !joined {
		if k != nil && k.membership == "join" {
			t.Errorf("%s: believes to be in %s", o.name, room)
		}
		return
	}
	if k == nil || k.membership != "join" {
		t.Fatalf("%s: does not know to be in %s", o.name, room)
	}
	truth := map[string]string{}
	members := 0
	for _, ev := range stateOf(t, o.client, room) {
		truth[stateKey(ev)] = at(ev, "event_id").(string)
		if at(ev, "type") == "m.room.member" && at(ev, "content", "membership") == "join" {
			members++
		}
	}
	if !maps.Equal(truth, k.state) {
		for key, id := range truth {
			if k.state[key] != id {
				t.Errorf("%s: believes %s to be %q, it is %s", o.name, key, k.state[key], id)
			}
		}
		for key := range k.state {
			if truth[key] == "" {
				t.Errorf("%s: believes in %s", o.name, key)
			}
		}
	}
	if k.joined != float64(members) {
		t.Errorf("%s: counts %v members, there are %d", o.name, k.joined, members)
	}
}

// stateOf asks for a room's state, which is a list.
func stateOf(t *testing.T, c *testrig.Client, room matrix.RoomID) []any {
	t.Helper()
	info := c.Must("GET", "/v3/rooms"+testrig.Path(room, "initialSync"), nil)
	list, _ := info["state"].([]any)
	return list
}

// TestObserversComeToKnowTheTruth lets users do things at random while devices
// ask in all manners, at all paces and over restarts. At every moment, a device
// that has caught up knows the rooms as they are.
func TestObserversComeToKnowTheTruth(t *testing.T) {
	for seed := range uint64(6) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) { observe(t, rand.New(rand.NewPCG(seed, 7)), 250) })
	}
}

func observe(t *testing.T, r *rand.Rand, steps int) {
	s := testrig.Start(t, testrig.Options{})
	host, guest := s.Register("host"), s.Register("guest")
	var crowd []*testrig.Client
	for i := range 4 {
		crowd = append(crowd, s.Register(fmt.Sprint("crowd", i)))
	}
	rooms := make([]matrix.RoomID, 2)
	for i := range rooms {
		rooms[i] = host.CreateRoom(object{"preset": "public_chat"})
	}
	limit := func(n int, more string) string {
		return fmt.Sprintf(`{"room":{"timeline":{"limit":%d}%s}}`, n, more)
	}
	observers := []*observer{
		{name: "eager", eager: 0.5, params: []string{"filter", limit(50, "")}},
		{name: "idle", eager: 0.03, params: []string{"filter", limit(3, "")}},
		{name: "after", eager: 0.2, after: true, params: []string{"use_state_after", "true", "filter", limit(4, "")}},
		{name: "messages only", eager: 0.1, params: []string{"filter", `{"room":{"timeline":{"types":["m.room.message"],"limit":5}}}`}},
		{name: "after, idle", eager: 0.02, after: true, params: []string{"use_state_after", "true"}},
	}
	for _, o := range observers {
		o.client, o.rooms, o.owed = s.Login("guest"), map[matrix.RoomID]*known{}, map[matrix.RoomID][]string{}
	}
	joined := map[matrix.RoomID]bool{}
	try := func(c *testrig.Client, method, path string, body object) bool {
		status, _, err := c.Do(t.Context(), method, path, body)
		if err != nil {
			t.Fatal(err)
		}
		return status == 200
	}
	for step := range steps {
		room := rooms[r.IntN(len(rooms))]
		who := crowd[r.IntN(len(crowd))]
		path := "/v3/rooms" + testrig.Path(room)
		switch r.IntN(16) {
		case 0, 1:
			joined[room] = try(guest, "POST", path+"/join", object{}) || joined[room]
		case 2:
			if try(guest, "POST", path+"/leave", object{}) {
				joined[room] = false
			}
		case 3:
			if try(host, "POST", path+"/"+[]string{"kick", "ban"}[r.IntN(2)], object{"user_id": guest.User}) {
				joined[room] = false
			}
		case 4:
			try(host, "POST", path+"/unban", object{"user_id": guest.User})
		case 5:
			try(host, "POST", path+"/invite", object{"user_id": guest.User})
		case 6, 7:
			try(who, "POST", path+"/"+[]string{"join", "leave"}[r.IntN(2)], object{})
		case 8:
			setState(host, room, "m.room.topic", "", object{"topic": fmt.Sprint(step)})
		case 9:
			setState(host, room, "org.example", fmt.Sprint(r.IntN(5)), object{"step": step})
		case 10:
			if joined[room] {
				setState(guest, room, "m.room.member", string(guest.User), object{"membership": "join", "displayname": fmt.Sprint(step)})
			}
		default:
			for i := range 1 + r.IntN(6) {
				text := fmt.Sprint(step, "-", i)
				host.Say(room, text, text)
				for _, o := range observers {
					if joined[room] {
						o.owed[room] = append(o.owed[room], text)
					}
				}
			}
		}
		for _, o := range observers {
			if !joined[room] {
				delete(o.owed, room) // the leave section is checked by its end
			}
			if r.Float64() < o.eager {
				o.look(t)
				for _, room := range rooms {
					o.check(t, room, joined[room])
				}
			}
		}
		if r.IntN(80) == 0 {
			s = s.Restart()
		}
		if t.Failed() {
			t.Fatalf("at step %d", step)
		}
	}
	for _, o := range observers {
		o.look(t)
		for _, room := range rooms {
			o.check(t, room, joined[room])
		}
	}
}
