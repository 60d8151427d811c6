package news

import (
	"fmt"
	"strings"
	"testing"

	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"github.com/teahouse-chat/teahouse/appservices/kit/kittest"
)

// THREATS A15: people of the service's own server have a few broadcast rooms each, and
// close them again.
func TestPublish(t *testing.T) {
	both(t, func(t *testing.T, r *rig) {
		for i := range 7 {
			r.web.text(fmt.Sprintf("feed%d.example/", i), rss(fmt.Sprint("Feed", i), old))
		}
		u, room := r.chat("alice")
		p := &person{r, u, room}
		bob, with := r.chat("bob")
		got := p.tell("publish http://feed0.example/")
		_, alias, found := strings.Cut(got, "only I speak: ")
		if !found {
			t.Fatalf("%q", got)
		}
		made := r.Rooms()[len(r.Rooms())-1]
		bob.Join(made)
		r.web.text("feed0.example/", rss("Feed0", old, item{id: "1", title: "One"}))
		r.skip(soon)
		if got := r.Said(made); len(got) != 1 || !strings.HasPrefix(got[0], "One") {
			t.Errorf("%q", got)
		}
		for _, c := range []struct{ name, text, want string }{
			{"bob", "unpublish " + alias, "Only who had me make"}, {"bob", "unpublish http://feed5.example/", "no public room for"}, {"alice", "unpublish", "Please say: unpublish ADDRESS"},
			{"alice", "unpublish http://feed0.example/", "is closed"}, {"alice", "unpublish " + alias, "no public room for"},
		} {
			who, in := u, room
			if c.name == "bob" {
				who, in = bob, with
			}
			if got := r.tell(who, in, c.text); !strings.Contains(got, c.want) {
				t.Errorf("%s: %q", c.text, got)
			}
		}
		if got := r.Said(made); len(got) != 2 || !strings.Contains(got[1], "This room is closed") || len(r.Members(made)) != 1 {
			t.Errorf("%q, with %v", got, r.Members(made))
		}
		asked := r.web.times("feed0.example/")
		r.skip(soon)
		if r.web.times("feed0.example/") != asked {
			t.Error("a feed that nobody follows is fetched")
		}
		for i := 1; i < 7; i++ { // the closed one counts for a day
			want := "a room of its own"
			if i >= maxPublished {
				want = "5 public rooms"
			}
			if got := p.tell(fmt.Sprintf("publish http://feed%d.example/", i)); !strings.Contains(got, want) {
				t.Errorf("%d: %q", i, got)
			}
		}
		stranger := &kittest.User{}
		*stranger = *bob
		stranger.ID = id.NewUserID("bob", "elsewhere")
		far := stranger.Direct(r.Bot())
		r.Settle()
		if got := r.tell(stranger, far, "publish http://feed6.example/"); !strings.Contains(got, "Only people of test") {
			t.Errorf("%q", got)
		}
	})
}

// A reaction with a number counts for that entry of a list, and no other one does.
func TestTopOfLists(t *testing.T) {
	both(t, func(t *testing.T, r *rig) {
		r.web.text("tea.example/", rss("Tea", old))
		r.web.text("milk.example/", rss("Milk", old))
		p := r.follows("alice", "tea.example/", "milk.example/")
		p.tell("digest 9:00 UTC")
		r.web.text("tea.example/", rss("Tea", old, item{id: "1", title: "One"}, item{id: "2", title: "Two"}))
		r.web.text("milk.example/", rss("Milk", old, item{id: "3", title: "Three"}))
		r.until(9, 1)
		r.skip(24 * 3600e9)
		list := r.LastMessage(p.room)
		said := r.Said(p.room)[len(r.Said(p.room))-1]
		if !strings.Contains(said, "1. ") || !strings.Contains(said, "3. ") {
			t.Fatalf("%q", said)
		}
		p.React(p.room, list, "👍")
		r.Settle()
		if got := p.tell("top"); !strings.Contains(got, "react with an entry's number") {
			t.Errorf("%q", got)
		}
		p.React(p.room, list, "2️⃣")
		p.React(p.room, list, "31")
		r.Settle()
		_, line, _ := strings.Cut(said, "\n2. ")
		line, _, _ = strings.Cut(line, "\n")
		if got := p.tell("top"); !strings.Contains(got, "1. "+line+" (") || strings.Contains(got, "2. ") {
			t.Errorf("%q of %q", got, said)
		}
		for _, ev := range r.Events(p.room) {
			if ev.ID == list && ev.Type == event.EventMessage {
				if html := fmt.Sprint(ev.Content.Raw["formatted_body"]); !strings.Contains(html, `<ol start="1">`) {
					t.Error(html)
				}
			}
		}
	})
}
