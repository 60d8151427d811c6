package kit_test

import (
	"slices"
	"strings"
	"testing"

	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"github.com/teahouse-chat/teahouse/appservices/kit/kittest"
)

// made are the rooms that the service made.
func made(r *kittest.Rig) (rooms []id.RoomID) {
	for _, room := range r.Rooms() {
		if r.Events(room)[0].Sender == r.Bot() {
			rooms = append(rooms, room)
		}
	}
	return rooms
}

// What is private goes to the direct chat that there is, else to one that is made, and
// never to a room in which a third one is.
func TestDirect(t *testing.T) {
	each(t, func(t *testing.T, url string) {
		r, alice, room, chat := tea(t, url)
		bob := r.User("bob")
		alice.Say(room, "!tea whisper one")
		if got := last(r, chat); got != "one" {
			t.Errorf("in the direct chat the service said %q", got)
		}
		bob.Say(room, "!tea whisper two")
		r.Settle()
		chats := made(r)
		if len(chats) != 1 || last(r, chats[0]) != "two" {
			t.Fatalf("bob was told in %v", chats)
		}
		bob.Join(chats[0])
		bob.Say(room, "!tea whisper three")
		if got := last(r, chats[0]); got != "three" || len(made(r)) != 1 {
			t.Errorf("bob was told %q, in %v", got, made(r))
		}
		// A third comes, and leaves again: no direct chat any more.
		bob.Invite(chats[0], alice.ID)
		r.Settle()
		alice.Join(chats[0])
		r.Settle()
		alice.Leave(chats[0])
		bob.Say(room, "!tea whisper four")
		r.Settle()
		const crowded = "We are not alone here any more. From now on, begin what you say to me with !tea."
		if got := last(r, chats[0]); got != crowded || len(made(r)) != 2 || last(r, made(r)[1]) != "four" {
			t.Errorf("the room with a third has %q, and there are %v", got, made(r))
		}
		bob.Say(chats[0], "brew green") // bare words do nothing there
		if got := last(r, chats[0]); got != crowded {
			t.Errorf("the room with a third has %q", got)
		}
		// The other one goes, and so does the service.
		bob.Leave(made(r)[1])
		r.Settle()
		if got := r.Members(made(r)[1]); len(got) != 0 {
			t.Errorf("%v are left in a chat that its other side has left", got)
		}
		// A room that one is invited to as a direct chat, but with others in it.
		crowd := alice.CreateRoom(bob.ID, r.Bot())
		bob.Join(crowd)
		r.Settle()
		alice.Say(crowd, "brew green")
		if got := last(r, crowd); got != "" {
			t.Errorf("bare words among three were answered with %q", got)
		}
	})
}

// Making a direct chat is tried until it succeeds, and then there is one.
func TestDirectIsMadeOnce(t *testing.T) {
	for seed := range uint64(4) {
		each(t, func(t *testing.T, url string) {
			r := kittest.Start(t, kittest.Options{Name: "tea", Database: url, Open: openTea, Seed: seed})
			bob := r.User("bob")
			room := bob.CreateRoom(r.Bot())
			r.User("carol").Join(room)
			r.Settle()
			r.Break(kittest.Faults{Forget: 0.4, Garbage: 0.2, Kill: 0.1, Fail: 0.2, Drop: 0.2})
			bob.Say(room, "!tea whisper hello")
			r.Settle()
			if chats := made(r); len(chats) != 1 || !slices.Equal(r.Said(chats[0]), []string{"hello"}) {
				t.Errorf("seed %d: there are %d chats", seed, len(chats))
			}
		})
	}
}

// An encrypted chat is told once that the service does not read it, with the way to
// one that it reads.
func TestEncryptedChats(t *testing.T) {
	each(t, func(t *testing.T, url string) {
		r, alice, room, chat := tea(t, url)
		encrypt := func(in id.RoomID) {
			alice.SetState(in, event.StateEncryption, "", map[string]any{"algorithm": "m.megolm.v1.aes-sha2"})
		}
		encrypt(chat)
		r.Settle()
		chats := made(r)
		if len(chats) != 1 {
			t.Fatalf("there are %d plain chats", len(chats))
		}
		if got := r.Said(chat); len(got) != 1 || !strings.Contains(got[0], "can't read encrypted messages") || !strings.Contains(got[0], "https://matrix.to/#/%21"+string(chats[0][1:])) {
			t.Errorf("the encrypted chat was told %q", got)
		}
		alice.Join(chats[0])
		alice.Say(chats[0], "whisper psst")
		if got := last(r, chats[0]); got != "psst" {
			t.Errorf("the plain chat has %q", got)
		}
		again := alice.CreateRoom()
		encrypt(again)
		alice.Invite(again, r.Bot())
		encrypt(room)
		r.Settle()
		if got := r.Said(again); len(got) != 0 {
			t.Errorf("another encrypted chat was told %q", got)
		}
		if got := r.Said(room); len(got) != 1 || !strings.Contains(got[0], "https://matrix.to/#/@tea:test") {
			t.Errorf("the encrypted room was told %q", got)
		}
		if len(made(r)) != 1 {
			t.Errorf("there are %d plain chats", len(made(r)))
		}
	})
}
