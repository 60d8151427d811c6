package e2e

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"
)

// TestKillUnderLoad kills the server while clients send. Each client sends again
// what was not answered, with the same transaction id: in the end every message
// is there, exactly once, under the event id that its sender was told.
func TestKillUnderLoad(t *testing.T) {
	each(t, func(t *testing.T, p *process) {
		const senders, messages, kills = 6, 60, 3
		owner := register(t, p, "owner")
		room, err := owner.CreateRoom(t.Context(), &mautrix.ReqCreateRoom{Preset: "public_chat"})
		if err != nil {
			t.Fatal(err)
		}
		var mu sync.Mutex
		told := map[string]id.EventID{}
		var wg sync.WaitGroup
		for s := range senders {
			c := register(t, p, fmt.Sprintf("sender%d", s))
			if _, err := c.JoinRoomByID(t.Context(), room.RoomID); err != nil {
				t.Fatal(err)
			}
			wg.Go(func() {
				for m := range messages {
					body := fmt.Sprintf("%d/%d", s, m)
					ev := sendUntilAnswered(t, c, room.RoomID, body)
					mu.Lock()
					told[body] = ev
					mu.Unlock()
				}
			})
		}
		for range kills {
			time.Sleep(time.Duration(50+rand.IntN(150)) * time.Millisecond)
			p.kill()
			p.run()
		}
		wg.Wait()
		stored := map[string]id.EventID{}
		for _, ev := range history(t, owner, room.RoomID) {
			if ev.Type != event.EventMessage {
				continue
			}
			body := ev.Content.AsMessage().Body
			if twice, ok := stored[body]; ok {
				t.Errorf("message %s is there twice: %s and %s", body, twice, ev.ID)
			}
			stored[body] = ev.ID
		}
		for body, ev := range told {
			if stored[body] != ev {
				t.Errorf("message %s was answered with %s, but %q is stored", body, ev, stored[body])
			}
		}
		if len(stored) != senders*messages {
			t.Errorf("%d messages are stored, not %d", len(stored), senders*messages)
		}
	})
}

// sendUntilAnswered sends a message, again and again while the server is away.
func sendUntilAnswered(t *testing.T, c *mautrix.Client, room id.RoomID, body string) id.EventID {
	deadline := time.Now().Add(time.Minute)
	for {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		res, err := c.SendMessageEvent(ctx, room, event.EventMessage,
			&event.MessageEventContent{MsgType: event.MsgText, Body: body}, mautrix.ReqSendEvent{TransactionID: "txn " + body})
		cancel()
		if err == nil {
			return res.EventID
		}
		if time.Now().After(deadline) {
			t.Errorf("message %s cannot be sent: %v", body, err)
			return ""
		}
		time.Sleep(10 * time.Millisecond)
	}
}
