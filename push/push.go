package push

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"time"

	"github.com/teahouse-chat/teahouse/internal/db"
	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms"
)

// AccountStore keeps what clients are shown of their users' settings.
type AccountStore interface {
	// Put stores account data of any type within a write.
	Put(tx *db.Tx, user matrix.UserID, typ string, content json.RawMessage) error
	// CarryOver gives a room what the user has stored about the one that it takes
	// the place of.
	CarryOver(ctx context.Context, user matrix.UserID, from, to matrix.RoomID) error
}

// People tells what users want to hear from whom.
type People interface {
	// Ignored returns whom each of the users ignores; who ignores nobody is left
	// out. The sets are shared and not changed.
	Ignored(ctx context.Context, users []matrix.UserID) (map[matrix.UserID]map[matrix.UserID]struct{}, error)
	// Ignoring lists everybody who ignores somebody.
	Ignoring(ctx context.Context) ([]matrix.UserID, error)
	// IgnoresOthers reads a change on the stream: whose list of ignored users
	// changed, if it is about such. It must not block.
	IgnoresOthers(change any) (matrix.UserID, bool)
	// BlocksInvites tells whether a user wants no invites.
	BlocksInvites(ctx context.Context, user matrix.UserID) (bool, error)
}

// Reading tells what users have read.
type Reading interface {
	// Unread counts what a user has not read, by room; rooms without are left out.
	Unread(ctx context.Context, user matrix.UserID, in []rooms.RoomNID, upTo int64) (map[rooms.RoomNID]int64, error)
	// Standings tells how far a user has read rooms.
	Standings(ctx context.Context, user matrix.UserID, in []rooms.RoomNID) (map[rooms.RoomNID]Standing, error)
	// Read reads a change on the stream: a receipt of a local user's, if it is
	// about such. It must not block.
	Read(change any) (Receipt, bool)
}

// Standing is how far a user has read a room.
type Standing interface {
	// Read tells whether an event of a thread, or of the main timeline if it is
	// "", was read.
	Read(thread matrix.EventID, position int64) bool
}

// Receipt says that a user has read a thread of a room, or with All all of its
// threads, up to a position.
type Receipt struct {
	User     matrix.UserID
	Room     rooms.RoomNID
	All      bool
	Thread   matrix.EventID
	Position int64
}

// Sessions tells which devices there are.
type Sessions interface {
	// Ended reads a change on the stream: the devices whose access tokens ended,
	// if it is about such. It must not block.
	Ended(change any) (user matrix.UserID, devices []matrix.DeviceID, ok bool)
	// Devices lists the devices of users who have any.
	Devices(ctx context.Context, users []matrix.UserID) (map[matrix.UserID][]matrix.DeviceID, error)
}

// Deps are what the feature is made of.
type Deps struct {
	DB       *db.DB
	Rooms    *rooms.Engine
	Data     AccountStore
	People   People
	Reading  Reading
	Sessions Sessions
	Gateways *http.Client // reaches push gateways
	// PlainHTTP lets gateways have http URLs, for tests.
	PlainHTTP bool
	// CountRooms makes the number on an app's icon that of rooms with unread
	// messages, instead of that of the messages.
	CountRooms bool
	Now        func() time.Time
	Log        *slog.Logger
}

// Push is the feature.
type Push struct {
	Deps
	books    *books
	ledger   *ledger
	follower *follower
	pushers  *pushers
	badges   *badges
	delivery *delivery
}

// New makes the feature and subscribes it to the database's stream, after the
// room engine. Run must be called, or nothing is counted and pushed.
func New(ctx context.Context, d Deps) (*Push, error) {
	if d.DB == nil || d.Rooms == nil || d.Data == nil || d.People == nil || d.Reading == nil || d.Sessions == nil || d.Gateways == nil || d.Now == nil || d.Log == nil {
		return nil, errors.New("push: DB, Rooms, Data, People, Reading, Sessions, Gateways, Now and Log are needed")
	}
	p := &Push{Deps: d, books: newBooks(d.DB), ledger: newLedger(d.DB), badges: newBadges()}
	p.delivery = newDelivery(p)
	var err error
	if p.pushers, err = p.loadPushers(ctx); err != nil {
		return nil, err
	}
	d.DB.Subscribe(p.committed)
	p.follower = newFollower(p)
	return p, nil
}

// committed keeps what is cached true. It runs on the database's writer.
func (p *Push) committed(b db.Batch) {
	for _, change := range b.Changes {
		if c, ok := change.(rulesChanged); ok {
			p.books.change(c.user, c.shelf)
		}
	}
}

// concerns tells whether a change of another feature's is for the follower.
func (p *Push) concerns(change any) bool {
	if _, ok := p.People.IgnoresOthers(change); ok {
		return true
	}
	if _, ok := p.Reading.Read(change); ok {
		return true
	}
	_, _, ok := p.Sessions.Ended(change)
	return ok
}

// Run counts and pushes until ctx ends.
func (p *Push) Run(ctx context.Context) error {
	p.delivery.start(ctx)
	defer p.delivery.wait()
	defer p.follower.carrying.Wait()
	if err := p.dropOrphans(ctx); err != nil && ctx.Err() == nil {
		p.Log.Error("pushers of devices that are gone could not be removed; the next start tries again", "error", err)
	}
	err := p.follower.run(ctx)
	if ctx.Err() != nil {
		return p.DB.Write(context.WithoutCancel(ctx), p.checkpoint())
	}
	return err
}

// Erase removes what is kept of a user who is gone.
func (p *Push) Erase(ctx context.Context, user matrix.UserID) error {
	if err := p.removePushers(ctx, p.pushers.of(user)); err != nil {
		return err
	}
	return p.DB.Write(ctx, func(tx *db.Tx) error {
		for _, s := range []*db.Stmt{deleteBook, eraseHighlights, eraseLines} {
			if err := tx.Exec(s, user); err != nil {
				return err
			}
		}
		return nil
	})
}
