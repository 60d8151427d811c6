package syncapi

import (
	"sync"

	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms/state"
)

// lazyMembers remembers which member events a device was sent, so that they are
// not sent again for every message of the same sender. Each is remembered with
// the position of the answer that it was in: a client that asks with an older
// token never got that answer.
// spec: client-server#lazy-loading-room-members
type lazyMembers struct {
	mu      sync.Mutex
	devices map[deviceKey]map[state.EventNID]int64
}

type deviceKey struct {
	user   matrix.UserID
	device matrix.DeviceID
}

// What is remembered; what goes beyond is forgotten, which costs redundant
// events and nothing else.
const (
	lazyDevices = 4096
	lazyEvents  = 2048 // of one device
)

func newLazyMembers() *lazyMembers {
	return &lazyMembers{devices: map[deviceKey]map[state.EventNID]int64{}}
}

// forget starts a device anew, as it does with an initial sync.
func (l *lazyMembers) forget(k deviceKey) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.devices, k)
}

// fresh leaves those of the member events that the device does not have from
// answers up to the position since.
func (l *lazyMembers) fresh(k deviceKey, since int64, members []state.EventNID) []state.EventNID {
	l.mu.Lock()
	defer l.mu.Unlock()
	sent := l.devices[k]
	fresh := members[:0]
	for _, nid := range members {
		if at, ok := sent[nid]; !ok || at > since {
			fresh = append(fresh, nid)
		}
	}
	return fresh
}

// sent notes which member events are in the answer that ends at a position.
func (l *lazyMembers) sent(k deviceKey, upTo int64, members []state.EventNID) {
	if len(members) == 0 {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	sent := l.devices[k]
	if sent == nil || len(sent)+len(members) > lazyEvents {
		if len(l.devices) >= lazyDevices {
			clear(l.devices)
		}
		sent = make(map[state.EventNID]int64, len(members))
		l.devices[k] = sent
	}
	for _, nid := range members {
		if _, ok := sent[nid]; !ok {
			sent[nid] = upTo
		}
	}
}
