package outbound_test

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/teahouse-chat/teahouse/federation/outbound"
	"github.com/teahouse-chat/teahouse/federation/transport"
	"github.com/teahouse-chat/teahouse/internal/db"
	"github.com/teahouse-chat/teahouse/internal/db/dbtest"
	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms"
	"github.com/teahouse-chat/teahouse/rooms/event"
	"github.com/teahouse-chat/teahouse/rooms/state"
)

const us matrix.ServerName = "us"

// history stands for the room engine: it knows which events are for whom.
type history struct {
	mu     sync.Mutex
	events []*rooms.Stored // in order
	to     map[state.EventNID][]matrix.ServerName
	fail   error         // of reading
	slow   time.Duration // to come back from reading
}

func newHistory() *history { return &history{to: map[state.EventNID][]matrix.ServerName{}} }

// back is called when something was read.
func (h *history) back() error {
	if h.slow > 0 {
		time.Sleep(h.slow)
	}
	return h.fail
}

func (h *history) Events(_ context.Context, nids []state.EventNID) ([]*rooms.Stored, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.fail != nil {
		return nil, h.fail
	}
	list := make([]*rooms.Stored, len(nids))
	for i, nid := range nids {
		list[i] = h.events[nid-1]
	}
	return list, nil
}

func (h *history) OutgoingTo(_ context.Context, server matrix.ServerName, after int64, limit int) ([]rooms.Departure, error) {
	return h.outgoingTo(server, after, limit), h.back()
}

func (h *history) outgoingTo(server matrix.ServerName, after int64, limit int) []rooms.Departure {
	h.mu.Lock()
	defer h.mu.Unlock()
	var list []rooms.Departure
	start, _ := slices.BinarySearchFunc(h.events, after+1, func(st *rooms.Stored, at int64) int { return int(st.Position - at) })
	for _, st := range h.events[start:] {
		if len(list) < limit && slices.Contains(h.to[st.NID], server) {
			list = append(list, rooms.Departure{Position: st.Position, NID: st.NID})
		}
	}
	return list
}

func (h *history) CountOutgoing(_ context.Context, server matrix.ServerName, after int64, limit int) (int, error) {
	return len(h.outgoingTo(server, after, limit)), h.back()
}

func (h *history) NewestOutgoing(_ context.Context, server matrix.ServerName, after int64) ([]rooms.Departure, error) {
	list := h.outgoingTo(server, after, len(h.events))
	newest := map[matrix.RoomID]int64{}
	for _, it := range list {
		newest[h.events[it.NID-1].RoomID] = it.Position
	}
	return slices.DeleteFunc(list, func(it rooms.Departure) bool { return newest[h.events[it.NID-1].RoomID] != it.Position }), h.back()
}

func (h *history) DestinationsAfter(_ context.Context, after int64) ([]matrix.ServerName, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	var list []matrix.ServerName
	for _, st := range h.events {
		if st.Position > after {
			list = append(list, h.to[st.NID]...)
		}
	}
	slices.Sort(list)
	return slices.Compact(list), h.fail
}

// peer is another server.
type peer struct {
	answer  error                                            // instead of taking anything; nil: it takes
	judge   func(pdus []json.RawMessage, edus []taken) error // of what comes
	hang    bool                                             // requests end when they are given up
	took    time.Duration                                    // for an answer
	lose    bool                                             // it takes, but the answer is lost
	txns    map[string]bool                                  // that it took
	asked   []time.Time                                      // when it was asked
	ids     []string                                         // of all transactions that came
	pdus    []string                                         // what it took, each as often as it came
	edus    []taken                                          //
	largest struct{ pdus, edus, bytes int }                  // transaction
	flying  int                                              //
	onAsk   func()                                           // called when a request comes
}

type taken struct {
	Type    string          `json:"edu_type"`
	Content json.RawMessage `json:"content"`
}

// network is all other servers.
type network struct {
	t     testing.TB
	us    matrix.ServerName // who sends
	mu    sync.Mutex
	peers map[matrix.ServerName]*peer
	taken atomic.Int64 // events
}

func (n *network) peer(server matrix.ServerName) *peer {
	n.mu.Lock()
	defer n.mu.Unlock()
	p := n.peers[server]
	if p == nil {
		p = &peer{txns: map[string]bool{}}
		n.peers[server] = p
	}
	return p
}

// change changes a server.
func (n *network) change(server matrix.ServerName, fn func(*peer)) {
	p := n.peer(server)
	n.mu.Lock()
	defer n.mu.Unlock()
	fn(p)
}

var errDown = errors.New("connection refused")

func remote(server matrix.ServerName, status int, code matrix.Code) error {
	return &transport.RemoteError{Server: server, Status: status, Code: code}
}

func (n *network) Do(ctx context.Context, r transport.Request) ([]byte, error) {
	p := n.peer(r.Destination)
	n.mu.Lock()
	p.asked = append(p.asked, time.Now())
	hang, took, onAsk := p.hang, p.took, p.onAsk
	if p.flying++; p.flying > 1 {
		n.t.Errorf("%s gets two transactions at a time", r.Destination)
	}
	n.mu.Unlock()
	defer func() {
		n.mu.Lock()
		p.flying--
		n.mu.Unlock()
	}()
	if onAsk != nil {
		onAsk()
	}
	if hang {
		took = r.Timeout
	}
	if took > 0 {
		select {
		case <-time.After(took):
		case <-ctx.Done():
			return nil, &transport.UnreachableError{Server: r.Destination, Err: ctx.Err()}
		}
	}
	if hang {
		return nil, &transport.UnreachableError{Server: r.Destination, Err: context.DeadlineExceeded}
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.take(p, r)
}

// take is what a server does with a transaction.
func (n *network) take(p *peer, r transport.Request) ([]byte, error) {
	var body struct {
		Origin matrix.ServerName `json:"origin"`
		TS     int64             `json:"origin_server_ts"`
		PDUs   []json.RawMessage `json:"pdus"`
		EDUs   []taken           `json:"edus"`
	}
	id, ok := strings.CutPrefix(r.Path, "/_matrix/federation/v1/send/")
	if err := json.Unmarshal(r.Content, &body); err != nil || !ok || r.Method != "PUT" || body.Origin != n.us || body.TS == 0 {
		n.t.Errorf("%s %s %s: %v", r.Method, r.Path, r.Content, err)
	}
	p.ids = append(p.ids, id)
	p.largest.pdus, p.largest.edus = max(p.largest.pdus, len(body.PDUs)), max(p.largest.edus, len(body.EDUs))
	p.largest.bytes = max(p.largest.bytes, len(r.Content))
	if p.answer != nil {
		return nil, p.answer
	}
	if p.judge != nil {
		if err := p.judge(body.PDUs, body.EDUs); err != nil {
			return nil, err
		}
	}
	if !p.txns[id] { // spec: server-server#transactions
		p.txns[id] = true
		for _, pdu := range body.PDUs {
			p.pdus = append(p.pdus, string(pdu))
			n.taken.Add(1)
		}
		p.edus = append(p.edus, body.EDUs...)
	}
	if p.lose {
		return nil, &transport.UnreachableError{Server: r.Destination, Err: io.ErrUnexpectedEOF}
	}
	return []byte(`{"pdus":{"$x":{"error":"no"}}}`), nil
}

// world is our server's queues and all others.
type world struct {
	testing.TB
	url     string
	db      *db.DB
	history *history
	net     *network
	took    time.Duration // for the answers of servers that are well
	queues  *outbound.Queues
	change  func(*outbound.Deps)
}

// each runs a test with a clock of its own, on both databases.
func each(t *testing.T, fn func(t *testing.T, w *world)) {
	t.Helper()
	for _, kind := range []string{"sqlite", "postgres"} {
		t.Run(kind, func(t *testing.T) {
			url := dbtest.URL(t, kind)
			synctest.Test(t, func(t *testing.T) { fn(t, newWorld(t, url)) })
		})
	}
}

func newWorld(t testing.TB, url string) *world {
	t.Helper()
	w := &world{
		TB: t, url: url, history: newHistory(),
		net: &network{t: t, us: us, peers: map[matrix.ServerName]*peer{}},
	}
	w.open()
	t.Cleanup(func() {
		w.queues.Crash()
		if err := w.db.Close(); err != nil {
			t.Error(err)
		}
	})
	return w
}

// open begins a run.
func (w *world) open() {
	w.Helper()
	var err error
	if w.db, err = db.Open(context.Background(), w.url, db.Options{}); err != nil {
		w.Fatal(err)
	}
	d := outbound.Deps{
		DB: w.db, ServerName: us, Rooms: w.history, Sender: w.net, Now: time.Now, Rand: rand.Reader,
		Log: slog.New(slog.NewTextHandler(io.Discard, &slog.HandlerOptions{Level: slog.LevelDebug})),
	}
	if w.change != nil {
		w.change(&d)
	}
	if w.queues, err = outbound.New(d); err != nil {
		w.Fatal(err)
	}
	if err := w.queues.Start(w.Context()); err != nil {
		w.Fatal(err)
	}
}

// crash ends a run as a power failure does, and begins another.
func (w *world) crash() {
	w.Helper()
	w.queues.Crash()
	if err := w.db.Close(); err != nil {
		w.Fatal(err)
	}
	w.open()
}

// restart ends a run properly, and begins another.
func (w *world) restart() {
	w.Helper()
	if err := w.queues.Close(context.Background()); err != nil {
		w.Fatal(err)
	}
	w.crash()
}

// say commits events of a room for servers.
func (w *world) say(room matrix.RoomID, n int, to ...matrix.ServerName) {
	w.Helper()
	if err := w.db.Write(context.Background(), func(tx *db.Tx) error {
		w.commit(tx, room, n, to)
		return nil
	}); err != nil {
		w.Error(err)
	}
}

// committed stands for a *rooms.Committed.
type committed struct {
	events []*rooms.Stored
	to     []matrix.ServerName
}

func (c committed) Departures() iter.Seq2[matrix.ServerName, []*rooms.Stored] {
	return func(yield func(matrix.ServerName, []*rooms.Stored) bool) {
		for _, s := range c.to {
			if s != us && !yield(s, c.events) {
				return
			}
		}
	}
}

func (w *world) commit(tx *db.Tx, room matrix.RoomID, n int, to []matrix.ServerName) {
	w.history.mu.Lock()
	defer w.history.mu.Unlock()
	c := committed{to: to}
	for range n {
		nid := state.EventNID(len(w.history.events) + 1)
		st := &rooms.Stored{
			Event: &event.Event{ID: matrix.EventID(fmt.Sprint("$", nid)), RoomID: room, JSON: fmt.Appendf(nil, `{"room":%q,"n":%d}`, room, nid)},
			NID:   nid, Position: tx.Position(), Outgoing: true,
		}
		w.history.events = append(w.history.events, st)
		w.history.to[nid] = to
		c.events = append(c.events, st)
	}
	tx.Publish(c)
}

// store sends durable EDUs.
func (w *world) store(e outbound.EDU, to ...matrix.ServerName) {
	w.Helper()
	if err := w.db.Write(context.Background(), func(tx *db.Tx) error { return w.queues.Store(tx, to, e) }); err != nil {
		w.Error(err)
	}
}

// meant lists the events for a server.
func (w *world) meant(server matrix.ServerName) []string {
	w.history.mu.Lock()
	defer w.history.mu.Unlock()
	var list []string
	for _, st := range w.history.events {
		if slices.Contains(w.history.to[st.NID], server) {
			list = append(list, string(st.JSON))
		}
	}
	return list
}

// got lists the events that a server took, at their first coming, and how many
// came again.
func (w *world) got(server matrix.ServerName) (list []string, again int) {
	p := w.net.peer(server)
	w.net.mu.Lock()
	defer w.net.mu.Unlock()
	seen := map[string]bool{}
	for _, pdu := range p.pdus {
		if seen[pdu] {
			again++
			continue
		}
		seen[pdu] = true
		list = append(list, pdu)
	}
	return list, again
}

// complete checks that servers got what is meant for them, in order.
func (w *world) complete(servers ...matrix.ServerName) {
	w.Helper()
	for _, s := range servers {
		if got, _ := w.got(s); !slices.Equal(got, w.meant(s)) {
			w.Errorf("%s got %d of %d events: %.300v\nwant %.300v", s, len(got), len(w.meant(s)), got, w.meant(s))
		}
	}
}

// once checks that nothing came twice.
func (w *world) once(servers ...matrix.ServerName) {
	w.Helper()
	for _, s := range servers {
		if _, again := w.got(s); again > 0 {
			w.Errorf("%s got %d events again", s, again)
		}
	}
}

// pass lets time pass.
func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// down and up stop and start a server.
func (w *world) down(servers ...matrix.ServerName) {
	for _, s := range servers {
		w.net.change(s, func(p *peer) { p.answer = &transport.UnreachableError{Server: s, Err: errDown} })
	}
}

func (w *world) up(servers ...matrix.ServerName) {
	for _, s := range servers {
		w.net.change(s, func(p *peer) {
			p.answer, p.hang, p.judge, p.took, p.lose, p.onAsk = nil, false, nil, w.took, false, nil
		})
	}
}

// asked is how often a server was asked.
func (w *world) asked(server matrix.ServerName) int {
	p := w.net.peer(server)
	w.net.mu.Lock()
	defer w.net.mu.Unlock()
	return len(p.asked)
}

// signing is the failure of a request that cannot be signed.
func signing(server matrix.ServerName) error {
	_, err := event.Canonical([]byte(`{"twice":1,"twice":2}`))
	return &transport.UnreachableError{Server: server, Err: err}
}
