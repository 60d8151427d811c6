package rooms_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/teahouse-chat/teahouse/internal/db"
	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms"
	"github.com/teahouse-chat/teahouse/rooms/event"
)

// TestReceiveInABusyRoom brings events in while local users send messages and
// change the state all the time: each comes in, and the states are right.
func TestReceiveInABusyRoom(t *testing.T) {
	for _, id := range []string{"2", "12"} {
		a, b := two(t, lookup(t, id))
		st, tip := current(a.events()), a.extremities()
		var wide []*event.Event
		for i := range 40 {
			d := draft{sender: b.user, typ: matrix.TypeTopic, key: key(fmt.Sprint(i % 3)), content: fmt.Sprintf(`{"topic":"%d"}`, i),
				prev: tip, from: st, depth: int64(20 + i), ts: int64(i + 1)}
			if i%4 == 0 {
				d.typ, d.key = matrix.TypeMessage, nil
			}
			ev := b.forge(d)
			wide = append(wide, ev)
			if i%5 != 0 {
				tip = []event.Ref{ev.Ref()}
			}
		}
		done := make(chan struct{})
		var wg sync.WaitGroup
		for n := range 3 {
			wg.Go(func() {
				for i := 0; ; i++ {
					p := message(fmt.Sprint(i))
					if n == 0 {
						p = stateProto(matrix.TypeTopic, fmt.Sprint(i%3), fmt.Sprintf(`{"topic":"local %d"}`, i))
					}
					if _, err := a.Send(t.Context(), a.room, a.user, p, nil); err != nil {
						t.Error(err)
						return
					}
					select {
					case <-done:
						return
					default:
					}
				}
			})
		}
		for i := 0; i < len(wide); i += 8 {
			a.accept(wide[i : i+8]...)
		}
		close(done)
		wg.Wait()
		a.say("the end")
		checkOracle(t, a)
	}
}

// checkOracle holds a server that has the whole history against the literal
// algorithms.
func checkOracle(t *testing.T, s *server) {
	t.Helper()
	events, err := s.Timeline(t.Context(), rooms.TimelineQuery{Room: s.theRoom(), Limit: 100_000})
	if err != nil {
		t.Fatal(err)
	}
	p := &play{t: t, servers: []*server{s}, oracle: newOracle(t, s.v)}
	for _, st := range events {
		p.oracle.learn(st.Event)
	}
	p.check(s)
}

// TestReceiveAfterFailedCommits brings events in while commits of local events
// fail: what was built on those fails with them, and is brought in again.
func TestReceiveAfterFailedCommits(t *testing.T) {
	a, b := two(t, lookup(t, "12"))
	broken := errors.New("broken")
	var wg sync.WaitGroup
	stop := make(chan struct{})
	wg.Go(func() {
		for {
			_, err := a.Update(t.Context(), a.room, a.user, func(b *rooms.Builder) error {
				b.Then(func(*db.Tx) error { return broken })
				_, err := b.Append(message("is lost"))
				return err
			})
			if !errors.Is(err, broken) {
				t.Errorf("a broken commit: %v", err)
				return
			}
			select {
			case <-stop:
				return
			default:
			}
		}
	})
	for i := range 30 {
		ev := b.say(fmt.Sprint(i))
		for {
			out, err := a.Receive(t.Context(), a.room, []rooms.Incoming{{Event: ev}})
			if err != nil {
				continue // the room failed as often as it is tried
			}
			if out[0].Event == nil || out[0].Event.Flags != 0 {
				t.Fatalf("%+v", out)
			}
			break
		}
	}
	close(stop)
	wg.Wait()
	a.restart()
	checkOracle(t, a)
}

// TestOneIDInTwoRooms brings events with one id, as servers can make them in the
// first room versions, into two rooms at the same time. One of them wins, and no
// write fails.
func TestOneIDInTwoRooms(t *testing.T) {
	a := newServer(t, "a", "sqlite")
	a.found(lookup(t, "1"))
	copied := *a
	other := &copied
	other.found(a.v)
	for i := range 20 {
		var wg sync.WaitGroup
		var taken atomic.Int32
		for _, s := range []*server{a, other} {
			ev := s.forge(draft{sender: s.user, typ: matrix.TypeMessage, content: `{}`, prev: s.extremities(), from: current(s.events()), depth: 10})
			var fields map[string]json.RawMessage
			if err := json.Unmarshal(ev.JSON, &fields); err != nil {
				t.Fatal(err)
			}
			fields["event_id"] = json.RawMessage(fmt.Sprintf(`"$same%d:a"`, i))
			same, err := event.Parse(ev.Version, []byte(encode(fields)))
			if err != nil {
				t.Fatal(err)
			}
			wg.Go(func() {
				out, err := s.Receive(t.Context(), s.room, []rooms.Incoming{{Event: same}})
				if err != nil {
					t.Error(err)
				} else if out[0].Event != nil {
					taken.Add(1)
				}
			})
		}
		wg.Wait()
		if n := taken.Load(); n != 1 {
			t.Errorf("%d rooms have the event", n)
		}
	}
}
