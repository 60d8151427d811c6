package rooms

import (
	"weak"

	lru "github.com/hashicorp/golang-lru/v2"

	"github.com/teahouse-chat/teahouse/internal/matrix"
)

// loadedRooms are the rooms in memory. Those used last are kept; of the others
// the table knows where they are as long as anybody else keeps them, be it a
// request or a commit under way. So a room that was given up is collected only
// when nothing can change or show it any more, and there are never two of one
// room.
type loadedRooms struct {
	byID    map[matrix.RoomID]weak.Pointer[Room]
	byNID   map[RoomNID]weak.Pointer[Room]
	kept    *lru.Cache[RoomNID, *Room] // has a lock of its own
	sweepAt int                        // size at which collected rooms are taken from the table
}

// roomsLoaded is how many rooms are kept in memory if the Deps do not say.
const roomsLoaded = 5000

// sweepEvery is how many rooms a table takes up at least between two sweeps.
const sweepEvery = 1000

func newLoadedRooms(keep int) (*loadedRooms, error) {
	if keep == 0 {
		keep = roomsLoaded
	}
	kept, err := lru.New[RoomNID, *Room](keep)
	return &loadedRooms{
		byID: map[matrix.RoomID]weak.Pointer[Room]{}, byNID: map[RoomNID]weak.Pointer[Room]{}, kept: kept, sweepAt: sweepEvery,
	}, err
}

// use keeps the room in memory, as the one that was used last.
func (l *loadedRooms) use(r *Room) *Room {
	if _, ok := l.kept.Get(r.NID); !ok {
		l.kept.Add(r.NID, r)
	}
	return r
}

// put makes a room known; the engine's lock is held.
func (l *loadedRooms) put(r *Room) {
	if len(l.byNID) >= l.sweepAt {
		l.sweep()
	}
	p := weak.Make(r)
	l.byID[r.ID], l.byNID[r.NID] = p, p
	l.kept.Add(r.NID, r)
}

// sweep forgets the rooms that have been collected.
func (l *loadedRooms) sweep() {
	for id, p := range l.byID {
		if p.Value() == nil {
			delete(l.byID, id)
		}
	}
	for nid, p := range l.byNID {
		if p.Value() == nil {
			delete(l.byNID, nid)
		}
	}
	l.sweepAt = 2*len(l.byNID) + sweepEvery
}

// loaded finds a room in memory.
func (e *Engine) loaded(id matrix.RoomID) *Room {
	e.mu.RLock()
	r := e.rooms.byID[id].Value()
	e.mu.RUnlock()
	if r == nil {
		return nil
	}
	return e.rooms.use(r)
}

func (e *Engine) loadedNID(n RoomNID) *Room {
	e.mu.RLock()
	r := e.rooms.byNID[n].Value()
	e.mu.RUnlock()
	if r == nil {
		return nil
	}
	return e.rooms.use(r)
}
