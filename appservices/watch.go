package appservices

import (
	"context"
	"encoding/json"
	"slices"
	"sync"
	"time"

	"github.com/teahouse-chat/teahouse/internal/db"
	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms"
)

// Ephemeral is what services need of the feature that knows who types, who is
// there, and who has read what.
type Ephemeral interface {
	// Typing renders who types in a room now, with the room's id.
	Typing(r *rooms.Room) json.RawMessage
	// Presences renders who is there, as one event for each user.
	Presences(users []matrix.UserID) []json.RawMessage
	// ReceiptMoved reads a change on the stream: the room of a receipt that moved.
	// It must not block.
	ReceiptMoved(change any) (room rooms.RoomNID, moved bool)
	// Receipts renders the receipts that moved above one position and up to another,
	// with their rooms' ids, but for those that are not to be shown. It looks at no
	// more than limit, and tells up to where that reaches.
	Receipts(ctx context.Context, after, upTo int64, limit int,
		shown func(r *rooms.Room, user matrix.UserID, private bool) (bool, error)) (events []json.RawMessage, reached int64, err error)
}

// Devices is what services need of the feature that keeps the keys of devices and
// the messages between them.
type Devices interface {
	// DeviceNews reads a change on the stream: the local users whose devices got
	// messages, those whose keys are others or fewer now, and the users whom a change
	// of a device list concerns. It must not block.
	DeviceNews(change any) (inboxes, keys, lists []matrix.UserID)
	// Receivers lists the local users whose devices have messages.
	Receivers(ctx context.Context) ([]matrix.UserID, error)
	// Messages returns the oldest messages for the users' devices, each with the name
	// of its device: at most limit, and if there are several at most size bytes. The
	// op deletes them.
	Messages(ctx context.Context, users []matrix.UserID, limit, size int) ([]json.RawMessage, func(*db.Tx) error, error)
	// KeysOf counts the one-time keys of users' devices by algorithm, and lists the
	// algorithms of their unused fallback keys.
	KeysOf(ctx context.Context, users []matrix.UserID) (oneTime map[matrix.UserID]map[matrix.DeviceID]map[string]int, fallback map[matrix.UserID]map[matrix.DeviceID][]string, err error)
	// ListChanges lists the users whose device lists changed above one position and
	// up to another, at most limit, and tells up to where that reaches.
	ListChanges(ctx context.Context, after, upTo int64, limit int) ([]matrix.UserID, int64, error)
	// CompanyIn lists the users whose devices matter to somebody who is in a room.
	CompanyIn(ctx context.Context, r *rooms.Room) ([]matrix.UserID, error)
}

// watcher notices what happens beside events and finds out which services have to
// hear of it. Nothing of it is stored here: what must not be lost is where it came
// from, until a transaction has it.
type watcher struct {
	s    *Services
	tail *db.Tail
	wake chan struct{} // buffered: typed or met has something

	mu    sync.Mutex
	typed map[rooms.RoomNID]struct{}
	met   map[matrix.UserID][]rooms.RoomNID
}

func newWatcher(s *Services) *watcher {
	return &watcher{s: s, wake: make(chan struct{}, 1), typed: map[rooms.RoomNID]struct{}{}, met: map[matrix.UserID][]rooms.RoomNID{}}
}

// Typed takes note that others type in a room than before.
func (s *Services) Typed(room rooms.RoomNID) {
	s.watcher.note(func(w *watcher) {
		if len(w.typed) < maxNews {
			w.typed[room] = struct{}{}
		}
	})
}

// Met takes note that a user's presence changed, and where they are joined.
func (s *Services) Met(user matrix.UserID, in []rooms.RoomNID) {
	s.watcher.note(func(w *watcher) {
		if len(w.met) < maxNews {
			w.met[user] = in
		}
	})
}

func (w *watcher) note(add func(*watcher)) {
	if !w.s.current.Load().ephemeral {
		return
	}
	w.mu.Lock()
	add(w)
	w.mu.Unlock()
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// matters tells whether a change on the stream can be news for a service.
func (w *watcher) matters(change any) bool {
	set := w.s.current.Load()
	if !set.ephemeral && !set.devices {
		return false
	}
	if _, moved := w.s.ephemeral.ReceiptMoved(change); moved {
		return set.ephemeral
	}
	inboxes, keys, lists := w.s.devices.DeviceNews(change)
	return set.devices && len(inboxes)+len(keys)+len(lists) > 0 || w.s.aliases.AliasesMoved(change) != ""
}

// run watches until ctx ends.
func (w *watcher) run(ctx context.Context) {
	w.tail = w.s.DB.Tail(maxBehind, w.matters)
	w.everything(w.s.DB.Position())
	for {
		select {
		case <-w.tail.Wake():
		case <-w.wake:
		case <-ctx.Done():
			return
		}
		if err := w.look(ctx); err != nil && ctx.Err() == nil {
			w.s.Log.Error("it could not be found out which application services have to hear of something; they look for themselves", "error", err)
			w.everything(w.s.DB.Position())
			select {
			case <-time.After(time.Second):
			case <-ctx.Done():
			}
		}
	}
}

// everything has all services look for themselves, up to a position.
func (w *watcher) everything(position int64) {
	found := map[*Service]*news{}
	for _, v := range w.s.current.Load().services {
		n := unknown(position)
		found[v] = &n
	}
	w.s.tell(found)
}

// look takes what was noted.
func (w *watcher) look(ctx context.Context) error {
	batches, missed := w.tail.Take()
	if missed > 0 {
		w.everything(missed)
	}
	found := map[*Service]*news{}
	receipts := map[rooms.RoomNID]int64{}
	for _, b := range batches {
		for _, change := range b.Changes {
			if nid, moved := w.s.ephemeral.ReceiptMoved(change); moved {
				receipts[nid] = b.Position
			} else if id := w.s.aliases.AliasesMoved(change); id != "" {
				if r, err := w.s.rooms.Room(ctx, id); err == nil {
					w.s.standings.forget(r.NID)
				}
			} else {
				w.devices(found, change, b.Position)
			}
		}
	}
	w.mu.Lock()
	typed, met := w.typed, w.met
	w.typed, w.met = map[rooms.RoomNID]struct{}{}, map[matrix.UserID][]rooms.RoomNID{}
	w.mu.Unlock()
	defer w.s.tell(found)
	if err := w.inRooms(ctx, found, receipts, typed); err != nil {
		return err
	}
	return w.people(ctx, found, met)
}

// inRooms finds whom receipts and typing concern.
func (w *watcher) inRooms(ctx context.Context, found map[*Service]*news, receipts map[rooms.RoomNID]int64, typed map[rooms.RoomNID]struct{}) error {
	for nid, position := range receipts {
		if err := w.inRoom(ctx, found, nid, news{behind: position}); err != nil {
			return err
		}
	}
	for nid := range typed {
		if err := w.inRoom(ctx, found, nid, news{typing: one(nid)}); err != nil {
			return err
		}
	}
	return nil
}

func (w *watcher) inRoom(ctx context.Context, found map[*Service]*news, nid rooms.RoomNID, n news) error {
	r, err := w.s.rooms.RoomByNID(ctx, nid)
	if err != nil {
		return err
	}
	list, err := w.s.standings.interested(ctx, r)
	for _, v := range list {
		if v.Ephemeral {
			give(found, v, n)
		}
	}
	return err
}

// people finds whom presence concerns: who claims the user, or is interested in a
// room that they are in.
func (w *watcher) people(ctx context.Context, found map[*Service]*news, met map[matrix.UserID][]rooms.RoomNID) error {
	for user, in := range met {
		n := news{presence: one(user)}
		for _, v := range w.s.current.Load().covering(user) {
			if v.Ephemeral {
				give(found, v, n)
			}
		}
		for _, nid := range in {
			if err := w.inRoom(ctx, found, nid, n); err != nil {
				return err
			}
		}
	}
	return nil
}

// devices finds whom a change of devices, at a position, concerns.
func (w *watcher) devices(found map[*Service]*news, change any, position int64) {
	set := w.s.current.Load()
	inboxes, keys, lists := w.s.devices.DeviceNews(change)
	for _, u := range inboxes {
		if v := set.exclusive(u); v != nil && v.Devices {
			give(found, v, news{inboxes: one(u)})
		}
	}
	for _, u := range keys {
		if v := set.exclusive(u); v != nil && v.Devices {
			give(found, v, news{keys: one(u)})
		}
	}
	for _, u := range lists {
		for _, v := range set.covering(u) {
			if v.Devices {
				give(found, v, news{behind: position})
			}
		}
	}
}

func give(found map[*Service]*news, v *Service, n news) {
	if found[v] == nil {
		found[v] = &news{}
	}
	found[v].add(n)
}

// tell gives couriers what is new for their services.
func (s *Services) tell(found map[*Service]*news) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for v, n := range found {
		if c := s.couriers[v.nid]; c != nil && (v.Ephemeral || v.Devices) {
			c.hear(*n)
		}
	}
}

// hear takes note of news.
func (c *courier) hear(n news) {
	c.mu.Lock()
	c.news.add(n)
	c.mu.Unlock()
	c.look()
}

// heard takes the news away.
func (c *courier) heard() news {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := c.news
	c.news = news{}
	return n
}

// owned leaves the users whose devices' messages are for a service: those that it
// has for itself alone. Others read their own.
func (v *Service) owned(users []matrix.UserID) []matrix.UserID {
	return slices.DeleteFunc(users, func(u matrix.UserID) bool { return u != v.Sender && !v.Users.MatchExclusive(string(u)) })
}
