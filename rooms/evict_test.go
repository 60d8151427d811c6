package rooms_test

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"fmt"
	mathrand "math/rand"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/teahouse-chat/teahouse/internal/db/dbtest"
	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms"
	"github.com/teahouse-chat/teahouse/rooms/event"
)

// smallEngine keeps only a few rooms in memory.
func smallEngine(t testing.TB, keep int) *rooms.Engine {
	t.Helper()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	e, err := rooms.New(rooms.Deps{
		DB: dbtest.Open(t, "sqlite"), ServerName: "test", Key: event.SigningKey{ID: "ed25519:1", Private: private},
		Now: time.Now, Rand: rand.Reader, RoomsKept: keep,
	})
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// collected tells whether the room leaves the memory.
func collected(e *rooms.Engine, id matrix.RoomID) bool {
	for range 20 {
		runtime.GC()
		if !e.Loaded(id) {
			return true
		}
		time.Sleep(time.Millisecond)
	}
	return false
}

// TestUnusedRoomsLeaveMemory uses more rooms than are kept: those that nobody
// holds are collected and come back as they were, one that is held stays one.
func TestUnusedRoomsLeaveMemory(t *testing.T) {
	e := smallEngine(t, 2)
	ids := make([]matrix.RoomID, 6)
	for i := range ids {
		ids[i] = newRoom(t, e, "12").ID
	}
	held, err := e.Room(t.Context(), ids[0])
	if err != nil {
		t.Fatal(err)
	}
	use := func(id matrix.RoomID) {
		if _, err := e.Send(t.Context(), id, alice, message("hello"), nil); err != nil {
			t.Fatal(err)
		}
	}
	for _, id := range ids[1:] {
		use(id)
	}
	for _, id := range ids[1:4] {
		if !collected(e, id) {
			t.Errorf("room %s stays in memory", id)
		}
	}
	runtime.GC()
	before := held.View().Position
	use(ids[0])
	if again, err := e.Room(t.Context(), ids[0]); err != nil || again != held {
		t.Errorf("there are two rooms %s (%v)", ids[0], err)
	}
	if held.View().Position <= before {
		t.Error("whoever holds a room does not see what happens in it")
	}
	for _, id := range ids {
		use(id)
		r, err := e.Room(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		if v := r.View(); v.Joined != 1 || v.State.Len() != 4 || len(v.Recent) < 6 || !r.IsLocalMember(alice) {
			t.Errorf("room %s came back with %d members, %d state events and %d recent ones", id, v.Joined, v.State.Len(), len(v.Recent))
		}
	}
	runtime.KeepAlive(held)
}

// TestRoomsComeAndGo sends, holds and collects rooms at random at the same
// time: every room stays one line of events.
func TestRoomsComeAndGo(t *testing.T) {
	e := smallEngine(t, 2)
	const many, senders, sends = 8, 6, 60
	ids := make([]matrix.RoomID, many)
	for i := range ids {
		ids[i] = newRoom(t, e, "12").ID
	}
	ctx, stop := context.WithCancel(t.Context())
	var rest, work sync.WaitGroup
	rest.Go(func() {
		for ctx.Err() == nil {
			runtime.GC()
		}
	})
	for n := range senders {
		work.Go(func() {
			random := mathrand.New(mathrand.NewSource(int64(n)))
			var held *rooms.Room
			for i := range sends {
				id := ids[random.Intn(many)]
				st, err := e.Send(t.Context(), id, alice, message(fmt.Sprint(i)), nil)
				if err != nil {
					t.Error(err)
					return
				}
				if held != nil && held.ID == id && held.View().Position < st.Position {
					t.Errorf("a room that is held shows %d, after an event at %d", held.View().Position, st.Position)
				}
				if random.Intn(3) == 0 {
					if held, err = e.Room(t.Context(), id); err != nil {
						t.Error(err)
						return
					}
				}
				if random.Intn(5) == 0 {
					held = nil
				}
			}
		})
	}
	work.Wait()
	stop()
	rest.Wait()
	total := 0
	for _, id := range ids {
		r, err := e.Room(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		events, err := e.Timeline(t.Context(), rooms.TimelineQuery{Room: r, Limit: 1000})
		if err != nil {
			t.Fatal(err)
		}
		total += len(events) - 4
		for i := 1; i < len(events); i++ {
			if len(events[i].PrevEvents) != 1 || events[i].PrevEvents[0] != events[i-1].ID {
				t.Fatalf("event %d of room %s builds on %v, not on %s", i, id, events[i].PrevEvents, events[i-1].ID)
			}
		}
	}
	if total != senders*sends {
		t.Errorf("%d events, not %d", total, senders*sends)
	}
	if err := e.CheckConsistency(t.Context()); err != nil {
		t.Error(err)
	}
}
