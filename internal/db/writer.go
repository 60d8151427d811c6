package db

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

const (
	maxBatch  = 512    // ops in one transaction, which bounds its latency
	maxQueued = 10_000 // ops of Write in the queue; more wait outside
)

// Pending is an op that was submitted.
type Pending struct {
	op   func(tx *Tx) error
	ctx  context.Context // ends an op that has not begun; nil from Submit
	slot bool            // holds a place of Write
	then func(error)     // told of the outcome before anything later runs; may be nil
	at   time.Time
	err  error
	done chan struct{}
}

// Wait waits until the op has committed or failed and returns its error. If ctx
// ends first, so does Wait, while the op goes on.
func (p *Pending) Wait(ctx context.Context) error {
	select {
	case <-p.done:
		return p.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Done is closed when the op has committed or failed.
func (p *Pending) Done() <-chan struct{} { return p.done }

// Err is the op's error once Done is closed.
func (p *Pending) Err() error { return p.err }

// Batch is what one commit published.
type Batch struct {
	Position int64 // the last position committed
	Changes  []any // in the order of their Publish
}

// writer runs ops in group commits on one goroutine.
type writer struct {
	dialer    dialer
	log       *slog.Logger
	metrics   *metrics
	sequences *sequences

	mu          sync.Mutex
	queue       []*Pending
	closed      bool
	subscribers []func(Batch)
	tails       []*Tail       // told after all subscribers, and once the position has moved
	wake        chan struct{} // buffered: something to do
	slots       chan struct{} // one token per Write in the queue
	stopped     chan struct{} // closed when the goroutine has ended

	position atomic.Int64

	// Of the goroutine only.
	c       conn  // nil: dial before the next batch
	head    int64 // the position in stream_head after our last commit
	careful int   // batches that still lock stream_head before they begin
	batch   []*Pending
	used    time.Time // when the connection was last seen to work
	down    error     // why the last attempt to connect failed
	downAt  time.Time
}

func newWriter(d dialer, c conn, head int64, seq *sequences, log *slog.Logger, m *metrics) *writer {
	w := &writer{
		dialer: d, log: log, metrics: m, sequences: seq, c: c, head: head,
		wake:    make(chan struct{}, 1),
		slots:   make(chan struct{}, maxQueued),
		stopped: make(chan struct{}),
	}
	w.position.Store(head)
	go w.loop()
	return w
}

func (w *writer) enqueue(p *Pending) {
	p.done = make(chan struct{})
	p.at = time.Now()
	w.mu.Lock()
	closed := w.closed
	if !closed {
		w.queue = append(w.queue, p)
	}
	w.mu.Unlock()
	if closed {
		go w.answer(p, errClosed) // not here: the caller may hold what then locks
		return
	}
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// answer ends an op.
func (w *writer) answer(p *Pending, err error) {
	p.err = err
	if err != nil {
		w.metrics.failed.Inc()
	}
	if p.slot {
		<-w.slots
	}
	if p.then != nil {
		w.guard("after a write", func() { p.then(err) })
	}
	close(p.done)
}

// loop drains the queue until the writer is closed and the queue empty.
func (w *writer) loop() {
	defer func() {
		if len(w.batch) == 0 { // a proper end
			if w.c != nil {
				w.c.close()
			}
			close(w.stopped)
			return
		}
		// An op called runtime.Goexit, as a failing test does.
		w.c.rollback()
		for _, p := range w.batch {
			select {
			case <-p.done:
			default:
				w.answer(p, errors.New("db: an operation of the batch ended its goroutine"))
			}
		}
		go w.loop()
	}()
	for {
		w.batch = nil
		w.mu.Lock()
		n := min(len(w.queue), maxBatch)
		batch := slices.Clone(w.queue[:n])
		w.queue = slices.Delete(w.queue, 0, n)
		closed := w.closed
		w.metrics.queued.Set(float64(len(w.queue)))
		w.mu.Unlock()
		if n == 0 {
			if closed {
				return
			}
			<-w.wake
			continue
		}
		w.batch = batch
		w.write(batch)
	}
}

// write runs ops in as few transactions as their failures allow, in order.
func (w *writer) write(ops []*Pending) {
	for len(ops) > 0 {
		culprit, err := w.attempt(ops)
		switch {
		case err == nil:
			return
		case len(ops) == 1 || culprit < 0 && errors.Is(err, errLost):
			// Nobody knows whether a commit got through, or there is no database.
			for _, p := range ops {
				w.answer(p, err)
			}
			return
		case culprit < 0:
			// The commit failed, and any op may be the reason.
			for i := range ops {
				w.write(ops[i : i+1])
			}
			return
		}
		// Those before the culprit did nothing wrong. It gets a transaction of
		// its own, in which its error is certain not to be the fault of others.
		w.write(ops[:culprit])
		w.write(ops[culprit : culprit+1])
		ops = ops[culprit+1:]
	}
}

// attempt runs ops in one transaction and answers them if it commits. Otherwise
// nothing of it stays, and culprit is the index of the op that failed, or -1.
func (w *writer) attempt(ops []*Pending) (culprit int, err error) {
	if err := w.connect(); err != nil {
		return -1, err
	}
	began := time.Now()
	tx := &Tx{c: w.c, start: w.head, head: w.head}
	if err := w.begin(tx); err != nil {
		return -1, w.broken(err)
	}
	results := make([]error, len(ops))
	for i, p := range ops {
		if p.ctx != nil && p.ctx.Err() != nil {
			results[i] = p.ctx.Err()
			continue
		}
		clean, err := tx.run(p.op)
		// What later ops do may hang on what then is told of this failure.
		leaveOut := clean && (len(ops) == 1 || p.then == nil)
		if err != nil && !leaveOut {
			w.c.rollback()
			return i, w.broken(err)
		}
		results[i] = err
	}
	if err := w.commit(tx); err != nil {
		if isHeadMoved(err) && !tx.fixed {
			w.careful = 32
			return w.attempt(ops)
		}
		return -1, w.broken(err)
	}
	w.used = time.Now()
	w.careful = max(w.careful-1, 0)
	w.metrics.committed(len(ops), time.Since(began), time.Since(ops[0].at))
	w.publish(tx)
	for i, p := range ops {
		w.answer(p, results[i])
	}
	return -1, nil
}

// connect dials after the connection was lost. An attempt that fails answers for
// the next second, so that a long queue is told quickly.
func (w *writer) connect() error {
	if w.c != nil && !w.c.lost() && time.Since(w.used) > 10*time.Second {
		w.c.script("SELECT 1") // shows whether it was lost unnoticed
		w.used = time.Now()
	}
	if w.c != nil && !w.c.lost() {
		return nil
	}
	if w.down != nil && time.Since(w.downAt) < time.Second {
		return w.down
	}
	if w.c != nil {
		w.c.close()
		w.c = nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	c, err := w.dialer.dial(ctx, true)
	if err != nil {
		w.down, w.downAt = fmt.Errorf("%w: %w", errLost, err), time.Now()
		w.log.Error("the database can't be reached", "err", err)
		return w.down
	}
	w.log.Warn("connected to the database again")
	w.c, w.down, w.careful = c, nil, max(w.careful, 1)
	return nil
}

// broken marks err if the connection broke with it, as then it is of no use to
// try again now.
func (w *writer) broken(err error) error {
	if w.c.lost() && !errors.Is(err, errLost) {
		return fmt.Errorf("%w: %w", errLost, err)
	}
	return err
}

var (
	lockHead = common.SQL(`UPDATE stream_head SET position = position WHERE id = 1 RETURNING position`)
	readHead = common.SQL(`SELECT position FROM stream_head WHERE id = 1`)
	// NULL is refused by the column: the commit fails if another process has
	// allotted positions since our last one.
	moveHead = common.SQL(`UPDATE stream_head SET position = CASE WHEN position = $1 THEN CAST($2 AS BIGINT) END WHERE id = 1`)
)

// begin starts the transaction. As a rule the head is what our last commit left
// there, which moveHead verifies at the end, so that the row is locked but for
// an instant. When other processes write as well it is locked and read first.
func (w *writer) begin(tx *Tx) error {
	if err := w.c.begin(true); err != nil {
		return err
	}
	if w.careful == 0 {
		return nil
	}
	err := eachOn(context.Background(), w.c, lockHead, func(r Scanner) error { return r.Scan(&tx.head) })
	if err != nil {
		w.c.rollback()
		return err
	}
	tx.start, tx.fixed = tx.head, true
	return nil
}

// commit stores what the batch used up and commits; after an error nothing of
// the transaction stays, unless it is errLost.
func (w *writer) commit(tx *Tx) error {
	if tx.head != tx.start {
		if err := w.c.exec(moveHead, []any{tx.start, tx.head}); err != nil {
			w.c.rollback()
			return err
		}
	}
	due, err := w.sequences.save(w.c)
	if err != nil {
		w.c.rollback()
		return err
	}
	if err := w.c.commit(); err != nil {
		return err
	}
	confirm(due)
	return nil
}

// publish tells the subscribers of a commit, and then the tails.
func (w *writer) publish(tx *Tx) {
	w.head = tx.head
	if tx.head == tx.start && len(tx.changes) == 0 {
		w.position.Store(tx.head)
		return
	}
	w.mu.Lock()
	subscribers, tails := w.subscribers, w.tails
	w.mu.Unlock()
	batch := Batch{Position: tx.head, Changes: tx.changes}
	for _, fn := range subscribers {
		w.guard("in a subscriber", func() { fn(batch) })
	}
	w.position.Store(tx.head)
	for _, t := range tails {
		w.guard("in a tail", func() { t.publish(batch) })
	}
}

// guard keeps the writer alive when what it tells of a commit panics.
func (w *writer) guard(where string, fn func()) {
	defer func() {
		if v := recover(); v != nil {
			w.log.Error("panic "+where, "panic", v, "stack", string(debug.Stack()))
		}
	}()
	fn()
}

func (w *writer) subscribe(fn func(Batch)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.subscribers = append(slices.Clone(w.subscribers), fn)
}

func (w *writer) follow(t *Tail) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.tails = append(slices.Clone(w.tails), t)
}

// close ends the goroutine after what is queued.
func (w *writer) close() {
	w.mu.Lock()
	w.closed = true
	w.mu.Unlock()
	select {
	case w.wake <- struct{}{}:
	default:
	}
	<-w.stopped
}
