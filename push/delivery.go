package push

import (
	"context"
	"sync"
	"time"

	"github.com/teahouse-chat/teahouse/internal/db"
	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms"
)

const (
	maxPending    = 16             // events that wait for one pusher; older ones are given up
	maxAge        = 24 * time.Hour // of an event that is still pushed
	perGateway    = 8              // requests to one gateway at a time
	maxRequests   = 256            // to all of them
	maxRefused    = 5              // how often a gateway may refuse one event before it is given up
	firstRetry    = time.Second
	lastRetry     = 30 * time.Minute
	lookForRetry  = 250 * time.Millisecond
	retryInternal = 10 * time.Second // after a failure of our own
)

// gateway is where pushers of many users lead. One that fails is asked by one
// request at a time, later and later, and holds up nobody else's.
type gateway struct {
	host     string
	queue    []*pusher
	running  int
	failures int // in a row
	retryAt  time.Time
}

// delivery sends notifications to push gateways.
type delivery struct {
	p     *Push
	ctx   context.Context // of the requests; nil until the start
	group sync.WaitGroup

	mu       sync.Mutex
	gateways map[string]*gateway // those with a queue, a request, or failures
	running  int
	later    []*pusher            // not to be tried before some time
	dirty    map[*pusher]struct{} // whose mark may have changed
	failing  map[string]struct{}  // gateways whose failures are to be stored
}

func newDelivery(p *Push) *delivery {
	return &delivery{p: p, gateways: map[string]*gateway{}, dirty: map[*pusher]struct{}{}, failing: map[string]struct{}{}}
}

// start begins to deliver, with what was left over when the server stopped.
func (d *delivery) start(ctx context.Context) {
	failing := map[string]*gateway{}
	err := db.Each(ctx, d.p.DB, allGateways, func(s db.Scanner) error {
		g, retry := &gateway{}, int64(0)
		err := s.Scan(&g.host, &g.failures, &retry)
		g.retryAt = time.UnixMilli(retry)
		failing[g.host] = g
		return err
	})
	if err != nil && ctx.Err() == nil {
		d.p.Log.Error("it is not known which push gateways failed; they are all tried", "error", err)
	}
	d.mu.Lock()
	d.ctx = ctx
	d.gateways = failing
	for _, u := range d.p.pushers.all() {
		d.schedule(u)
	}
	d.mu.Unlock()
	d.group.Go(func() {
		tick := time.NewTicker(lookForRetry)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				d.kick()
			}
		}
	})
}

// wait returns when all requests have ended.
func (d *delivery) wait() { d.group.Wait() }

// offer hands an event to the pushers of a user whom it notifies.
func (p *Push) offer(user matrix.UserID, n note) {
	p.badges.touch(user, n.room)
	n.at = p.Now()
	d := p.delivery
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, u := range p.pushers.of(user) {
		u.add(n)
		d.dirty[u] = struct{}{}
		d.schedule(u)
	}
}

// readOn takes note that a user may have less to read in a room, which their apps
// are told if it is so.
func (p *Push) readOn(user matrix.UserID, room rooms.RoomNID) {
	p.badges.touch(user, room)
	d := p.delivery
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, u := range p.pushers.of(user) {
		if u.badge != 0 || u.busy { // what is being sent may be too many
			u.counts = true
			d.schedule(u)
		}
	}
}

// stop ends the work of pushers that are gone.
func (d *delivery) stop(gone []*pusher) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, u := range gone {
		u.stopped = true
		delete(d.dirty, u)
	}
}

// schedule puts a pusher with work into its gateway's queue; d.mu is held.
func (d *delivery) schedule(u *pusher) {
	if d.ctx == nil || u.stopped || u.queued || u.busy || u.idle() {
		return
	}
	u.queued = true
	if d.p.Now().Before(u.notBefore) {
		d.later = append(d.later, u)
		return
	}
	g := d.gateways[u.host]
	if g == nil {
		g = &gateway{host: u.host}
		d.gateways[u.host] = g
	}
	g.queue = append(g.queue, u)
	d.spawn(g)
}

// spawn starts as many workers for a gateway as it may have; d.mu is held.
func (d *delivery) spawn(g *gateway) {
	for len(g.queue) > g.running && d.may(g) && d.running < maxRequests && d.ctx.Err() == nil {
		g.running++
		d.running++
		d.group.Go(func() { d.work(g) })
	}
}

// may tells whether a further request may go to a gateway.
func (d *delivery) may(g *gateway) bool {
	if g.failures > 0 {
		return g.running == 0 && !d.p.Now().Before(g.retryAt)
	}
	return g.running < perGateway
}

// kick looks for what has become due.
func (d *delivery) kick() {
	d.mu.Lock()
	defer d.mu.Unlock()
	now := d.p.Now()
	waiting := d.later
	d.later = nil
	for _, u := range waiting {
		if now.Before(u.notBefore) {
			d.later = append(d.later, u)
			continue
		}
		u.queued = false
		d.schedule(u)
	}
	for host, g := range d.gateways {
		if len(g.queue) == 0 && g.running == 0 && now.Sub(g.retryAt) > maxAge { // nobody wants it any more
			delete(d.gateways, host)
			d.failing[host] = struct{}{}
			continue
		}
		d.spawn(g)
	}
}

// work sends for the pushers in a gateway's queue, one after the other.
func (d *delivery) work(g *gateway) {
	d.mu.Lock()
	defer d.mu.Unlock()
	defer func() {
		g.running--
		d.running--
		if g.running == 0 && len(g.queue) == 0 && g.failures == 0 {
			delete(d.gateways, g.host)
		}
	}()
	for len(g.queue) > 0 && d.ctx.Err() == nil {
		u := g.queue[0]
		g.queue = g.queue[1:]
		u.queued = false
		if u.stopped {
			continue
		}
		u.busy = true
		failures := g.failures
		d.mu.Unlock()
		out := d.p.send(d.ctx, u)
		d.mu.Lock()
		u.busy = false
		d.settle(g, u, out, failures)
		d.schedule(u)
		if g.failures > 0 {
			return // not before the next try is due
		}
	}
}

// outcome is what became of a request.
type outcome struct {
	kind  outcomeKind
	note  int64         // position of the event that was sent, 0 for a badge alone
	badge int64         // that was sent
	after time.Duration // how long the gateway wants to be left alone; 0: it did not say
	err   error
}

type outcomeKind uint8

const (
	nothingToDo outcomeKind = iota
	delivered
	rejected // the pusher is to go
	refused  // the gateway does not take this event
	failed   // the gateway takes nothing
	broken   // by our own fault
)

// settle takes over what became of a request that began after so many failures;
// those of requests at the same time count once. d.mu is held.
func (d *delivery) settle(g *gateway, u *pusher, out outcome, failures int) {
	if d.ctx.Err() != nil {
		return // ended by us: tried again after the next start
	}
	now := d.p.Now()
	switch out.kind {
	case failed:
		u.counts = u.counts || out.note == 0
		if g.failures != failures {
			return
		}
		g.failures++
		g.retryAt = now.Add(max(retryAfter(g.failures), min(out.after, lastRetry)))
		d.failing[g.host] = struct{}{}
		d.p.Log.Info("a push gateway fails", "gateway", g.host, "failures", g.failures, "error", out.err)
		return
	case broken:
		u.counts = u.counts || out.note == 0
		u.notBefore = now.Add(retryInternal)
		d.p.Log.Error("a notification could not be made", "user", u.user, "error", out.err)
		return
	case nothingToDo:
		return
	}
	if g.failures > 0 {
		g.failures = 0
		d.failing[g.host] = struct{}{}
		defer d.spawn(g)
	}
	d.dirty[u] = struct{}{}
	switch out.kind {
	case delivered:
		u.done(out.note)
		u.badge = out.badge
	case refused:
		d.p.Log.Info("a push gateway refuses a notification", "gateway", g.host, "user", u.user, "error", out.err)
		if out.note == 0 {
			return // the next notification has the badge, too
		}
		if u.refused++; u.refused < maxRefused {
			u.notBefore = now.Add(retryAfter(4 * u.refused))
			return
		}
		u.done(out.note)
	case rejected:
		u.stopped = true
		d.group.Go(func() {
			if err := d.p.removePushers(context.WithoutCancel(d.ctx), []*pusher{u}); err != nil {
				d.p.Log.Error("a rejected pusher could not be removed", "user", u.user, "error", err)
			}
		})
	}
}

// retryAfter is how long to wait after so many failures in a row.
func retryAfter(failures int) time.Duration {
	return min(firstRetry<<min(failures-1, 20), lastRetry)
}
