package syncapi

import (
	"context"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/teahouse-chat/teahouse/internal/db"
	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms"
	"github.com/teahouse-chat/teahouse/rooms/event"
)

// house is a world for the notifier: rooms whose members come and go, and a
// stream of what happens.
type house struct {
	mu       sync.Mutex
	members  map[rooms.RoomNID]map[matrix.UserID]bool
	position int64
	n        *notifier
	gate     func() // called where a reader of memberships may be overtaken
}

type houseRoom struct {
	h   *house
	nid rooms.RoomNID
}

func (r houseRoom) IsLocalMember(u matrix.UserID) bool {
	r.h.mu.Lock()
	defer r.h.mu.Unlock()
	return r.h.members[r.nid][u]
}

func (r houseRoom) LocalMembers() []matrix.UserID {
	r.h.mu.Lock()
	defer r.h.mu.Unlock()
	var list []matrix.UserID
	for u, in := range r.h.members[r.nid] {
		if in {
			list = append(list, u)
		}
	}
	return list
}

func newHouse(now func() time.Time) *house {
	h := &house{members: map[rooms.RoomNID]map[matrix.UserID]bool{}, gate: func() {}}
	h.n = &notifier{
		now:     now,
		users:   map[matrix.UserID]*record{},
		rooms:   map[rooms.RoomNID]map[*record]struct{}{},
		peeking: map[rooms.RoomNID]map[*waiter]struct{}{},
		foreign: func(change any) []matrix.UserID { return change.([]matrix.UserID) },
		memberships: func(_ context.Context, u matrix.UserID) ([]rooms.Membership, error) {
			h.gate()
			h.mu.Lock()
			defer h.mu.Unlock()
			var list []rooms.Membership
			for nid, members := range h.members {
				if members[u] {
					list = append(list, rooms.Membership{Room: nid, Membership: matrix.MembershipJoin})
				}
			}
			return list, nil
		},
	}
	return h
}

// member and say happen as in the server: first the room is changed, then
// the notifier hears of it.
func (h *house) member(nid rooms.RoomNID, u matrix.UserID, in bool) int64 {
	h.mu.Lock()
	if h.members[nid] == nil {
		h.members[nid] = map[matrix.UserID]bool{}
	}
	h.members[nid][u] = in
	h.mu.Unlock()
	key := string(u)
	return h.happen(nid, &rooms.Stored{Event: memberEvent(key)})
}

func (h *house) say(nid rooms.RoomNID) int64 {
	return h.happen(nid, &rooms.Stored{Event: &event.Event{Type: matrix.TypeMessage}})
}

func (h *house) happen(nid rooms.RoomNID, st *rooms.Stored) int64 {
	h.position++
	st.Position = h.position
	h.n.mu.Lock()
	defer h.n.mu.Unlock()
	h.n.committed(nid, houseRoom{h, nid}, []*rooms.Stored{st})
	h.n.position = h.position
	return h.position
}

// memberEvent is a member event of the user, with no more than the notifier
// looks at.
func memberEvent(user string) *event.Event {
	v, _ := event.Lookup("11")
	ev, err := event.Load(v, "$m", "!r:test", []byte(`{"type":"m.room.member","state_key":"`+user+`","content":{"membership":"join"},"room_id":"!r:test","sender":"`+user+`",`+
		`"depth":1,"origin_server_ts":1,"prev_events":[],"auth_events":[],"hashes":{"sha256":""},"signatures":{}}`))
	if err != nil {
		panic(err)
	}
	return ev
}

// TestNothingIsMissed runs readers against a stream of joins, parts and
// messages. Whatever order things happen in, a reader that repeats what /sync
// does hears of every message of the rooms that its user is in, is told of its
// user's own comings and goings, and never sleeps while there is something.
func TestNothingIsMissed(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		seed := rapid.Uint64().Draw(rt, "seed")
		steps := rapid.IntRange(1, 60).Draw(rt, "steps")
		synctest.Test(t, func(t *testing.T) { missNothing(t, rt, seed, steps) })
	})
}

func missNothing(t *testing.T, rt *rapid.T, seed uint64, steps int) {
	h := newHouse(time.Now)
	pause := func(r *rand.Rand) { time.Sleep(time.Duration(r.IntN(4)) * time.Millisecond) }
	users := []matrix.UserID{"@a:test", "@b:test", "@c:test"}
	type must struct {
		nid rooms.RoomNID
		at  int64
	}
	owed := map[matrix.UserID][]must{}
	told := map[matrix.UserID]map[must]bool{}
	done := make(chan struct{})
	var readers sync.WaitGroup
	gateRand := rand.New(rand.NewPCG(seed, 1))
	var gateMu sync.Mutex
	h.gate = func() {
		gateMu.Lock()
		d := time.Duration(gateRand.IntN(6)) * time.Millisecond
		gateMu.Unlock()
		time.Sleep(d)
	}
	for i, u := range users {
		told[u] = map[must]bool{}
		r := rand.New(rand.NewPCG(seed, uint64(i)+2))
		readers.Go(func() {
			from := stand{}
			for {
				pause(r)
				rec, w, err := h.n.enter(context.Background(), u, "")
				if err != nil {
					rt.Errorf("enter: %v", err)
					return
				}
				c := h.n.since(rec, from)
				if !c.any() && !c.upTo.covers(from) {
					rt.Errorf("stood at %v, now at %v", from, c.upTo)
				}
				if !c.any() {
					select {
					case <-w.wake:
						c = h.n.since(rec, from)
					case <-done:
						c = h.n.since(rec, from)
						if !c.any() {
							h.n.leave(rec, w)
							return
						}
						rt.Errorf("%s slept while %v had changed", u, c.rooms)
					}
				}
				for nid, m := range c.rooms {
					told[u][must{nid, m.events}] = true
					for at := from.position + 1; at <= m.events; at++ {
						told[u][must{nid, at}] = true // all of the room's timeline is read
					}
				}
				if c.all {
					for nid := rooms.RoomNID(1); nid <= 2; nid++ {
						for at := from.position + 1; at <= c.upTo.position; at++ {
							told[u][must{nid, at}] = true
						}
					}
				}
				from = c.upTo
				h.n.leave(rec, w)
				if r.IntN(20) == 0 { // long away: the record is dropped
					h.n.mu.Lock()
					if len(rec.waiters) == 0 && h.n.users[u] == rec {
						h.n.drop(rec)
					}
					h.n.mu.Unlock()
				}
			}
		})
	}
	r := rand.New(rand.NewPCG(seed, 99))
	for range 3 {
		h.member(rooms.RoomNID(1+r.IntN(2)), users[r.IntN(3)], true)
	}
	for range steps {
		pause(r)
		nid, u := rooms.RoomNID(1+r.IntN(2)), users[r.IntN(3)]
		var at int64
		switch r.IntN(4) {
		case 0:
			at = h.member(nid, u, true)
			owed[u] = append(owed[u], must{nid, at})
		case 1:
			at = h.member(nid, u, false)
			owed[u] = append(owed[u], must{nid, at})
		default:
			at = h.say(nid)
		}
		for _, member := range (houseRoom{h, nid}).LocalMembers() {
			owed[member] = append(owed[member], must{nid, at})
		}
	}
	synctest.Wait()
	time.Sleep(time.Second) // all readers have come to rest
	close(done)
	readers.Wait()
	for u, list := range owed {
		for _, m := range list {
			if !told[u][m] {
				rt.Errorf("%s was not told of position %d in room %d", u, m.at, m.nid)
			}
		}
	}
	if len(h.n.users) > len(users) {
		rt.Errorf("%d records for %d users", len(h.n.users), len(users))
	}
}

func TestRecordsGoWhenNobodyComes(t *testing.T) {
	now := time.Unix(0, 0)
	h := newHouse(func() time.Time { return now })
	h.member(1, "@a:test", true)
	rec, w, err := h.n.enter(t.Context(), "@a:test", "")
	if err != nil {
		t.Fatal(err)
	}
	now = now.Add(2 * recordKept)
	enterAndLeave := func() {
		rec, w, err := h.n.enter(t.Context(), "@b:test", "")
		if err != nil {
			t.Fatal(err)
		}
		h.n.leave(rec, w)
	}
	enterAndLeave()
	if h.n.users["@a:test"] == nil {
		t.Error("a record went while a request was open")
	}
	h.n.leave(rec, w)
	now = now.Add(2 * recordKept)
	enterAndLeave()
	if h.n.users["@a:test"] != nil || len(h.n.rooms) != 0 {
		t.Errorf("what is left: %v, %v", h.n.users, h.n.rooms)
	}
}

func TestOthersChangesWakeTheirUsersOnly(t *testing.T) {
	h := newHouse(time.Now)
	waiters := map[matrix.UserID]*waiter{}
	records := map[matrix.UserID]*record{}
	for _, u := range []matrix.UserID{"@a:test", "@b:test"} {
		h.member(1, u, true)
		rec, w, err := h.n.enter(t.Context(), u, "D")
		if err != nil {
			t.Fatal(err)
		}
		records[u], waiters[u] = rec, w
	}
	start := h.n.stand()
	changed := func(u matrix.UserID) bool {
		c := h.n.since(records[u], start)
		return c.any()
	}
	h.n.publish(db.Batch{Position: start.position + 1, Changes: []any{[]matrix.UserID{"@a:test"}}})
	if !changed("@a:test") || changed("@b:test") || len(waiters["@a:test"].wake) != 1 || len(waiters["@b:test"].wake) != 0 {
		t.Error("account data of a reached b, or did not reach a")
	}
	h.n.publish(db.Batch{Position: start.position + 2, Changes: []any{ReceiptChanged{Receipt: Receipt{Room: 1, User: "@a:test", Type: ReadPrivate, Position: start.position + 2}}}})
	if changed("@b:test") {
		t.Error("a private receipt of a reached b")
	}
	h.n.publish(db.Batch{Position: start.position + 3, Changes: []any{ReceiptChanged{Receipt: Receipt{Room: 1, User: "@a:test", Type: Read, Position: start.position + 3}}}})
	if !changed("@b:test") {
		t.Error("a receipt of a did not reach b")
	}
	h.n.end("@a:test", "other")
	if h.n.over(waiters["@a:test"]) {
		t.Error("the end of another device's session ended this one")
	}
	h.n.end("@a:test", "")
	if !h.n.over(waiters["@a:test"]) || h.n.over(waiters["@b:test"]) {
		t.Error("the end of all of a's sessions")
	}
}
