package encryption

import (
	"context"
	"errors"
	"math"
	"sync"
	"time"

	"github.com/teahouse-chat/teahouse/internal/db"
	"github.com/teahouse-chat/teahouse/internal/matrix"
)

// How other servers are asked for lists of which an update was missed: one
// question at a time for each server, and few servers at a time.
const (
	resyncsAtOnce = 8 // servers
	resyncPage    = 50
	minResyncWait = 30 * time.Second
	maxResyncWait = time.Hour
)

// ErrRefused is what a Remote's error wraps where the server was there, but would
// not answer the question. Other questions may fare better.
var ErrRefused = errors.New("encryption: the other server refuses to answer")

// resyncs are the servers that have to be asked. Of which users is in the
// database, where it survives restarts.
type resyncs struct {
	now     func() time.Time
	mu      sync.Mutex
	servers map[matrix.ServerName]*resyncServer
	wake    chan struct{} // holds at most one
}

type resyncServer struct {
	busy    bool
	again   bool // something became stale while it was asked
	alive   bool // it showed a sign of life while it was asked
	pause        // after it could not be reached
	refused map[matrix.UserID]*pause
}

// pause is how long not to try again; it doubles.
type pause struct {
	failures int
	failed   time.Time // last
	until    time.Time
}

func (p *pause) longer(now time.Time) {
	p.failed = now
	p.until = now.Add(min(minResyncWait<<min(p.failures, 10), maxResyncWait))
	p.failures++
}

func newResyncs(now func() time.Time) *resyncs {
	return &resyncs{now: now, servers: map[matrix.ServerName]*resyncServer{}, wake: make(chan struct{}, 1)}
}

// add makes a server be asked for the lists that are stale.
func (r *resyncs) add(server matrix.ServerName) {
	r.mu.Lock()
	s := r.servers[server]
	if s == nil {
		s = &resyncServer{refused: map[matrix.UserID]*pause{}}
		r.servers[server] = s
	}
	s.again = true
	if s.failures == 0 {
		s.until = time.Time{}
	}
	r.mu.Unlock()
	r.signal()
}

func (r *resyncs) signal() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// reachable makes a server that could not be reached be asked now.
func (r *resyncs) reachable(server matrix.ServerName) {
	r.mu.Lock()
	s := r.servers[server]
	waits := s != nil && s.failures > 0 && !s.busy
	if waits {
		s.until = time.Time{}
	}
	if s != nil {
		s.alive = true
	}
	r.mu.Unlock()
	if waits {
		r.signal()
	}
}

// away tells whether a server could not be reached a short time ago, and has not
// shown up since.
func (r *resyncs) away(server matrix.ServerName) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.servers[server]
	return s != nil && s.failures > 0 && !s.until.IsZero() && r.now().Before(s.failed.Add(minResyncWait))
}

// next takes a server that is due, "" if there is none; then wait is how long
// there will be none.
func (r *resyncs) next() (server matrix.ServerName, wait time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.now()
	wait = math.MaxInt64
	for name, s := range r.servers {
		switch left := s.until.Sub(now); {
		case s.busy:
		case left <= 0:
			s.busy, s.again, s.alive = true, false, false
			return name, 0
		default:
			wait = min(wait, left)
		}
	}
	return "", wait
}

// paused tells whether a server refused to speak of a user a short time ago.
func (r *resyncs) paused(server matrix.ServerName, user matrix.UserID) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	p := r.servers[server].refused[user]
	return p != nil && r.now().Before(p.until)
}

// answered notes how a question went.
func (r *resyncs) answered(server matrix.ServerName, user matrix.UserID, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	refused := r.servers[server].refused
	if err == nil {
		delete(refused, user)
		return
	}
	if refused[user] == nil {
		refused[user] = &pause{}
	}
	refused[user].longer(r.now())
}

// done notes how asking a server went.
func (r *resyncs) done(server matrix.ServerName, reached bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.servers[server]
	s.busy = false
	if !reached {
		s.longer(r.now())
		if s.alive { // the failure is older than that
			s.until = time.Time{}
		}
		return
	}
	s.pause = pause{}
	if s.again {
		return
	}
	if len(s.refused) == 0 {
		delete(r.servers, server)
		return
	}
	for _, p := range s.refused {
		if s.until.IsZero() || p.until.Before(s.until) {
			s.until = p.until
		}
	}
}

// Reachable is called when a server showed a sign of life: what waits for it is
// tried now. It does not block.
func (e *Encryption) Reachable(server matrix.ServerName) { e.resync.reachable(server) }

// runResyncs brings stale lists up to date until ctx ends.
func (e *Encryption) runResyncs(ctx context.Context) {
	servers, err := db.All(ctx, e.DB, staleServers, scanServer)
	if err != nil && ctx.Err() == nil {
		e.Log.Error("device lists that must be asked for anew could not be read; the next start tries again", "error", err)
	}
	for _, s := range servers {
		e.resync.add(s)
	}
	slots := make(chan struct{}, resyncsAtOnce)
	var working sync.WaitGroup
	defer working.Wait()
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
			return
		case slots <- struct{}{}:
		}
		server, wait := e.resync.next()
		if server == "" {
			<-slots
			e.resync.sleep(ctx, wait)
			continue
		}
		working.Go(func() {
			reached := e.resyncServer(ctx, server)
			e.resync.done(server, reached || ctx.Err() != nil) // the end is not its fault
			<-slots
			e.resync.signal()
		})
	}
}

// sleep waits until something changed, or a server is due.
func (r *resyncs) sleep(ctx context.Context, wait time.Duration) {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-r.wake:
	case <-timer.C:
	}
}

// resyncServer asks a server for all of its lists that are stale, and tells
// whether it could be reached.
func (e *Encryption) resyncServer(ctx context.Context, server matrix.ServerName) (reached bool) {
	for last := matrix.UserID(""); ; {
		page, err := db.All(ctx, e.DB, selectStale, scanUser, server, last, resyncPage)
		if err != nil {
			if ctx.Err() == nil {
				e.Log.Error("device lists that must be asked for anew could not be read", "server", server, "error", err)
			}
			return false
		}
		if len(page) == 0 {
			return true
		}
		last = page[len(page)-1]
		for _, user := range page {
			if e.resync.paused(server, user) {
				continue
			}
			err := e.resyncUser(ctx, server, user)
			if err != nil {
				e.Log.Debug("a device list could not be had", "user", user, "error", err)
			}
			if err != nil && !errors.Is(err, ErrRefused) {
				return false
			}
			e.resync.answered(server, user, err)
		}
	}
}

// resyncUser asks for a user's list.
// spec: server-server#device-management
func (e *Encryption) resyncUser(ctx context.Context, server matrix.ServerName, user matrix.UserID) error {
	at := e.DB.Position()
	got, err := e.Remote.UserDevices(ctx, server, user)
	if err != nil {
		return err
	}
	if got.UserID != user {
		return ErrRefused
	}
	kept, err := e.keep(ctx, map[matrix.UserID]fetched{user: {listOfDevices(got, user), got.StreamID, at}})
	if err != nil || kept == 1 {
		return err
	}
	// They went, or came back, or something changed meanwhile.
	e.resync.add(server)
	return e.forgetApart(ctx, []matrix.UserID{user}, math.MaxInt64)
}
