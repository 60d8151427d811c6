package outbound

import (
	"context"
	"errors"
	"io"
	"iter"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/teahouse-chat/teahouse/federation/transport"
	"github.com/teahouse-chat/teahouse/internal/db"
	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms"
	"github.com/teahouse-chat/teahouse/rooms/state"
)

// Sender carries a request to another server; it is a *transport.Client.
type Sender interface {
	Do(ctx context.Context, r transport.Request) ([]byte, error)
}

// Rooms is where outgoing events are read; it is a *rooms.Engine.
type Rooms interface {
	// Events returns the events with these numbers, in the same order.
	Events(ctx context.Context, nids []state.EventNID) ([]*rooms.Stored, error)
	// OutgoingTo lists the events for a server above a position, in their order.
	OutgoingTo(ctx context.Context, server matrix.ServerName, after int64, limit int) ([]rooms.Departure, error)
	// CountOutgoing is how many OutgoingTo would list.
	CountOutgoing(ctx context.Context, server matrix.ServerName, after int64, limit int) (int, error)
	// NewestOutgoing lists the newest of these events of each room.
	NewestOutgoing(ctx context.Context, server matrix.ServerName, after int64) ([]rooms.Departure, error)
	// DestinationsAfter lists the servers that there are events for above a
	// position, and perhaps some more.
	DestinationsAfter(ctx context.Context, after int64) ([]matrix.ServerName, error)
}

// Deps are what the queues are made of.
type Deps struct {
	DB         *db.DB
	ServerName matrix.ServerName // ourselves
	Rooms      Rooms
	Sender     Sender
	Now        func() time.Time
	Rand       io.Reader // of retry times and transaction ids
	Log        *slog.Logger
	Metrics    prometheus.Registerer // nil: nothing is measured
	// MaxCatchUp is how many events a server gets one by one after an outage. If
	// more wait for it, it gets the newest of each room. 0 means 20,000.
	MaxCatchUp int
}

const defaultMaxCatchUp = 20_000

// How many transactions are under way at the same time, to those that answer
// and to those that did not lately. One that takes longer than patience no
// longer counts.
const (
	maxLiving  = 512
	maxFailing = 64
	patience   = 500 * time.Millisecond
)

// Queues sends to all other servers. It is safe for concurrent use.
type Queues struct {
	Deps
	metrics *metrics
	eduSeq  *db.Sequence
	ctx     context.Context // ends with Close
	stop    context.CancelFunc
	flights sync.WaitGroup
	saving  sync.Mutex // held while the cursors are stored

	mu       sync.Mutex
	started  bool
	closed   bool
	position int64 // everything up to here has been put into queues
	all      map[matrix.ServerName]*destination
	living   lane
	failing  lane
	saver    *time.Timer // set while there are cursors to store
	stored   int64       // the head as it is in the database
	swept    int64       // when idle records were dropped, in ms
}

// New makes the queues and subscribes them to the database's stream: from now on
// they collect. Nothing is sent before Start.
func New(d Deps) (*Queues, error) {
	if d.MaxCatchUp == 0 {
		d.MaxCatchUp = defaultMaxCatchUp
	}
	q := &Queues{
		Deps: d, eduSeq: d.DB.Sequence("outbound_edu"), all: map[matrix.ServerName]*destination{},
		living: lane{limit: maxLiving}, failing: lane{limit: maxFailing},
	}
	q.ctx, q.stop = context.WithCancel(context.Background())
	var err error
	if q.metrics, err = newMetrics(d.Metrics, q); err != nil {
		return nil, err
	}
	d.DB.Subscribe(q.publish)
	return q, nil
}

// publish puts what a commit brought into the queues. It runs on the database's
// writer goroutine.
func (q *Queues) publish(b db.Batch) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return
	}
	for _, change := range b.Changes {
		switch c := change.(type) {
		case departures:
			q.queue(c)
		case storedEDU:
			for _, server := range c.to {
				d := q.get(server)
				d.edus, d.freshEDUs = true, true
				q.launch(d)
			}
		}
	}
	q.position = b.Position
}

// departures are what a commit sends; it is a *rooms.Committed.
type departures interface {
	Departures() iter.Seq2[matrix.ServerName, []*rooms.Stored]
}

// queue adds events to their destinations; mu is held.
func (q *Queues) queue(c departures) {
	some := false
	for server, events := range c.Departures() {
		d := q.get(server)
		for _, st := range events {
			d.append(rooms.Departure{Position: st.Position, NID: st.NID})
		}
		q.launch(d)
		some = true
	}
	if some {
		q.dirty()
	}
}

// get returns a destination's record, made if need be; mu is held.
func (q *Queues) get(server matrix.ServerName) *destination {
	d := q.all[server]
	if d == nil {
		d = &destination{server: server, limits: full, saved: row{cursor: noCursor}}
		q.all[server] = d
	}
	return d
}

// Close ends what is being sent, which goes on after the next start, and stores
// how far everybody got. It is called before the database is closed.
func (q *Queues) Close(ctx context.Context) error {
	q.mu.Lock()
	started := q.started && !q.closed
	q.closed = true
	if q.saver != nil {
		q.saver.Stop()
	}
	for _, d := range q.all {
		if d.timer != nil {
			d.timer.Stop()
		}
	}
	q.mu.Unlock()
	q.stop()
	landed := make(chan struct{})
	go func() { q.flights.Wait(); close(landed) }()
	select {
	case <-landed:
	case <-ctx.Done():
		return errors.Join(errors.New("outbound: requests to other servers do not end"), ctx.Err())
	}
	if !started {
		return nil
	}
	return q.save(ctx)
}
