package keys

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"time"

	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms/event"
)

const (
	maxFetches    = 128 // at a time
	fetchTimeout  = 8 * time.Second
	notaryTimeout = 20 * time.Second
	notaryBatch   = 50               // servers in one query
	askAgain      = time.Minute      // at the earliest, after an answer
	askOthers     = 5 * time.Minute  // notaries about the same server, at the earliest
	firstBackoff  = 15 * time.Second // after a failure; doubled with each
	maxBackoff    = 10 * time.Minute
)

// want is what a record must tell to be of use: a key that counts at a time, or,
// without ids, an answer that is fresh then.
type want struct {
	server matrix.ServerName
	ids    []string
	at     int64 // milliseconds since 1970; 0: any time
	fresh  bool  // for others: in the first half of its life
}

func (w *want) met(rec *record, now time.Time) bool {
	for _, id := range w.ids {
		if k := rec.key(id); k != nil && k.validAt(w.at) {
			return true
		}
	}
	if len(w.ids) > 0 {
		return false
	}
	stale := w.fresh && now.UnixMilli() > rec.fetched+(rec.validUntil-rec.fetched)/2
	return rec.answer != nil && rec.validUntil >= w.at && !stale
}

// flight is one server being asked; done is closed when that is over.
type flight struct {
	server matrix.ServerName
	wants  []*want
	done   chan struct{}
}

// ensure brings in what is wanted, as far as it can be had, and gives the
// records of all servers. notaries tells whether notaries may be asked.
func (r *Ring) ensure(ctx context.Context, wants []want, notaries bool) (map[matrix.ServerName]*record, error) {
	servers := make([]matrix.ServerName, 0, len(wants))
	seen := map[matrix.ServerName]bool{}
	for i := range wants {
		if s := wants[i].server; !seen[s] {
			seen[s] = true
			servers = append(servers, s)
		}
	}
	records, err := r.load(ctx, servers)
	if err != nil {
		return nil, err
	}
	// A flight that was under way may have asked for less than is wanted now.
	for range 2 {
		waits := r.take(records, wants, notaries)
		if len(waits) == 0 {
			break
		}
		for _, f := range waits {
			select {
			case <-f.done:
			case <-ctx.Done():
				return r.current(records), nil // what came in time is of use
			}
		}
		records = r.current(records)
	}
	return records, nil
}

// take finds the flights for what is wanted and not met, and begins those that
// are not under way.
func (r *Ring) take(records map[matrix.ServerName]*record, wants []want, notaries bool) []*flight {
	now := r.o.Now()
	latest := now.Add(maxValidity).UnixMilli()
	unmet := map[matrix.ServerName][]*want{}
	for i := range wants {
		w := &wants[i]
		// What lies too far in the future no answer of today can vouch for.
		if hopeless := len(w.ids) > 0 && w.at > latest; !hopeless && !w.met(records[w.server], now) {
			unmet[w.server] = append(unmet[w.server], w)
		}
	}
	delete(unmet, r.o.Server)
	if len(unmet) == 0 {
		return nil
	}
	var waits, begun []*flight
	r.mu.Lock()
	defer r.mu.Unlock()
	for server, wants := range unmet {
		if f := r.flights[server]; f != nil {
			waits = append(waits, f)
			continue
		}
		if rec, _ := r.record(server); r.closed || !r.askable(rec, now, notaries) {
			continue
		}
		f := &flight{server, wants, make(chan struct{})}
		r.flights[server] = f
		begun = append(begun, f)
	}
	if len(begun) > 0 {
		r.running.Go(func() { r.fly(begun, notaries) })
	}
	return append(waits, begun...)
}

// askable tells whether a server, or a notary about it, may be asked now.
func (r *Ring) askable(rec *record, now time.Time, notaries bool) bool {
	if rec == nil || now.UnixMilli() >= rec.retry {
		return true
	}
	return notaries && len(r.o.Notaries) > 0 && now.UnixMilli() >= rec.retryOther
}

// fly asks the servers themselves, then the notaries about what is left. It
// does not end with the request that began it: others may wait for it.
func (r *Ring) fly(flights []*flight, notaries bool) {
	var mu sync.Mutex
	var left []*flight
	var asking sync.WaitGroup
	for _, f := range flights {
		r.slot <- struct{}{}
		asking.Go(func() {
			defer func() { <-r.slot }()
			now := r.o.Now()
			rec := r.update(f.server, func(*record) {})
			if now.UnixMilli() >= rec.retry {
				rec = r.direct(r.background, f.server)
			}
			if !notaries || len(r.o.Notaries) == 0 || now.UnixMilli() < rec.retryOther || f.met(rec, now) {
				r.land(f)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			left = append(left, f)
		})
	}
	asking.Wait()
	for _, notary := range r.o.Notaries {
		if len(left) > 0 {
			left = r.askNotary(r.background, notary, left)
		}
	}
	for _, f := range left {
		r.land(f)
	}
}

func (f *flight) met(rec *record, now time.Time) bool {
	for _, w := range f.wants {
		if !w.met(rec, now) {
			return false
		}
	}
	return true
}

func (r *Ring) land(f *flight) {
	r.mu.Lock()
	delete(r.flights, f.server)
	r.mu.Unlock()
	close(f.done)
}

// direct asks a server for its keys and takes the answer, or its failure, in.
// spec: server-server#get_matrixkeyv2server
func (r *Ring) direct(ctx context.Context, server matrix.ServerName) *record {
	limited, cancel := context.WithTimeout(ctx, fetchTimeout)
	defer cancel()
	raw, err := r.o.Fetcher.ServerKeys(limited, server)
	now := r.o.Now()
	var a *answer
	if err == nil {
		a, err = parseAnswer(server, raw, now)
	}
	if err != nil {
		r.o.Log.Debug("A server does not tell its keys", "server", server, "error", err)
	}
	return r.update(server, func(rec *record) {
		switch {
		case err == nil:
			rec.merge(a, now, true)
			rec.failures, rec.retry = 0, now.Add(askAgain).UnixMilli()
		case ctx.Err() == nil:
			rec.retry = now.Add(min(firstBackoff<<min(rec.failures, 16), maxBackoff)).UnixMilli()
			rec.failures++
		}
	})
}

// askNotary asks a notary about servers and gives those about which it did not
// tell what is wanted.
// spec: server-server#querying-keys-through-another-server
func (r *Ring) askNotary(ctx context.Context, notary matrix.ServerName, flights []*flight) (left []*flight) {
	if notary == r.o.Server {
		return flights
	}
	signed := r.notaryKeys(ctx, notary)
	if signed == nil {
		return flights
	}
	for len(flights) > 0 {
		batch := flights[:min(notaryBatch, len(flights))]
		flights = flights[len(batch):]
		if err := r.query(ctx, notary, signed, batch); err != nil {
			r.o.Log.Warn("A notary does not tell keys", "notary", notary, "error", err)
			return append(append(left, batch...), flights...)
		}
		for _, f := range batch {
			if rec := r.update(f.server, func(*record) {}); f.met(rec, r.o.Now()) {
				r.land(f)
			} else {
				left = append(left, f)
			}
		}
	}
	return left
}

// notaryKeys gives the record of a notary that has keys which count now.
func (r *Ring) notaryKeys(ctx context.Context, notary matrix.ServerName) *record {
	now := r.o.Now()
	w := want{server: notary, at: now.UnixMilli()}
	records, err := r.load(ctx, []matrix.ServerName{notary})
	if err != nil {
		return nil
	}
	rec := records[notary]
	if !w.met(rec, now) && now.UnixMilli() >= rec.retry {
		rec = r.direct(ctx, notary)
	}
	if !w.met(rec, now) {
		return nil
	}
	return rec
}

type criteria struct {
	MinimumValidUntil int64 `json:"minimum_valid_until_ts"`
}

// query asks a notary about a batch of servers and takes in what it and the
// servers have signed.
// spec: server-server#post_matrixkeyv2query
func (r *Ring) query(ctx context.Context, notary matrix.ServerName, signed *record, batch []*flight) error {
	ask := map[matrix.ServerName]map[string]criteria{}
	for _, f := range batch {
		ask[f.server] = map[string]criteria{}
		for _, w := range f.wants {
			for _, id := range w.ids {
				c := ask[f.server][id]
				c.MinimumValidUntil = max(c.MinimumValidUntil, w.at)
				ask[f.server][id] = c
			}
		}
	}
	text, err := json.Marshal(map[string]any{"server_keys": ask})
	if err != nil {
		return err
	}
	limited, cancel := context.WithTimeout(ctx, notaryTimeout)
	defer cancel()
	raw, err := r.o.Fetcher.QueryKeys(limited, notary, text)
	if err != nil {
		return err
	}
	answers, err := parseNotary(raw)
	if err != nil {
		return err
	}
	now := r.o.Now()
	for _, f := range batch {
		r.update(f.server, func(rec *record) { rec.retryOther = now.Add(askOthers).UnixMilli() })
		for _, one := range answers[f.server][:min(maxKeys, len(answers[f.server]))] {
			a, err := parseAnswer(f.server, one, now)
			if err == nil {
				err = vouched(notary, signed, a.json, now)
			}
			if err != nil {
				r.o.Log.Debug("A notary's answer is not believed", "notary", notary, "server", f.server, "error", err)
				continue
			}
			r.update(f.server, func(rec *record) { rec.merge(a, now, false) })
		}
	}
	return nil
}

// vouched checks the signature of a notary.
func vouched(notary matrix.ServerName, signed *record, json []byte, now time.Time) error {
	for _, id := range event.SignatureKeyIDs(json, string(notary)) {
		if k := signed.key(id); k != nil && k.validAt(now.UnixMilli()) {
			return event.VerifyJSON(json, string(notary), id, k.Public)
		}
	}
	return fmt.Errorf("keys: %s did not sign by a key that is known", notary)
}
