package encryption

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/teahouse-chat/teahouse/internal/db"
	"github.com/teahouse-chat/teahouse/internal/httpx"
	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms"
)

// Devices knows the devices of local users.
type Devices interface {
	// Devices returns the display names of the users' devices, as q sees them.
	// Users who have none are left out.
	Devices(ctx context.Context, q db.Querier, users []matrix.UserID) (map[matrix.UserID]map[matrix.DeviceID]string, error)
}

// UIA asks users to prove that it is them.
type UIA interface {
	// Require returns nil once the caller has authenticated for this request. An
	// error that has the methods HTTPStatus and MarshalJSON is answered as it is.
	Require(ctx context.Context, c *httpx.Caller, endpoint string, body, auth json.RawMessage) error
}

// Remote asks other servers. Their answers may be anything.
type Remote interface {
	// QueryKeys asks a server for keys of its users; no devices means all.
	QueryKeys(ctx context.Context, server matrix.ServerName, users map[matrix.UserID][]matrix.DeviceID) (*Keys, error)
	// ClaimKeys asks a server for one-time keys.
	ClaimKeys(ctx context.Context, server matrix.ServerName, claims Claims) (Claimed, error)
	// UserDevices asks a server for the list of a user's devices. The error wraps
	// ErrRefused if it answered that it does not give it.
	UserDevices(ctx context.Context, server matrix.ServerName, user matrix.UserID) (*UserDevices, error)
}

// Outbox keeps what is to be sent to other servers, in the write that makes it.
type Outbox interface {
	Store(tx *db.Tx, to []matrix.ServerName, eduType string, content json.RawMessage) error
}

// Keys are the keys of users as /keys/query gives them. Each value is a JSON
// object; those of local users are shared and not changed.
type Keys struct {
	Devices     map[matrix.UserID]map[matrix.DeviceID]json.RawMessage `json:"device_keys"`
	Master      map[matrix.UserID]json.RawMessage                     `json:"master_keys,omitempty"`
	SelfSigning map[matrix.UserID]json.RawMessage                     `json:"self_signing_keys,omitempty"`
	UserSigning map[matrix.UserID]json.RawMessage                     `json:"user_signing_keys,omitempty"`
}

// Claims name an algorithm for each device that a one-time key is wanted of.
type Claims map[matrix.UserID]map[matrix.DeviceID]string

// Claimed are the keys by user, device and key id.
type Claimed map[matrix.UserID]map[matrix.DeviceID]map[string]json.RawMessage

// Messages are contents by user and device; the device "*" means all.
type Messages map[matrix.UserID]map[matrix.DeviceID]json.RawMessage

// Deps are what the feature is made of.
type Deps struct {
	DB         *db.DB
	ServerName matrix.ServerName
	Rooms      *rooms.Engine
	Devices    Devices
	UIA        UIA
	// Ended reads a change on the stream: the devices that it removed, if it is
	// about such.
	Ended func(change any) (user matrix.UserID, devices []matrix.DeviceID, ok bool)
	// Position reads a token of /sync.
	Position func(token string) (int64, error)
	Remote   Remote // nil: other servers cannot be reached
	Outbox   Outbox // nil with Remote
	Now      func() time.Time
	Rand     io.Reader // of the ids of messages to other servers
	Log      *slog.Logger
}

// Encryption is the feature.
type Encryption struct {
	Deps
	batches *db.Sequence // of one-time keys, in the order of their uploads
	inboxes *cache[device, inbox]
	counts  *cache[device, counts]
	lists   *cache[matrix.UserID, *deviceList]
	signed  *cache[matrix.UserID, map[target][]signature] // of other users' keys, by signer
	pruned  atomic.Int64                                  // when old transactions and claimed keys were last removed; ms

	asked   asking
	backlog *backlog // what other servers are to be told
	doubts  *doubts
	resync  *resyncs

	// What happened since floor, the position that the process began at.
	floor      int64
	lastChange atomic.Int64 // position of the newest change of a device list
	mu         sync.Mutex
	moves      map[rooms.RoomNID]int64 // where somebody came to, or went from, a room last
}

// device is one device of a user.
type device struct {
	user matrix.UserID
	id   matrix.DeviceID
}

// New makes the feature and subscribes it to the database's stream: after the
// room engine, and before what serves clients from the stream.
func New(d Deps) (*Encryption, error) {
	if d.DB == nil || d.ServerName == "" || d.Rooms == nil || d.Devices == nil || d.UIA == nil || d.Ended == nil || d.Position == nil || d.Now == nil || d.Rand == nil || d.Log == nil {
		return nil, errors.New("encryption: DB, ServerName, Rooms, Devices, UIA, Ended, Position, Now, Rand and Log are needed")
	}
	if (d.Remote == nil) != (d.Outbox == nil) {
		return nil, errors.New("encryption: Remote and Outbox are needed together")
	}
	e := &Encryption{
		Deps: d, batches: d.DB.Sequence("one_time_key_batch"),
		inboxes: newCache[device, inbox](devicesKept), counts: newCache[device, counts](devicesKept),
		lists: newCache[matrix.UserID, *deviceList](listsKept), signed: newCache[matrix.UserID, map[target][]signature](listsKept),
		asked: asking{users: map[matrix.UserID]int{}}, backlog: newBacklog(), doubts: newDoubts(), resync: newResyncs(d.Now),
		floor: d.DB.Position(), moves: map[rooms.RoomNID]int64{},
	}
	e.lastChange.Store(e.floor)
	d.DB.Subscribe(e.committed)
	return e, nil
}

// committed keeps what is cached true, and clears up after removed devices. It
// runs on the database's writer.
func (e *Encryption) committed(b db.Batch) {
	for _, change := range b.Changes {
		switch c := change.(type) {
		case keysMoved:
			e.counts.drop(device(c))
		case inboxChanged:
			for _, d := range c.devices {
				e.inboxes.drop(d)
			}
		case DevicesChanged:
			e.lastChange.Store(b.Position)
			e.devicesChanged(c)
		case listMoved:
			e.lists.drop(c.user)
		case untold:
			e.tellOthers(c.user)
		case *rooms.Committed:
			e.moved(c, b.Position)
		default:
			if user, devices, ok := e.Ended(change); ok {
				e.removed(user, devices)
			}
		}
	}
}

func (e *Encryption) devicesChanged(c DevicesChanged) {
	switch {
	case c.Private:
		e.signed.drop(c.Watchers[0])
		return
	case c.cross:
		e.signed.clear() // signatures by, and on, the former keys are gone
	}
	e.lists.drop(c.User)
	if e.Outbox != nil && e.local(c.User) {
		e.backlog.add([]matrix.UserID{c.User})
	}
}

// Run does what happens beside requests, until ctx ends.
func (e *Encryption) Run(ctx context.Context) {
	if e.Remote == nil {
		return
	}
	var work sync.WaitGroup
	for _, f := range []func(context.Context){e.runAnnouncer, e.runDoubts, e.runResyncs} {
		work.Go(func() { f(ctx) })
	}
	work.Wait()
}

// Changed lists the local users whose next answer a change on the stream adds
// to. It does not block.
func (e *Encryption) Changed(change any) []matrix.UserID {
	switch c := change.(type) {
	case DevicesChanged:
		return c.Watchers
	case inboxChanged:
		return c.told
	}
	return nil
}

func (e *Encryption) local(u matrix.UserID) bool { return u.Server() == e.ServerName }

// exists tells whether a device of a local user is there.
func (e *Encryption) exists(ctx context.Context, q db.Querier, d device) (bool, error) {
	all, err := e.Devices.Devices(ctx, q, []matrix.UserID{d.user})
	if err != nil {
		return false, err
	}
	_, ok := all[d.user][d.id]
	return ok, nil
}

// needDevice is the device of a caller, who must have one.
func needDevice(c *httpx.Caller) (device, error) {
	if c.Device == "" {
		return device{}, matrix.InvalidParam("This token belongs to no device; name one")
	}
	return device{c.User, c.Device}, nil
}

// housekeeping is how often old rows are looked for.
const housekeeping = time.Hour

// prune removes, now and then, what is kept for repeated requests only.
func (e *Encryption) prune(tx *db.Tx) error {
	now, last := e.Now().UnixMilli(), e.pruned.Load()
	if now-last < housekeeping.Milliseconds() || !e.pruned.CompareAndSwap(last, now) {
		return nil
	}
	for s, kept := range map[*db.Stmt]time.Duration{
		pruneTxns: txnsKept, pruneClaimed: claimedKept, pruneReceived: receivedKept, pruneAsking: askingKept,
	} {
		if err := tx.Exec(s, now-kept.Milliseconds()); err != nil {
			return err
		}
	}
	return nil
}
