package history_test

import (
	"crypto/ed25519"
	"crypto/rand"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/teahouse-chat/teahouse/internal/db/dbtest"
	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms"
	"github.com/teahouse-chat/teahouse/rooms/event"
	. "github.com/teahouse-chat/teahouse/rooms/roomstest"
)

// far is another server, with a room of its own.
type far struct {
	*Rig
	engine *rooms.Engine
	room   *rooms.Room
	key    event.SigningKey
	clock  int64
}

func newFar(g *Rig) *far {
	g.Helper()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		g.Fatal(err)
	}
	f := &far{Rig: g, key: event.SigningKey{ID: "ed25519:1", Private: private}}
	now := func() time.Time { f.clock++; return time.UnixMilli(1_500_000_000_000 + 1000*f.clock) }
	f.engine, err = rooms.New(rooms.Deps{DB: dbtest.Open(g.TB, "sqlite"), ServerName: "far", Key: f.key, Now: now, Rand: rand.Reader})
	if err != nil {
		g.Fatal(err)
	}
	v, _ := event.Lookup("12")
	f.room, err = f.engine.Create(g.Context(), v, "@fay:far", func(b *rooms.Builder) error {
		for _, p := range []rooms.Proto{
			State(matrix.TypeCreate, "", `{"room_version":"12"}`), State(matrix.TypeMember, "@fay:far", `{"membership":"join"}`),
			State(matrix.TypePowerLevels, "", `{}`), State(matrix.TypeJoinRules, "", `{"join_rule":"public"}`),
		} {
			if _, err := b.Append(p); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		g.Fatal(err)
	}
	return f
}

func (f *far) say(text string) *rooms.Stored {
	f.Helper()
	st, err := f.engine.Send(f.Context(), f.room.ID, "@fay:far", Message(text), nil)
	if err != nil {
		f.Fatal(err)
	}
	return st
}

// join lets a user of the rig join the far room: the rig is told of the room's
// state, and of nothing before.
func (f *far) join(user string) *rooms.Room {
	f.Helper()
	ctx := f.Context()
	st, err := f.engine.StateEvents(ctx, f.room.View().State, nil)
	if err != nil {
		f.Fatal(err)
	}
	ends, err := f.room.Extremities(ctx)
	if err != nil {
		f.Fatal(err)
	}
	u := string(User(user))
	d := event.Draft{
		RoomID: f.room.ID, Type: matrix.TypeMember, StateKey: &u, Sender: User(user), Content: []byte(`{"membership":"join"}`),
		PrevEvents: ends, Depth: 1000, OriginServerTS: 1_550_000_000_000,
	}
	var events []*event.Event
	for _, ev := range st {
		events = append(events, ev.Event)
		if ev.Type == matrix.TypePowerLevels || ev.Type == matrix.TypeJoinRules {
			d.AuthEvents = append(d.AuthEvents, ev.Ref())
		}
	}
	join, err := event.Build(f.room.Version, d, Server, f.key)
	if err != nil {
		f.Fatal(err)
	}
	if _, err := f.engine.Receive(ctx, f.room.ID, []rooms.Incoming{{Event: join}}); err != nil {
		f.Fatal(err)
	}
	if _, err := f.Engine.ImportState(ctx, f.room.Version, f.room.ID, events, nil, join); err != nil {
		f.Fatal(err)
	}
	r, err := f.Engine.Room(ctx, f.room.ID)
	if err != nil {
		f.Fatal(err)
	}
	return r
}

// backfill hands the rig as many events as limit from before what it has.
func (f *far) backfill(r *rooms.Room, limit int) {
	f.Helper()
	ctx := f.Context()
	gaps, err := f.Engine.Backward(ctx, r)
	if err != nil || len(gaps) == 0 {
		f.Fatal(gaps, err)
	}
	var from []matrix.EventID
	for _, g := range gaps {
		from = append(from, g.Missing)
	}
	events, err := f.engine.Before(ctx, f.room, from, limit)
	if err != nil {
		f.Fatal(err)
	}
	in := make([]rooms.Incoming, len(events))
	for i, st := range events {
		in[i].Event = st.Event
	}
	before, err := f.engine.StateBefore(ctx, events[len(events)-1])
	if err != nil {
		f.Fatal(err)
	}
	state, err := f.engine.StateEvents(ctx, before, nil)
	if err != nil {
		f.Fatal(err)
	}
	in[len(in)-1].State = []matrix.EventID{}
	for _, st := range state {
		in[len(in)-1].State = append(in[len(in)-1].State, st.ID)
	}
	out, err := f.Engine.Backfill(ctx, r.ID, in)
	if err != nil {
		f.Fatal(err)
	}
	for _, o := range out {
		if o.Event == nil || o.Why != nil {
			f.Fatalf("%+v", o)
		}
	}
}

// TestPast pages back from where a user joined through what was fetched of the
// time before, a little at a time, to the room's beginning, and forward again.
func TestPast(t *testing.T) {
	each(t, func(g *Rig) {
		f := newFar(g)
		want := []string{matrix.TypeCreate, matrix.TypeMember, matrix.TypePowerLevels, matrix.TypeJoinRules}
		for i := range 30 {
			f.say(fmt.Sprint(i))
			want = append(want, fmt.Sprint(i))
		}
		r := f.join("bob")
		want = append(want, matrix.TypeMember)
		names := func(events []clientEvent) (names []string) {
			for _, ev := range events {
				if name := ev.body(); name != "" {
					names = append(names, name)
				} else {
					names = append(names, ev.Type)
				}
			}
			return names
		}
		// A page that has no end is asked for again when more has come.
		var back []string
		for from := ""; len(back) < len(want); {
			page := Get[messagesAnswer](g, "bob", roomPath(r, "messages?dir=b&limit=7&from="+from))
			if gaps, err := g.Engine.Backward(g.Context(), r); err != nil || len(gaps) > 0 && page.End == "" {
				f.backfill(r, 5)
				g.Reload()
				r, _ = g.Engine.Room(g.Context(), r.ID)
				continue
			}
			back, from = append(back, names(page.Chunk)...), page.End
			if (from == "") != (len(back) == len(want)) {
				t.Fatalf("after %d events of %d the way on is %q", len(back), len(want), from)
			}
		}
		slices.Reverse(back)
		if !slices.Equal(back, want) {
			t.Errorf("backwards: %v", back)
		}
		all := Get[messagesAnswer](g, "bob", roomPath(r, "messages?dir=f&limit=100"))
		if got := names(all.Chunk); !slices.Equal(got, want) {
			t.Errorf("forwards: %v", got)
		}
		around := Get[struct {
			Before []clientEvent `json:"events_before"`
			After  []clientEvent `json:"events_after"`
			Start  string
			End    string
			State  []clientEvent
		}](g, "bob", roomPath(r, "context/"+url.PathEscape(string(all.Chunk[10].ID))+"?limit=6"))
		if got := append(reversed(names(around.Before)), names(around.After)...); strings.Join(got, " ") != "3 4 5 7 8 9" || len(around.State) != 4 {
			t.Errorf("around: %v, with %d events of state", got, len(around.State))
		}
		next := Get[messagesAnswer](g, "bob", roomPath(r, "messages?dir=f&limit=2&from="+around.End))
		previous := Get[messagesAnswer](g, "bob", roomPath(r, "messages?dir=b&limit=2&from="+around.Start))
		if got := append(names(next.Chunk), names(previous.Chunk)...); strings.Join(got, " ") != "10 11 2 1" {
			t.Errorf("on from there: %v", got)
		}
		for dir, want := range map[string]matrix.EventID{"f": all.Chunk[21].ID, "b": all.Chunk[20].ID} {
			at := Get[struct {
				ID matrix.EventID `json:"event_id"`
			}](g, "bob", room1Path(r, fmt.Sprintf("timestamp_to_event?dir=%s&ts=%d", dir, f.when(all.Chunk[20].ID)+500)))
			if at.ID != want {
				t.Errorf("by time, %s: %s, want %s", dir, at.ID, want)
			}
		}
		members := Get[struct{ Chunk []clientEvent }](g, "bob", roomPath(r, "members?at="+around.Start))
		if len(members.Chunk) != 1 || members.Chunk[0].Sender != "@fay:far" {
			t.Errorf("members then: %v", members.Chunk)
		}
	})
}

func (f *far) when(id matrix.EventID) int64 {
	f.Helper()
	known, err := f.engine.Known(f.Context(), []matrix.EventID{id})
	if err != nil {
		f.Fatal(err)
	}
	return known[id].OriginServerTS
}

func reversed[T any](list []T) []T {
	slices.Reverse(list)
	return list
}
