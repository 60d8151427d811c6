package simulation_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/internal/testrig"
	"github.com/teahouse-chat/teahouse/rooms/event"
)

// sizes are how many servers there are in a network; the large ones cost most.
var sizes = []int{2, 3, 5, 2, 3}

const (
	patience = 5 * time.Minute  // of people who wait for an answer
	stopTime = 30 * time.Second // more than a server takes that has requests under way
)

// world is a network of servers and the room that they share.
type world struct {
	*testing.T
	chance  *rand.Rand // of what happens; used by one goroutine only
	version *event.Version
	links   *links
	sites   []*site
	people  []*person
	room    matrix.RoomID
	doing   sync.WaitGroup // what people do
	next    time.Time      // when the next thing happens

	mu   sync.Mutex
	said []matrix.EventID // messages that may be redacted
}

// site is where a server runs.
type site struct {
	name   matrix.ServerName
	rig    *testrig.Server
	down   bool
	people []*person
}

type person struct {
	*testrig.Client
	site *site
}

// newWorld starts the servers, with two people on each, and lets one of them make
// a room that the others join.
func newWorld(t *testing.T, seed int, databases []string) *world {
	w := &world{T: t, chance: rand.New(rand.NewPCG(uint64(seed), 1)), version: event.Versions()[seed%len(event.Versions())]}
	names := make([]matrix.ServerName, len(databases))
	for i := range names {
		names[i] = matrix.ServerName(fmt.Sprint("s", i))
	}
	w.links = newLinks(uint64(seed), names)
	for i, name := range names {
		s := &site{name: name, rig: testrig.Start(t, testrig.Options{
			Name: name, Database: databases[i], Network: w.links.network, Federate: true,
			Rand: newChance(uint64(seed), uint64(i)), Dial: w.links.dial(name),
		})}
		for _, localpart := range []string{"a", "b"} {
			s.people = append(s.people, &person{s.rig.Register(localpart), s})
		}
		w.sites, w.people = append(w.sites, s), append(w.people, s.people...)
	}
	w.found()
	return w
}

// founder is who has made the room and never leaves it.
func (w *world) founder() *person { return w.people[0] }

func (w *world) found() {
	users := testrig.JSON{}
	for _, p := range w.people {
		if level := []int{0, 0, 50, 100}[w.chance.IntN(4)]; level > 0 {
			users[string(p.User)] = level
		}
	}
	delete(users, string(w.founder().User))
	if !w.version.CreatorPower {
		users[string(w.founder().User)] = 100
	}
	w.room = w.founder().CreateRoom(testrig.JSON{
		"preset": "public_chat", "room_version": w.version.ID, "power_level_content_override": testrig.JSON{"users": users},
	})
	for _, p := range w.people[1:] {
		w.join(p)
	}
	time.Sleep(time.Minute)
}

// live lets people do things, and trouble come and go.
func (w *world) live(steps int) {
	w.next = time.Now()
	for range steps {
		if w.chance.IntN(5) == 0 {
			w.trouble()
		} else {
			w.act()
		}
		w.wait(w.pause())
	}
}

// wait waits from when the last thing was to happen, however long that took.
func (w *world) wait(pause time.Duration) {
	w.next = w.next.Add(pause)
	time.Sleep(time.Until(w.next))
}

// pause is the time between two things that happen: mostly less than it takes to
// hear of each other.
func (w *world) pause() time.Duration {
	unit := []time.Duration{time.Millisecond, 10 * time.Millisecond, 10 * time.Millisecond, 100 * time.Millisecond, time.Second, 10 * time.Second}[w.chance.IntN(6)]
	return time.Duration(w.chance.Int64N(int64(10 * unit)))
}

// trouble changes the state of a link or of a server, for better or worse.
func (w *world) trouble() {
	a, b := w.sites[w.chance.IntN(len(w.sites))], w.sites[w.chance.IntN(len(w.sites))]
	refuses, asked := w.chance.IntN(2) == 0, w.chance.IntN(10)
	switch asked {
	case 0, 1:
		w.tell("%s and %s are cut off from each other (shows: %v)", a.name, b.name, refuses)
		w.links.between(a.name, b.name, func(k *link) { k.cut(refuses) })
	case 2, 3:
		w.split(refuses)
	case 4, 5:
		w.tell("all links are whole")
		w.links.every((*link).heal)
	case 6, 7:
		share := []float64{0, 0.03, 0.1}[w.chance.IntN(3)]
		w.tell("links lose %v", share)
		w.links.every(func(k *link) { k.loses(share) })
	case 8:
		w.stop(a)
		w.start(a)
	case 9:
		if a.down {
			w.start(a)
		} else {
			w.stop(a)
		}
	}
}

// split makes two halves that do not hear of each other.
func (w *world) split(refuses bool) {
	side := make([]bool, len(w.sites))
	for i := range side {
		side[i] = w.chance.IntN(2) == 0
	}
	w.tell("the network is split: %v (shows: %v)", side, refuses)
	for i, a := range w.sites {
		for j, b := range w.sites {
			if side[i] != side[j] {
				w.links.between(a.name, b.name, func(k *link) { k.cut(refuses) })
			}
		}
	}
}

func (w *world) stop(s *site) {
	if s.down {
		return
	}
	w.tell("%s stops", s.name)
	s.rig.Stop()
	s.down = true
	w.wait(stopTime)
}

func (w *world) start(s *site) {
	if !s.down {
		return
	}
	w.tell("%s starts", s.name)
	s.rig = testrig.Start(w.T, s.rig.Options)
	s.down = false
}

func (w *world) tell(format string, args ...any) {
	w.Logf("%s "+format, append([]any{time.Now().Format("15:04:05.000")}, args...)...)
}

// ask lets a person ask their server. What goes wrong is no more than told, unless
// it is a fault of the server.
func (w *world) ask(p *person, method, path string, body any) (testrig.JSON, bool) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	status, answer, err := p.Do(ctx, method, path, body)
	w.tell("%s %s %s %v: %d %v %v", p.User, method, path, body, status, answer["errcode"], answer["error"])
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		w.Errorf("%s has no answer within %v", p.User, patience)
	case status >= 500 && status != http.StatusBadGateway && status != http.StatusGatewayTimeout:
		w.Errorf("%s %s: %d %v", method, path, status, answer)
	}
	return answer, err == nil && status == http.StatusOK
}

// settle ends all trouble and waits until nobody has anything to say any more.
func (w *world) settle() {
	w.tell("the trouble is over")
	w.links.every(func(k *link) { k.heal(); k.loses(0) })
	for _, s := range w.sites {
		w.start(s)
	}
	w.doing.Wait()
	time.Sleep(time.Hour)
}
