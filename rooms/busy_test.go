package rooms_test

import (
	"fmt"
	"sync"
	"testing"

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
