package syncapi

import (
	"context"
	"encoding/json"
	"log/slog"
	"time"

	"github.com/teahouse-chat/teahouse/internal/db"
	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms"
)

// Datum is one piece of account data.
type Datum struct {
	Room     matrix.RoomID // "" for the account's own
	Type     string
	Content  json.RawMessage
	Position int64 // of the stream; 0 for a default that nobody set
}

// AccountData is what /sync needs of the feature that keeps account data.
type AccountData interface {
	// All is what a client starts with, defaults included.
	All(ctx context.Context, user matrix.UserID) ([]Datum, error)
	// Since is what changed above the position after, up to and including upTo.
	Since(ctx context.Context, user matrix.UserID, after, upTo int64) ([]Datum, error)
	// Put stores data of any type within a write.
	Put(tx *db.Tx, user matrix.UserID, room matrix.RoomID, typ string, content json.RawMessage) error
	// Ignores tells whom the user ignores. The map is shared and not changed.
	Ignores(ctx context.Context, user matrix.UserID) (map[matrix.UserID]struct{}, error)
	// BlocksInvites tells whether the user wants to hear of no invites.
	BlocksInvites(ctx context.Context, user matrix.UserID) (bool, error)
	// Changed tells whose account data a change on the stream is about; "" if it
	// is about something else. It must not block.
	Changed(change any) matrix.UserID
	// Filter returns the definition of a stored filter; 404 if there is none.
	Filter(ctx context.Context, user matrix.UserID, id string) (json.RawMessage, error)
}

// Encryption is what end-to-end encryption adds to /sync.
type Encryption interface {
	// ToDevice returns messages for the device that were stored above the
	// position after, oldest first, and the position up to which they reach, at
	// most upTo. What the client has acknowledged by after may be deleted.
	ToDevice(ctx context.Context, user matrix.UserID, device matrix.DeviceID, after, upTo int64) ([]json.RawMessage, int64, error)
	// DeviceLists returns whose devices changed, and with whom the user shares
	// no encrypted room any more.
	DeviceLists(ctx context.Context, user matrix.UserID, after, upTo int64) (changed, left []matrix.UserID, err error)
	// Keys counts the device's unclaimed one-time keys by algorithm, and lists
	// the algorithms of its unused fallback keys.
	Keys(ctx context.Context, user matrix.UserID, device matrix.DeviceID) (oneTime map[string]int, fallback []string, err error)
	// Changed lists the local users whose next answer a change on the stream
	// adds to, nil if it is about something else. It must not block.
	Changed(change any) []matrix.UserID
}

// Rules tell what events mean to single users beyond what they mean to all.
type Rules interface {
	// Wait returns once the rules were held against everything up to a position.
	Wait(ctx context.Context, position int64) error
	// Judged returns what they said about the events of rooms for a user.
	Judged(ctx context.Context, user matrix.UserID, in []rooms.RoomNID) (map[rooms.RoomNID]Judged, error)
}

// Judged is what the rules of one user said about the events of a room.
type Judged interface {
	// Between counts the events of a thread, or of the main timeline if it is "",
	// above one position and up to another, that notify the user, and those that
	// stand out among them; from and to are the shared running counts there.
	Between(thread matrix.EventID, after, from, upTo, to int64) (notifications, highlights int64)
	// Ignoring tells whether the user ignores anybody.
	Ignoring() bool
	// Hidden tells whether Between counts an event though the user ignores its
	// sender by now: there is nothing that they could read it by.
	Hidden(ev *rooms.Stored) bool
}

// Sessions tells whether a device's session still stands.
type Sessions interface {
	// Live is asked before a request goes to sleep, token being the hash that
	// the request was authenticated with.
	Live(ctx context.Context, user matrix.UserID, device matrix.DeviceID, token string) bool
}

// Deps are what the feature is made of.
type Deps struct {
	DB         *db.DB
	Rooms      *rooms.Engine
	Data       AccountData
	Encryption Encryption // nil: none
	Rules      Rules      // nil: everybody has the predefined ones
	Sessions   Sessions   // nil: only EndSession ends open requests
	Remote     Remote     // nil: there are no other servers
	Services   Services   // nil: there are no application services
	Now        func() time.Time
	Log        *slog.Logger
	// Presence can be turned off: nobody is shown to be online then.
	Presence bool
	// MaxWait bounds how long a request waits for something new; 0 is 2 minutes.
	MaxWait time.Duration
	// MaxTimeline bounds how many events of a room one answer has; 0 is 100.
	MaxTimeline int
}

// Service is the feature.
type Service struct {
	Deps
	notifier *notifier
	receipts *receipts
	typing   *typing
	presence *presence
	counts   *counts
	foreign  *foreign
	lazy     *lazyMembers
	filters  *filterCache
	first    heroes
	epoch    int64
}

const (
	defaultMaxTimeline = 100
	defaultMaxWait     = 2 * time.Minute
)

// New makes the feature and subscribes it to the database's stream. The room
// engine must have been made before, so that it hears of every commit first.
func New(d Deps) *Service {
	if d.MaxTimeline <= 0 {
		d.MaxTimeline = defaultMaxTimeline
	}
	if d.MaxWait <= 0 {
		d.MaxWait = defaultMaxWait
	}
	s := &Service{Deps: d, epoch: d.Now().UnixMilli(), lazy: newLazyMembers(), filters: newFilterCache(d.Data)}
	s.first.rooms = map[rooms.RoomNID]firstMembers{}
	s.notifier = newNotifier(d)
	s.receipts = newReceipts(d)
	s.counts = newCounts(d, s.receipts)
	s.foreign = newForeign(d)
	s.typing = newTyping(s.notifier, d.Now, s.changedTyping, s.stoppedTyping)
	s.presence = newPresence(s.notifier, s)
	d.DB.Subscribe(func(b db.Batch) {
		// What a woken request reads is brought up to the commit before it is
		// woken.
		s.receipts.publish(b)
		s.counts.publish(b)
		s.notifier.publish(b)
		s.foreign.publish(b)
		s.leftTyping(b)
	})
	return s
}

// Close stops the timers.
func (s *Service) Close() {
	s.typing.close()
	s.receipts.close()
	s.foreign.close()
	s.presence.close()
}

// EndSession ends the open requests of a user's device, or of all of them if
// device is "": they are answered with M_UNKNOWN_TOKEN.
func (s *Service) EndSession(user matrix.UserID, device matrix.DeviceID) {
	s.notifier.end(user, device)
}
