package syncapi

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/teahouse-chat/teahouse/internal/db"
	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms"
)

// The types of receipts.
// spec: client-server#receipts
const (
	Read        = "m.read"
	ReadPrivate = "m.read.private"
	FullyRead   = "m.fully_read" // account data, though it is set like a receipt
)

// threadMain is the thread of receipts for what is in no thread.
const threadMain = "main"

// Receipt says up to where a user has read.
type Receipt struct {
	Room          rooms.RoomNID
	User          matrix.UserID
	Type          string
	Thread        string // "" unthreaded, "main", or the id of a thread's root
	Event         matrix.EventID
	EventPosition int64 // of the event in the timeline
	Timestamp     int64 // ms since 1970
	Position      int64 // of the stream

	// unread is the running count, at the event, of the receipt's thread; of the
	// main timeline for an unthreaded one.
	unread int64
}

// Reads tells what was read: all threads, or one; "" for the main timeline.
func (r Receipt) Reads() (all bool, thread matrix.EventID) {
	if r.Thread == "" || r.Thread == threadMain {
		return r.Thread == "", ""
	}
	return false, matrix.EventID(r.Thread)
}

// ReceiptChanged is published on the stream for every receipt that moved.
type ReceiptChanged struct {
	Receipt
	RoomID matrix.RoomID
}

// What is kept of receipts in memory.
const (
	recentReceipts = 100_000 // in all rooms
	roomReceipts   = 256     // in one
	receiptUsers   = 20_000
)

// receipts keeps what changed lately in each room, for clients that listen, and
// each active user's own, for their unread counts.
type receipts struct {
	db *db.DB

	mu     sync.RWMutex
	floor  int64 // of rooms that are not in recent
	total  int
	recent map[rooms.RoomNID]*receiptLog
	clock  int64 // counts changes, so that what was read meanwhile is not kept
	own    map[matrix.UserID]map[rooms.RoomNID][]Receipt
	// What users wrote and is not stored yet, or is just being stored.
	dirty, storing map[writtenKey]Receipt
	flushing       *time.Timer // set while dirty is to be stored
	closed         bool
	local          func(matrix.UserID) bool
}

// receiptLog holds a room's receipts with positions above its floor, in order.
type receiptLog struct {
	floor int64
	list  []Receipt
}

func newReceipts(d Deps) *receipts {
	return &receipts{
		db: d.DB, floor: d.DB.Position(),
		recent: map[rooms.RoomNID]*receiptLog{}, own: map[matrix.UserID]map[rooms.RoomNID][]Receipt{},
		dirty: map[writtenKey]Receipt{}, local: d.Rooms.Local,
	}
}

// publish takes over what a commit changed; it runs on the database's writer.
func (s *receipts) publish(b db.Batch) {
	for _, change := range b.Changes {
		switch c := change.(type) {
		case ReceiptChanged:
			s.mu.Lock()
			s.note(c.Receipt)
			s.mu.Unlock()
		case *rooms.Committed:
			s.wrote(c.Events)
		}
	}
}

func (s *receipts) note(r Receipt) {
	s.clock++
	if s.total >= recentReceipts {
		s.floor, s.total = r.Position-1, 0
		clear(s.recent)
	}
	log := s.recent[r.Room]
	if log == nil {
		log = &receiptLog{floor: s.floor}
		s.recent[r.Room] = log
	}
	if len(log.list) >= roomReceipts {
		cut := len(log.list) / 2
		log.floor = log.list[cut-1].Position
		log.list = slices.Clone(log.list[cut:])
		s.total -= cut
	}
	log.list = append(log.list, r)
	s.total++
	if own, ok := s.own[r.User]; ok {
		own[r.Room] = replaceReceipt(own[r.Room], r)
	}
}

// replaceReceipt puts r in the place of the receipt that it follows; the list
// that it is given stays as it is.
func replaceReceipt(list []Receipt, r Receipt) []Receipt {
	list = slices.DeleteFunc(slices.Clone(list), func(old Receipt) bool {
		return old.User == r.User && old.Type == r.Type && old.Thread == r.Thread
	})
	return append(list, r)
}

// since returns, by room, the receipts that a user may see with positions above
// after and up to upTo.
func (s *receipts) since(ctx context.Context, user matrix.UserID, in []rooms.RoomNID, after, upTo int64) (map[rooms.RoomNID][]Receipt, error) {
	found := map[rooms.RoomNID][]Receipt{}
	var cold []rooms.RoomNID
	s.mu.RLock()
	for _, nid := range in {
		log := s.recent[nid]
		switch {
		case log == nil && after >= s.floor:
		case log == nil || after < log.floor:
			cold = append(cold, nid)
		default:
			start, _ := slices.BinarySearchFunc(log.list, after+1, func(r Receipt, at int64) int { return int(r.Position - at) })
			for _, r := range log.list[start:] {
				if r.Position <= upTo && r.shownTo(user) {
					found[nid] = replaceReceipt(found[nid], r)
				}
			}
		}
	}
	s.mu.RUnlock()
	if len(cold) == 0 {
		return found, nil
	}
	return found, db.Each(ctx, s.db, receiptsSince, func(row db.Scanner) error {
		r, err := scanReceipt(row)
		if err == nil && r.shownTo(user) {
			found[r.Room] = append(found[r.Room], r)
		}
		return err
	}, cold, after, upTo)
}

// shownTo tells whether a user may know of the receipt.
// spec: client-server#private-read-receipts
func (r Receipt) shownTo(user matrix.UserID) bool { return r.Type != ReadPrivate || r.User == user }

// of returns a user's own receipts by room. The map is the caller's, the lists
// are shared.
func (s *receipts) of(ctx context.Context, user matrix.UserID, in []rooms.RoomNID) (map[rooms.RoomNID][]Receipt, error) {
	for {
		s.mu.RLock()
		own, ok := s.own[user]
		if ok {
			defer s.mu.RUnlock()
			return pick(own, in), nil
		}
		began := s.clock
		s.mu.RUnlock()
		own = map[rooms.RoomNID][]Receipt{}
		for _, stmt := range []*db.Stmt{receiptsOf, writtenBy} {
			err := db.Each(ctx, s.db, stmt, func(row db.Scanner) error {
				r, err := scanReceipt(row)
				own[r.Room] = append(own[r.Room], r)
				return err
			}, user)
			if err != nil {
				return nil, err
			}
		}
		s.mu.Lock()
		if s.clock == began {
			s.addUnstored(user, own)
			if len(s.own) >= receiptUsers {
				clear(s.own)
			}
			s.own[user] = own
			defer s.mu.Unlock()
			return pick(own, in), nil
		}
		s.mu.Unlock()
	}
}

func pick(own map[rooms.RoomNID][]Receipt, in []rooms.RoomNID) map[rooms.RoomNID][]Receipt {
	picked := make(map[rooms.RoomNID][]Receipt, len(in))
	for _, nid := range in {
		if list := own[nid]; len(list) > 0 {
			picked[nid] = list
		}
	}
	return picked
}

// put moves a receipt forward, within a write, and tells whether it did. One that
// would go back is left where it is, as is one that is there already.
func (s *receipts) put(ctx context.Context, tx *db.Tx, r *rooms.Room, c Receipt) (moved bool, err error) {
	at, found, err := db.One(ctx, tx, receiptAt, func(row db.Scanner) (at int64, err error) {
		return at, row.Scan(&at)
	}, c.Room, c.User, c.Type, c.Thread)
	if err != nil || found && at >= c.EventPosition {
		return false, err
	}
	c.Position = tx.Position()
	if err := tx.Exec(upsertReceipt, c.Room, c.User, c.Type, c.Thread, c.Event, c.EventPosition, c.unread, c.Timestamp, c.Position); err != nil {
		return false, err
	}
	tx.Publish(ReceiptChanged{Receipt: c, RoomID: r.ID})
	return true, nil
}
