package syncapi

import (
	"context"
	"time"

	"github.com/teahouse-chat/teahouse/internal/db"
	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms"
)

// written is the type of what counts like a receipt but is none: whoever writes
// has read what came before. It is stored some seconds later, one row for all
// that a user wrote in a room meanwhile; if the server is killed before, the
// messages themselves still tell, as long as they are recent.
const (
	written      = "written"
	writtenDelay = 5 * time.Second
)

type writtenKey struct {
	user   matrix.UserID
	room   rooms.RoomNID
	thread string
}

// reads tells whether sending the event means that what came before was read.
func reads(ev *rooms.Stored) bool { return !ev.IsState() || ev.Counted }

// wrote takes note of the newest messages of local users.
func (s *receipts) wrote(events []*rooms.Stored) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, ev := range events {
		if !reads(ev) || ev.Position <= 0 || !ev.Served() || !s.local(ev.Sender) {
			continue
		}
		r := Receipt{
			Room: ev.Room, User: ev.Sender, Type: written, Thread: threadMain, EventPosition: ev.Position, unread: ev.Unread,
		}
		if ev.Thread != "" {
			r.Thread = string(ev.Thread)
		}
		s.dirty[writtenKey{r.User, r.Room, r.Thread}] = r
		if own, ok := s.own[r.User]; ok {
			own[r.Room] = replaceReceipt(own[r.Room], r)
		}
	}
	if len(s.dirty) > 0 && s.flushing == nil {
		s.flushing = time.AfterFunc(writtenDelay, s.flush)
	}
}

// addUnstored lays what is not stored yet over what was read; s.mu is held.
func (s *receipts) addUnstored(user matrix.UserID, own map[rooms.RoomNID][]Receipt) {
	for _, unstored := range []map[writtenKey]Receipt{s.storing, s.dirty} {
		for k, r := range unstored {
			if k.user == user {
				own[r.Room] = replaceReceipt(own[r.Room], r)
			}
		}
	}
}

// flush stores what users wrote.
func (s *receipts) flush() {
	s.mu.Lock()
	s.storing, s.dirty = s.dirty, map[writtenKey]Receipt{}
	storing := s.storing
	s.mu.Unlock()
	err := s.db.Write(context.Background(), func(tx *db.Tx) error {
		for _, r := range storing {
			if err := tx.Exec(upsertWritten, r.User, r.Room, r.Thread, r.EventPosition, r.unread); err != nil {
				return err
			}
		}
		return nil
	})
	s.mu.Lock()
	defer s.mu.Unlock()
	s.storing, s.flushing = nil, nil
	s.clock++
	if err != nil { // once more, unless something newer came
		for k, r := range storing {
			if _, newer := s.dirty[k]; !newer {
				s.dirty[k] = r
			}
		}
	}
	if len(s.dirty) > 0 && !s.closed {
		s.flushing = time.AfterFunc(writtenDelay, s.flush)
	}
}

// close stores what is left.
func (s *receipts) close() {
	s.mu.Lock()
	s.closed = true
	timer := s.flushing
	s.mu.Unlock()
	if timer != nil && timer.Stop() {
		s.flush()
	}
}
