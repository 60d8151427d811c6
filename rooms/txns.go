package rooms

import (
	"context"
	"sync"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"

	"github.com/teahouse-chat/teahouse/internal/db"
	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms/state"
)

// txnsKeptFor is how long a request can be sent again.
const txnsKeptFor = 24 * time.Hour

// txnTable knows the transaction ids that devices have used. A device's are
// read at its first send and kept while it is active.
type txnTable struct {
	db      *db.DB
	devices *lru.Cache[device, *deviceTxns]
}

type device struct {
	user   matrix.UserID
	device matrix.DeviceID
}

type deviceTxns struct {
	mu   sync.Mutex
	used map[txnID]*txnResult // nil until they were read
}

type txnID struct {
	path int64
	id   string
}

func (k TxnKey) id() txnID { return txnID{k.Path, k.ID} }

// txnResult is what became of a transaction; done is closed when that is known.
type txnResult struct {
	done  chan struct{}
	event state.EventNID // 0: failed, to be tried again
}

func newTxnTable(d *db.DB) (*txnTable, error) {
	devices, err := lru.New[device, *deviceTxns](devicesKept)
	return &txnTable{db: d, devices: devices}, err
}

// begin returns the result of a transaction. The caller whom it tells that it
// is first must run it and finish it.
func (t *txnTable) begin(ctx context.Context, k TxnKey) (res *txnResult, first bool, err error) {
	txns, err := t.of(ctx, device{k.User, k.Device})
	if err != nil {
		return nil, false, err
	}
	txns.mu.Lock()
	defer txns.mu.Unlock()
	if res, ok := txns.used[k.id()]; ok {
		return res, false, nil
	}
	res = &txnResult{done: make(chan struct{})}
	txns.used[k.id()] = res
	return res, true, nil
}

// of returns a device's transactions, which are read from the database at the
// first time.
func (t *txnTable) of(ctx context.Context, dev device) (*deviceTxns, error) {
	txns, ok := t.devices.Get(dev)
	if !ok {
		txns = &deviceTxns{}
		if there, ok, _ := t.devices.PeekOrAdd(dev, txns); ok {
			txns = there
		}
	}
	txns.mu.Lock()
	defer txns.mu.Unlock()
	if txns.used != nil {
		return txns, nil
	}
	return txns, txns.read(ctx, t.db, dev)
}

func (d *deviceTxns) read(ctx context.Context, q db.Querier, dev device) error {
	used := map[txnID]*txnResult{}
	done := make(chan struct{})
	close(done)
	err := db.Each(ctx, q, txnsOf, func(s db.Scanner) error {
		var id txnID
		res := &txnResult{done: done}
		if err := s.Scan(&id.path, &id.id, &res.event); err != nil {
			return err
		}
		used[id] = res
		return nil
	}, dev.user, dev.device)
	if err == nil {
		d.used = used
	}
	return err
}

// finish tells everyone who waits what became of the transaction. One that
// failed is forgotten.
func (t *txnTable) finish(k TxnKey, res *txnResult, event state.EventNID) {
	res.event = event
	close(res.done)
	if event != 0 {
		return
	}
	if txns, ok := t.devices.Peek(device{k.User, k.Device}); ok {
		txns.mu.Lock()
		defer txns.mu.Unlock()
		if txns.used[k.id()] == res {
			delete(txns.used, k.id())
		}
	}
}

// once sends, or returns what was sent the first time.
func (e *Engine) once(ctx context.Context, k TxnKey, send func() (*Stored, error)) (*Stored, error) {
	for {
		res, first, err := e.txns.begin(ctx, k)
		if err != nil {
			return nil, err
		}
		if first {
			// A commit that is under way goes on when the client hangs up; the
			// result is known only when it ends, so it is waited for.
			return e.first(k, res, send)
		}
		select {
		case <-res.done:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		if res.event != 0 {
			events, err := e.Events(ctx, []state.EventNID{res.event})
			if err != nil {
				return nil, err
			}
			return events[0], nil
		}
	}
}

// first runs a transaction. Whoever waits for it learns the end of it even if
// it panics.
func (e *Engine) first(k TxnKey, res *txnResult, send func() (*Stored, error)) (st *Stored, err error) {
	var n state.EventNID
	defer func() { e.txns.finish(k, res, n) }()
	if st, err = send(); err == nil {
		n = st.NID
	}
	return st, err
}

// PruneTxns forgets transaction ids that are too old to be sent again.
func (e *Engine) PruneTxns(ctx context.Context) error {
	before := e.Now().Add(-txnsKeptFor).UnixMilli()
	err := e.DB.Write(ctx, func(tx *db.Tx) error { return tx.Exec(pruneTxns, before) })
	if err == nil {
		e.txns.devices.Purge()
	}
	return err
}

// Sent tells whether a transaction has been sent, or is being sent, before.
func (e *Engine) Sent(ctx context.Context, k TxnKey) (bool, error) {
	txns, err := e.txns.of(ctx, device{k.User, k.Device})
	if err != nil {
		return false, err
	}
	txns.mu.Lock()
	defer txns.mu.Unlock()
	_, ok := txns.used[k.id()]
	return ok, nil
}
