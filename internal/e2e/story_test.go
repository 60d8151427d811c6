package e2e

import (
	"context"
	"testing"
	"time"

	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"
)

func register(t testing.TB, p *process, name string) *mautrix.Client {
	t.Helper()
	c, err := mautrix.NewClient(p.url, "", "")
	if err != nil {
		t.Fatal(err)
	}
	c.DefaultHTTPRetries = 0
	res, err := c.RegisterDummy(t.Context(), &mautrix.ReqRegister[any]{Username: name, Password: "correct horse " + name})
	if err != nil {
		t.Fatal(err)
	}
	c.UserID, c.DeviceID, c.AccessToken = res.UserID, res.DeviceID, res.AccessToken
	return c
}

// history reads a room back to its beginning, newest first.
func history(t testing.TB, c *mautrix.Client, room id.RoomID) []*event.Event {
	t.Helper()
	var all []*event.Event
	from := ""
	for {
		page, err := c.Messages(t.Context(), room, from, "", mautrix.DirectionBackward, nil, 100)
		if err != nil {
			t.Fatal(err)
		}
		for _, ev := range page.Chunk {
			if err := ev.Content.ParseRaw(ev.Type); err != nil && ev.Type == event.EventMessage && ev.Unsigned.RedactedBecause == nil {
				t.Fatal(err)
			}
			all = append(all, ev)
		}
		if page.End == "" || len(page.Chunk) == 0 {
			return all
		}
		from = page.End
	}
}

// TestStory is two people's first conversation: they register, meet, talk, reply,
// edit, react and redact, see each other type, read and be there, lose the
// server to a power failure, and find everything again.
func TestStory(t *testing.T) {
	each(t, func(t *testing.T, p *process) {
		ctx := t.Context()
		alice, bob := register(t, p, "alice"), register(t, p, "bob")
		must(t, alice.SetDisplayName(ctx, "Alice"))
		room := ok(alice.CreateRoom(ctx, &mautrix.ReqCreateRoom{Name: "Tea", Topic: "Leaves", Invite: []id.UserID{bob.UserID}, IsDirect: true})).RoomID
		invited := ok(bob.SyncRequest(ctx, 0, "", "", true, ""))
		if _, ok := invited.Rooms.Invite[room]; !ok {
			t.Fatal("bob's sync has no invitation")
		}
		ok(bob.JoinRoomByID(ctx, room))
		first := ok(bob.SyncRequest(ctx, 0, "", "", true, event.PresenceOnline))

		hello := ok(alice.SendText(ctx, room, "hello")).EventID
		reply := &event.MessageEventContent{MsgType: event.MsgText, Body: "hello yourself"}
		reply.SetReply(&event.Event{ID: hello, RoomID: room, Sender: alice.UserID, Content: event.Content{Parsed: &event.MessageEventContent{}}})
		answer := ok(bob.SendMessageEvent(ctx, room, event.EventMessage, reply)).EventID
		edit := &event.MessageEventContent{MsgType: event.MsgText, Body: "Hello!"}
		edit.SetEdit(hello)
		ok(alice.SendMessageEvent(ctx, room, event.EventMessage, edit))
		ok(bob.SendReaction(ctx, room, hello, "🍵"))
		slip := ok(bob.SendText(ctx, room, "oops")).EventID
		ok(bob.RedactEvent(ctx, room, slip))
		ok(alice.UserTyping(ctx, room, true, 30*time.Second))
		must(t, alice.MarkRead(ctx, room, answer))

		next := ok(bob.SyncRequest(ctx, 0, first.NextBatch, "", false, event.PresenceOnline))
		joined := next.Rooms.Join[room]
		if joined == nil || len(joined.Timeline.Events) != 6 {
			t.Fatalf("bob's sync has %+v", joined)
		}
		seen := map[string]bool{}
		for _, ev := range joined.Ephemeral.Events {
			seen[ev.Type.Type] = true
		}
		if !seen["m.typing"] || !seen["m.receipt"] {
			t.Errorf("bob sees %v of typing and receipts", seen)
		}

		p.kill()
		p.run()

		events := history(t, bob, room)
		byID := map[id.EventID]*event.Event{}
		for _, ev := range events {
			byID[ev.ID] = ev
		}
		if ev := byID[hello]; ev == nil || ev.Unsigned.Relations == nil || !has(ev.Unsigned.Relations.Raw, event.RelReplace) {
			t.Errorf("the edited message is %+v", ev)
		}
		if ev := byID[slip]; ev == nil || ev.Unsigned.RedactedBecause == nil || len(ev.Content.Raw) != 0 {
			t.Errorf("the redacted message is %+v", ev)
		}
		again := ok(bob.SyncRequest(ctx, 0, "", "", true, ""))
		if n := len(again.Rooms.Join[room].Timeline.Events); n == 0 {
			t.Error("bob's sync after the restart has no timeline")
		}
		woken := make(chan *mautrix.RespSync, 1)
		go func() {
			ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
			defer cancel()
			res, err := bob.SyncRequest(ctx, 15000, again.NextBatch, "", false, "")
			if err != nil {
				t.Error(err)
			}
			woken <- res
		}()
		time.Sleep(50 * time.Millisecond)
		ok(alice.SendText(ctx, room, "still there?"))
		if res := <-woken; res == nil || len(res.Rooms.Join[room].Timeline.Events) != 1 {
			t.Error("a waiting sync was not woken by the message")
		}
	})
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// ok unwraps a result; a test that gets an error instead ends with it.
func ok[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func has[K comparable, V any](m map[K]V, key K) bool {
	_, there := m[key]
	return there
}
