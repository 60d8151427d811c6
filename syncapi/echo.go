package syncapi

import (
	"context"
	"time"

	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms"
)

// A device that sends an event hears of it twice: by the answer to the request,
// and by its own /sync. Clients expect them in this order; some take a threaded
// event that they hear of by /sync first for one that could not be sent, and try
// again for half a minute.
const (
	echoPatience = 50 * time.Millisecond // how long /sync stands back at most
	echoMargin   = 5 * time.Millisecond  // from the end of a request until the client has read the answer
)

// sent notes the request by which a device sent an event. The lock is held.
func (n *notifier) sent(k *rooms.TxnKey) {
	if k == nil || k.Answered == nil {
		return
	}
	rec := n.users[k.User]
	if rec == nil {
		return // not connected
	}
	if rec.echoes == nil {
		rec.echoes = map[matrix.DeviceID]<-chan struct{}{}
	}
	rec.echoes[k.Device] = k.Answered
}

// settle comes back when what the device sent has been answered, so that /sync
// may speak of it.
func (n *notifier) settle(ctx context.Context, rec *record, device matrix.DeviceID) {
	n.mu.Lock()
	answered := rec.echoes[device]
	delete(rec.echoes, device)
	n.mu.Unlock()
	if answered == nil {
		return
	}
	patience := time.NewTimer(echoPatience)
	defer patience.Stop()
	select {
	case <-answered:
		time.Sleep(echoMargin)
	case <-patience.C:
	case <-ctx.Done():
	}
}
