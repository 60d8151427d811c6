package push

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"time"

	"github.com/teahouse-chat/teahouse/internal/db"
	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms"
	"github.com/teahouse-chat/teahouse/rooms/state"
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

// note is an event that a user is notified of.
type note struct {
	room     rooms.RoomNID
	event    state.EventNID
	position int64
	thread   matrix.EventID
	result   Result
	at       time.Time
}

// sending is what a pusher has to deliver. delivery.mu guards it.
type sending struct {
	pending   []note // by position
	resume    int64  // what came above this position before the server started is to be looked for; 0: nothing
	stored    int64  // the mark in the database
	counts    bool   // the badge may have changed
	badge     int64  // that was sent last
	refused   int    // how often the first event was
	notBefore time.Time
	queued    bool // waits for its gateway
	busy      bool // is being worked on
	stopped   bool // the pusher is gone
}

// mark is the position above which the pusher has something to deliver, 0 if it
// has nothing.
func (s *sending) mark() int64 {
	switch {
	case s.resume > 0:
		return s.resume
	case len(s.pending) > 0:
		return s.pending[0].position - 1
	}
	return 0
}

func (s *sending) idle() bool { return s.resume == 0 && len(s.pending) == 0 && !s.counts }

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
	later    []*pusher                // not to be tried before some time
	dirty    map[*pusher]struct{}     // whose mark may have changed
	failing  map[string]struct{}      // gateways whose failures are to be stored
	known    map[string]storedGateway // what is stored
	cursor   int64                    // that is stored
}

// storedGateway is a failing gateway as the database knows it.
type storedGateway struct {
	failures int
	retry    int64 // ms since 1970
}

func newDelivery(p *Push) *delivery {
	return &delivery{
		p: p, gateways: map[string]*gateway{}, dirty: map[*pusher]struct{}{},
		failing: map[string]struct{}{}, known: map[string]storedGateway{},
	}
}

// start begins to deliver, with what was left over when the server stopped.
func (d *delivery) start(ctx context.Context) {
	err := db.Each(ctx, d.p.DB, allGateways, func(s db.Scanner) error {
		var host string
		var g storedGateway
		err := s.Scan(&host, &g.failures, &g.retry)
		d.known[host] = g
		return err
	})
	if err != nil && ctx.Err() == nil {
		d.p.Log.Error("it is not known which push gateways failed; they are all tried", "error", err)
	}
	d.mu.Lock()
	d.ctx = ctx
	for host, g := range d.known {
		d.gateways[host] = &gateway{host: host, failures: g.failures, retryAt: time.UnixMilli(g.retry)}
	}
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

// add takes an event in, in its order. Of too many the oldest are given up.
func (s *sending) add(n note) {
	at, there := slices.BinarySearchFunc(s.pending, n.position, func(n note, position int64) int {
		return cmp.Compare(n.position, position)
	})
	if there {
		return
	}
	s.pending = slices.Insert(slices.Clone(s.pending), at, n)
	if len(s.pending) > maxPending {
		s.pending, s.refused = s.pending[len(s.pending)-maxPending:], 0
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
		if u.badge != 0 {
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
	for _, g := range d.gateways {
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
		d.mu.Unlock()
		out := d.p.send(d.ctx, u)
		d.mu.Lock()
		u.busy = false
		d.settle(g, u, out)
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

// settle takes over what became of a request; d.mu is held.
func (d *delivery) settle(g *gateway, u *pusher, out outcome) {
	if d.ctx.Err() != nil {
		return // ended by us: tried again after the next start
	}
	now := d.p.Now()
	switch out.kind {
	case failed:
		g.failures++
		g.retryAt = now.Add(max(retryAfter(g.failures), min(out.after, lastRetry)))
		d.failing[g.host] = struct{}{}
		d.p.Log.Info("a push gateway fails", "gateway", g.host, "failures", g.failures, "error", out.err)
		return
	case broken:
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
		if u.refused++; u.refused < maxRefused {
			u.notBefore = now.Add(retryAfter(4 * u.refused))
			return
		}
		if out.note == 0 {
			u.counts = false
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

// done takes away what was delivered or given up.
func (s *sending) done(position int64) {
	s.refused = 0
	s.pending = slices.DeleteFunc(slices.Clone(s.pending), func(n note) bool { return n.position == position })
}

// retryAfter is how long to wait after so many failures in a row.
func retryAfter(failures int) time.Duration {
	return min(firstRetry<<min(failures-1, 20), lastRetry)
}

// checkpoint is the write that stores how far the follower has come and what
// pushers still have to deliver of it. The follower stands still meanwhile.
func (p *Push) checkpoint() func(tx *db.Tx) error {
	d := p.delivery
	d.mu.Lock()
	defer d.mu.Unlock()
	position := p.follower.judged.Load()
	marks := map[int64]int64{}
	for u := range d.dirty {
		if m := u.mark(); m != u.stored && !u.stopped {
			marks[u.nid], u.stored = m, m
		}
	}
	clear(d.dirty)
	gateways := map[string]storedGateway{}
	for host := range d.failing {
		g := storedGateway{}
		if now := d.gateways[host]; now != nil && now.failures > 0 {
			g = storedGateway{now.failures, now.retryAt.UnixMilli()}
		}
		gateways[host] = g
	}
	clear(d.failing)
	return func(tx *db.Tx) error {
		if err := tx.Exec(upsertCursor, position); err != nil {
			return err
		}
		for nid, m := range marks {
			if err := tx.Exec(pusherPending, m, nid); err != nil {
				return err
			}
		}
		for host, g := range gateways {
			var err error
			if g.failures == 0 {
				err = tx.Exec(deleteGateway, host)
			} else {
				err = tx.Exec(upsertGateway, host, g.failures, g.retry)
			}
			if err != nil {
				return err
			}
		}
		return nil
	}
}
