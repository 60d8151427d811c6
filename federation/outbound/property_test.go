package outbound_test

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/teahouse-chat/teahouse/federation/outbound"
	"github.com/teahouse-chat/teahouse/internal/db/dbtest"
	"github.com/teahouse-chat/teahouse/internal/matrix"
)

// Whatever happens in whatever order, every server gets every event that is meant
// for it, in order, and every stored EDU; and nothing that is not meant for it.
func TestWhateverHappens(t *testing.T) {
	seeds := map[string]int{"sqlite": 16, "postgres": 4}
	if testing.Short() {
		seeds = map[string]int{"sqlite": 4, "postgres": 1}
	}
	for _, kind := range []string{"sqlite", "postgres"} {
		for seed := range seeds[kind] {
			t.Run(fmt.Sprint(kind, seed), func(t *testing.T) {
				url := dbtest.URL(t, kind)
				synctest.Test(t, func(t *testing.T) { live(newWorld(t, url), rand.New(rand.NewPCG(uint64(seed), 7))) })
			})
		}
	}
}

var everybody = []matrix.ServerName{"a", "b", "c", "d", "e"}

// live does things by chance and checks what came of them.
func live(w *world, chance *rand.Rand) {
	in := map[matrix.RoomID][]matrix.ServerName{}
	edus := map[matrix.ServerName][]string{}
	one := func() matrix.ServerName { return everybody[chance.IntN(len(everybody))] }
	w.took, w.history.slow = time.Duration(chance.IntN(300))*time.Millisecond, time.Duration(chance.IntN(100))*time.Millisecond
	w.up(everybody...)
	for step := range 120 {
		room := matrix.RoomID(fmt.Sprint("!", chance.IntN(4)))
		switch chance.IntN(16) {
		case 0, 1, 2, 3:
			w.say(room, 1+chance.IntN(5), in[room]...)
		case 4:
			w.say(room, 1+chance.IntN(400), in[room]...)
		case 5, 6: // somebody comes or goes, which those before and after are told
			before, s := in[room], one()
			after := slices.DeleteFunc(slices.Clone(before), func(m matrix.ServerName) bool { return m == s })
			if len(after) == len(before) {
				after = append(after, s)
			}
			told := append(slices.Clone(before), after...)
			slices.Sort(told)
			w.say(room, 1, slices.Compact(told)...)
			in[room] = after
		case 7, 8:
			w.trouble(one(), chance)
		case 9:
			w.up(one())
		case 10:
			w.crash()
		case 11:
			w.restart()
		case 12:
			w.queues.Wake(one())
			w.queues.Retry(one())
		case 13, 14:
			to := []matrix.ServerName{one(), one()}
			w.store(outbound.EDU{Type: "m.direct_to_device", Content: fmt.Appendf(nil, `{"message_id":"%d"}`, step)}, to...)
			slices.Sort(to)
			for _, s := range slices.Compact(to) {
				edus[s] = append(edus[s], fmt.Sprint(step))
			}
		case 15:
			w.queues.Offer(everybody, fmt.Sprint(chance.IntN(3)), chance.IntN(2) == 0, outbound.EDU{Type: "m.typing", Content: []byte(`{"typing":true}`)})
		}
		if chance.IntN(3) > 0 {
			for range 4 { // up to a moment that nobody chose
				time.Sleep([]time.Duration{time.Millisecond, 100 * time.Millisecond, time.Second, 7 * time.Second, 10 * time.Minute}[chance.IntN(5)] * time.Duration(1+chance.IntN(100)) / 50)
			}
		}
	}
	w.up(everybody...)
	pass(5 * time.Hour)
	w.complete(everybody...)
	for _, s := range everybody {
		if got := w.messages(s); !slices.Equal(got, edus[s]) {
			w.Errorf("%s got the EDUs %v, not %v", s, got, edus[s])
		}
	}
	asked := 0
	for _, s := range everybody {
		asked -= w.asked(s)
	}
	w.restart()
	pass(5 * time.Hour)
	for _, s := range everybody {
		asked += w.asked(s)
	}
	if asked != 0 {
		w.Errorf("%d requests after everybody had everything", asked)
	}
	if list, err := w.queues.Destinations(context.Background()); err != nil || slices.ContainsFunc(list, func(d outbound.Destination) bool { return d.Failures+d.Events+d.EDUs > 0 }) {
		w.Errorf("%+v, %v", list, err)
	}
}

// trouble makes a server fail in some way.
func (w *world) trouble(s matrix.ServerName, chance *rand.Rand) {
	w.up(s)
	w.net.change(s, func(p *peer) {
		switch chance.IntN(6) {
		case 0:
			p.answer = remote(s, 502, "")
		case 1:
			p.hang = true
		case 2:
			p.took = time.Duration(chance.IntN(8000)) * time.Millisecond
		case 3:
			p.lose = true
		case 4:
			p.answer = remote(s, []int{400, 401, 403, 413, 429, 500}[chance.IntN(6)], matrix.CodeUnknown)
		case 5: // it takes small transactions only
			p.judge = func(pdus []json.RawMessage, edus []taken) error {
				if len(pdus)+len(edus) > 3 {
					return remote(s, 413, "")
				}
				return nil
			}
		}
	})
}
