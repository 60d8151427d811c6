package joining

import (
	"context"
	"io"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/teahouse-chat/teahouse/federation/keys"
	"github.com/teahouse-chat/teahouse/federation/transport"
	"github.com/teahouse-chat/teahouse/internal/db"
	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms"
	"github.com/teahouse-chat/teahouse/rooms/api"
	"github.com/teahouse-chat/teahouse/rooms/event"
)

// Client asks other servers; it is a *transport.Client.
type Client interface {
	JSON(ctx context.Context, r transport.Request, answer any) error
	Stream(ctx context.Context, r transport.Request) (io.ReadCloser, error)
}

// Keys checks signatures; it is a *keys.Ring.
type Keys interface {
	Verify(ctx context.Context, checks []keys.Check) []error
	VerifyEvents(ctx context.Context, events []*event.Event) []error
}

// Users knows the users of this server.
type Users interface {
	// Exists tells whether a user has an account that was not deactivated.
	Exists(ctx context.Context, user matrix.UserID) (bool, error)
}

// Deps are what joining is made of.
type Deps struct {
	DB      *db.DB
	Engine  *rooms.Engine
	Client  Client
	Keys    Keys
	Auth    *transport.Authenticator
	Users   Users
	Invites api.Invites // nil: everybody may be invited by anybody
	// Seen is told of servers that have proved to be there; nil: nobody is.
	Seen func(server matrix.ServerName)
	Now  func() time.Time
	Log  *slog.Logger
}

// How much is under way at a time.
const (
	largeAtATime   = 2       // large answers that are read
	answersAtATime = 100_000 // state events in the answers that are written
	onbindAtATime  = 4
)

// Joining is both sides of joining, knocking, inviting and declining.
type Joining struct {
	Deps
	turns   turns
	large   *semaphore.Weighted
	answers *semaphore.Weighted
	onbinds *semaphore.Weighted
	begun   time.Time // older pending joins are of a run before

	background context.Context // of what goes on when its request has ended
	stop       context.CancelFunc
	running    sync.WaitGroup
}

// New makes joining. Close must be called in the end.
func New(d Deps) *Joining {
	j := &Joining{
		Deps: d, turns: turns{of: map[matrix.RoomID]*turn{}}, begun: d.Now(),
		large: semaphore.NewWeighted(largeAtATime), answers: semaphore.NewWeighted(answersAtATime),
		onbinds: semaphore.NewWeighted(onbindAtATime),
	}
	j.background, j.stop = context.WithCancel(context.Background())
	return j
}

// Close ends what is under way. Joins that were begun are gone on with after the
// next start.
func (j *Joining) Close() {
	j.stop()
	j.running.Wait()
}

// Wait returns when no join of a room is under way, or when ctx ends. Others send
// the room's events as soon as a user of ours was let in.
func (j *Joining) Wait(ctx context.Context, room matrix.RoomID) {
	if !j.turns.taken(room) {
		return
	}
	if release, err := j.turns.take(ctx, room); err == nil {
		release()
	}
}

// seen tells others that a server is there.
func (j *Joining) seen(server matrix.ServerName) {
	if j.Seen != nil {
		j.Seen(server)
	}
}

// turns let one user at a time into a room of others: where one has joined, the
// next need not ask anybody.
type turns struct {
	mu sync.Mutex
	of map[matrix.RoomID]*turn
}

type turn struct {
	free  *semaphore.Weighted
	users int // who hold the turn or wait for it
}

func (t *turns) taken(room matrix.RoomID) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.of[room] != nil
}

// take waits for a room's turn; release gives it back, once.
func (t *turns) take(ctx context.Context, room matrix.RoomID) (release func(), err error) {
	t.mu.Lock()
	one := t.of[room]
	if one == nil {
		one = &turn{free: semaphore.NewWeighted(1)}
		t.of[room] = one
	}
	one.users++
	t.mu.Unlock()
	leave := func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		if one.users--; one.users == 0 {
			delete(t.of, room)
		}
	}
	if err := one.free.Acquire(ctx, 1); err != nil {
		leave()
		return nil, err
	}
	return func() { one.free.Release(1); leave() }, nil
}
