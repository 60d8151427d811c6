package syncapi

import (
	"context"
	"encoding/json"
	"io"
	"slices"
	"sync"

	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms"
	"github.com/teahouse-chat/teahouse/syncapi/token"
)

// syncRequest is one /sync, as it is carried out.
type syncRequest struct {
	device     deviceKey
	since      token.Sync
	initial    bool
	full       bool   // full_state
	stateAfter string // name of the member, "" for the state at the start of the timeline
	filter     *options
	window     window
}

// roomsPerChunk is how many rooms are read, encoded and sent at a time.
const roomsPerChunk = 64

// answer is an answer of /sync. A small one is encoded as a whole, one of many
// rooms is encoded while it is sent.
type answer struct {
	s    *Service
	ctx  context.Context
	q    *syncRequest
	d    *delta
	buf  []byte
	rest []roomDelta                         // joined rooms that are not encoded yet
	data map[matrix.RoomID][]json.RawMessage // account data of rooms
	any  bool                                // it says something new
}

var buffers = sync.Pool{New: func() any { return new([]byte) }}

const bufferKept = 256 << 10

// answerFor encodes a delta, all of it if its rooms fit into one chunk.
func (s *Service) answerFor(ctx context.Context, q *syncRequest, d *delta) (*answer, error) {
	a := &answer{s: s, ctx: ctx, q: q, d: d, buf: (*buffers.Get().(*[]byte))[:0]}
	next := token.Sync{Position: d.upTo.position, Epoch: s.epoch, Ephemeral: d.upTo.ephemeral}
	messages, reach, err := s.toDevice(ctx, q, d)
	if err != nil {
		return nil, err
	}
	next.Device = reach
	a.buf = append(a.buf, `{"next_batch":"`...)
	a.buf = next.Append(a.buf)
	a.buf = append(a.buf, '"')
	if a.data, err = s.accountData(ctx, q, d); err != nil {
		return nil, err
	}
	a.member("account_data", a.data[""])
	delete(a.data, "")
	a.member("to_device", messages)
	people, err := s.presenceFor(ctx, q, d)
	if err != nil {
		return nil, err
	}
	a.member("presence", people)
	if err := a.encryption(); err != nil {
		return nil, err
	}
	return a, a.rooms()
}

// member appends a member with a list of events.
func (a *answer) member(name string, events []json.RawMessage) {
	a.any = a.any || len(events) > 0
	a.buf = appendName(a.buf, name)
	a.buf = appendEvents(a.buf, events)
}

// rooms appends the rooms; the joined ones come last, so that they can be sent
// as they are encoded.
func (a *answer) rooms() error {
	a.buf = append(a.buf, `,"rooms":{"invite":{`...)
	invited, err := a.s.wanted(a.ctx, a.d.user, a.q.window.ignored, a.d.invited)
	if err != nil {
		return err
	}
	if err := a.stripped(invited, "invite_state"); err != nil {
		return err
	}
	a.buf = append(a.buf, `},"knock":{`...)
	if err := a.stripped(a.d.knocked, "knock_state"); err != nil {
		return err
	}
	a.buf = append(a.buf, `},"leave":{`...)
	if err := a.leave(); err != nil {
		return err
	}
	a.buf = append(a.buf, `},"join":{`...)
	joined, err := a.touched()
	if err != nil {
		return err
	}
	a.rest = joined
	if len(a.rest) > roomsPerChunk {
		a.any = true
		return nil
	}
	return a.chunk()
}

// touched are the joined rooms to look at: those that are marked, those whose
// account data changed, and with full_state all.
func (a *answer) touched() ([]roomDelta, error) {
	joined := a.d.joined
	if !a.d.initial {
		there := map[rooms.RoomNID]bool{}
		for _, rd := range joined {
			there[rd.Room] = true
		}
		if a.q.full || len(a.data) > 0 {
			memberships, err := a.s.Rooms.Memberships(a.ctx, a.d.user)
			if err != nil {
				return nil, err
			}
			for _, m := range memberships {
				if m.Membership != matrix.MembershipJoin || there[m.Room] || m.Position > a.d.upTo.position || !a.q.full && a.data[m.RoomID] == nil {
					continue
				}
				r, err := a.s.Rooms.RoomByNID(a.ctx, m.Room)
				if err != nil {
					return nil, err
				}
				joined = append(joined, roomDelta{Membership: m, room: r, view: r.View(), from: a.d.from.position})
			}
		}
	}
	return slices.DeleteFunc(joined, func(rd roomDelta) bool { return !a.q.filter.Room.takesRoom(rd.RoomID) }), nil
}

// chunk encodes the next rooms.
func (a *answer) chunk() error {
	n := min(len(a.rest), roomsPerChunk)
	list := a.rest[:n]
	a.rest = a.rest[n:]
	more, err := a.s.gather(a.ctx, a.q, a.d, list)
	if err != nil {
		return err
	}
	for i := range list {
		rd := &list[i]
		before := len(a.buf)
		a.buf = appendName(a.buf, rd.RoomID)
		said, err := a.join(rd, more, a.data[rd.RoomID])
		if err != nil {
			return err
		}
		if !said && !a.d.initial {
			a.buf = a.buf[:before]
			continue
		}
		a.any = true
	}
	return nil
}

// WriteTo sends the answer.
func (a *answer) WriteTo(w io.Writer) (int64, error) {
	var sent int64
	flush := func() error {
		n, err := w.Write(a.buf)
		sent += int64(n)
		a.buf = a.buf[:0]
		return err
	}
	for len(a.rest) > 0 {
		// The buffer keeps what appendComma looks at.
		if err := a.chunk(); err != nil {
			return sent, err
		}
		if len(a.rest) > 0 && len(a.buf) > 1 {
			last := a.buf[len(a.buf)-1]
			a.buf = a.buf[:len(a.buf)-1]
			if err := flush(); err != nil {
				return sent, nil // a client that left is not our failure
			}
			a.buf = append(a.buf, last)
		}
	}
	a.buf = append(a.buf, `}}}`...)
	_ = flush()
	a.release()
	return sent, nil
}

// release gives the buffer back.
func (a *answer) release() {
	if cap(a.buf) <= bufferKept {
		b := a.buf[:0]
		buffers.Put(&b)
	}
	a.buf = nil
}
