package keys

import (
	"context"
	"crypto/ed25519"
	"errors"
	"log/slog"
	"math"
	"slices"
	"sync"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"

	"github.com/teahouse-chat/teahouse/internal/db"
	"github.com/teahouse-chat/teahouse/internal/matrix"
)

// remembered is how many servers' keys are held in memory.
const remembered = 20_000

// Fetcher asks other servers over connections whose certificates it verifies.
type Fetcher interface {
	// ServerKeys asks a server for its own keys: GET /_matrix/key/v2/server.
	ServerKeys(ctx context.Context, server matrix.ServerName) ([]byte, error)
	// QueryKeys asks a notary: POST /_matrix/key/v2/query.
	QueryKeys(ctx context.Context, notary matrix.ServerName, query []byte) ([]byte, error)
}

// Options are what a Ring is made of.
type Options struct {
	DB       *db.DB
	Server   matrix.ServerName // ourselves
	Keys     File              // ours
	Fetcher  Fetcher
	Notaries []matrix.ServerName // asked in this order for keys that the servers themselves don't tell
	Now      func() time.Time
	Log      *slog.Logger // nil: slog.Default()
}

// Ring finds and keeps the keys of servers. It is safe for concurrent use.
type Ring struct {
	o    Options
	own  *record
	slot chan struct{} // one for each fetch that may run

	mu      sync.Mutex
	records *lru.Cache[matrix.ServerName, *record]
	flights map[matrix.ServerName]*flight
	closed  bool

	published struct {
		sync.Mutex
		answer []byte
		made   time.Time
	}

	background context.Context
	stop       context.CancelFunc
	running    sync.WaitGroup
}

// record is what is known about a server. It never changes once it is shared.
type record struct {
	keys       []Key
	answer     []byte // the latest, canonical; nil if there is none
	validUntil int64  // of answer
	fetched    int64  // when answer came
	kept       bool   // is in the database
	failures   int    // of asking the server itself, since it last answered
	retry      int64  // when it may be asked again
	retryOther int64  // when notaries may be asked about it again
}

// New makes a ring. It refuses to sign with a key that everybody has.
func New(o Options) (*Ring, error) {
	public, ok := o.Keys.Current.Private.Public().(ed25519.PublicKey)
	if !ok {
		return nil, errors.New("keys: there is no key to sign with")
	}
	if err := refuse(public); err != nil {
		return nil, err
	}
	if o.Log == nil {
		o.Log = slog.Default()
	}
	own := &record{keys: []Key{{ID: o.Keys.Current.ID, Public: public, ValidUntil: math.MaxInt64}}}
	for _, k := range o.Keys.Old {
		own.keys = append(own.keys, Key{ID: k.ID, Public: k.Public, Expired: k.Expired})
	}
	records, err := lru.New[matrix.ServerName, *record](remembered)
	if err != nil {
		return nil, err
	}
	r := &Ring{o: o, own: own, slot: make(chan struct{}, maxFetches), records: records, flights: map[matrix.ServerName]*flight{}}
	r.background, r.stop = context.WithCancel(context.Background())
	return r, nil
}

// Close ends the fetches that run. Call it before the database is closed.
func (r *Ring) Close() {
	r.mu.Lock()
	r.closed = true
	r.mu.Unlock()
	r.stop()
	r.running.Wait()
}

// Retry lets a server be asked at once although it failed to answer: it has
// shown that it is there.
func (r *Ring) Retry(server matrix.ServerName) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if rec, ok := r.records.Peek(server); ok && rec.failures > 0 {
		next := *rec
		next.failures, next.retry, next.retryOther = 0, 0, 0
		r.records.Add(server, &next)
	}
}

// load finds the records of servers in memory and in the database. A server
// that nothing is known about gets an empty one.
func (r *Ring) load(ctx context.Context, servers []matrix.ServerName) (map[matrix.ServerName]*record, error) {
	found := make(map[matrix.ServerName]*record, len(servers))
	var missing []matrix.ServerName
	r.mu.Lock()
	for _, s := range servers {
		if rec, ok := r.record(s); ok {
			found[s] = rec
		} else {
			missing = append(missing, s)
		}
	}
	r.mu.Unlock()
	if len(missing) == 0 {
		return found, nil
	}
	loaded, err := loadRecords(ctx, r.o.DB, missing)
	if err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, s := range missing {
		rec, ok := r.record(s) // a fetch may have been faster
		if !ok {
			if rec = loaded[s]; rec == nil {
				rec = &record{}
			}
			r.records.Add(s, rec)
		}
		found[s] = rec
	}
	return found, nil
}

// record is called with the lock held.
func (r *Ring) record(server matrix.ServerName) (*record, bool) {
	if server == r.o.Server {
		return r.own, true
	}
	return r.records.Get(server)
}

// current gives the records of servers that were loaded before.
func (r *Ring) current(known map[matrix.ServerName]*record) map[matrix.ServerName]*record {
	now := make(map[matrix.ServerName]*record, len(known))
	r.mu.Lock()
	defer r.mu.Unlock()
	for s, rec := range known {
		now[s] = rec
		if newer, ok := r.record(s); ok {
			now[s] = newer
		}
	}
	return now
}

// update replaces a server's record, and the one in the database if there is
// one.
func (r *Ring) update(server matrix.ServerName, change func(rec *record)) *record {
	r.mu.Lock()
	defer r.mu.Unlock()
	next := record{}
	if rec, ok := r.records.Get(server); ok {
		next = *rec
	}
	had := next.fetched
	change(&next)
	r.records.Add(server, &next)
	if next.kept && next.fetched != had {
		r.save(server, &next)
	}
	return &next
}

// keep stores records that were not stored so far.
func (r *Ring) keep(records map[matrix.ServerName]*record) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for server, rec := range records {
		if rec.kept || rec.answer == nil || server == r.o.Server {
			continue
		}
		next := *rec
		if newer, ok := r.records.Peek(server); ok {
			next = *newer
		}
		if !next.kept && next.answer != nil {
			next.kept = true
			r.records.Add(server, &next)
			r.save(server, &next)
		}
	}
}

// save stores a record, without waiting: a lost one is fetched again. It is
// called with the lock held, so that writes come in the order of the changes.
func (r *Ring) save(server matrix.ServerName, rec *record) {
	if !r.closed {
		r.o.DB.Submit(func(tx *db.Tx) error { return saveRecord(tx, server, rec) })
	}
}

func (rec *record) key(id string) *Key {
	for i := range rec.keys {
		if rec.keys[i].ID == id {
			return &rec.keys[i]
		}
	}
	return nil
}

// maxKept bounds the keys of one server.
const maxKept = 4 * maxKeys

// merge takes an answer in. One that is older than what is known adds keys, but
// changes none.
func (rec *record) merge(a *answer, now time.Time, direct bool) {
	newer := direct || a.validUntil > rec.validUntil
	rec.keys = slices.Clone(rec.keys)
	for _, k := range a.keys {
		known := rec.key(k.ID)
		switch {
		case known == nil && len(rec.keys) < maxKept:
			rec.keys = append(rec.keys, k)
		case known != nil && newer:
			*known = k
		}
	}
	if newer || rec.answer == nil {
		rec.answer, rec.validUntil, rec.fetched = a.json, a.validUntil, now.UnixMilli()
	}
}
