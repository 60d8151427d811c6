package encryption

import (
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/teahouse-chat/teahouse/internal/db"
	"github.com/teahouse-chat/teahouse/internal/db/dbtest"
	"github.com/teahouse-chat/teahouse/internal/httpx"
	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms"
	"github.com/teahouse-chat/teahouse/rooms/event"
	"github.com/teahouse-chat/teahouse/rooms/roomstest"
)

// world is a few servers that reach each other as the test pleases. What one has
// to tell another lies in its database until it is carried over. Rooms have one
// history, which servers learn of when the test lets them.
type world struct {
	testing.TB
	sites map[matrix.ServerName]*site
	mu    sync.Mutex
	apart map[[2]matrix.ServerName]bool // who cannot reach whom; both orders
}

type site struct {
	*rig
	w        *world
	url      string
	key      event.SigningKey
	handlers map[string]func(context.Context, *FederationRequest) (any, error)
	stop     func()
	asked    map[string]int // requests by path
	heard    map[*history]int
}

// history is a room as all know it in the end.
type history struct {
	id     matrix.RoomID
	v      *event.Version
	events []*event.Event
}

var _ = db.Schema("encryption_test", `CREATE TABLE test_mail (
	n       INTEGER PRIMARY KEY,
	dest    TEXT NOT NULL,
	type    TEXT NOT NULL,
	content {blob} NOT NULL
)`)

var (
	postMail   = db.SQL(`INSERT INTO test_mail (n, dest, type, content) VALUES ($1, $2, $3, $4)`)
	readMail   = db.SQL(`SELECT n, type, content FROM test_mail WHERE dest = $1 ORDER BY n LIMIT $2`)
	removeMail = db.SQL(`DELETE FROM test_mail WHERE dest = $1 AND n IN {ints $2}`)
)

// newWorld makes the servers; the first one's database is of the kind.
func newWorld(t testing.TB, kind string, names ...matrix.ServerName) *world {
	t.Helper()
	w := &world{TB: t, sites: map[matrix.ServerName]*site{}, apart: map[[2]matrix.ServerName]bool{}}
	for i, name := range names {
		s := &site{rig: bareRig(name, byte(i+1)), w: w, asked: map[string]int{}, heard: map[*history]int{}}
		if i > 0 {
			kind = "sqlite"
		}
		s.url = dbtest.URL(t, kind)
		s.key = event.SigningKey{ID: "ed25519:1", Private: ed25519.NewKeyFromSeed([]byte(strings.Repeat(string(name[:1]), 32)))}
		s.Rig = &roomstest.Rig{TB: t}
		w.sites[name] = s
		s.start()
		t.Cleanup(s.halt)
	}
	return w
}

func (s *site) start() {
	s.Helper()
	d, err := db.Open(context.Background(), s.url, db.Options{})
	if err != nil {
		s.Fatal(err)
	}
	engine, err := rooms.New(rooms.Deps{
		DB: d, ServerName: s.server, Key: s.key, Now: time.Now, Rand: s.rand, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		s.Fatal(err)
	}
	s.DB, s.Engine = d, engine
	s.open(s.Rig, s, s)
	s.handlers = map[string]func(context.Context, *FederationRequest) (any, error){}
	s.e.FederationRoutes(func(method, path string, h func(context.Context, *FederationRequest) (any, error)) httpx.Route {
		s.handlers[path[strings.LastIndex(path, "user/"):]] = h
		return httpx.Route{}
	})
	ctx, cancel := context.WithCancel(context.Background())
	var work sync.WaitGroup
	work.Go(func() { s.e.Run(ctx) })
	s.stop = func() { cancel(); work.Wait() }
}

// rest waits until the server asks no other one any more.
func (s *site) rest() {
	s.Helper()
	s.eventually("nobody is asked", func() bool {
		s.e.resync.mu.Lock()
		defer s.e.resync.mu.Unlock()
		for _, r := range s.e.resync.servers {
			if r.busy || r.again {
				return false
			}
		}
		return true
	})
}

func (s *site) halt() {
	s.stop()
	if err := s.DB.Close(); err != nil {
		s.Error(err)
	}
}

func (s *site) restart() {
	s.Helper()
	s.halt()
	s.start()
}

func (w *world) site(u matrix.UserID) *site { return w.sites[u.Server()] }

// cut ends, and mends, what connects two servers.
func (w *world) cut(a, b matrix.ServerName, apart bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.apart[[2]matrix.ServerName{a, b}], w.apart[[2]matrix.ServerName{b, a}] = apart, apart
}

func (w *world) reach(from, to matrix.ServerName) *site {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.apart[[2]matrix.ServerName{from, to}] {
		return nil
	}
	return w.sites[to]
}

var errApart = errors.New("the server cannot be reached")

// ask is a request of a server to another.
func (s *site) ask(ctx context.Context, to matrix.ServerName, path string, values map[string]string, body, answer any) error {
	other := s.w.reach(s.server, to)
	if other == nil {
		return errApart
	}
	s.w.mu.Lock()
	s.asked[path]++
	h := other.handlers[path]
	s.w.mu.Unlock()
	text, err := json.Marshal(body)
	if err != nil {
		return err
	}
	got, err := h(ctx, &FederationRequest{Origin: s.server, Value: func(name string) string { return values[name] }, Body: text})
	if err != nil {
		return fmt.Errorf("%w: %w", ErrRefused, err)
	}
	if text, err = json.Marshal(got); err != nil {
		return err
	}
	return json.Unmarshal(text, answer)
}

func (s *site) requests(path string) int {
	s.w.mu.Lock()
	defer s.w.mu.Unlock()
	return s.asked[path]
}

func (s *site) QueryKeys(ctx context.Context, to matrix.ServerName, users map[matrix.UserID][]matrix.DeviceID) (*Keys, error) {
	var keys Keys
	return &keys, s.ask(ctx, to, "user/keys/query", nil, object{"device_keys": users}, &keys)
}

func (s *site) ClaimKeys(ctx context.Context, to matrix.ServerName, claims Claims) (Claimed, error) {
	var got claimedAnswer
	err := s.ask(ctx, to, "user/keys/claim", nil, object{"one_time_keys": claims}, &got)
	return got.OneTimeKeys, err
}

func (s *site) UserDevices(ctx context.Context, to matrix.ServerName, user matrix.UserID) (*UserDevices, error) {
	var got UserDevices
	return &got, s.ask(ctx, to, "user/devices/{userId}", map[string]string{"userId": string(user)}, nil, &got)
}

func (s *site) Store(tx *db.Tx, to []matrix.ServerName, eduType string, content json.RawMessage) error {
	if !json.Valid(content) {
		return fmt.Errorf("not JSON: %s", content)
	}
	for _, name := range to {
		if err := tx.Exec(postMail, tx.Position(), name, eduType, []byte(content)); err != nil {
			return err
		}
	}
	return nil
}

type letter struct {
	n       int64
	typ     string
	content []byte
}

// mail is what lies ready for another server.
func (s *site) mail(to matrix.ServerName, limit int) []letter {
	s.Helper()
	list, err := db.All(s.Context(), s.DB, readMail, func(row db.Scanner) (l letter, err error) {
		err = row.Scan(&l.n, &l.typ, &l.content)
		return l, err
	}, to, limit)
	if err != nil {
		s.Fatal(err)
	}
	return list
}

func (s *site) discard(to matrix.ServerName, list []letter) {
	s.Helper()
	var ns []int64
	for _, l := range list {
		ns = append(ns, l.n)
	}
	if err := s.DB.Write(s.Context(), func(tx *db.Tx) error { return tx.Exec(removeMail, to, ns) }); err != nil {
		s.Fatal(err)
	}
}

// deliver hands letters to another server.
func (s *site) deliver(to matrix.ServerName, list []letter) {
	s.Helper()
	other := s.w.sites[to]
	for _, l := range list {
		if err := other.handle(s.server, l.typ, l.content); err != nil {
			s.Fatal(err)
		}
	}
}

func (s *site) handle(origin matrix.ServerName, typ string, content []byte) error {
	h := map[string]func(context.Context, matrix.ServerName, json.RawMessage) error{
		EDUDeviceList: s.e.HandleDeviceList, EDUSigningKeys: s.e.HandleSigningKeys, EDUToDevice: s.e.HandleToDevice,
	}[typ]
	return h(s.Context(), origin, content)
}

// carry delivers everything that lies anywhere, until nothing does, and tells
// whether there was anything.
func (w *world) carry() (any bool) {
	w.Helper()
	for again := true; again; {
		again = false
		for _, from := range w.sites {
			for to := range w.sites {
				if list := from.mail(to, 1000); len(list) > 0 {
					from.deliver(to, list)
					from.discard(to, list)
					again, any = true, true
				}
			}
		}
	}
	return any
}

// found makes a public room in which everybody may do everything.
func (s *site) found(creator string) *history {
	s.Helper()
	user := s.user(creator)
	v, _ := event.Lookup("11")
	h := &history{v: v}
	r, err := s.Engine.Create(s.Context(), v, user, func(b *rooms.Builder) error {
		for _, p := range []rooms.Proto{
			roomstest.State(matrix.TypeCreate, "", `{"room_version":"11"}`),
			roomstest.State(matrix.TypeMember, string(user), `{"membership":"join"}`),
			roomstest.State(matrix.TypePowerLevels, "", `{"users_default":100}`),
			roomstest.State(matrix.TypeJoinRules, "", `{"join_rule":"public"}`),
			roomstest.State(matrix.TypeEncryption, "", `{"algorithm":"m.megolm.v1.aes-sha2"}`),
		} {
			if _, err := b.Append(p); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		s.Fatal(err)
	}
	h.id = r.ID
	s.heard[h] = 0
	return h
}

// learn tells a server what went on in a room since it heard of it last.
func (s *site) learn(h *history) {
	s.Helper()
	for _, ev := range h.events[s.heard[h]:] {
		got, err := event.Parse(h.v, slices.Clone(ev.JSON))
		if err != nil {
			s.Fatal(err)
		}
		out, err := s.Engine.Receive(s.Context(), h.id, []rooms.Incoming{{Event: got}})
		if err != nil || out[0].Event == nil || out[0].Event.Flags != 0 {
			s.Fatalf("%s: %s became %+v: %v", s.server, ev.JSON, out, err)
		}
	}
	s.heard[h] = len(h.events)
}

func (s *site) room(h *history) *rooms.Room {
	s.Helper()
	r, err := s.Engine.Room(s.Context(), h.id)
	if err != nil {
		s.Fatal(err)
	}
	return r
}

// in tells whether a server takes part in a room.
func (s *site) in(h *history) bool {
	r, err := s.Engine.Room(s.Context(), h.id)
	return err == nil && r.LocalMemberCount() > 0
}

// member changes the membership of a user of the server, which takes part in the
// room and hears of everything first.
func (s *site) member(h *history, user matrix.UserID, membership string) {
	s.Helper()
	s.learn(h)
	st, err := s.Engine.Send(s.Context(), h.id, user, roomstest.State(matrix.TypeMember, string(user), `{"membership":"`+membership+`"}`), nil)
	if err != nil {
		s.Fatal(err)
	}
	h.events = append(h.events, st.Event)
	s.heard[h] = len(h.events)
}

// join makes a user join a room, through another server if theirs is not in it.
func (w *world) join(h *history, user matrix.UserID, via matrix.ServerName) {
	w.Helper()
	s := w.site(user)
	if s.in(h) {
		s.member(h, user, matrix.MembershipJoin)
		return
	}
	host := w.sites[via]
	host.learn(h)
	r := host.room(h)
	before, err := host.Engine.StateEvents(w.Context(), r.View().State, nil)
	if err != nil {
		w.Fatal(err)
	}
	key := string(user)
	draft, err := host.Engine.Template(w.Context(), r, rooms.Proto{
		Type: matrix.TypeMember, StateKey: &key, Sender: user, Content: []byte(`{"membership":"join"}`),
	})
	if err != nil {
		w.Fatal(err)
	}
	join, err := event.Build(h.v, draft, s.server, s.key)
	if err != nil {
		w.Fatal(err)
	}
	h.events = append(h.events, join)
	host.learn(h)
	st, chain := host.stateAndChain(h, before)
	if _, err := s.Engine.ImportState(w.Context(), h.v, h.id, st, chain, join); err != nil {
		w.Fatal(err)
	}
	s.heard[h] = len(h.events)
}

func (s *site) stateAndChain(h *history, before []*rooms.Stored) (st, chain []*event.Event) {
	s.Helper()
	seen := map[matrix.EventID]bool{}
	var queue []matrix.EventID
	for _, ev := range before {
		st = append(st, ev.Event)
		queue = append(queue, ev.AuthEvents...)
	}
	for len(queue) > 0 {
		found, err := s.Engine.Known(s.Context(), queue)
		if err != nil {
			s.Fatal(err)
		}
		queue = nil
		for id, ev := range found {
			if !seen[id] {
				seen[id] = true
				chain = append(chain, ev.Event)
				queue = append(queue, ev.AuthEvents...)
			}
		}
	}
	return st, chain
}

// learnAll tells everybody who takes part what went on in a room.
func (w *world) learnAll(h *history) {
	for _, s := range w.sites {
		if s.in(h) {
			s.learn(h)
		}
	}
}

// truth is what a user's own server says of them.
func (w *world) truth(user matrix.UserID) string {
	w.Helper()
	keys, err := w.site(user).e.QueryLocal(w.Context(), "", wantedKeys{user: nil})
	if err != nil {
		w.Fatal(err)
	}
	return keysText(w, keys, user)
}

// keysText is what keys say of a user, to be compared.
func keysText(t testing.TB, k *Keys, user matrix.UserID) string {
	t.Helper()
	var lines []string
	add := func(name string, raw json.RawMessage) {
		canonical, err := event.Canonical(raw)
		if err != nil {
			t.Fatalf("%s: %v", raw, err)
		}
		lines = append(lines, name+" "+string(canonical))
	}
	for _, id := range slices.Sorted(maps.Keys(k.Devices[user])) {
		add(string(id), k.Devices[user][id])
	}
	if raw := k.Master[user]; raw != nil {
		add("master", raw)
	}
	if raw := k.SelfSigning[user]; raw != nil {
		add("self-signing", raw)
	}
	return strings.Join(lines, "\n")
}

// seen is what a client is told of a user.
func (c *client) seen(user matrix.UserID) string {
	c.Helper()
	return keysText(c, c.query(user), user)
}

// remote is what is kept of a remote user, and whether it can be relied upon.
func (s *site) remote(user matrix.UserID) (text string, known, stale bool) {
	s.Helper()
	u, known, err := db.One(s.Context(), s.DB, selectRemoteUsers, scanRemoteUser, []matrix.UserID{user})
	if err != nil {
		s.Fatal(err)
	}
	stored, err := readRemote(s.Context(), s.DB, []matrix.UserID{user})
	if err != nil {
		s.Fatal(err)
	}
	keys := newKeys(1)
	if l := stored[user]; l != nil {
		keys.Devices[user] = l.list(user).devices
		keys.takeCross(user, l.list(user), "", nil)
	}
	return keysText(s, keys, user), known, u.stale
}
