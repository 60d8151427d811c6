package inbound

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"github.com/teahouse-chat/teahouse/federation/acl"
	"github.com/teahouse-chat/teahouse/internal/db"
	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms"
	"github.com/teahouse-chat/teahouse/rooms/event"
)

// How much may be staged.
const (
	// Five seconds' worth of events, of one origin.
	maxOriginRows  = 5000
	maxOriginBytes = 64 << 20
	// Of one origin in a room in which events wait for what others must give:
	// what is turned away is fetched once the room goes on.
	maxJammedRows = 1000
	// In all. What is in memory of a row is below 500 bytes.
	maxRows = 200_000
	spared  = 100 // rows of an origin, when there are maxRows already
	// joinTime is how long an event of an unknown room waits for a join.
	joinTime = 20 * time.Second
)

// tooMuch tells whether an origin should wait with what it has. Events that wait
// for other servers do not count. It is called with the lock held.
func (in *Inbound) tooMuch(origin matrix.ServerName) bool {
	var all, free load
	for _, q := range in.queues {
		l := q.loads[origin]
		if l == nil {
			continue
		}
		all.rows += l.rows
		if q.stuck == 0 {
			free.rows, free.bytes = free.rows+l.rows, free.bytes+l.bytes
		}
	}
	return free.rows >= maxOriginRows || free.bytes >= maxOriginBytes ||
		in.rows >= maxRows && all.rows > spared || in.rows >= 2*maxRows
}

// stage is the events of one transaction.
type stage struct {
	in      *Inbound
	origin  matrix.ServerName
	results map[matrix.EventID]result
	taken   map[matrix.EventID]bool
	rooms   map[matrix.RoomID]*stagedRoom
	list    []arrival
	seqs    []int64
	written map[int64]bool
}

// stagedRoom is a room that the transaction has events of, or why it takes none.
type stagedRoom struct {
	*rooms.Room
	refusal string
}

// arrival is an event that is to be staged.
type arrival struct {
	ev   *event.Event
	room *stagedRoom
	row  *row
	owns bool // the origin is the sender's server
}

func newStage(in *Inbound, origin matrix.ServerName) *stage {
	return &stage{
		in: in, origin: origin, results: map[matrix.EventID]result{}, taken: map[matrix.EventID]bool{}, rooms: map[matrix.RoomID]*stagedRoom{},
	}
}

// sort parses the events and tells what is to be staged from what is not.
func (s *stage) sort(ctx context.Context, pdus []json.RawMessage) error {
	for _, raw := range pdus {
		if err := s.take(ctx, raw); err != nil {
			return err
		}
	}
	ids := make([]matrix.EventID, len(s.list))
	for i, a := range s.list {
		ids[i] = a.ev.ID
	}
	known, err := s.in.Rooms.Known(ctx, ids)
	if err != nil {
		return err
	}
	fresh := s.list[:0]
	for _, a := range s.list {
		if st := known[a.ev.ID]; st != nil && st.Flags&rooms.Outlier == 0 && st.Room == a.room.NID {
			s.in.metrics.pdus.WithLabelValues("known").Inc()
			continue
		}
		a.row.seq = s.in.seq.Next()
		s.seqs = append(s.seqs, a.row.seq)
		fresh = append(fresh, a)
	}
	s.list = fresh
	return nil
}

// take parses one event.
func (s *stage) take(ctx context.Context, raw json.RawMessage) error {
	var names struct {
		Room  matrix.RoomID  `json:"room_id"`
		Event matrix.EventID `json:"event_id"`
	}
	if err := json.Unmarshal(raw, &names); err != nil {
		s.refuse("", "malformed", "The event is malformed")
		return nil
	}
	r, err := s.room(ctx, names.Room)
	if err != nil {
		return err
	}
	if r.Room == nil {
		s.refuse(names.Event, "refused", r.refusal)
		return nil
	}
	ev, err := event.Parse(r.Version, raw)
	var bad *event.FormatError
	switch {
	case errors.As(err, &bad):
		s.refuse(names.Event, "malformed", bad.Error())
		return nil
	case err != nil:
		return err
	case r.refusal != "":
		s.refuse(ev.ID, "refused", r.refusal)
		return nil
	}
	if r.LocalMemberCount() == 0 {
		concerns, err := s.in.concernsUs(ctx, r.Room, ev)
		if err != nil {
			return err
		}
		if !concerns {
			s.refuse(ev.ID, "refused", "This server is not in the room")
			return nil
		}
	}
	if s.taken[ev.ID] {
		return nil
	}
	s.taken[ev.ID], s.results[ev.ID] = true, result{}
	s.list = append(s.list, arrival{ev, r, &row{
		id: s.in.key(ev.ID), needs: s.in.needsOf(ev), origin: s.origin, received: s.in.Now().UnixMilli(), size: len(ev.JSON),
	}, ev.Sender.Server() == s.origin})
	return nil
}

// refuse says why an event is not taken, as far as its id is known. Where ids are
// texts a bad event may bear that of a good one.
func (s *stage) refuse(id matrix.EventID, outcome, why string) {
	s.in.metrics.pdus.WithLabelValues(outcome).Inc()
	s.in.Log.Debug("An event was refused", "origin", s.origin, "event", id, "why", why)
	if _, err := matrix.ParseEventID(string(id)); err == nil && !s.taken[id] {
		s.results[id] = result{why}
	}
}

// room finds a room and whether it takes events of the origin.
// spec: server-server#server-access-control-lists-acls
func (s *stage) room(ctx context.Context, id matrix.RoomID) (*stagedRoom, error) {
	if r := s.rooms[id]; r != nil {
		return r, nil
	}
	r := &stagedRoom{}
	s.rooms[id] = r
	if _, err := matrix.ParseRoomID(string(id)); err != nil {
		r.refusal = "The event names no room"
		return r, nil
	}
	var err error
	if r.Room, err = s.find(ctx, id); err != nil || r.Room == nil {
		r.refusal = "This server is not in the room"
		return r, err
	}
	allowed, err := acl.Allows(ctx, s.in.Rooms, r.Room, s.origin)
	switch {
	case err != nil:
		return nil, err
	case !allowed:
		r.refusal = "Your server is banned from the room by its server ACL"
	case s.in.jammed(r.NID, s.origin):
		r.refusal = "This server waits for earlier events of the room"
	}
	return r, nil
}

// find is the room, nil if there is none. While users of ours are joining a room
// its events may come before it does.
func (s *stage) find(ctx context.Context, id matrix.RoomID) (*rooms.Room, error) {
	r, err := s.in.Rooms.Room(ctx, id)
	if s.in.Joining != nil && (err != nil && matrix.HasCode(err, matrix.CodeNotFound) || err == nil && r.LocalMemberCount() == 0) {
		limited, cancel := context.WithTimeout(ctx, joinTime)
		s.in.Joining(limited, id)
		cancel()
		r, err = s.in.Rooms.Room(ctx, id)
	}
	if err != nil && matrix.HasCode(err, matrix.CodeNotFound) {
		return nil, nil
	}
	return r, err
}

// jammed tells whether an origin has enough events in a room that wait.
func (in *Inbound) jammed(nid rooms.RoomNID, origin matrix.ServerName) bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	q := in.queues[nid]
	return q != nil && q.stuck > 0 && q.loads[origin] != nil && q.loads[origin].rows >= maxJammedRows
}

// write stages the events.
func (s *stage) write(ctx context.Context, tx *db.Tx) error {
	for _, a := range s.list {
		if err := tx.Exec(insertStaged, a.row.seq, a.room.NID, a.ev.ID, s.origin, a.row.received, false, a.ev.JSON, a.owns); err != nil {
			return err
		}
	}
	var err error
	s.written, err = writtenOf(ctx, tx, s.seqs)
	return err
}

// writtenOf tells which rows are there; the others were staged before.
func writtenOf(ctx context.Context, tx *db.Tx, seqs []int64) (map[int64]bool, error) {
	written := make(map[int64]bool, len(seqs))
	if len(seqs) == 0 {
		return written, nil
	}
	return written, db.Each(ctx, tx, stagedOf, func(sc db.Scanner) error {
		var seq int64
		err := sc.Scan(&seq)
		written[seq] = true
		return err
	}, seqs)
}

// staged puts what was written into the queues.
func (s *stage) staged() {
	byRoom := map[*stagedRoom][]*row{}
	for _, a := range s.list {
		if s.written[a.row.seq] {
			byRoom[a.room] = append(byRoom[a.room], a.row)
		} else {
			s.in.metrics.pdus.WithLabelValues("known").Inc()
		}
	}
	for r, rows := range byRoom {
		s.in.enqueue(r.Room, rows)
	}
}

// enqueue adds rows to the queue of a room and lets them be brought in.
func (in *Inbound) enqueue(r *rooms.Room, rows []*row) {
	in.mu.Lock()
	defer in.mu.Unlock()
	q := in.queue(r.NID)
	for _, w := range rows {
		in.add(q, w)
	}
	in.next(q, in.Now().UnixMilli())
}

// queue is called with the lock held.
func (in *Inbound) queue(nid rooms.RoomNID) *queue {
	q := in.queues[nid]
	if q == nil {
		q = newQueue(nid)
		in.queues[nid] = q
	}
	return q
}

func (in *Inbound) add(q *queue, w *row) {
	stuck := w.stuck
	w.stuck = false
	if q.add(w) {
		q.setStuck(w, stuck)
		in.rows++
		in.metrics.staged.Set(float64(in.rows))
	}
}
