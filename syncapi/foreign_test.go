package syncapi

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/teahouse-chat/teahouse/internal/db"
	"github.com/teahouse-chat/teahouse/internal/db/dbtest"
	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms"
	"github.com/teahouse-chat/teahouse/rooms/event"
)

// foreignRig is receipts of other servers' users on a database, and what of them is
// published.
type foreignRig struct {
	*foreign
	room *rooms.Room
	mu   sync.Mutex
	said []Receipt
}

func newForeignRig(t *testing.T, url string) *foreignRig {
	t.Helper()
	d, err := db.Open(t.Context(), url, db.Options{})
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.NewTextHandler(io.Discard, nil))
	g := &foreignRig{foreign: newForeign(Deps{DB: d, Now: time.Now, Log: log}), room: &rooms.Room{NID: 1, ID: "!1"}}
	d.Subscribe(func(b db.Batch) {
		g.foreign.publish(b)
		g.mu.Lock()
		defer g.mu.Unlock()
		for _, change := range b.Changes {
			if c, ok := change.(ReceiptChanged); ok {
				g.said = append(g.said, c.Receipt)
			}
		}
	})
	t.Cleanup(func() {
		g.close()
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	return g
}

// published gives what was published since it was asked last.
func (g *foreignRig) published() []Receipt {
	time.Sleep(time.Second)
	synctest.Wait()
	g.mu.Lock()
	defer g.mu.Unlock()
	list := g.said
	g.said = nil
	return list
}

func foreignReceiptAt(user int, position int64, thread string) Receipt {
	return Receipt{
		Room: 1, User: matrix.UserID(fmt.Sprintf("@u%d:there", user)), Type: Read, Thread: thread,
		Event: matrix.EventID(fmt.Sprint("$", position)), EventPosition: position,
	}
}

func eachForeign(t *testing.T, f func(t *testing.T, g *foreignRig)) {
	t.Helper()
	for _, kind := range []string{"sqlite", "postgres"} {
		t.Run(kind, func(t *testing.T) {
			url := dbtest.URL(t, kind)
			synctest.Test(t, func(t *testing.T) { f(t, newForeignRig(t, url)) })
		})
	}
}

// Many receipts make one write, and of a user's only the last; none goes back.
func TestForeignReceiptsAreStoredTogether(t *testing.T) {
	eachForeign(t, func(t *testing.T, g *foreignRig) {
		for position := int64(1); position <= 50; position++ {
			for user := range 10 {
				if err := g.add(t.Context(), g.room, foreignReceiptAt(user, position, "")); err != nil {
					t.Fatal(err)
				}
			}
		}
		list := g.published()
		if len(list) != 10 || slices.ContainsFunc(list, func(c Receipt) bool { return c.EventPosition != 50 }) {
			t.Errorf("%+v", list)
		}
		if last := g.db.Position(); last > 11 {
			t.Errorf("%d positions are used", last)
		}
		if err := g.add(t.Context(), g.room, foreignReceiptAt(1, 49, ""), foreignReceiptAt(1, 49, "main"), foreignReceiptAt(2, 50, ""), foreignReceiptAt(3, 51, "")); err != nil {
			t.Fatal(err)
		}
		if list := g.published(); len(list) != 2 {
			t.Errorf("%+v", list)
		}
		// So many that they cannot wait.
		for user := range foreignPending {
			if err := g.add(t.Context(), g.room, foreignReceiptAt(100+user, 1, "")); err != nil {
				t.Fatal(err)
			}
		}
		g.foreign.mu.Lock()
		if n := len(g.pending); n != 0 {
			t.Errorf("%d receipts wait", n)
		}
		g.foreign.mu.Unlock()
	})
}

// Receipts wait for their events, but not for ever, and not without bound.
func TestReceiptsWaitForTheirEvents(t *testing.T) {
	eachForeign(t, func(t *testing.T, g *foreignRig) {
		come := func(position int64, thread matrix.EventID, room rooms.RoomNID) {
			t.Helper()
			st := &rooms.Stored{Event: &event.Event{ID: matrix.EventID(fmt.Sprint("$", position))}, Room: room, Position: position, Thread: thread}
			if err := g.db.Write(t.Context(), func(tx *db.Tx) error {
				tx.Publish(&rooms.Committed{Room: g.room, Events: []*rooms.Stored{st}})
				return nil
			}); err != nil {
				t.Fatal(err)
			}
		}
		late := func(user int, position int64, thread string) Receipt {
			c := foreignReceiptAt(user, position, thread)
			c.EventPosition = 0
			return c
		}
		g.wait(g.room, "there", late(1, 7, ""))
		g.wait(g.room, "there", late(2, 7, "main"))
		g.wait(g.room, "there", late(3, 7, "$7"))
		g.wait(g.room, "there", late(4, 7, "$other"))
		come(7, "", 1)
		list := g.published()
		if len(list) != 3 || slices.ContainsFunc(list, func(c Receipt) bool { return c.EventPosition != 7 || c.User == "@u4:there" }) {
			t.Errorf("%+v", list)
		}
		g.wait(g.room, "there", late(1, 8, ""))
		come(8, "", 2) // an event of another room
		if list := g.published(); len(list) != 0 {
			t.Errorf("%+v", list)
		}
		for i := range heldPerServer + 50 {
			g.wait(g.room, "hostile", late(i, int64(1000+i), ""))
		}
		g.wait(g.room, "there", late(1, 9, ""))
		g.foreign.mu.Lock()
		if g.count != heldPerServer+1 || g.byHost["hostile"] != heldPerServer {
			t.Errorf("%d wait", g.count)
		}
		g.foreign.mu.Unlock()
		time.Sleep(2 * heldFor)
		g.wait(g.room, "hostile", late(1, 5000, ""))
		g.foreign.mu.Lock()
		if g.count != 1 || len(g.held) != 1 || len(g.byHost) != 1 {
			t.Errorf("%d wait: %v", g.count, g.byHost)
		}
		g.foreign.mu.Unlock()
	})
}

// Users of other servers stop typing by themselves; other servers are told again
// of ours who go on.
func TestTypingRunsOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &notifier{users: map[matrix.UserID]*record{}, rooms: map[rooms.RoomNID]map[*record]struct{}{}}
		var mu sync.Mutex // timers call
		var stopped []matrix.UserID
		y := newTyping(n, time.Now, func(rooms.RoomNID) {}, func(_ rooms.RoomNID, u matrix.UserID) {
			mu.Lock()
			defer mu.Unlock()
			stopped = append(stopped, u)
		})
		if !y.set(1, "@bob:there", typingRemote) {
			t.Error("it is no news that somebody begins")
		}
		told := 0
		for range 12 { // as clients do
			if y.set(1, "@alice:here", 8*time.Second) {
				told++
			}
			time.Sleep(5 * time.Second)
		}
		if told != 3 {
			t.Errorf("told %d times in a minute", told)
		}
		time.Sleep(10 * time.Second)
		synctest.Wait()
		mu.Lock()
		defer mu.Unlock()
		if users, _ := y.in(1, 0); len(users) != 0 || !slices.Equal(stopped, []matrix.UserID{"@bob:there", "@alice:here"}) {
			t.Errorf("%v type, %v stopped", users, stopped)
		}
		if y.set(1, "@alice:here", 0) {
			t.Error("it is news that somebody stops who has")
		}
	})
}

// Other servers are told now and then of those who are still there. Of strangers
// only so many are kept.
func TestPresenceOfStrangers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &notifier{users: map[matrix.UserID]*record{}, rooms: map[rooms.RoomNID]map[*record]struct{}{}}
		var mu sync.Mutex // timers call
		var told []seen
		tell := func(list []seen) {
			mu.Lock()
			defer mu.Unlock()
			told = append(told, list...)
		}
		heard := func() []seen {
			mu.Lock()
			defer mu.Unlock()
			return slices.Clone(told)
		}
		p := &presence{
			notifier: n, now: time.Now, people: map[matrix.UserID]*person{}, changed: map[matrix.UserID]struct{}{},
			abroad: tell, where: nowhere, met: func([]matrix.UserID, map[matrix.UserID][]rooms.RoomNID) {},
		}
		leave := p.come("@alice:here", online)
		p.hear(presencePush{User: "@bob:there", State: online})
		time.Sleep(time.Second)
		synctest.Wait()
		if got := heard(); len(got) != 1 || got[0].user != "@alice:here" || got[0].state != online {
			t.Errorf("told %+v", got)
		}
		time.Sleep(time.Hour)
		leave()
		time.Sleep(time.Minute)
		synctest.Wait()
		var states []string
		for _, s := range heard() {
			states = append(states, s.state)
		}
		if want := []string{online, unavailable, unavailable, unavailable, offline}; !slices.Equal(states, want) {
			t.Errorf("told %v", states)
		}
		if s := p.one("@bob:there"); s.state != offline {
			t.Errorf("bob is %s", s.state)
		}
		for i := range presenceStranger + 100 {
			p.hear(presencePush{User: matrix.UserID(fmt.Sprintf("@u%d:there", i)), State: online})
		}
		p.mu.Lock()
		people, strangers, alice := len(p.people), p.strangers, p.people["@alice:here"]
		p.mu.Unlock()
		if people > presenceStranger+1 || strangers != presenceStranger || alice == nil {
			t.Errorf("%d people, %d strangers", people, strangers)
		}
		p.close()
	})
}

func nowhere(context.Context, []matrix.UserID) (map[matrix.UserID][]rooms.RoomNID, error) {
	return nil, nil
}
