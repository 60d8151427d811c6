package keys

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms/event"
)

// Why a signature does not count, beside event.ErrNotSigned and
// event.ErrBadSignature.
var (
	// ErrNoKey: no key could be had, or none that is known to count at the time.
	// Another attempt later may find one.
	ErrNoKey = errors.New("keys: the key cannot be had now")
	// ErrExpired: the key had expired when the signature was made, or the time of
	// the signature lies too far in the future.
	ErrExpired = errors.New("keys: the key does not count at that time")
)

// Error says whose signature does not count. It wraps one of event.ErrNotSigned,
// event.ErrBadSignature, ErrNoKey and ErrExpired.
type Error struct {
	Server matrix.ServerName
	KeyIDs []string
	Why    error
}

func (e *Error) Error() string {
	return fmt.Sprintf("signature of %s (%s): %v", clip(string(e.Server)), clip(strings.Join(e.KeyIDs, ", ")), e.Why)
}

// Unwrap gives the reason.
func (e *Error) Unwrap() error { return e.Why }

// Check asks whether a server signed an event or a JSON object: by one of its
// keys at least.
type Check struct {
	Server matrix.ServerName // whose signature
	Event  *event.Event      // what is signed, or
	JSON   []byte
	// At is when the key of JSON must have counted, in milliseconds since 1970; 0
	// is any time. Of events the room version decides: their own time or any.
	At int64
}

func (c *Check) keyIDs() []string {
	if c.Event != nil {
		return c.Event.KeyIDs(c.Server)
	}
	return event.SignatureKeyIDs(c.JSON, string(c.Server))
}

// at is when the key must have counted.
// spec: rooms/v5#signing-key-validity-period
func (c *Check) at() int64 {
	switch {
	case c.Event == nil:
		return c.At
	case c.Event.Version.KeyValidity:
		return max(c.Event.OriginServerTS, 1) // 0 would be any time
	}
	return 0
}

// EventChecks lists the checks of all signatures that an event needs.
func EventChecks(e *event.Event) []Check {
	signers := e.Signers()
	checks := make([]Check, len(signers))
	for i, s := range signers {
		checks[i] = Check{Server: s, Event: e}
	}
	return checks
}

// maxIDs bounds the keys that one server's signature on one thing is tried with.
const maxIDs = 16

// Verify checks signatures, on all cores, and gives an error, or nil, for each:
// an *Error, or what went wrong with the database. It fetches the keys that are
// missing, by server and at once, for as long as ctx lasts.
// spec: server-server#validating-hashes-and-signatures-on-received-events
func (r *Ring) Verify(ctx context.Context, checks []Check) []error {
	errs := make([]error, len(checks))
	wants, of := make([]want, 0, len(checks)), make([]int, len(checks))
	for i := range checks {
		c := &checks[i]
		ids := c.keyIDs()
		if len(ids) > maxIDs {
			ids = ids[:maxIDs]
		}
		of[i] = -1
		if _, err := matrix.ParseServerName(string(c.Server)); err != nil || len(ids) == 0 {
			errs[i] = &Error{c.Server, nil, event.ErrNotSigned}
			continue
		}
		of[i] = len(wants)
		wants = append(wants, want{server: c.Server, ids: ids, at: c.at()})
	}
	records, err := r.ensure(ctx, wants, true)
	if err != nil {
		for i := range errs {
			if errs[i] == nil {
				errs[i] = err
			}
		}
		return errs
	}
	r.keep(records)
	latest := r.o.Now().Add(maxValidity).UnixMilli()
	spread(len(checks), func(i int) {
		if of[i] >= 0 {
			w := &wants[of[i]]
			if err := verify(&checks[i], w, records[w.server], latest); err != nil {
				errs[i] = &Error{w.server, w.ids, err}
			}
		}
	})
	return errs
}

// VerifyEvents checks all signatures that each event needs.
func (r *Ring) VerifyEvents(ctx context.Context, events []*event.Event) []error {
	var checks []Check
	ends := make([]int, len(events))
	for i, e := range events {
		checks = append(checks, EventChecks(e)...)
		ends[i] = len(checks)
	}
	results := r.Verify(ctx, checks)
	errs := make([]error, len(events))
	begin := 0
	for i, end := range ends {
		for _, err := range results[begin:end] {
			if err != nil && errs[i] == nil {
				errs[i] = err
			}
		}
		begin = end
	}
	return errs
}

// Prefetch brings the keys in that checks of these events will need.
func (r *Ring) Prefetch(ctx context.Context, events []*event.Event) {
	var wants []want
	for _, e := range events {
		for _, c := range EventChecks(e) {
			ids := c.keyIDs()
			if _, err := matrix.ParseServerName(string(c.Server)); err == nil && len(ids) > 0 {
				wants = append(wants, want{server: c.Server, ids: ids[:min(maxIDs, len(ids))], at: c.at()})
			}
		}
	}
	if records, err := r.ensure(ctx, wants, true); err == nil {
		r.keep(records)
	}
}

// verify tries the keys that count. A wrong signature by one of them is the
// final word, before a key that is missing.
func verify(c *Check, w *want, rec *record, latest int64) error {
	why := ErrExpired
	var wrong error
	for _, id := range w.ids {
		k := rec.key(id)
		switch {
		case k == nil, k.Expired == 0 && !k.validAt(w.at) && w.at <= latest:
			why = ErrNoKey
		case k.validAt(w.at):
			if wrong = c.verify(id, k); wrong == nil {
				return nil
			}
		}
	}
	if wrong != nil {
		return wrong
	}
	return why
}

func (c *Check) verify(id string, k *Key) error {
	if c.Event != nil {
		return c.Event.Verify(c.Server, id, k.Public)
	}
	return event.VerifyJSON(c.JSON, string(c.Server), id, k.Public)
}

// spread calls do for 0 to n-1 on all cores.
func spread(n int, do func(i int)) {
	workers := min(runtime.GOMAXPROCS(0), n/4)
	if workers <= 1 {
		for i := range n {
			do(i)
		}
		return
	}
	var next atomic.Int64
	var working sync.WaitGroup
	for range workers {
		working.Go(func() {
			for {
				i := int(next.Add(1)) - 1
				if i >= n {
					return
				}
				do(i)
			}
		})
	}
	working.Wait()
}
