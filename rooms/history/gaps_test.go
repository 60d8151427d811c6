package history_test

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/teahouse-chat/teahouse/internal/db/dbtest"
	"github.com/teahouse-chat/teahouse/internal/httpx"
	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms"
	"github.com/teahouse-chat/teahouse/rooms/event"
	"github.com/teahouse-chat/teahouse/rooms/history"
	. "github.com/teahouse-chat/teahouse/rooms/roomstest"
)

// teller tells a far room's history: a few events at a time, those behind the
// first gap always, those behind others as it likes. What is lost it never tells.
type teller struct {
	*far
	random *rand.Rand
	lost   map[matrix.EventID]bool
	asked  int
}

func (f *teller) Backfill(ctx context.Context, r *rooms.Room, gaps []rooms.Gap, _ int) (came, open bool, err error) {
	f.asked++
	var from []matrix.EventID
	for i, g := range gaps {
		if i == 0 || f.random.IntN(2) == 0 {
			from = append(from, g.Missing)
		}
	}
	events, err := f.engine.Before(ctx, f.room, from, 1+f.random.IntN(12))
	if err == nil && !slices.ContainsFunc(events, func(st *rooms.Stored) bool { return st.ID == from[0] }) {
		events, err = f.engine.Before(ctx, f.room, from[:1], 1)
	}
	if err != nil {
		return false, false, err
	}
	var in []rooms.Incoming
	for _, st := range events {
		if f.lost[st.ID] {
			continue
		}
		before, err := f.engine.StateBefore(ctx, st)
		if err != nil {
			return false, false, err
		}
		state, err := f.engine.StateEvents(ctx, before, nil)
		if err != nil {
			return false, false, err
		}
		i := rooms.Incoming{Event: st.Event, State: []matrix.EventID{}}
		for _, st := range state {
			i.State = append(i.State, st.ID)
		}
		in = append(in, i)
	}
	f.random.Shuffle(len(in), func(i, j int) { in[i], in[j] = in[j], in[i] })
	out, err := f.Engine.Backfill(ctx, r.ID, in)
	return slices.ContainsFunc(out, func(o rooms.Outcome) bool { return o.Event != nil && !o.Known }), f.lost[from[0]], err
}

func (f *teller) EventNear(context.Context, *rooms.Room, int64, bool) (*rooms.Stored, error) {
	return nil, nil
}

// tangle makes n messages in so many branches, which now and then meet, and one in
// which all end.
func (f *teller) tangle(n, branches int) {
	f.Helper()
	say := func(prev ...*event.Event) *event.Event {
		ev := f.build(func(d *event.Draft) {
			d.Content, d.PrevEvents, d.Depth = fmt.Appendf(nil, `{"body":"%d"}`, f.clock), nil, 0
			for _, p := range prev {
				if ref := p.Ref(); !slices.Contains(d.PrevEvents, ref) {
					d.PrevEvents, d.Depth = append(d.PrevEvents, ref), max(d.Depth, p.Depth+1)
				}
			}
		})
		out, err := f.engine.Receive(f.Context(), f.room.ID, []rooms.Incoming{{Event: ev}})
		if err != nil || out[0].Event == nil || out[0].Event.Flags != 0 {
			f.Fatal(out, err)
		}
		return ev
	}
	tips := slices.Repeat([]*event.Event{f.say("root").Event}, branches)
	for range n {
		i, j := f.random.IntN(branches), f.random.IntN(branches)
		if f.random.IntN(4) > 0 {
			j = i
		}
		tips[i] = say(tips[i], tips[j])
	}
	say(tips...)
}

// build makes a message of the far room's creator, whom nothing has to authorise.
func (f *far) build(change func(*event.Draft)) *event.Event {
	f.Helper()
	d, err := f.engine.Template(f.Context(), f.room, rooms.Proto{Sender: "@fay:far", Type: matrix.TypeMessage, Content: json.RawMessage(`{}`)})
	if err != nil {
		f.Fatal(err)
	}
	change(&d)
	ev, err := event.Build(f.room.Version, d, "far", f.key)
	if err != nil {
		f.Fatal(err)
	}
	return ev
}

// reading is a client that pages back.
type reading struct {
	who, from string
	met       []matrix.EventID
	done      bool
}

// TestGaps lets clients page back at the same time into a history of many branches
// that only another server has, and tells in random parts: each meets every event
// once, none after one that it builds on, save what is lost; and none is held up
// by that.
func TestGaps(t *testing.T) {
	seeds := uint64(16)
	if testing.Short() {
		seeds = 6
	}
	for seed := range seeds {
		random := rand.New(rand.NewPCG(seed, 0))
		f := &teller{random: random, lost: map[matrix.EventID]bool{}}
		g := New(t, dbtest.URL(t, []string{"sqlite", "postgres"}[seed%2]), func(g *Rig) []httpx.Route {
			return history.New(history.Deps{Engine: g.Engine, Remote: f}).Routes()
		})
		f.far = newFar(g)
		f.tangle(80, 1+int(seed%5))
		all, err := f.engine.Timeline(t.Context(), rooms.TimelineQuery{Room: f.room, Limit: 1000})
		if err != nil {
			t.Fatal(err)
		}
		if seed%3 == 2 {
			f.lost[all[40].ID] = true
		}
		want := f.told(all[len(all)-1])
		r := f.join("bob")
		for _, who := range []string{"ann", "joe"} {
			p := Membership(User(who), matrix.MembershipJoin)
			p.Sender = User(who)
			if _, err := g.Engine.Send(t.Context(), r.ID, User(who), p, nil); err != nil {
				t.Fatal(err)
			}
		}
		clients := []*reading{{who: "bob"}, {who: "ann"}, {who: "joe"}}
		for requests := 0; slices.ContainsFunc(clients, func(c *reading) bool { return !c.done }); requests++ {
			c := clients[random.IntN(len(clients))]
			if c.done {
				continue
			}
			page := Get[messagesAnswer](g, c.who, roomPath(r, fmt.Sprintf("messages?dir=b&limit=%d&from=%s", 1+random.IntN(15), c.from)))
			c.met = append(c.met, idsOf(page.Chunk)...)
			c.done = page.End == "" || page.End == page.Start && len(page.Chunk) == 0
			c.from = page.End
			if random.IntN(15) == 0 {
				g.Reload()
				if r, err = g.Engine.Room(t.Context(), r.ID); err != nil {
					t.Fatal(err)
				}
			}
			if requests > 1000 {
				t.Fatalf("seed %d: it never ends", seed)
			}
		}
		for _, c := range clients {
			if !f.right(c.met, want) {
				t.Errorf("seed %d: %s did not meet what is there", seed, c.who)
			}
		}
		t.Logf("seed %d: asked %d times", seed, f.asked)
	}
}

// told are the events that can be reached by way of others that are not lost.
func (f *teller) told(last *rooms.Stored) map[matrix.EventID]*rooms.Stored {
	f.Helper()
	told := map[matrix.EventID]*rooms.Stored{}
	for queue := []matrix.EventID{last.ID}; len(queue) > 0; queue = queue[1:] {
		id := queue[0]
		if told[id] != nil || f.lost[id] {
			continue
		}
		known, err := f.engine.Known(f.Context(), []matrix.EventID{id})
		if err != nil {
			f.Fatal(err)
		}
		told[id] = known[id]
		queue = append(queue, known[id].PrevEvents...)
	}
	return told
}

// right tells whether all that was told was met once, and in order.
func (f *teller) right(met []matrix.EventID, told map[matrix.EventID]*rooms.Stored) bool {
	f.Helper()
	ok, n, seen := true, 0, map[matrix.EventID]bool{}
	for _, id := range met {
		if seen[id] {
			f.Errorf("%s was met twice", id)
			ok = false
		}
		seen[id] = true
		st := told[id]
		if st == nil {
			continue // of the time after the join
		}
		n++
		for _, prev := range st.PrevEvents {
			if seen[prev] {
				f.Errorf("%s was met after %s, which it builds on", id, prev)
				ok = false
			}
		}
	}
	if n != len(told) {
		f.Errorf("%d events were met of %d", n, len(told))
		ok = false
	}
	return ok
}
