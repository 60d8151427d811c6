package news

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"maunium.net/go/mautrix/event"
)

// An entry without a title, as those of microblogs, is its text as it is formatted, with
// the link below; a feed without a title is told by its host.
func TestUntitled(t *testing.T) {
	both(t, func(t *testing.T, r *rig) {
		untitled := func(items ...item) {
			r.web.text("toots.example/@a.rss", strings.Replace(rss("Toots", items...), "<title>Toots</title>", "<title></title>", 1))
		}
		untitled(item{id: "0", text: "zero"})
		u, room := r.chat("alice")
		p := &person{r, u, room}
		if got := p.tell("follow http://toots.example/@a.rss"); strings.Contains(got, "  ") || !strings.Contains(got, "The latest so far: http://toots.example/0") {
			t.Errorf("%q", got)
		}
		long := strings.Repeat("word ", 40) + "end"
		untitled(item{id: "0", text: "zero"}, item{id: "1", text: "&lt;p&gt;" + long + " &lt;b&gt;bold&lt;/b&gt;&lt;/p&gt;&lt;p&gt;Second&lt;/p&gt;"})
		r.skip(soon)
		last := r.Events(room)[len(r.Events(room))-1].Content.Raw
		body, formatted := fmt.Sprint(last["body"]), fmt.Sprint(last["formatted_body"])
		if !strings.HasPrefix(body, long+" bold\n") || !strings.Contains(body, "Second\nhttp://toots.example/1\n") || !strings.HasSuffix(body, "— toots.example") {
			t.Errorf("%q", body)
		}
		if !strings.Contains(formatted, "<b>bold</b>") || !strings.Contains(formatted, `<a href="http://toots.example/1">`) || !strings.Contains(formatted, "<i>toots.example</i>") {
			t.Errorf("%q", formatted)
		}
		if mentions, ok := last["m.mentions"].(map[string]any); !ok || len(mentions) > 0 {
			t.Errorf("m.mentions: %v", last["m.mentions"])
		}
		p.React(room, r.LastMessage(room), "👍")
		r.Settle()
		if got := p.tell("top"); !strings.Contains(got, "(toots.example, +1)") || !strings.Contains(got, "1. word word") {
			t.Errorf("%q", got)
		}
	})
}

// A list and what is sent besides is in the language that was chosen last.
func TestLanguageOfTheRoom(t *testing.T) {
	both(t, func(t *testing.T, r *rig) {
		r.web.text("tea.example/", rss("Tea", old))
		p := r.follows("alice", "tea.example/")
		p.tell("language zh")
		p.tell("摘要 9:00")
		r.web.text("tea.example/", rss("Tea", old, item{id: "1", title: "One"}))
		r.until(9, 1)
		r.skip(25 * time.Hour)
		if p.count("新闻\n") != 1 || p.count("News\n") != 0 {
			t.Errorf("%q", r.Said(p.room))
		}
		group := p.CreateRoom(r.Bot())
		bob := r.User("bob")
		bob.Join(group)
		r.levels(p.User, group, 0)
		r.tell(p.User, group, "!news follow http://tea.example/")
		r.tell(bob, group, "!news language en")
		r.tell(p.User, group, "!news 摘要 9:00")
		r.web.text("tea.example/", rss("Tea", old, item{id: "1", title: "One"}, item{id: "2", title: "Two"}))
		r.skip(8 * time.Hour)
		r.skip(25 * time.Hour)
		if got := strings.Join(r.Said(group), "\n"); strings.Contains(got, "News\n") || !strings.Contains(got, "新闻\n") {
			t.Errorf("who may not change a room changed its language: %q", got)
		}
	})
}

// A room that all people left is left, and nothing is fetched for it any more; so is a
// direct chat.
func TestDeserted(t *testing.T) {
	both(t, func(t *testing.T, r *rig) {
		r.web.text("tea.example/", rss("Tea", old))
		p := r.follows("alice", "tea.example/")
		bob := r.User("bob")
		group := p.CreateRoom(r.Bot())
		bob.Join(group)
		r.levels(p.User, group, 0)
		r.tell(p.User, group, "!news follow http://tea.example/")
		p.Leave(p.room)
		p.Leave(group)
		r.Settle()
		if len(r.Members(group)) != 2 || len(r.Members(p.room)) != 0 {
			t.Errorf("%v %v", r.Members(group), r.Members(p.room))
		}
		bob.Leave(group)
		r.Settle()
		asked := r.web.times("tea.example/")
		r.skip(24 * time.Hour)
		if len(r.Members(group)) != 0 || r.web.times("tea.example/") != asked {
			t.Errorf("%v; asked %d times", r.Members(group), r.web.times("tea.example/")-asked)
		}
	})
}

// A headline is no command, even if it begins with the service's name.
func TestHeadline(t *testing.T) {
	both(t, func(t *testing.T, r *rig) {
		alice, bob := r.User("alice"), r.User("bob")
		group := alice.CreateRoom(r.Bot())
		bob.Join(group)
		r.Settle()
		for _, text := range []string{"News: the meeting moved to 5", "news: gone"} {
			if got := r.tell(alice, group, text); got != "" {
				t.Errorf("%s: %q", text, got)
			}
		}
		for _, text := range []string{"!news gone", "@news gone", "@news: gone", "@news:test gone"} {
			if got := r.tell(alice, group, text); !strings.Contains(got, "don't know") {
				t.Errorf("%s: %q", text, got)
			}
		}
		before := len(r.Said(group))
		alice.Send(group, event.EventMessage, map[string]any{"msgtype": "m.text", "body": "news: gone", "m.mentions": map[string]any{"user_ids": []string{string(r.Bot())}}})
		r.Settle()
		if len(r.Said(group)) != before+1 {
			t.Error("a mention is not answered")
		}
		if got := r.tell(alice, group, "news: list"); !strings.Contains(got, "Nothing is followed") {
			t.Errorf("%q", got)
		}
	})
}

// A direct chat that somebody else comes to is told, once, how to speak from now on.
func TestCrowded(t *testing.T) {
	both(t, func(t *testing.T, r *rig) {
		u, room := r.chat("alice")
		p := &person{r, u, room}
		p.tell("language zh")
		p.Invite(room, r.User("bob").ID)
		r.User("bob").Join(room)
		r.User("carol").Join(room)
		r.Settle()
		if p.count("这里不再只有我们两人") != 1 {
			t.Errorf("%q", r.Said(room))
		}
		if got := p.tell("list"); got != "" {
			t.Errorf("%q", got)
		}
	})
}
