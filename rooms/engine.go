package rooms

import (
	"context"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"golang.org/x/sync/singleflight"

	"github.com/teahouse-chat/teahouse/internal/db"
	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms/event"
	"github.com/teahouse-chat/teahouse/rooms/state"
)

// What the engine keeps in memory beside the loaded rooms.
const (
	eventsKept  = 20_000
	layersKept  = 2_000
	roomsKept   = 100_000
	usersKept   = 20_000
	devicesKept = 20_000
	// A branch is a whole state, as far as it shares nothing with others.
	branchesKept = 512
	mergesKept   = 256
	authsKept    = 100_000
	// Each keeps a state from being collected.
	foreignKept = 256
)

// Profile is what a user's member events say of them.
type Profile struct {
	DisplayName string
	AvatarURL   string
}

// Profiles gives the profiles of local users.
type Profiles interface {
	Profile(ctx context.Context, user matrix.UserID) (Profile, error)
}

// Deps are what the engine is made of.
type Deps struct {
	DB         *db.DB
	ServerName matrix.ServerName
	Key        event.SigningKey
	Now        func() time.Time
	Rand       io.Reader    // of room ids in room versions 1 to 11
	Log        *slog.Logger // nil: slog.Default()
	Profiles   Profiles
	Policy     PolicySigner // nil: policy servers cannot be asked
	// Counts tells whether an event is unread for the members of its room until
	// they have read it, unless rules of their own say otherwise; allowed tells
	// what its sender has the power to notify for. nil: none is.
	Counts    func(ev *event.Event, allowed func(key string) bool) bool
	RoomsKept int // how many rooms are kept in memory beyond their use; 0 for a default
}

// Engine holds every room of the server.
type Engine struct {
	Deps
	keys       *keyTable
	eventSeq   *db.Sequence
	roomSeq    *db.Sequence
	snapSeq    *db.Sequence
	cache      *lru.Cache[state.EventNID, *Stored]
	layers     *lru.Cache[SnapshotNID, state.Layer]
	names      *lru.Cache[RoomNID, roomName]
	branches   *lru.Cache[SnapshotNID, *branch]
	merges     *lru.Cache[string, *merged]
	auths      *lru.Cache[state.EventNID, []state.EventNID]
	foreign    *lru.Cache[foreignKey, foreignMembers]
	users      *userCache
	claims     claims
	txns       *txnTable
	loading    singleflight.Group
	lastCreate atomic.Int64
	mu         sync.RWMutex
	rooms      *loadedRooms
}

// roomName is what never changes about a room.
type roomName struct {
	id      matrix.RoomID
	version *event.Version
}

// New makes the engine and subscribes it to the database's stream; whoever
// subscribes later finds views up to date.
func New(d Deps) (*Engine, error) {
	if d.Log == nil {
		d.Log = slog.Default()
	}
	e := &Engine{
		Deps: d, keys: newKeyTable(d.DB),
		claims:   claims{by: map[matrix.EventID]RoomNID{}},
		eventSeq: d.DB.Sequence("event"), roomSeq: d.DB.Sequence("room"), snapSeq: d.DB.Sequence("snapshot"),
	}
	var err error
	if e.rooms, err = newLoadedRooms(d.RoomsKept); err != nil {
		return nil, err
	}
	if e.cache, err = lru.New[state.EventNID, *Stored](eventsKept); err != nil {
		return nil, err
	}
	if e.layers, err = lru.New[SnapshotNID, state.Layer](layersKept); err != nil {
		return nil, err
	}
	if e.names, err = lru.New[RoomNID, roomName](roomsKept); err != nil {
		return nil, err
	}
	if e.branches, err = lru.New[SnapshotNID, *branch](branchesKept); err != nil {
		return nil, err
	}
	if e.merges, err = lru.New[string, *merged](mergesKept); err != nil {
		return nil, err
	}
	if e.auths, err = lru.New[state.EventNID, []state.EventNID](authsKept); err != nil {
		return nil, err
	}
	if e.foreign, err = lru.New[foreignKey, foreignMembers](foreignKept); err != nil {
		return nil, err
	}
	if e.users, err = newUserCache(e); err != nil {
		return nil, err
	}
	if e.txns, err = newTxnTable(d.DB); err != nil {
		return nil, err
	}
	// Every event asks for this key, so its number must not have to be looked for.
	if _, err = e.keys.allot(context.Background(), policyStateKey); err != nil {
		return nil, err
	}
	d.DB.Subscribe(e.published)
	return e, nil
}

// Local tells whether a user is this server's.
func (e *Engine) Local(u matrix.UserID) bool { return u.Server() == e.ServerName }

// Room returns the room; 404 M_NOT_FOUND if this server does not know it.
func (e *Engine) Room(ctx context.Context, id matrix.RoomID) (*Room, error) {
	if r := e.loaded(id); r != nil {
		return r, nil
	}
	// The load goes on when one of those who asked for it gives up.
	v, err, _ := e.loading.Do(string(id), func() (any, error) { return e.loadByID(context.WithoutCancel(ctx), id) })
	if err != nil {
		return nil, err
	}
	return v.(*Room), nil
}

// RoomByNID is Room by number.
func (e *Engine) RoomByNID(ctx context.Context, n RoomNID) (*Room, error) {
	if r := e.loadedNID(n); r != nil {
		return r, nil
	}
	name, err := e.roomName(ctx, n)
	if err != nil {
		return nil, err
	}
	return e.Room(ctx, name.id)
}

// loadByID loads a room, within loading.
func (e *Engine) loadByID(ctx context.Context, id matrix.RoomID) (*Room, error) {
	row, found, err := db.One(ctx, e.DB, roomByID, scanRoom, id)
	if err != nil {
		return nil, err
	}
	if !found {
		return nil, matrix.NotFound("This server does not know the room")
	}
	room, err := e.load(ctx, row)
	if err != nil {
		return nil, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if there := e.rooms.byID[room.ID].Value(); there != nil {
		return there, nil
	}
	e.rooms.put(room)
	return room, nil
}

// add makes a new room known.
func (e *Engine) add(r *Room) {
	e.names.Add(r.NID, roomName{r.ID, r.Version})
	e.mu.Lock()
	defer e.mu.Unlock()
	e.rooms.put(r)
}

// roomName gives a room's id and version without loading it.
func (e *Engine) roomName(ctx context.Context, n RoomNID) (roomName, error) {
	if name, ok := e.names.Get(n); ok {
		return name, nil
	}
	row, found, err := db.One(ctx, e.DB, roomByNID, scanRoom, n)
	if err != nil {
		return roomName{}, err
	}
	if !found {
		return roomName{}, matrix.NotFound("This server does not know the room")
	}
	return e.nameRow(row)
}

func (e *Engine) nameRow(row roomRow) (roomName, error) {
	v, ok := event.Lookup(row.version)
	if !ok {
		return roomName{}, matrix.NewError(400, matrix.CodeUnsupportedRoomVersion, "Room version %q is not supported", row.version)
	}
	name := roomName{row.id, v}
	e.names.Add(row.nid, name)
	return name, nil
}

// published brings the views of rooms, and what is cached of users, up to a
// commit. It runs on the database's writer goroutine.
func (e *Engine) published(b db.Batch) {
	for _, c := range b.Changes {
		switch c := c.(type) {
		case *Committed:
			e.publishCommitted(c)
		case *older:
			e.publishOlder(c)
		}
	}
}

func (e *Engine) publishCommitted(c *Committed) {
	for _, st := range c.unseen {
		e.renew(st)
	}
	for _, st := range c.Events {
		e.renew(st)
	}
	for _, st := range c.redacted {
		e.renew(st)
	}
	c.Room.publish(c)
	if c.created {
		e.add(c.Room)
	}
	e.users.publish(c)
}
