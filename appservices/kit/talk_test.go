package kit_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"github.com/teahouse-chat/teahouse/appservices/kit"
	"github.com/teahouse-chat/teahouse/appservices/kit/kittest"
)

var teaTexts = kit.Catalogue{
	"en": {"tea.help": "brews tea", "tea.args": "KIND", "tea.done": "Here is your %s.", "tea.which": "Which one?", "tea.name": "What is your name?", "tea.hello": "Hello %s!"},
	"zh": {"tea.help": "泡茶", "tea.args": "种类", "tea.done": "这是您的%s。", "tea.which": "哪一种？", "tea.name": "您叫什么名字？", "tea.hello": "%s，您好！"},
}

// openTea opens a service with every kind of conversation.
func openTea(ctx context.Context, c kit.Config) (kittest.Service, error) {
	c.Texts = teaTexts
	c.Admins = "!2:test"
	s, err := kit.Open(ctx, c)
	if err != nil {
		return nil, err
	}
	s.Command(kit.Command{Name: "brew", Aliases: []string{"泡茶"}, Args: "tea.args", Help: "tea.help", Run: func(tx *kit.Tx, c *kit.Call) error {
		if c.Rest != "" {
			c.Answer(tx, "tea.done", c.Rest)
			return nil
		}
		tx.Ask(c.Event, kit.Question{Name: "which", Text: c.T("tea.which"), Choices: []string{"green", "black"}, Data: "leaves"})
		return nil
	}})
	s.Answer("which", func(tx *kit.Tx, a *kit.Answer) error {
		var with string
		if err := a.Data(&with); err != nil {
			return err
		}
		tx.Say(a.RoomID, fmt.Sprintf("%s %s (%d)", a.Text, with, a.Choice))
		return nil
	})
	s.Command(kit.Command{Name: "greet", Run: func(tx *kit.Tx, c *kit.Call) error {
		tx.Ask(c.Event, kit.Question{Name: "name", Text: c.T("tea.name")})
		return nil
	}})
	s.Answer("name", func(tx *kit.Tx, a *kit.Answer) error {
		tx.Reply(a.Event, tx.TextIn(a.Language, "tea.hello", a.Text))
		return nil
	})
	s.Command(kit.Command{Name: "spill", Run: func(tx *kit.Tx, c *kit.Call) error {
		tx.Reply(c.Event, "this is never said")
		if c.Rest == "wildly" {
			panic("everywhere")
		}
		return errors.New("on the table")
	}})
	s.Command(kit.Command{Name: "whisper", Run: func(tx *kit.Tx, c *kit.Call) error {
		tx.Direct(c.Sender, kit.Text(c.Rest))
		return nil
	}})
	return s, nil
}

// tea starts the service with a room of the administrators, a room with others, and a
// direct chat.
func tea(t *testing.T, url string) (r *kittest.Rig, alice *kittest.User, room, chat id.RoomID) {
	r = kittest.Start(t, kittest.Options{Name: "tea", Database: url, Open: openTea})
	alice = r.User("alice")
	bob := r.User("bob")
	room = bob.CreateRoom()
	for _, in := range []id.RoomID{room, bob.CreateRoom()} {
		bob.Invite(in, alice.ID)
		alice.Join(in)
		bob.Invite(in, r.Bot())
	}
	chat = alice.Direct(r.Bot())
	r.Settle()
	if len(r.Members(room)) != 3 || len(r.Members(chat)) != 2 {
		t.Fatal("the service did not come to", room, chat)
	}
	return r, alice, r.Rooms()[0], chat
}

// last is what the service said last in a room.
func last(r *kittest.Rig, room id.RoomID) string {
	r.Settle()
	all := r.Said(room)
	if len(all) == 0 {
		return ""
	}
	return all[len(all)-1]
}

func TestCommands(t *testing.T) {
	each(t, func(t *testing.T, url string) {
		r, alice, room, chat := tea(t, url)
		for _, c := range []struct {
			in         id.RoomID
			say, heard string
		}{
			{room, "brew green", ""},
			{room, "!tea brew green", "Here is your green."},
			{room, "!TEA Brew  white ", "Here is your white."},
			{room, "@tea:test: brew oolong", "Here is your oolong."},
			{room, "tea: brew yellow", "Here is your yellow."},
			{room, "tea brew nothing", "Here is your yellow."},
			{room, "!teapot", "Here is your yellow."},
			{chat, "brew green", "Here is your green."},
			{chat, "泡茶 龙井", "这是您的龙井。"},
			{chat, "language zh", "我会用中文与您交谈。"},
			{chat, "brew green", "这是您的green。"},
			{chat, "language xx", "我会的语言：en, zh。例如：语言 zh"},
			{chat, "语言 english", "I will speak English with you."},
			{chat, "fly away", "I don't know \"fly\". Say “help” to see what I can do."},
		} {
			alice.Say(c.in, c.say)
			if got := last(r, c.in); got != c.heard {
				t.Errorf("%q is answered with %q, not %q", c.say, got, c.heard)
			}
		}
		alice.Say(chat, "help")
		before := len(r.Said(chat))
		if got := last(r, chat); !strings.Contains(got, "brew KIND – brews tea") || !strings.Contains(got, "!tea") || strings.Contains(got, "spill") || len(r.Said(chat)) != before+1 {
			t.Errorf("the help is %q", got)
		}
		alice.Say(chat, "language 中文")
		alice.Say(chat, "帮助")
		if got := last(r, chat); !strings.Contains(got, "泡茶 种类 – 泡茶") {
			t.Errorf("the Chinese help is %q", got)
		}
	})
}

// What was said is what counts: neither an edit nor a redaction is a command, or takes
// one back.
func TestEditsAndRedactionsChangeNothing(t *testing.T) {
	each(t, func(t *testing.T, url string) {
		r, alice, _, chat := tea(t, url)
		said := alice.Say(chat, "brew green")
		r.Settle()
		alice.Edit(chat, said, "brew black")
		r.Settle()
		alice.Redact(chat, said)
		r.Settle()
		if got := r.Said(chat); !slices.Equal(got, []string{"Here is your green."}) {
			t.Errorf("the service said %q", got)
		}
	})
}

func TestDialogs(t *testing.T) {
	each(t, func(t *testing.T, url string) {
		r, alice, room, chat := tea(t, url)
		question := func(in id.RoomID) id.EventID {
			t.Helper()
			alice.Say(in, "!tea brew")
			if got := last(r, in); got != "Which one?\n1 green\n2 black\n0 cancel" {
				t.Fatalf("the question is %q", got)
			}
			return r.LastMessage(in)
		}
		expect := func(in id.RoomID, want string) {
			t.Helper()
			if got := last(r, in); got != want {
				t.Errorf("the service said %q, not %q", got, want)
			}
		}
		q := question(room)
		var buttons []string
		for _, ev := range r.Events(room) {
			if ev.Type == event.EventReaction {
				rel := ev.Content.Raw["m.relates_to"].(map[string]any)
				if rel["event_id"] == string(q) {
					buttons = append(buttons, rel["key"].(string))
				}
			}
		}
		if !slices.Equal(buttons, []string{"1️⃣", "2️⃣", "❌"}) {
			t.Errorf("the buttons are %q", buttons)
		}
		r.User("bob").React(room, q, "1️⃣") // was not asked
		alice.Say(room, "I wonder")
		expect(room, "Which one?\n1 green\n2 black\n0 cancel")
		alice.React(room, q, "2️⃣")
		expect(room, "black leaves (2)")
		alice.React(room, q, "1️⃣") // has been answered
		expect(room, "black leaves (2)")

		question(room)
		alice.Say(room, "1")
		expect(room, "green leaves (1)")
		question(chat)
		alice.Say(chat, "0")
		expect(chat, "Cancelled.")
		q = question(chat)
		alice.React(chat, q, "❌")
		expect(chat, "Cancelled.")
		q = question(chat)
		alice.Send(chat, event.Type{Type: "m.poll.response"}, map[string]any{
			"m.relates_to": map[string]any{"rel_type": "m.reference", "event_id": q}, "m.selections": []string{"2"},
		})
		expect(chat, "black leaves (2)")
		q = question(room)
		alice.Reply(room, q, "both")
		expect(room, "Please answer with a number, or react: 1️⃣ 2️⃣ ❌")
		r.Kill()
		alice.React(room, q, "1️⃣") // the question outlives the service
		expect(room, "green leaves (1)")
		q = question(room)
		r.Pass(15 * time.Minute)
		alice.React(room, q, "1️⃣")
		expect(room, "That question is too old. Please ask again.")

		alice.Say(chat, "greet")
		expect(chat, "What is your name?\n0 cancel")
		alice.Say(chat, "Alice L.")
		expect(chat, "Hello Alice L.!")
		alice.Say(room, "!tea greet")
		q = func() id.EventID { r.Settle(); return r.LastMessage(room) }()
		alice.Say(room, "no, really")
		expect(room, "What is your name?\n0 cancel")
		alice.Reply(room, q, "Ali")
		expect(room, "Hello Ali!")
	})
}

// A command that the service sees late is asked for again.
func TestOldCommands(t *testing.T) {
	each(t, func(t *testing.T, url string) {
		r, alice, _, chat := tea(t, url)
		r.Break(kittest.Faults{Refuse: 1})
		said := alice.Say(chat, "brew green")
		r.Pass(12 * time.Minute)
		alice.Say(chat, "help")
		r.Heal()
		r.Settle()
		if got := r.Said(chat); len(got) != 2 || got[0] != "I see this only now, 13 minutes after you said it: brew green\nShall I still do it?\n1 Yes\n0 cancel" {
			t.Fatalf("the service said %q", got)
		}
		alice.Edit(chat, said, "brew poison")
		alice.Redact(chat, said)
		alice.Say(chat, "1")
		if got := last(r, chat); got != "Here is your green." {
			t.Errorf("after the confirmation the service said %q", got)
		}
	})
}

// A handler that fails is tried four times in all, and leaves nothing; those behind it
// in the room wait, those elsewhere do not.
func TestSetAside(t *testing.T) {
	each(t, func(t *testing.T, url string) {
		r, alice, room, chat := tea(t, url)
		for _, how := range []string{"", " wildly"} {
			began := r.Clock.Now()
			alice.Say(chat, "spill"+how)
			alice.Say(chat, "brew green")
			alice.Say(room, "!tea brew black")
			r.Pass(time.Millisecond)
			if got := r.Said(room); got[len(got)-1] != "Here is your black." {
				t.Errorf("another room waits: it has %q", got)
			}
			if got := r.Said(chat); len(got) > 0 && strings.Contains(got[len(got)-1], "green") && how == "" {
				t.Errorf("the room does not wait: it has %q", got)
			}
			if got := last(r, chat); got != "Here is your green." {
				t.Errorf("what follows is answered with %q", got)
			}
			if got := r.Said(chat); slices.Contains(got, "this is never said") || !strings.HasPrefix(got[len(got)-2], "Something went wrong") {
				t.Errorf("the service said %q", got)
			}
			if took := r.Clock.Now().Sub(began); took < 111*time.Second || took > 5*time.Minute {
				t.Errorf("setting aside took %v", took)
			}
		}
		if got := r.Said("!2:test"); len(got) != 2 || !strings.Contains(got[0], "on the table") || !strings.Contains(got[1], "everywhere") {
			t.Errorf("the administrators were told %q", got)
		}
	})
}

const sorry = "Something went wrong here, and I could not do this. Those who run this service have been told."

// What was set aside is handled once the service is mended, and asked to.
func TestRetry(t *testing.T) {
	each(t, func(t *testing.T, url string) {
		var broken atomic.Bool
		broken.Store(true)
		r := kittest.Start(t, kittest.Options{Database: url, Open: func(ctx context.Context, c kit.Config) (kittest.Service, error) {
			s, err := kit.Open(ctx, c)
			if err != nil {
				return nil, err
			}
			s.On(event.EventMessage, func(tx *kit.Tx, ev *kit.Event) error {
				tx.Say(ev.RoomID, "got "+ev.Text())
				if broken.Load() {
					return errors.New("broken")
				}
				return nil
			})
			return s, nil
		}})
		alice := r.User("alice")
		room := alice.CreateRoom(r.Bot())
		r.Settle()
		alice.Say(room, "one")
		r.Settle()
		broken.Store(false)
		r.Kill()
		alice.Say(room, "two")
		r.Settle()
		n, err := r.Service().(*kit.Service).Retry(t.Context())
		if n != 1 || err != nil {
			t.Errorf("%d events are handled again, %v", n, err)
		}
		r.Settle()
		if got := r.Said(room); !slices.Equal(got, []string{sorry, "got two", "got one"}) {
			t.Errorf("the service said %q", got)
		}
	})
}
