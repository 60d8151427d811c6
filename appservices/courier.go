package appservices

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/teahouse-chat/teahouse/internal/db"
)

const (
	// sendTimeout is how long a service may take for a transaction.
	sendTimeout = time.Minute
	firstRest   = time.Second
	longestRest = 5 * time.Minute
	// maxRefusals is how often a service may refuse a transaction until it is
	// looked whether an event of it is to blame. Parts of one that was looked at are
	// taken apart further at once, down to single events.
	maxRefusals = 5
)

// courier brings a service its transactions, one at a time.
type courier struct {
	s    *Services
	nid  int64
	wake chan struct{} // buffered: look again
	end  context.CancelFunc
	done chan struct{}

	service atomic.Pointer[Service]

	mu      sync.Mutex
	paused  bool
	hurried bool // try now, whatever the rest
	news    news
	beside  int64 // receipts and device lists were told up to here
	outcome
}

// employ has a courier for each service that is sent something, and for no other.
// Nothing happens until Run.
func (s *Services) employ(rows []record) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.couriers == nil {
		return
	}
	wanted := map[int64]*Service{}
	for _, v := range s.current.Load().services {
		if v.URL != "" {
			wanted[v.nid] = v
		}
	}
	for nid, c := range s.couriers {
		if wanted[nid] == nil {
			c.end()
			delete(s.couriers, nid)
		}
	}
	for _, row := range rows {
		v := wanted[row.nid]
		if v == nil {
			continue
		}
		c := s.couriers[row.nid]
		if c == nil {
			c = s.hire(row, v)
		}
		if before := c.service.Swap(v); before.Registration != v.Registration {
			c.hurry() // it may be reached now
			c.renew(before, v)
		}
		if row.retryAt == 0 && row.failures == 0 {
			c.forgive() // its own doing, or an operator's
		}
		c.pause(row.paused)
	}
}

// hire starts a courier. s.mu is held.
func (s *Services) hire(row record, v *Service) *courier {
	ctx, end := context.WithCancel(s.background)
	c := &courier{s: s, nid: row.nid, wake: make(chan struct{}, 1), end: end, done: make(chan struct{}), news: unknown(row.beside), beside: row.beside, outcome: row.outcome}
	c.service.Store(v)
	s.couriers[row.nid] = c
	go func() {
		defer close(c.done)
		c.run(ctx)
	}()
	return c
}

// renew has a service that is registered anew told what it did not ask for before.
// Of receipts and device lists it gets what comes from now on.
func (c *courier) renew(before, now *Service) {
	c.hear(unknown(c.s.DB.Position()))
	if now.Ephemeral && !before.Ephemeral || now.Devices && !before.Devices {
		c.mu.Lock()
		c.beside = c.s.DB.Position()
		c.mu.Unlock()
	}
}

// waiting tells couriers that there is something for their services.
func (s *Services) waiting(nids []int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, nid := range nids {
		if c := s.couriers[nid]; c != nil {
			c.look()
		}
	}
}

func (c *courier) look() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// hurry has the courier try at once.
func (c *courier) hurry() {
	c.mu.Lock()
	c.hurried = true
	c.mu.Unlock()
	c.look()
}

// forgive ends a rest.
func (c *courier) forgive() {
	c.mu.Lock()
	c.failures, c.retryAt = 0, 0
	c.mu.Unlock()
}

func (c *courier) pause(paused bool) {
	c.mu.Lock()
	c.paused = paused
	c.mu.Unlock()
	c.look()
}

// rest tells how long nothing is to be sent; forever if the courier has to be
// woken.
func (c *courier) rest() (wait time.Duration, forever bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.paused:
		return 0, true
	case c.hurried:
		c.hurried = false
		return 0, false
	}
	return time.Duration(c.retryAt-c.s.Now().UnixMilli()) * time.Millisecond, false
}

func (c *courier) run(ctx context.Context) {
	var next *transaction
	for ctx.Err() == nil {
		wait, forever := c.rest()
		if wait > 0 || forever {
			c.sleep(ctx, wait, forever)
			continue
		}
		var err error
		if next == nil {
			next, err = c.load(ctx)
		}
		switch {
		case err != nil:
			c.s.Log.Error("a transaction for an application service could not be made; trying again", "service", c.id(), "error", err)
			c.sleep(ctx, firstRest, false)
		case next == nil:
			c.sleep(ctx, 0, true)
		default:
			next = c.deliver(ctx, next)
		}
	}
}

func (c *courier) id() string { return c.service.Load().ID }

// sleep waits until the courier is woken, or for some time.
func (c *courier) sleep(ctx context.Context, wait time.Duration, forever bool) {
	var alarm <-chan time.Time
	if !forever {
		t := time.NewTimer(wait)
		defer t.Stop()
		alarm = t.C
	}
	select {
	case <-alarm:
	case <-c.wake:
	case <-ctx.Done():
	}
}

// deliver sends a transaction and returns what is to be sent next, nil if that has
// to be looked up.
func (c *courier) deliver(ctx context.Context, t *transaction) *transaction {
	began := c.s.Now()
	err := c.put(ctx, t.id, t.body)
	if ctx.Err() != nil {
		return nil
	}
	if err == nil {
		c.s.metrics.took(c.id(), t.events, c.s.Now().Sub(began))
		return c.taken(ctx, t)
	}
	c.s.metrics.failed(c.id())
	bad, ok := errors.AsType[*badStatus](err)
	if !ok {
		c.failed(ctx, nil, err, 0)
		return t
	}
	if !bad.refusal() {
		c.failed(ctx, nil, err, bad.retryAfter)
		return t
	}
	t.refusals++
	if (t.refusals >= maxRefusals || t.part && t.events > 1) && c.takesOthers(ctx) {
		if err := c.part(ctx, t, bad); err != nil {
			c.failed(ctx, nil, err, 0)
			return t
		}
		return nil
	}
	c.failed(ctx, t, err, bad.retryAfter)
	return t
}

// takesOthers tells whether a service that refuses a transaction takes an empty
// one: what is in the transaction is to blame then.
func (c *courier) takesOthers(ctx context.Context) bool {
	var id int64
	err := c.s.DB.Write(ctx, func(*db.Tx) error {
		id = c.s.txnIDs.Next() // which fails an op, and nothing more, if the database is gone
		return nil
	})
	return err == nil && c.put(ctx, id, []byte(`{"events":[]}`)) == nil
}

// put sends a transaction.
// spec: application-service#put_matrixappv1transactionstxnid
func (c *courier) put(ctx context.Context, id int64, body []byte) error {
	ctx, cancel := context.WithTimeout(ctx, sendTimeout)
	defer cancel()
	return c.s.ask(ctx, c.service.Load(), http.MethodPut, "/transactions/"+strconv.FormatInt(id, 10), nil, body, nil)
}

// taken forgets a transaction that the service has, and makes the next one in the
// same step.
func (c *courier) taken(ctx context.Context, t *transaction) *transaction {
	c.mu.Lock()
	recovered := c.failures > 0
	c.outcome = outcome{lastSuccess: c.s.Now().UnixMilli()}
	o := c.outcome
	c.mu.Unlock()
	if recovered {
		c.s.Log.Info("an application service takes its transactions again", "service", c.id())
	}
	next, err := c.advance(ctx, t, o)
	if err != nil && ctx.Err() == nil {
		// The service gets the transaction again, under the same id.
		c.s.Log.Error("it could not be noted that an application service took a transaction; trying again", "service", c.id(), "error", err)
		c.sleep(ctx, firstRest, false)
	}
	return next
}

// failed notes a failure and rests; refused, if it is not nil, is the transaction
// that the service does not want.
func (c *courier) failed(ctx context.Context, refused *transaction, why error, asked time.Duration) {
	c.mu.Lock()
	c.failures++
	rest := min(firstRest<<min(c.failures-1, 20), longestRest)
	c.retryAt = c.s.Now().Add(max(rest, asked)).UnixMilli()
	c.problem = why.Error()
	o := c.outcome
	c.mu.Unlock()
	if o.failures == 1 {
		c.s.Log.Warn("an application service does not take its transactions; they are kept for it", "service", c.id(), "error", why)
	}
	err := c.s.DB.Write(ctx, func(tx *db.Tx) error {
		if refused != nil {
			if err := tx.Exec(refusedTxn, refused.id); err != nil {
				return err
			}
		}
		return tx.Exec(updateOutcome, o.failures, o.retryAt, o.lastSuccess, o.problem, c.nid)
	})
	if err != nil && ctx.Err() == nil {
		c.s.Log.Error("the failure of an application service could not be stored", "service", c.id(), "error", err)
	}
}
