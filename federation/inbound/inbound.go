package inbound

import (
	"context"
	"encoding/json"
	"fmt"
	"hash/maphash"
	"log/slog"
	"net/http"
	"runtime"
	"runtime/debug"
	"sync"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/singleflight"

	"github.com/teahouse-chat/teahouse/federation/gather"
	"github.com/teahouse-chat/teahouse/federation/transport"
	"github.com/teahouse-chat/teahouse/internal/db"
	"github.com/teahouse-chat/teahouse/internal/httpx"
	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms"
	"github.com/teahouse-chat/teahouse/rooms/event"
)

const (
	// Gaps are filled over the network, so more of that may be under way than
	// there are cores; a page of events of each is in memory.
	fillsAtOnce = 16
	tickTime    = time.Second // how often it is looked for what has waited long enough
	keptFor     = 24 * time.Hour
	recentKept  = 2000 // servers that were heard of lately
	failingKept = 1000 // servers that something waits for
)

// EDUHandler takes the content of an EDU. What it does not like it ignores; an
// error is our own fault and makes the origin send the transaction again.
type EDUHandler func(ctx context.Context, origin matrix.ServerName, content json.RawMessage) error

// Deps are what Inbound is made of.
type Deps struct {
	*gather.Gatherer
	DB   *db.DB
	Auth *transport.Authenticator
	EDUs map[string]EDUHandler // by type
	// Joining waits until no join of a room by a user of ours is under way, or ctx
	// ends: meanwhile others send us the room's events already. May be nil.
	Joining func(ctx context.Context, room matrix.RoomID)
	Now     func() time.Time
	Log     *slog.Logger          // nil: slog.Default()
	Metrics prometheus.Registerer // nil: nothing is measured
}

// Inbound takes transactions of other servers.
type Inbound struct {
	Deps
	seq     *db.Sequence
	seed    maphash.Seed
	metrics *metrics
	turns   *fair              // bring events in
	fills   *fair              // fetch what they need
	flights singleflight.Group // of transactions
	recent  *lru.Cache[matrix.ServerName, struct{}]

	mu      sync.Mutex
	queues  map[rooms.RoomNID]*queue
	rows    int
	active  map[matrix.ServerName]int // transactions that are being received
	failing map[matrix.ServerName]map[rooms.RoomNID]bool
}

// New makes an Inbound; it brings nothing in before Run.
func New(d Deps) (*Inbound, error) {
	if d.Log == nil {
		d.Log = slog.Default()
	}
	m, err := newMetrics(d.Metrics)
	if err != nil {
		return nil, fmt.Errorf("federation: %w", err)
	}
	recent, err := lru.New[matrix.ServerName, struct{}](recentKept)
	if err != nil {
		return nil, err
	}
	turns := 2*runtime.GOMAXPROCS(0) + 2
	return &Inbound{
		Deps: d, seq: d.DB.Sequence("inbound"), seed: maphash.MakeSeed(), metrics: m,
		turns: newFair(turns, turns/2), fills: newFair(fillsAtOnce, fillsAtOnce/4),
		recent: recent,
		queues: map[rooms.RoomNID]*queue{}, active: map[matrix.ServerName]int{},
		failing: map[matrix.ServerName]map[rooms.RoomNID]bool{},
	}, nil
}

// Routes are what other servers send to.
func (in *Inbound) Routes() []httpx.Route {
	return []httpx.Route{
		in.Auth.Route(http.MethodPut, "/_matrix/federation/v1/send/{txnId}", in.send, httpx.MaxBody(maxBody)),
	}
}

// Run brings in what is staged, and what was staged before the last end, until
// ctx ends. It returns when nothing is under way any more.
func (in *Inbound) Run(ctx context.Context) {
	in.turns.start(ctx)
	defer in.turns.wait()
	defer in.fills.wait()
	tick := time.NewTicker(tickTime)
	defer tick.Stop()
	resumed := false
	for pruned := in.Now(); ; {
		if !resumed {
			if err := in.resume(ctx); err == nil {
				// Not before: a gap that is filled takes what is staged into account.
				in.fills.start(ctx)
				resumed = true
			} else if ctx.Err() == nil {
				in.Log.Error("Events that other servers sent before the restart cannot be read; it will be tried again", "error", err)
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			in.wake()
		}
		if now := in.Now(); now.Sub(pruned) > time.Hour {
			pruned = now
			before := now.Add(-keptFor).UnixMilli()
			in.DB.Submit(func(tx *db.Tx) error { return tx.Exec(pruneTransactions, before) })
		}
	}
}

// resume loads what is staged.
func (in *Inbound) resume(ctx context.Context) error {
	nids, err := db.All(ctx, in.DB, stagedRooms, func(s db.Scanner) (nid rooms.RoomNID, err error) {
		err = s.Scan(&nid)
		return nid, err
	})
	if err != nil {
		return err
	}
	for _, nid := range nids {
		r, err := in.Rooms.RoomByNID(ctx, nid)
		if matrix.HasCode(err, matrix.CodeNotFound) { // it was removed
			in.DB.Submit(func(tx *db.Tx) error { return tx.Exec(deleteRoom, nid) })
			continue
		}
		if err != nil {
			return err
		}
		rows, err := db.All(ctx, in.DB, stagedIn, func(s db.Scanner) (*row, error) { return in.scanRow(s, r) }, nid)
		if err != nil {
			return err
		}
		in.enqueue(r, inOrder(rows))
	}
	return nil
}

func (in *Inbound) scanRow(s db.Scanner, r *rooms.Room) (*row, error) {
	w := &row{}
	var id matrix.EventID
	var pdu []byte
	if err := s.Scan(&w.seq, &id, &w.origin, &w.received, &w.checked, &w.tries, &w.retryAt, &pdu); err != nil {
		return nil, err
	}
	ev, err := event.Load(r.Version, id, r.ID, pdu)
	if err != nil {
		return nil, err
	}
	w.id, w.needs, w.size, w.stuck = in.key(id), in.needsOf(ev), len(pdu), w.tries > 0
	return w, nil
}

func (in *Inbound) key(id matrix.EventID) key { return key(maphash.String(in.seed, string(id))) }

// Alive is to be told of every server that has shown that it is there, by a
// request that it signed: what could not be had from it is asked for again.
func (in *Inbound) Alive(server matrix.ServerName) {
	in.recent.Add(server, struct{}{})
	now := in.Now().UnixMilli()
	in.mu.Lock()
	defer in.mu.Unlock()
	for nid := range in.failing[server] {
		q := in.queues[nid]
		if q == nil {
			continue
		}
		for _, r := range q.order {
			if r.stuck && r.retryAt > now {
				r.retryAt = min(r.retryAt, max(now, r.tried+aliveTime.Milliseconds()))
			}
		}
		for _, b := range q.breaks {
			b.until = min(b.until, max(now, b.tried+aliveTime.Milliseconds()))
		}
		in.startFill(q, now)
	}
	delete(in.failing, server)
}

// Staged is how many events are not brought in yet.
func (in *Inbound) Staged() int {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.rows
}

// guard makes a panic an error, so that one event cannot end the server.
func guard(do func() error) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("panic: %v\n%s", v, debug.Stack())
		}
	}()
	return do()
}
