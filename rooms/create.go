package rooms

import (
	"context"
	"encoding/base64"
	"errors"
	"io"

	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms/auth"
	"github.com/teahouse-chat/teahouse/rooms/event"
	"github.com/teahouse-chat/teahouse/rooms/state"
)

// Create makes a room of the version. fn appends its first events, the create
// event before all, and everything is committed together. Like Update's, fn may
// be called several times.
func (e *Engine) Create(ctx context.Context, v *event.Version, sender matrix.UserID, fn func(*Builder) error) (*Room, error) {
	id, err := e.newRoomID(v)
	if err != nil {
		return nil, err
	}
	nid := RoomNID(e.roomSeq.Next())
	got := newFetched()
	for range updateTries {
		r := newRoom(nid, id, v)
		b := &Builder{e: e, room: r, sender: sender, head: r.head, got: got, creating: true}
		err := fn(b)
		var n *need
		if errors.As(err, &n) {
			if err := e.fetch(ctx, r, got, n); err != nil {
				return nil, err
			}
			continue
		}
		if err != nil {
			return nil, err
		}
		if len(b.events) == 0 || !b.events[0].Is(matrix.TypeCreate, "") {
			return nil, errors.New("rooms: a new room must begin with its create event")
		}
		return r, b.commit(nil).Wait(context.WithoutCancel(ctx))
	}
	return nil, errUpdateTries
}

// newRoomID makes a random id; room versions whose id is their create event's
// hash get theirs when that is built.
func (e *Engine) newRoomID(v *event.Version) (matrix.RoomID, error) {
	if v.RoomIDHash {
		return "", nil
	}
	var random [15]byte
	if _, err := io.ReadFull(e.Rand, random[:]); err != nil {
		return "", err
	}
	return matrix.RoomID("!" + base64.RawURLEncoding.EncodeToString(random[:]) + ":" + string(e.ServerName)), nil
}

// createTime moves a create event's time on, so that no two rooms of one server
// begin in the same millisecond: their ids are the hashes of events that may
// have nothing else to tell them apart.
func (e *Engine) createTime(ts int64) int64 {
	for {
		last := e.lastCreate.Load()
		ts = max(ts, last+1)
		if e.lastCreate.CompareAndSwap(last, ts) {
			return ts
		}
	}
}

func newFetched() *fetched {
	return &fetched{
		events: map[state.EventNID]*Stored{}, ids: map[matrix.EventID]*Stored{},
		keys: map[auth.Key]state.KeyNID{}, threads: map[matrix.EventID]int64{},
		branches: map[SnapshotNID]*branch{}, merges: map[string]*merged{}, auths: map[state.EventNID][]state.EventNID{},
		numbers: map[matrix.EventID]int64{}, snapshots: map[*merged]*branch{}, builtOn: map[matrix.EventID]bool{},
		awaiting: map[matrix.EventID][]*Stored{},
	}
}
