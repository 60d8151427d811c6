package kittest

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"github.com/teahouse-chat/teahouse/appservices/kit"
	"github.com/teahouse-chat/teahouse/internal/clock"
)

// Service is what is tested: a *kit.Service, or what embeds one.
type Service interface {
	Handler() http.Handler
	Run(ctx context.Context) error
	Idle() bool
	Waiting(ctx context.Context) (events, sends int, err error)
	Close() error
}

// Options say what to test, and how.
type Options struct {
	Name     string // of the service's user; "" means bot
	Database string // an URL: see dbtest.EmptyURL
	Seed     uint64
	Faults   Faults
	Log      io.Writer // of the service; nil: the test's output is not disturbed
	// InvitesNamed has /sync show the event ids of invitations, as some homeservers do.
	InvitesNamed bool
	// Open opens the service, also after it was killed. It may add to the
	// configuration, and adds the handlers.
	Open func(ctx context.Context, c kit.Config) (Service, error)
}

// Rig is a homeserver with a running service.
type Rig struct {
	*Homeserver
	Clock *clock.Manual

	t       testing.TB
	o       Options
	faults  Faults
	service Service
	stop    context.CancelFunc
	done    chan error

	// Of the sender of transactions.
	pending []*event.Event // of the transaction that is being sent
	txn     int
	tries   int
	due     time.Time
	recent  []*event.Event // what was taken last

	mu     sync.Mutex // of what the service's requests use, too
	dice   dice
	wire   *wire // of the life that is running
	dead   bool
	limits int
	lives  int
}

// start is the time at which every test begins.
var start = time.Date(2026, 3, 1, 8, 0, 0, 0, time.UTC)

// Start runs a service until the test ends.
func Start(t testing.TB, o Options) *Rig {
	t.Helper()
	if o.Name == "" {
		o.Name = "bot"
	}
	c := clock.NewManual(start)
	r := &Rig{
		Homeserver: newHomeserver(c, id.NewUserID(o.Name, Domain)), Clock: c, t: t, o: o, faults: o.Faults,
		dice: dice{rand.New(rand.NewPCG(o.Seed, 7))},
	}
	r.Homeserver.invitesNamed = o.InvitesNamed
	r.open()
	t.Cleanup(func() { r.end() })
	return r
}

// Bot is the service's user.
func (r *Rig) Bot() id.UserID { return r.Homeserver.service }

// Service is the service as it runs now.
func (r *Rig) Service() Service { return r.service }

// Lives is how often the service was started.
func (r *Rig) Lives() int { return r.lives }

// Heal ends all faults.
func (r *Rig) Heal() { r.setFaults(Faults{}) }

// Break has things go wrong from now on.
func (r *Rig) Break(f Faults) { r.setFaults(f) }

func (r *Rig) setFaults(f Faults) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.faults = f
}

func (r *Rig) open() {
	r.t.Helper()
	w := &wire{rig: r, api: r.Homeserver.api()}
	log := r.o.Log
	if log == nil {
		log = io.Discard
	}
	s, err := r.o.Open(context.Background(), kit.Config{
		ID: r.o.Name, User: r.Bot(), ASToken: "as-" + r.o.Name, HSToken: "hs-" + r.o.Name, Homeserver: "http://homeserver.test", Database: r.o.Database,
		Prefix: "!" + r.o.Name, PublicURL: "http://" + r.o.Name + ".test", Clock: r.Clock, Log: slog.New(slog.NewTextHandler(log, nil)), Transport: w,
	})
	if err != nil {
		r.t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	r.mu.Lock()
	r.service, r.stop, r.done, r.wire, r.dead = s, stop, make(chan error, 1), w, false
	r.mu.Unlock()
	r.lives++
	go func() { r.done <- s.Run(ctx) }()
}

func (r *Rig) end() {
	r.stop()
	if err := <-r.done; err != nil {
		r.t.Error("the service ended:", err)
	}
	if err := r.service.Close(); err != nil {
		r.t.Error(err)
	}
}

// Kill is kill -9: what the service has not stored is gone, and its connections are
// cut. It is started again by the next step.
func (r *Rig) Kill() { r.kill(nil) }

func (r *Rig) kill(w *wire) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if w == nil || w == r.wire {
		r.dead = true
		r.stop()
	}
}

// fate tells what may go wrong with a request.
func (r *Rig) fate(w *wire) (Faults, fate) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.faults, fate{r, r.dead || w != r.wire}
}

type fate struct {
	rig  *Rig
	dead bool
}

func (f fate) hit(p float64) bool {
	f.rig.mu.Lock()
	defer f.rig.mu.Unlock()
	return f.rig.dice.hit(p)
}

// Limited is how many requests of the service were refused with 429.
func (r *Rig) Limited() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.limits
}

// Move kills the service and starts it with another database.
func (r *Rig) Move(database string) {
	r.Kill()
	r.o.Database = database
}

func (r *Rig) limited() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.limits++
}

// Settle goes on, over as much time as that takes, until the service has been told of
// everything, has handled all of it and sent its answers.
func (r *Rig) Settle() {
	r.t.Helper()
	for {
		r.work()
		if !r.anything() {
			return
		}
		r.leap(r.Clock.Now().Add(24 * time.Hour))
	}
}

// Pass lets an amount of time pass.
func (r *Rig) Pass(d time.Duration) {
	r.t.Helper()
	end := r.Clock.Now().Add(d)
	for {
		r.work()
		if !r.Clock.Now().Before(end) {
			return
		}
		r.leap(end)
	}
}

// anything tells whether something is still to come.
func (r *Rig) anything() bool {
	events, sends, err := r.service.Waiting(context.Background())
	if err != nil {
		r.t.Fatal(err)
	}
	r.Homeserver.mu.Lock()
	defer r.Homeserver.mu.Unlock()
	return events+sends > 0 || len(r.told) > 0 || len(r.pending) > 0
}

// leap moves the clock to when something happens next, at most to end.
func (r *Rig) leap(end time.Time) {
	now := r.Clock.Now()
	next := end
	if wait, ok := r.Clock.Next(); ok && now.Add(wait).Before(next) {
		next = now.Add(wait)
	}
	if r.due.After(now) && r.due.Before(next) && r.telling() {
		next = r.due
	}
	r.Clock.Advance(max(next.Sub(now), time.Millisecond))
}

func (r *Rig) telling() bool {
	r.Homeserver.mu.Lock()
	defer r.Homeserver.mu.Unlock()
	return len(r.told) > 0 || len(r.pending) > 0
}

// work does what there is to do at this moment.
func (r *Rig) work() {
	r.t.Helper()
	deadline := time.Now().Add(2 * time.Minute)
	for quiet := 0; quiet < 3; {
		if time.Now().After(deadline) {
			r.t.Fatal("kittest: the service does not come to rest")
		}
		r.mu.Lock()
		dead := r.dead
		r.mu.Unlock()
		switch {
		case dead:
			r.end()
			r.open()
			quiet = 0
		case r.deliver():
			quiet = 0
		case r.service.Idle() && r.Clock.Seen():
			quiet++
			time.Sleep(50 * time.Microsecond)
		default:
			quiet = 0
			time.Sleep(50 * time.Microsecond)
		}
	}
}

// maxBatch is how many events a transaction has at most.
const maxBatch = 5

// deliver sends the service a transaction, if there is one and it is time.
func (r *Rig) deliver() bool {
	if r.Clock.Now().Before(r.due) {
		return false
	}
	if len(r.pending) == 0 && !r.compose() {
		return false
	}
	r.mu.Lock()
	f, d := r.faults, r.dice
	delay, refuse, drop, duplicate, crash := d.hit(f.Delay), d.hit(f.Refuse), d.hit(f.Drop), d.hit(f.Duplicate), d.hit(f.Kill)
	moment := time.Duration(d.IntN(1000)) * time.Microsecond
	r.mu.Unlock()
	switch {
	case delay:
		r.due = r.Clock.Now().Add(time.Minute)
	case crash && !r.crash(moment), !crash && (refuse || !r.put()):
		r.again()
	case drop:
		r.again()
	default:
		if duplicate {
			r.put()
		}
		r.recent = append(r.recent, r.pending...)
		r.recent = r.recent[max(0, len(r.recent)-20):]
		r.pending, r.tries = nil, 0
	}
	return true
}

// crash kills the service a moment after it was sent the transaction, and tells
// whether it took it.
func (r *Rig) crash(moment time.Duration) bool {
	answered := make(chan bool, 1)
	go func() { answered <- r.put() }()
	time.Sleep(moment)
	r.Kill()
	_ = r.service.Close()
	return <-answered
}

// again has the transaction sent again, unchanged.
func (r *Rig) again() {
	r.due = r.Clock.Now().Add(min(time.Second<<min(r.tries, 10), 5*time.Minute))
	r.tries++
}

// compose makes the next transaction; false if there is none to be made.
func (r *Rig) compose() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	h := r.Homeserver
	h.mu.Lock()
	defer h.mu.Unlock()
	for len(r.pending) == 0 {
		if len(h.told) == 0 {
			return false
		}
		r.pick()
	}
	return true
}

// pick takes some of what the service has to be told. r.mu and h.mu are held.
func (r *Rig) pick() {
	h := r.Homeserver
	n := min(1+r.dice.IntN(maxBatch), len(h.told))
	for _, ev := range h.told[:n] {
		if r.losable(ev) && r.dice.hit(r.faults.Lose) {
			continue
		}
		r.pending = append(r.pending, ev)
	}
	h.told = h.told[n:]
	if r.dice.hit(r.faults.Reorder) {
		rooms := map[id.RoomID]int{}
		for _, ev := range r.pending {
			rooms[ev.RoomID] = r.dice.Int()
		}
		slices.SortStableFunc(r.pending, func(a, b *event.Event) int { return cmp.Compare(rooms[a.RoomID], rooms[b.RoomID]) })
	}
	r.txn++
	if r.dice.hit(r.faults.Restart) {
		r.txn = 1
		r.pending = append(slices.Clone(r.recent), r.pending...)
	}
}

// losable tells whether a service can find an event by itself: a message, or that it
// is invited.
func (r *Rig) losable(ev *event.Event) bool {
	return ev.StateKey == nil ||
		ev.Type.Type == event.StateMember.Type && *ev.StateKey == string(r.Bot()) && ev.Content.Raw["membership"] == string(event.MembershipInvite)
}

// Forget has the service told of nothing that f does, which it cannot find by itself
// as it finds what is lost.
func (r *Rig) Forget(f func()) {
	f()
	r.Homeserver.mu.Lock()
	defer r.Homeserver.mu.Unlock()
	r.told, r.pending = nil, nil
}

// put sends the transaction once.
func (r *Rig) put() bool {
	body, err := marshal(map[string]any{"events": r.pending})
	if err != nil {
		r.t.Fatal(err)
	}
	return r.Put(fmt.Sprint(r.txn), body) == http.StatusOK
}

// Put sends a transaction of any content, and gives the status.
func (r *Rig) Put(txn, body string) int {
	q := httptest.NewRequest(http.MethodPut, "/_matrix/app/v1/transactions/"+txn, strings.NewReader(body))
	q.Header.Set("Authorization", "Bearer hs-"+r.o.Name)
	answer := httptest.NewRecorder()
	r.service.Handler().ServeHTTP(answer, q)
	return answer.Code
}
