package inbound_test

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/teahouse-chat/teahouse/federation/fetch"
	"github.com/teahouse-chat/teahouse/federation/gather"
	"github.com/teahouse-chat/teahouse/federation/inbound"
	"github.com/teahouse-chat/teahouse/federation/keys"
	"github.com/teahouse-chat/teahouse/federation/transport"
	"github.com/teahouse-chat/teahouse/internal/db"
	"github.com/teahouse-chat/teahouse/internal/db/dbtest"
	"github.com/teahouse-chat/teahouse/internal/httpx"
	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/internal/testrig"
	"github.com/teahouse-chat/teahouse/rooms"
	"github.com/teahouse-chat/teahouse/rooms/event"
)

const (
	us    = matrix.UserID("@us:here")
	alice = matrix.UserID("@alice:there")
)

// rig is our server, "here": an engine, a key ring and an Inbound, connected to
// peers that the test plays.
type rig struct {
	testing.TB
	network *testrig.Network
	self    *testrig.Peer // has our name and key, and no features
	there   *remote
	url     string
	clock   testrig.Clock
	change  func(*inbound.Deps)

	mu      sync.Mutex
	db      *db.DB
	engine  *rooms.Engine
	ring    *keys.Ring
	in      *inbound.Inbound
	handler http.Handler
	stop    func()
}

// newRig starts our server, and a peer by the name of "there".
func newRig(t testing.TB, kind string, change ...func(*inbound.Deps)) *rig {
	t.Helper()
	g := &rig{TB: t, network: testrig.NewNetwork(), url: dbtest.URL(t, kind), change: func(*inbound.Deps) {}}
	if len(change) > 0 {
		g.change = change[0]
	}
	g.self = testrig.NewPeer(t, g.network, "here")
	g.self.Handle("PUT /_matrix/federation/v1/send/{txnId}", func(w http.ResponseWriter, r *http.Request) {
		g.mu.Lock()
		h := g.handler
		g.mu.Unlock()
		h.ServeHTTP(w, r)
	})
	g.there = g.peer("there")
	g.open()
	t.Cleanup(func() {
		g.stop()
		if err := g.engine.CheckConsistency(context.Background()); err != nil {
			t.Errorf("the database contradicts itself: %v", err)
		}
		g.close()
	})
	return g
}

func (g *rig) open() {
	g.Helper()
	g.mu.Lock()
	defer g.mu.Unlock()
	ctx, cancel := context.WithCancel(context.WithoutCancel(g.Context()))
	var err error
	if g.db, err = db.Open(ctx, g.url, db.Options{}); err != nil {
		g.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	if testing.Verbose() {
		log = slog.New(slog.NewTextHandler(g.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	if g.engine, err = rooms.New(rooms.Deps{DB: g.db, ServerName: "here", Key: g.self.Key, Now: g.clock.Now, Rand: rand.Reader, Log: log}); err != nil {
		g.Fatal(err)
	}
	if g.ring, err = keys.New(keys.Options{
		DB: g.db, Server: "here", Keys: keys.File{Current: g.self.Key}, Fetcher: g.self.Client, Now: time.Now, Log: log,
	}); err != nil {
		g.Fatal(err)
	}
	d := inbound.Deps{
		DB: g.db, Gatherer: gather.New(g.engine, fetch.New(g.self.Client, g.ring, log)), Now: g.clock.Now, Log: log,
		Auth: transport.NewAuthenticator(transport.AuthOptions{Server: "here", Keys: g.ring, Now: time.Now}),
	}
	g.change(&d)
	if g.in, err = inbound.New(d); err != nil {
		g.Fatal(err)
	}
	edge := httpx.New(httpx.Options{Log: log})
	edge.Add("federation", g.in.Routes()...)
	g.handler = edge.Handler("federation")
	var running sync.WaitGroup
	in := g.in
	running.Go(func() { in.Run(ctx) })
	g.stop = func() { cancel(); running.Wait() }
}

func (g *rig) close() {
	g.stop()
	g.ring.Close()
	if err := g.db.Close(); err != nil {
		g.Error(err)
	}
}

// restart starts our server anew, with nothing but the database.
func (g *rig) restart() {
	g.Helper()
	g.close()
	g.open()
}

// settle waits until nothing is staged any more.
func (g *rig) settle() {
	g.Helper()
	g.until("nothing is staged", func() bool { return g.in.Staged() == 0 && g.stored() == 0 })
}

var countStaged = db.SQL(`SELECT count(*) FROM inbound_staged`)

// stored is how many events are staged in the database.
func (g *rig) stored() (n int) {
	g.Helper()
	if err := db.Each(g.Context(), g.db, countStaged, func(s db.Scanner) error { return s.Scan(&n) }); err != nil {
		g.Fatal(err)
	}
	return n
}

// until waits for something that is sure to happen.
func (g *rig) until(what string, is func() bool) {
	g.Helper()
	for begun := time.Now(); !is(); time.Sleep(time.Millisecond) {
		if time.Since(begun) > time.Minute {
			g.Fatalf("it does not come to pass that %s", what)
		}
	}
}

// known tells what became of an event.
func (g *rig) known(id matrix.EventID) *rooms.Stored {
	g.Helper()
	found, err := g.engine.Known(g.Context(), []matrix.EventID{id})
	if err != nil {
		g.Fatal(err)
	}
	return found[id]
}

func (g *rig) room(id matrix.RoomID) *rooms.Room {
	g.Helper()
	r, err := g.engine.Room(g.Context(), id)
	if err != nil {
		g.Fatal(err)
	}
	return r
}

// timeline lists the ids of a room's timeline, oldest first.
func (g *rig) timeline(id matrix.RoomID) []matrix.EventID {
	g.Helper()
	events, err := g.engine.Timeline(g.Context(), rooms.TimelineQuery{Room: g.room(id), From: 0, Limit: 100_000})
	if err != nil {
		g.Fatal(err)
	}
	ids := make([]matrix.EventID, len(events))
	for i, st := range events {
		ids[i] = st.ID
	}
	return ids
}

// tips are the forward extremities of a room.
func (g *rig) tips(id matrix.RoomID) []matrix.EventID {
	g.Helper()
	refs, err := g.room(id).Extremities(g.Context())
	if err != nil {
		g.Fatal(err)
	}
	ids := make([]matrix.EventID, len(refs))
	for i, r := range refs {
		ids[i] = r.ID
	}
	return ids
}

// remote is another server, with the events that it gives others. It answers
// properly unless instead says otherwise.
type remote struct {
	*testrig.Peer
	g *rig

	mu      sync.Mutex
	events  map[matrix.EventID]*event.Event
	states  map[matrix.EventID][]*event.Event // before the event
	asked   map[string]int
	txn     int
	instead func(what string, w http.ResponseWriter, r *http.Request) bool
}

// peer makes another server.
func (g *rig) peer(name matrix.ServerName) *remote {
	g.Helper()
	m := &remote{
		Peer: testrig.NewPeer(g, g.network, name), g: g,
		events: map[matrix.EventID]*event.Event{}, states: map[matrix.EventID][]*event.Event{}, asked: map[string]int{},
	}
	const prefix = " /_matrix/federation/v1/"
	for pattern, h := range map[string]http.HandlerFunc{
		"GET" + prefix + "event/{eventId}":              m.giveEvent,
		"GET" + prefix + "state_ids/{roomId}":           m.giveStateIDs,
		"GET" + prefix + "state/{roomId}":               m.giveState,
		"GET" + prefix + "event_auth/{roomId}/{id}":     m.giveAuth,
		"GET" + prefix + "backfill/{roomId}":            m.giveBackfill,
		"POST" + prefix + "get_missing_events/{roomId}": m.giveMissing,
	} {
		what := pattern[len("GET"+prefix):]
		if pattern[0] == 'P' {
			what = pattern[len("POST"+prefix):]
		}
		what = what[:slices.Index([]byte(what), '/')]
		m.Handle(pattern, func(w http.ResponseWriter, r *http.Request) {
			m.mu.Lock()
			m.asked[what]++
			instead := m.instead
			m.mu.Unlock()
			if instead == nil || !instead(what, w, r) {
				h(w, r)
			}
		})
	}
	return m
}

// misbehaves lets the remote answer otherwise; nil lets it answer properly.
func (m *remote) misbehaves(instead func(what string, w http.ResponseWriter, r *http.Request) bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.instead = instead
}

// times is how often something was asked for.
func (m *remote) times(what string) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.asked[what]
}

// learns lets the remote know all about events of a room, each of which was made
// on the state st.
func (m *remote) learn(ev *event.Event, st []*event.Event) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.events[ev.ID], m.states[ev.ID] = ev, st
}

func (m *remote) forget(ids ...matrix.EventID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, id := range ids {
		delete(m.events, id)
		delete(m.states, id)
	}
}

func (m *remote) find(id matrix.EventID) (*event.Event, []*event.Event) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.events[id], m.states[id]
}

func raws(events []*event.Event) []json.RawMessage {
	list := make([]json.RawMessage, len(events))
	for i, ev := range events {
		list[i] = ev.JSON
	}
	return list
}

func idsOf(events []*event.Event) []matrix.EventID {
	ids := make([]matrix.EventID, len(events))
	for i, ev := range events {
		ids[i] = ev.ID
	}
	return ids
}

func notFound(w http.ResponseWriter) {
	testrig.WriteJSON(w, http.StatusNotFound, testrig.JSON{"errcode": "M_NOT_FOUND", "error": "There is no such event"})
}

func (m *remote) giveEvent(w http.ResponseWriter, r *http.Request) {
	ev, _ := m.find(matrix.EventID(r.PathValue("eventId")))
	if ev == nil {
		notFound(w)
		return
	}
	testrig.WriteJSON(w, http.StatusOK, testrig.JSON{"origin": m.Name, "origin_server_ts": 1, "pdus": raws([]*event.Event{ev})})
}

// chain is what authorises events.
func (m *remote) chain(events []*event.Event) []*event.Event {
	seen := map[matrix.EventID]bool{}
	var all []*event.Event
	for n := 0; n < len(events); n++ {
		for _, id := range events[n].AuthEvents {
			if ev, _ := m.find(id); ev != nil && !seen[id] {
				seen[id] = true
				all, events = append(all, ev), append(events, ev)
			}
		}
	}
	return all
}

func (m *remote) giveStateIDs(w http.ResponseWriter, r *http.Request) {
	ev, st := m.find(matrix.EventID(r.URL.Query().Get("event_id")))
	if ev == nil {
		notFound(w)
		return
	}
	testrig.WriteJSON(w, http.StatusOK, testrig.JSON{"pdu_ids": idsOf(st), "auth_chain_ids": idsOf(m.chain(slices.Clone(st)))})
}

func (m *remote) giveState(w http.ResponseWriter, r *http.Request) {
	ev, st := m.find(matrix.EventID(r.URL.Query().Get("event_id")))
	if ev == nil {
		notFound(w)
		return
	}
	testrig.WriteJSON(w, http.StatusOK, testrig.JSON{"pdus": raws(st), "auth_chain": raws(m.chain(slices.Clone(st)))})
}

func (m *remote) giveAuth(w http.ResponseWriter, r *http.Request) {
	ev, _ := m.find(matrix.EventID(r.PathValue("id")))
	if ev == nil {
		notFound(w)
		return
	}
	testrig.WriteJSON(w, http.StatusOK, testrig.JSON{"auth_chain": raws(m.chain([]*event.Event{ev}))})
}

// back walks back from events, they included.
func (m *remote) back(from []matrix.EventID, stop map[matrix.EventID]bool, limit int) []*event.Event {
	var list []*event.Event
	for len(from) > 0 && len(list) < limit {
		id := from[0]
		from = from[1:]
		ev, _ := m.find(id)
		if stop[id] || ev == nil {
			continue
		}
		stop[id] = true
		list = append(list, ev)
		from = append(from, ev.PrevEvents...)
		slices.SortStableFunc(from, func(a, b matrix.EventID) int {
			x, _ := m.find(a)
			y, _ := m.find(b)
			if x == nil || y == nil {
				return 0
			}
			return cmp.Compare(y.Depth, x.Depth)
		})
	}
	return list
}

func (m *remote) giveBackfill(w http.ResponseWriter, r *http.Request) {
	var from []matrix.EventID
	for _, v := range r.URL.Query()["v"] {
		from = append(from, matrix.EventID(v))
	}
	limit, _ := strconv.Atoi(r.URL.Query().Get("limit"))
	events := m.back(from, map[matrix.EventID]bool{}, min(limit, 100))
	testrig.WriteJSON(w, http.StatusOK, testrig.JSON{"origin": m.Name, "origin_server_ts": 1, "pdus": raws(events)})
}

func (m *remote) giveMissing(w http.ResponseWriter, r *http.Request) {
	var q struct {
		Earliest []matrix.EventID `json:"earliest_events"`
		Latest   []matrix.EventID `json:"latest_events"`
		Limit    int              `json:"limit"`
	}
	if json.NewDecoder(r.Body).Decode(&q) != nil {
		return // whoever asked has stopped
	}
	stop := map[matrix.EventID]bool{}
	for _, id := range q.Earliest {
		stop[id] = true
	}
	var from []matrix.EventID
	for _, id := range q.Latest {
		if ev, _ := m.find(id); ev != nil {
			from = append(from, ev.PrevEvents...)
		}
	}
	events := m.back(from, stop, min(q.Limit, 20)) // as much as most servers give
	slices.Reverse(events)
	testrig.WriteJSON(w, http.StatusOK, testrig.JSON{"events": raws(events)})
}

// deliver sends events to us, in transactions of at most 50.
func (m *remote) deliver(events ...*event.Event) {
	m.g.Helper()
	for batch := range slices.Chunk(events, 50) {
		status, answer := m.Send("here", m.nextTxn(), batch...)
		results, _ := answer["pdus"].(testrig.JSON)
		if status != http.StatusOK || results == nil {
			m.g.Fatalf("%d %v", status, answer)
		}
		for _, ev := range batch {
			if got, _ := results[string(ev.ID)].(testrig.JSON); got == nil || got["error"] != nil {
				m.g.Fatalf("%s: %v", ev.ID, results)
			}
		}
	}
}

func (m *remote) nextTxn() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.txn++
	return "txn" + strconv.Itoa(m.txn)
}

// world is a room of alice's that we are in. What is made in it the remote knows.
type world struct {
	*testrig.PeerRoom
	m *remote
}

// found lets alice make a room, which we join.
func (g *rig) found(version string) *world {
	g.Helper()
	r := &world{g.there.Create(version, alice), g.there}
	for i, ev := range r.Events {
		g.there.learn(ev, slices.Clone(r.Events[:i]))
	}
	g.join(r)
	return r
}

// join lets our user join a room.
func (g *rig) join(r *world) {
	g.Helper()
	st := r.stateEvents()
	d := r.Draft(us, matrix.TypeMember, (*string)(new(matrix.UserID(us))), testrig.JSON{"membership": "join"})
	join, err := event.Build(r.Version, d, "here", g.self.Key)
	if err != nil {
		g.Fatal(err)
	}
	r.keep(join)
	if _, err := g.engine.ImportState(g.Context(), r.Version, r.ID, st, r.m.chain(slices.Clone(st)), wire(g, join)); err != nil {
		g.Fatal(err)
	}
}

// wire is the event as it comes over the network.
func wire(t testing.TB, ev *event.Event) *event.Event {
	t.Helper()
	got, err := event.Parse(ev.Version, slices.Clone(ev.JSON))
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func (r *world) stateEvents() []*event.Event {
	var list []*event.Event
	for _, ev := range r.State {
		list = append(list, ev)
	}
	slices.SortFunc(list, func(a, b *event.Event) int { return cmp.Compare(a.ID, b.ID) })
	return list
}

// keep adds an event to the room, and to what the remote knows.
func (r *world) keep(ev *event.Event) *event.Event {
	r.m.learn(ev, r.stateEvents())
	if ev.IsState() {
		r.State[authKey(ev)] = ev
	}
	r.Events = append(r.Events, ev)
	r.Tips = []*event.Event{ev}
	return ev
}

var said atomic.Int64

// say makes messages, each on the one before.
func (r *world) say(n int) []*event.Event {
	list := make([]*event.Event, n)
	for i := range list {
		d := r.Draft(alice, matrix.TypeMessage, nil, testrig.JSON{"msgtype": "m.text", "body": fmt.Sprintf("message %d of about the usual length", said.Add(1))})
		list[i] = r.keep(r.Build(d))
	}
	return list
}

// set makes a state event.
func (r *world) set(typ, key string, content any) *event.Event {
	return r.keep(r.Build(r.Draft(alice, typ, &key, content)))
}

// fork is the room, to go another way.
func (r *world) fork() *world { return &world{r.PeerRoom.Fork(), r.m} }

// enter lets a user of another peer join the room, of which that peer then knows
// as much as the first.
func (r *world) enter(m *remote, user matrix.UserID) *world {
	m.g.Helper()
	d := r.Draft(user, matrix.TypeMember, (*string)(&user), testrig.JSON{"membership": "join"})
	join, err := event.Build(r.Version, d, m.Name, m.Key)
	if err != nil {
		m.g.Fatal(err)
	}
	r.keep(join)
	r.m.deliver(join)
	m.g.settle()
	r.teach(m)
	return r
}

// teach lets another peer know what the room's knows.
func (r *world) teach(m *remote) {
	r.m.mu.Lock()
	defer r.m.mu.Unlock()
	m.mu.Lock()
	defer m.mu.Unlock()
	for id, ev := range r.m.events {
		m.events[id], m.states[id] = ev, r.m.states[id]
	}
}

// by makes an event of a user of a peer, on the room's tips.
func (r *world) by(m *remote, user matrix.UserID, typ string, key *string, content any) *event.Event {
	m.g.Helper()
	ev, err := event.Build(r.Version, r.Draft(user, typ, key, content), m.Name, m.Key)
	if err != nil {
		m.g.Fatal(err)
	}
	return ev
}

// flags are those of an event that must be known.
func (g *rig) flags(id matrix.EventID) rooms.Flags {
	g.Helper()
	if st := g.known(id); st != nil {
		return st.Flags
	}
	g.Fatalf("%s is not known", id)
	return 0
}

// shown tells whether an event is in the timeline.
func (g *rig) shown(room matrix.RoomID, id matrix.EventID) bool {
	g.Helper()
	return slices.Contains(g.timeline(room), id)
}

// topic is the room's topic as we see it.
func (g *rig) topic(room matrix.RoomID) string {
	g.Helper()
	st, err := g.engine.StateEvent(g.Context(), g.room(room).View().State, matrix.TypeTopic, "")
	if err != nil {
		g.Fatal(err)
	}
	if st == nil {
		return ""
	}
	var content struct{ Topic string }
	if err := json.Unmarshal(st.Content, &content); err != nil {
		g.Fatal(err)
	}
	return content.Topic
}
