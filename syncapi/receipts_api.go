package syncapi

import (
	"context"
	"encoding/json"

	"github.com/teahouse-chat/teahouse/internal/db"
	"github.com/teahouse-chat/teahouse/internal/httpx"
	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms"
)

type receiptRequest struct {
	Room   matrix.RoomID   `path:"roomId"`
	Type   string          `path:"receiptType"`
	Event  matrix.EventID  `path:"eventId"`
	Thread json.RawMessage `json:"thread_id"`
}

// spec: client-server#post_matrixclientv3roomsroomidreceiptreceipttypeeventid
func (s *Service) postReceipt(ctx context.Context, c *httpx.Caller, q *receiptRequest) (*struct{}, error) {
	thread, err := parseThread(q.Thread)
	if err != nil {
		return nil, err
	}
	switch q.Type {
	case Read, ReadPrivate:
	case FullyRead:
		if thread != "" {
			return nil, matrix.InvalidParam("m.fully_read takes no thread_id")
		}
	default:
		return nil, matrix.InvalidParam("Receipts are of type m.read, m.read.private or m.fully_read")
	}
	return nil, s.mark(ctx, c.User, q.Room, thread, map[string]matrix.EventID{q.Type: q.Event})
}

func parseThread(raw json.RawMessage) (string, error) {
	if raw == nil {
		return "", nil
	}
	var thread *string
	if json.Unmarshal(raw, &thread) != nil || thread == nil || *thread == "" {
		return "", matrix.InvalidParam("thread_id must be a non-empty string")
	}
	if *thread != threadMain {
		if _, err := matrix.ParseEventID(*thread); err != nil {
			return "", matrix.InvalidParam(`thread_id must be "main" or the event id of the thread's root`)
		}
	}
	return *thread, nil
}

type readMarkersRequest struct {
	Room      matrix.RoomID  `path:"roomId"`
	FullyRead matrix.EventID `json:"m.fully_read"`
	Read      matrix.EventID `json:"m.read"`
	Private   matrix.EventID `json:"m.read.private"`
}

// spec: client-server#post_matrixclientv3roomsroomidread_markers
func (s *Service) postReadMarkers(ctx context.Context, c *httpx.Caller, q *readMarkersRequest) (*struct{}, error) {
	marks := map[string]matrix.EventID{}
	for typ, ev := range map[string]matrix.EventID{FullyRead: q.FullyRead, Read: q.Read, ReadPrivate: q.Private} {
		if ev == "" {
			continue
		}
		if _, err := matrix.ParseEventID(string(ev)); err != nil {
			return nil, err
		}
		marks[typ] = ev
	}
	return nil, s.mark(ctx, c.User, q.Room, "", marks)
}

// mark sets receipts and the read marker in one write.
func (s *Service) mark(ctx context.Context, user matrix.UserID, id matrix.RoomID, thread string, marks map[string]matrix.EventID) error {
	r, err := s.joinedRoom(ctx, id, user)
	if err != nil {
		return err
	}
	var set []Receipt
	for typ, id := range marks {
		ev, err := s.Rooms.EventByID(ctx, r, id)
		if err != nil {
			return err
		}
		if typ == FullyRead {
			continue
		}
		if err := s.checkThread(ctx, r, ev, thread); err != nil {
			return err
		}
		c := Receipt{
			Room: r.NID, User: user, Type: typ, Thread: thread, Event: ev.ID,
			EventPosition: ev.Position, Timestamp: s.Now().UnixMilli(),
		}
		if c.unread, err = s.counts.running(ctx, r, ev, thread); err != nil {
			return err
		}
		set = append(set, c)
	}
	fullyRead, moved := marks[FullyRead]
	if len(set) == 0 && !moved {
		return nil
	}
	s.presence.active(user)
	var public *Receipt // that moved
	err = s.DB.Write(ctx, func(tx *db.Tx) error {
		public = nil
		for i, c := range set {
			forward, err := s.receipts.put(ctx, tx, r, c)
			if err != nil {
				return err
			}
			if forward && c.Type == Read {
				public = &set[i]
			}
		}
		if !moved {
			return nil
		}
		content, err := json.Marshal(map[string]matrix.EventID{"event_id": fullyRead})
		if err != nil {
			return err
		}
		return s.Data.Put(tx, user, id, FullyRead, content)
	})
	if err == nil && public != nil {
		s.tellReceipt(r, public)
	}
	return err
}

// joinedRoom returns a room that the user is in; 403 if they are not.
func (s *Service) joinedRoom(ctx context.Context, id matrix.RoomID, user matrix.UserID) (*rooms.Room, error) {
	r, err := s.Rooms.Room(ctx, id)
	if err != nil && !matrix.HasCode(err, matrix.CodeNotFound) {
		return nil, err
	}
	if err != nil || !r.IsLocalMember(user) {
		return nil, matrix.Forbidden("You are not in the room")
	}
	return r, nil
}

// threadHops is how far relations are followed to find an event's thread.
// spec: client-server#threaded-read-receipts
const threadHops = 3

// checkThread refuses a threaded receipt for an event outside of the thread.
func (s *Service) checkThread(ctx context.Context, r *rooms.Room, ev *rooms.Stored, thread string) error {
	if thread == "" || string(ev.ID) == thread {
		return nil
	}
	in := ev.Thread
	for hops := 0; in == "" && ev.Relation.Target != "" && hops < threadHops; hops++ {
		target, err := s.Rooms.EventByID(ctx, r, ev.Relation.Target)
		if matrix.HasCode(err, matrix.CodeNotFound) {
			break
		}
		if err != nil {
			return err
		}
		ev, in = target, target.Thread
	}
	if thread == threadMain && in == "" || thread != threadMain && string(in) == thread {
		return nil
	}
	return matrix.InvalidParam("The event is not in the thread %q", thread)
}
