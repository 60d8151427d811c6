package syncapi

import (
	"testing"
	"time"

	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms"
)

// What a device sent is answered before its /sync speaks of it; nothing else
// waits, and nothing waits for long.
func TestEchoComesAfterTheAnswer(t *testing.T) {
	rec := &record{user: "@a:x"}
	n := &notifier{users: map[matrix.UserID]*record{"@a:x": rec}}
	took := func(device matrix.DeviceID) time.Duration {
		began := time.Now()
		n.settle(t.Context(), rec, device)
		return time.Since(began)
	}
	send := func(answered <-chan struct{}) {
		n.sent(&rooms.TxnKey{User: "@a:x", Device: "D", Answered: answered})
		n.sent(&rooms.TxnKey{User: "@b:x", Device: "D", Answered: answered}) // is not connected
	}
	answered := make(chan struct{})
	send(answered)
	if d := took("E"); d >= echoMargin {
		t.Errorf("another device waits for %v", d)
	}
	time.AfterFunc(10*time.Millisecond, func() { close(answered) })
	if d := took("D"); d < 10*time.Millisecond {
		t.Errorf("/sync speaks after %v, before the answer", d)
	}
	send(answered)
	if d := took("D"); d < echoMargin || d > echoPatience {
		t.Errorf("after a request that was answered /sync waits for %v", d)
	}
	if d := took("D"); d >= echoMargin {
		t.Errorf("/sync waits for the same answer again: %v", d)
	}
	send(make(chan struct{}))
	if d := took("D"); d < echoPatience || d > 20*echoPatience {
		t.Errorf("a request that is never answered is waited for %v", d)
	}
	n.sent(nil)
	n.sent(&rooms.TxnKey{User: "@a:x", Device: "D"})
	if d := took("D"); d >= echoMargin {
		t.Errorf("waits for %v for nothing", d)
	}
}
