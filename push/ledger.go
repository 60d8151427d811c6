package push

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/teahouse-chat/teahouse/internal/db"
	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms"
	"github.com/teahouse-chat/teahouse/rooms/state"
)

// highlightKind says how an event stands out to a user.
type highlightKind int

const (
	plainTo  highlightKind = iota // it does not, though it does to everybody else
	standsTo                      // it does
	addsTo                        // it does, and notifies the user though it does not notify everybody
)

// highlightRow is an event that stands out to a user, or to everybody in the
// room if user is "".
type highlightRow struct {
	user     matrix.UserID
	room     rooms.RoomNID
	position int64
	event    state.EventNID
	thread   matrix.EventID
	sender   matrix.UserID
	kind     highlightKind
	ts       int64 // when it was found, ms since 1970; not read back
}

// redacted is an event that lost its content after it was counted.
type redacted struct {
	position int64
	thread   matrix.EventID
	common   int64 // shared running count, the event included
	counted  bool  // is in it
}

// ledger keeps what the shared running counts do not say: which events stand out
// to whom, how the counts of users with rules of their own go, and which events
// were redacted. It is written by the follower alone, to the database and to
// what is in memory; whoever reads waits until what was written before is there.
type ledger struct {
	db *db.DB

	mu    sync.Mutex
	last  *db.Pending // the newest write
	rooms map[rooms.RoomNID]*roomNotes
	users map[matrix.UserID]*userNotes
}

func newLedger(d *db.DB) *ledger {
	return &ledger{db: d, rooms: map[rooms.RoomNID]*roomNotes{}, users: map[matrix.UserID]*userNotes{}}
}

// write submits what is to be stored. Its order is the order of the calls.
func (l *ledger) write(op func(tx *db.Tx) error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.last = l.db.Submit(op)
}

// settle waits until what was written before is in the database.
func (l *ledger) settle(ctx context.Context) error {
	l.mu.Lock()
	last := l.last
	l.mu.Unlock()
	if last == nil {
		return nil
	}
	return last.Wait(ctx)
}

// found is what one event, or one redaction, adds to the ledger.
type found struct {
	highlights []highlightRow
	bends      map[matrix.UserID]bend
	room       rooms.RoomNID
	thread     matrix.EventID // of the bends
	redacted   *redacted
}

func (f *found) empty() bool { return len(f.highlights) == 0 && len(f.bends) == 0 && f.redacted == nil }

// add takes over what was found.
func (l *ledger) add(f *found) {
	if f.empty() {
		return
	}
	l.mu.Lock()
	for _, h := range f.highlights {
		if h.user == "" {
			if n := l.rooms[h.room]; n != nil {
				n.all = withHighlight(n.all, h)
			}
		} else if n := l.users[h.user]; n != nil {
			n.highlights[h.room] = withHighlight(n.highlights[h.room], h)
		}
	}
	for u, b := range f.bends {
		if n := l.users[u]; n != nil {
			n.bend(f.room, f.thread, b)
		}
	}
	if f.redacted != nil {
		l.redact(f.room, *f.redacted)
	}
	l.mu.Unlock()
	l.write(f.store)
}

// redact takes an event out of what is in memory; l.mu is held.
func (l *ledger) redact(room rooms.RoomNID, r redacted) {
	here := func(h highlightRow) bool { return h.position == r.position }
	if n := l.rooms[room]; n != nil {
		n.all = slices.DeleteFunc(slices.Clone(n.all), here)
		if !slices.ContainsFunc(n.redacted, func(old redacted) bool { return old.position == r.position }) {
			n.redacted = append(slices.Clone(n.redacted), r)
			slices.SortFunc(n.redacted, func(a, b redacted) int { return int(a.position - b.position) })
		}
		if !n.loaded {
			n.gone[r.position] = struct{}{}
		}
	}
	for _, n := range l.users {
		if list, ok := n.highlights[room]; ok {
			n.highlights[room] = slices.DeleteFunc(slices.Clone(list), here)
		}
		if !n.loaded {
			if n.gone[room] == nil {
				n.gone[room] = map[int64]struct{}{}
			}
			n.gone[room][r.position] = struct{}{}
		}
	}
}

func (f *found) store(tx *db.Tx) error {
	for _, h := range f.highlights {
		if err := tx.Exec(insertHighlight, h.user, h.room, h.position, h.event, h.thread, h.sender, int(h.kind), h.ts); err != nil {
			return err
		}
	}
	for u, b := range f.bends {
		if err := tx.Exec(insertBend, u, f.room, f.thread, b.position, b.common, b.own, b.follows); err != nil {
			return err
		}
	}
	if r := f.redacted; r != nil {
		if err := tx.Exec(deleteHighlights, f.room, r.position); err != nil {
			return err
		}
		return tx.Exec(insertRedacted, f.room, r.position, r.thread, r.common, r.counted)
	}
	return nil
}

// seen takes note of what a user has read.
func (l *ledger) seen(r Receipt) {
	l.mu.Lock()
	n := l.users[r.User]
	idle := n != nil && n.loaded // and nothing found to mark
	if n != nil {
		left := slices.DeleteFunc(slices.Clone(n.highlights[r.Room]), func(h highlightRow) bool {
			return h.position <= r.Position && (r.All || h.thread == r.Thread)
		})
		if len(left) < len(n.highlights[r.Room]) {
			n.highlights[r.Room], idle = left, false
		}
	}
	l.mu.Unlock()
	if idle {
		return
	}
	l.write(func(tx *db.Tx) error {
		if r.All {
			return tx.Exec(seeHighlights, r.User, r.Room, r.Position)
		}
		return tx.Exec(seeThread, r.User, r.Room, r.Position, r.Thread)
	})
}

// trim drops the bends of lines that nobody asks for any more: of what was read,
// the last one says where the rest begins.
func (l *ledger) trim(r Receipt) {
	l.mu.Lock()
	n := l.users[r.User]
	idle := n != nil && n.loaded // and nothing found to drop
	if n != nil {
		for thread, bends := range n.lines[r.Room] {
			if i := bends.index(r.Position); i > 0 && (r.All || thread == r.Thread) {
				n.lines[r.Room][thread], idle = bends[i:], false
			}
		}
	}
	l.mu.Unlock()
	if idle {
		return
	}
	l.write(func(tx *db.Tx) error {
		if r.All {
			return tx.Exec(trimLines, r.User, r.Room, r.Position)
		}
		return tx.Exec(trimLine, r.User, r.Room, r.Position, r.Thread)
	})
}

// left drops what was found for a user in a room that they left: if they come
// back, everything from before is read.
func (l *ledger) left(user matrix.UserID, room rooms.RoomNID) {
	l.mu.Lock()
	if n := l.users[user]; n != nil && n.loaded {
		delete(n.highlights, room)
		delete(n.lines, room)
	} else {
		delete(l.users, user) // whoever loads it finds it gone, and begins again
	}
	l.mu.Unlock()
	l.write(func(tx *db.Tx) error {
		if err := tx.Exec(leaveHighlights, user, room); err != nil {
			return err
		}
		return tx.Exec(leaveLines, user, room)
	})
}

const (
	// highlightsKept is how long what stood out is kept once it was read: as long
	// as notifications are listed.
	highlightsKept = notificationsKept
	// unseenKept is how long what stands out waits for being read.
	unseenKept = 365 * 24 * time.Hour
)

// prune drops highlights that are too old, whoever reads them.
func (l *ledger) prune(now time.Time) {
	l.write(func(tx *db.Tx) error {
		return tx.Exec(pruneHighlights, now.Add(-highlightsKept).UnixMilli(), now.Add(-unseenKept).UnixMilli())
	})
}

// bendRow is a bend as it is stored.
type bendRow struct {
	user   matrix.UserID
	room   rooms.RoomNID
	thread matrix.EventID
	bend
}

func scanBend(s db.Scanner) (b bendRow, err error) {
	err = s.Scan(&b.user, &b.room, &b.thread, &b.position, &b.common, &b.own, &b.follows)
	return b, err
}
