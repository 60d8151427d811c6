package inbound_test

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/internal/testrig"
	"github.com/teahouse-chat/teahouse/rooms/event"
)

// down lets a peer answer nothing but its keys.
func (m *remote) down() {
	m.misbehaves(func(_ string, w http.ResponseWriter, _ *http.Request) bool {
		testrig.WriteJSON(w, http.StatusBadGateway, testrig.JSON{})
		return true
	})
}

// An event whose past cannot be had waits, and holds up only what builds on it.
// When time has passed it is tried again.
func TestWaitingForAServer(t *testing.T) {
	each(t, func(t *testing.T, kind string) {
		g := newRig(t, kind)
		r := g.found("12")
		aside := r.fork()
		missed := r.say(5)
		newest := r.say(3)
		g.there.down()
		g.there.deliver(newest[0])
		g.until("the event waits", func() bool { return g.in.Waiting() == 1 })
		asked := g.there.times("get_missing_events")
		g.there.deliver(newest[1:]...)
		others := aside.say(3)
		g.there.deliver(others...)
		g.until("only the event and what builds on it wait", func() bool { return g.in.Staged() == 3 })
		for _, ev := range others {
			if !g.shown(r.ID, ev.ID) {
				t.Errorf("%s waits for nothing", ev.ID)
			}
		}
		g.in.Wake()
		if again := g.there.times("get_missing_events"); again != asked {
			t.Errorf("asked %d times more without a pause", again-asked)
		}
		// Whatever has failed so far is not forgotten.
		g.restart()
		g.in.Wake()
		if again := g.there.times("get_missing_events"); again != asked {
			t.Errorf("asked %d times more after a restart", again-asked)
		}
		g.there.misbehaves(nil)
		g.clock.Advance(time.Minute)
		g.settle()
		for _, ev := range append(missed, newest...) {
			if !g.shown(r.ID, ev.ID) {
				t.Errorf("%s is not there", ev.ID)
			}
		}
	})
}

// A server that shows a sign of life is asked at once.
func TestSignOfLife(t *testing.T) {
	g := newRig(t, "sqlite")
	r := g.found("12")
	r.say(5)
	newest := r.say(1)
	g.there.down()
	g.there.deliver(newest...)
	for range 6 { // so that it waits for long
		g.until("the event waits", func() bool { return g.in.Waiting() == 1 })
		g.clock.Advance(time.Hour)
		asked := g.there.times("get_missing_events")
		g.in.Wake()
		g.until("it is tried again", func() bool { return g.there.times("get_missing_events") > asked })
	}
	g.until("the event waits", func() bool { return g.in.Waiting() == 1 })
	g.there.misbehaves(nil)
	g.clock.Advance(10 * time.Second)
	g.in.Alive("there")
	g.settle()
	if !g.shown(r.ID, newest[0].ID) {
		t.Error("the event is not there")
	}
}

// What cannot be had is given up in the end, with all that builds on it; what
// comes later brings it back.
func TestGivingUp(t *testing.T) {
	g := newRig(t, "sqlite")
	r := g.found("12")
	r.say(5)
	newest := r.say(3)
	g.there.down()
	g.there.deliver(newest[:2]...)
	g.until("the event waits", func() bool { return g.in.Waiting() == 1 })
	g.clock.Advance(4 * 24 * time.Hour)
	g.settle()
	if g.known(newest[0].ID) != nil || g.known(newest[1].ID) != nil {
		t.Error("an event is known")
	}
	g.there.misbehaves(nil)
	g.there.deliver(newest[2])
	g.settle()
	for _, ev := range newest {
		if !g.shown(r.ID, ev.ID) {
			t.Errorf("%s is not there", ev.ID)
		}
	}
}

// An event whose signer's keys cannot be had waits, and delays no other.
func TestMissingKeys(t *testing.T) {
	g := newRig(t, "sqlite")
	r := g.found("12")
	other := g.peer("other")
	r.enter(other, "@carol:other")
	// A server that nobody can reach, whose user's event comes by way of another.
	gone := testrig.NewPeer(t, testrig.NewNetwork(), "gone")
	user := gone.User("dave")
	join, err := event.Build(r.Version, r.Draft(user, matrix.TypeMember, (*string)(&user), testrig.JSON{"membership": "join"}), "gone", gone.Key)
	if err != nil {
		t.Fatal(err)
	}
	aside := r.fork()
	begun := time.Now()
	g.there.deliver(join)
	for i := range 10 {
		ev := aside.by(other, "@carol:other", matrix.TypeMessage, nil, testrig.JSON{"body": fmt.Sprint(i)})
		aside.keep(ev)
		other.deliver(ev)
		g.until("the event is there", func() bool { return g.known(ev.ID) != nil })
	}
	if took := time.Since(begun); took > 20*time.Second {
		t.Errorf("others waited: %v", took)
	}
	if g.known(join.ID) != nil {
		t.Error("an event was taken without its keys")
	}
	g.until("the event waits", func() bool { return g.in.Waiting() == 1 })
	g.ring.Retry("gone")
	back := g.peer("gone") // with other keys, so the event is forged
	back.deliver(r.say(1)...)
	g.clock.Advance(time.Hour)
	g.until("the event was tried again", func() bool { g.in.Wake(); return g.in.Waiting() <= 1 })
	if g.known(join.ID) != nil {
		t.Error("an event was taken by another key")
	}
}

// A crash at any time loses no event and doubles none: the database is closed and
// opened again in the middle of bursts, gaps and answers.
func TestRestarts(t *testing.T) {
	each(t, func(t *testing.T, kind string) {
		g := newRig(t, kind)
		r := g.found("12")
		for round := range 6 {
			r.say(120) // of which we hear by what comes after
			sent := r.say(60)
			for batch := range slices.Chunk(sent, 20) {
				g.there.deliver(batch...)
				if round%2 == 0 {
					g.restart()
				}
			}
			for range round {
				g.in.Wake()
			}
			g.restart()
		}
		last := r.say(1)
		g.there.deliver(last...)
		for g.stored() > 0 {
			g.clock.Advance(time.Minute)
			g.in.Wake()
			time.Sleep(time.Millisecond)
		}
		made := r.Events[4:] // from our join on
		if got := g.timeline(r.ID); !slices.Equal(got, idsOf(made)) {
			t.Errorf("%d events in the timeline, not %d, or in another order", len(got), len(made))
		}
	})
}

// A stop in the middle of things ends soon.
func TestStop(t *testing.T) {
	g := newRig(t, "sqlite")
	r := g.found("12")
	r.say(5)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	g.there.misbehaves(func(string, http.ResponseWriter, *http.Request) bool {
		<-ctx.Done()
		return true
	})
	g.there.deliver(r.say(1)...)
	g.until("the server is asked", func() bool { return g.there.times("get_missing_events") > 0 })
	begun := time.Now()
	g.stop()
	if took := time.Since(begun); took > 20*time.Second {
		t.Errorf("it took %v", took)
	}
}
