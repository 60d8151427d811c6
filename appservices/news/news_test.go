package news

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"github.com/teahouse-chat/teahouse/appservices/news/feed"
)

// soon is when a feed that has published lately was surely looked at again.
const soon = time.Hour

// old is what a feed has before anybody follows it.
var old = item{id: "old", title: "Old"}

// The first conversation: somebody follows a feed, and its new entries come, each once.
func TestFollow(t *testing.T) {
	both(t, func(t *testing.T, r *rig) {
		r.web.text("tea.example/feed", rss("Tea", item{id: "1", title: "One"}))
		r.web.serve("tea.example/", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/html")
			_, _ = w.Write([]byte(`<link rel=alternate type=application/rss+xml href=/feed><link rel=alternate type=application/rss+xml title=More href=/more>`))
		})
		alice, room := r.chat("alice")
		for text, want := range map[string]string{
			"follow http://nowhere.example/": "found no feed", "follow ftp://tea.example/": "found no feed", "follow": "Please say: follow ADDRESS", "follow http://10.0.0.1/": "found no feed",
			"list": "Nothing is followed here yet", "unfollow 1": "not followed here", "unfollow": "Please say: unfollow", "unfollow \x00": "Please say: unfollow", "关注": "请说：关注 地址",
			"follow " + strings.Repeat("x", 60_000): "found no feed", "列表": "这里还没有关注",
		} {
			if got := r.tell(alice, room, text); !strings.Contains(got, want) {
				t.Errorf("%s: %q", text, got)
			}
		}
		if got := r.tell(alice, room, "follow http://tea.example"); !strings.Contains(got, "Tea is followed here now") || !strings.Contains(got, "One") || !strings.Contains(got, "More http://tea.example/more") {
			t.Fatalf("%q", got)
		}
		if got := r.tell(alice, room, "follow http://tea.example/feed"); !strings.Contains(got, "followed here already") {
			t.Errorf("%q", got)
		}
		if got := r.tell(alice, room, "list"); !strings.Contains(got, "1. Tea http://tea.example/feed") {
			t.Errorf("%q", got)
		}
		r.web.text("tea.example/feed", rss("Tea", item{id: "1", title: "One"}, item{id: "2", title: "Two", text: "&lt;b&gt;bold&lt;/b&gt;"}, item{id: "3", title: "Three"}))
		before := len(r.Said(room))
		r.skip(soon)
		r.Kill()
		r.skip(soon)
		if got := r.Said(room)[before:]; len(got) != 2 || !strings.HasPrefix(got[0], "Two http://tea.example/2\nbold") || !strings.HasPrefix(got[1], "Three") {
			t.Errorf("%q", got)
		}
		if got := r.tell(alice, room, "unfollow http://tea.example/feed"); !strings.Contains(got, "not followed any more") {
			t.Errorf("%q", got)
		}
		asked := r.web.times("tea.example/feed")
		r.skip(soon)
		if r.web.times("tea.example/feed") != asked {
			t.Error("a feed that nobody follows is fetched")
		}
	})
}

// follows has somebody follow feeds in a new direct chat.
func (r *rig) follows(name string, addresses ...string) *person {
	r.t.Helper()
	u, room := r.chat(name)
	p := &person{r, u, room}
	for _, a := range addresses {
		if got := p.tell("follow http://" + a); !strings.Contains(got, "is followed here now") {
			r.t.Fatalf("%q", got)
		}
	}
	return p
}

// Of a feed that is followed in many rooms there is one fetch; who leaves ends what the
// room follows.
func TestOneFetchForAll(t *testing.T) {
	both(t, func(t *testing.T, r *rig) {
		r.web.text("tea.example/", rss("Tea", old))
		alice, bob := r.follows("alice", "tea.example/"), r.follows("bob", "tea.example/")
		asked := r.web.times("tea.example/")
		if asked != 1 {
			t.Errorf("asked %d times for two rooms", asked)
		}
		r.web.text("tea.example/", rss("Tea", item{id: "1", title: "One"}))
		r.skip(soon)
		for _, p := range []*person{alice, bob} {
			if p.count("One ") != 1 {
				t.Errorf("%q", r.Said(p.room))
			}
		}
		alice.Kick(alice.room, r.Bot())
		r.Settle()
		r.web.text("tea.example/", rss("Tea", item{id: "1", title: "One"}, item{id: "2", title: "Two"}))
		r.skip(soon)
		if alice.count("Two ") != 0 || bob.count("Two ") != 1 {
			t.Errorf("%q %q", r.Said(alice.room), r.Said(bob.room))
		}
	})
}

// What a room does not want does not come, and comes when it wants it.
func TestSettings(t *testing.T) {
	both(t, func(t *testing.T, r *rig) {
		items := []item{old}
		publish := func(titles ...string) {
			for _, title := range titles {
				items = append(items, item{id: fmt.Sprint(len(items)), title: title, text: "text", at: r.Clock.Now()})
			}
			r.web.text("tea.example/", rss("Tea", items...))
		}
		publish()
		p := r.follows("alice", "tea.example/")
		for text, want := range map[string]string{
			"filter 1 oolong, green tea": "oolong, green tea", "mute coffee": "coffee", "filter 2 x": "2 is not followed", "digest noon": "no time of the day",
			"digest 8:00 Mars/Base": "no time zone", "quiet 22:00": "no time of the day", "quiet 7-7": "no time of the day",
		} {
			if got := p.tell(text); !strings.Contains(got, want) {
				t.Errorf("%s: %q", text, got)
			}
		}
		publish("Oolong", "Black", "Green tea and coffee", "Green tea")
		r.skip(soon)
		if p.count("Oolong") != 1 || p.count("Green tea ") != 1 || p.count("Black") != 0 || p.count("Green tea and") != 0 {
			t.Errorf("%q", r.Said(p.room))
		}
		p.tell("filter 1 off")
		p.tell("mute off")
		if got := p.tell("quiet 10:00-16:00 Asia/Shanghai"); !strings.Contains(got, "from 10:00 to 16:00 (Asia/Shanghai)") {
			t.Errorf("%q", got)
		}
		r.until(2, 30) // 10:30 in Shanghai
		publish("Quiet")
		r.skip(5 * time.Hour)
		if p.count("Quiet") != 0 {
			t.Error("it came in quiet hours")
		}
		r.skip(2 * time.Hour)
		if p.count("Quiet") != 1 {
			t.Errorf("%q", r.Said(p.room))
		}
		p.tell("quiet off")
		p.tell("digest 8:00 UTC")
		r.until(8, 30)
		publish("A", "B")
		r.skip(23 * time.Hour)
		if p.count("A") != 0 {
			t.Errorf("%q", r.Said(p.room))
		}
		r.skip(time.Hour)
		if got := r.Said(p.room); !strings.Contains(got[len(got)-1], "1. A http://tea.example/") || !strings.Contains(got[len(got)-1], "2. B") {
			t.Errorf("%q", got)
		}
		if got := p.tell("list"); !strings.Contains(got, "every day at 08:00 (UTC)") {
			t.Errorf("%q", got)
		}
	})
}

// A changed entry is edited, a few times; a feed that posts all anew is one list; one
// that makes up ids is nothing.
func TestOddFeeds(t *testing.T) {
	both(t, func(t *testing.T, r *rig) {
		r.web.text("tea.example/", rss("Tea", item{id: "0", title: "Zero"}))
		p := r.follows("alice", "tea.example/")
		for i := range 7 {
			r.web.text("tea.example/", rss("Tea", item{id: "1", title: "One", text: fmt.Sprint("version ", i)}))
			r.skip(soon)
		}
		if got := r.Said(p.room); p.count("One") != 1 || !strings.Contains(got[len(got)-1], fmt.Sprint("version ", maxEdits)) {
			t.Errorf("%q", got)
		}
		before := len(r.Said(p.room))
		for i := range 5 {
			r.web.text("tea.example/", rss("Tea", item{id: fmt.Sprint("made up ", i), link: "1", title: "One", text: fmt.Sprint("version ", i)}))
			r.skip(soon)
		}
		if got := r.Said(p.room)[before:]; len(got) != 0 {
			t.Errorf("made up ids come as %q", got)
		}
		var all []item
		for i := range 100 {
			all = append(all, item{id: fmt.Sprint("new ", i), title: fmt.Sprint("Story ", i)})
		}
		r.web.text("tea.example/", rss("Tea", all...))
		r.skip(soon)
		if got := r.Said(p.room)[before:]; len(got) != 4 || strings.Count(strings.Join(got, ""), ". Story ") != 100 {
			t.Errorf("100 entries at once come as %d messages", len(got))
		}
	})
}

// A feed that fails is told of once, is looked at ever more rarely, and comes back; one
// that is gone ends; one that moved is followed there.
func TestFailingFeeds(t *testing.T) {
	both(t, func(t *testing.T, r *rig) {
		for _, name := range []string{"tea", "gone", "old", "busy"} {
			r.web.text(name+".example/", rss(name, old))
		}
		p := r.follows("alice", "tea.example/", "gone.example/", "old.example/", "busy.example/")
		status := func(code int) http.HandlerFunc {
			return func(w http.ResponseWriter, r *http.Request) {
				if code == http.StatusTooManyRequests {
					w.Header().Set("Retry-After", "80000")
				}
				w.Header().Set("Location", "http://new.example/")
				w.WriteHeader(code)
			}
		}
		r.web.serve("tea.example/", status(500))
		r.web.serve("gone.example/", status(410))
		r.web.serve("old.example/", status(301))
		r.web.serve("busy.example/", status(429))
		r.web.text("new.example/", rss("New", old))
		asked := r.web.times("tea.example/")
		for range 12 {
			r.skip(6 * time.Hour)
		}
		if n := p.count("tea cannot be fetched"); n != 1 {
			t.Errorf("told %d times: %q", n, r.Said(p.room))
		}
		if n := r.web.times("tea.example/") - asked; n < 4 || n > 9 {
			t.Errorf("asked %d times in 3 days", n)
		}
		if n := r.web.times("busy.example/"); n > 10 {
			t.Errorf("the busy one was asked %d times", n)
		}
		if p.count("gone is gone for good") != 1 {
			t.Errorf("%q", r.Said(p.room))
		}
		if got := p.tell("list"); strings.Contains(got, "gone.example") || !strings.Contains(got, "New http://new.example/") || !strings.Contains(got, "HTTP 500") {
			t.Errorf("%q", got)
		}
		r.web.text("tea.example/", rss("tea", item{id: "1", title: "Back"}))
		r.web.text("new.example/", rss("New", item{id: "1", title: "Moved"}))
		r.skip(48 * time.Hour)
		if p.count("Back") != 1 || p.count("Moved") != 1 {
			t.Errorf("%q", r.Said(p.room))
		}
	})
}

// THREATS S1, S2: what is followed leads nowhere inside, whatever its site does, and
// costs no more than the caps.
func TestHostileFeeds(t *testing.T) {
	both(t, func(t *testing.T, r *rig) {
		r.web.text("tea.example/", rss("Tea", old))
		p := r.follows("alice", "tea.example/")
		for _, address := range []string{
			"http://127.0.0.1:8008/", "http://[::1]/", "http://169.254.169.254/latest/meta-data", "http://0.0.0.0/", "http://[::ffff:127.0.0.1]/", "file:///etc/passwd",
			"http://user:password@tea.example/", "http://10.0.0.7/feed",
		} {
			if got := p.tell("follow " + address); !strings.Contains(got, "found no feed") {
				t.Errorf("%s: %q", address, got)
			}
		}
		for _, to := range []string{"http://127.0.0.1:1/", "http://10.0.0.7/", "http://tea.example/"} {
			r.web.serve("tea.example/", func(w http.ResponseWriter, q *http.Request) { http.Redirect(w, q, to, http.StatusMovedPermanently) })
			r.skip(2 * soon)
		}
		r.web.serve("tea.example/", func(w http.ResponseWriter, q *http.Request) {
			_, _ = w.Write([]byte(`<rss version="2.0"><channel><title>Tea</title>`))
			for q.Context().Err() == nil {
				if _, err := w.Write([]byte(strings.Repeat("<item><title>endless</title></item>", 1000))); err != nil {
					return
				}
			}
		})
		r.skip(4 * soon)
		r.web.text("tea.example/", rss("&lt;script&gt;alert(1)&lt;/script&gt;Tea", item{id: "1", title: "&lt;img src=x onerror=alert(1)&gt;Hi",
			text: "&lt;script&gt;alert(1)&lt;/script&gt;&lt;a href=&quot;javascript:alert(1)&quot;&gt;x&lt;/a&gt;&lt;img src=&quot;http://track.example/&quot;&gt;&lt;b onclick=x&gt;b&lt;/b&gt;"}))
		r.skip(48 * time.Hour)
		found := false
		for _, ev := range r.Events(p.room) {
			if m, ok := ev.Content.Parsed.(*event.MessageEventContent); ok || ev.Type == event.EventMessage {
				html, _ := ev.Content.Raw["formatted_body"].(string)
				if ok {
					html = m.FormattedBody
				}
				for _, bad := range []string{"<script", "<img", "onclick", "javascript:", "track.example"} {
					if strings.Contains(html, bad) {
						t.Errorf("%s", html)
					}
				}
				found = found || strings.Contains(html, "<b>b</b>")
			}
		}
		if !found || p.count("endless") > 0 {
			t.Errorf("%q", r.Said(p.room))
		}
	})
}

// In a room with others only those change what it follows who may change its state.
func TestPermission(t *testing.T) {
	both(t, func(t *testing.T, r *rig) {
		r.web.text("tea.example/", rss("Tea", old))
		alice, bob := r.User("alice"), r.User("bob")
		room := alice.CreateRoom(r.Bot(), bob.ID)
		bob.Join(room)
		alice.SetState(room, event.StatePowerLevels, "", map[string]any{"users": map[string]int{string(alice.ID): 100}, "state_default": 50})
		r.Settle()
		for _, text := range []string{"!news follow http://tea.example/", "!news mute x", "!news digest 8:00 UTC", "!news import http://tea.example/"} {
			if got := r.tell(bob, room, text); !strings.Contains(got, "Only people who may change") {
				t.Errorf("%s: %q", text, got)
			}
		}
		if got := r.tell(bob, room, "follow http://tea.example/"); got != "" {
			t.Errorf("what was said to others is answered: %q", got)
		}
		if got := r.tell(alice, room, "!news follow http://tea.example/"); !strings.Contains(got, "is followed here now") {
			t.Errorf("%q", got)
		}
		if got := r.tell(bob, room, "!news unfollow 1"); !strings.Contains(got, "Only people who may change") {
			t.Errorf("%q", got)
		}
		if got := r.tell(bob, room, "!news list"); !strings.Contains(got, "1. Tea") {
			t.Errorf("%q", got)
		}
		if got := r.tell(bob, room, "!news saved"); !strings.Contains(got, "in a direct chat only") {
			t.Errorf("%q", got)
		}
		if got := r.tell(alice, room, "!news unfollow 1"); !strings.Contains(got, "not followed any more") {
			t.Errorf("%q", got)
		}
	})
}

// Reactions rank, and keep what people want to have.
func TestTopAndSaved(t *testing.T) {
	both(t, func(t *testing.T, r *rig) {
		r.web.text("tea.example/", rss("Tea", old))
		p := r.follows("alice", "tea.example/")
		r.web.text("tea.example/", rss("Tea", item{id: "1", title: "One"}, item{id: "2", title: "Two"}, item{id: "3", title: "Three"}))
		r.skip(soon)
		if got := p.tell("top"); !strings.Contains(got, "Nobody has reacted") {
			t.Errorf("%q", got)
		}
		bob := r.User("bob")
		bob.Join(p.room)
		two, three := p.event("Two"), p.event("Three")
		_, own := r.chat("alice")
		mine := &person{r, p.User, own}
		p.React(p.room, three, "👍")
		p.React(p.room, three, "❤️")
		p.React(p.room, two, "👍")
		bob.React(p.room, two, "👍")
		taken := bob.React(p.room, three, "👍")
		bob.Redact(p.room, taken)
		p.React(p.room, p.event("One"), "🔖")
		r.Settle()
		got := p.tell("!news top") // they are not alone there any more
		if !strings.Contains(got, "1. Two") || !strings.Contains(got, "2. Three") || !strings.Contains(got, "(Tea, +2)") || strings.Contains(got, "One") {
			t.Errorf("%q", got)
		}
		p.Reply(p.room, two, "!news save")
		r.Settle()
		if got := mine.tell("saved"); !strings.Contains(got, "One http://tea.example/1") || !strings.Contains(got, "Two") || strings.Contains(got, "Three") {
			t.Errorf("%q", got)
		}
		if got := mine.tell("save"); !strings.Contains(got, "🔖") {
			t.Errorf("%q", got)
		}
		r.skip(8 * 24 * time.Hour)
		if got := p.tell("!news top"); !strings.Contains(got, "Nobody has reacted") {
			t.Errorf("after a week: %q", got)
		}
	})
}

// A list of feeds is followed as a whole, from a file or from the web, and is given out
// again.
func TestLists(t *testing.T) {
	both(t, func(t *testing.T, r *rig) {
		var links []feed.Link
		for i := range 20 {
			links = append(links, feed.Link{URL: fmt.Sprintf("http://feed%d.example/", i), Title: fmt.Sprint("Feed ", i)})
			r.web.text(fmt.Sprintf("feed%d.example/", i), rss(fmt.Sprint("Feed ", i), item{id: "1", title: "Old"}))
		}
		r.web.text("list.example/", string(feed.WriteOPML("list", links)))
		r.web.text("bad.example/", "<html>")
		u, room := r.chat("alice")
		p := &person{r, u, room}
		for text, want := range map[string]string{"import http://bad.example/": "no list of feeds", "import http://10.0.0.1/": "no list of feeds", "import": "Please say: import"} {
			if got := p.tell(text); !strings.Contains(got, want) {
				t.Errorf("%s: %q", text, got)
			}
		}
		if got := p.tell("import http://list.example/"); !strings.Contains(got, "20 feeds are followed") {
			t.Fatalf("%q", got)
		}
		long := append(feed.WriteOPML("list", links), strings.Repeat(" ", maxListFile)...) // THREATS S2
		if got := p.tell("import " + string(u.Upload("text/xml", long))); !strings.Contains(got, "no list of feeds") {
			t.Errorf("%q", got)
		}
		if got := p.tell("import " + string(u.Upload("text/xml", feed.WriteOPML("list", links)))); !strings.Contains(got, "0 feeds are followed from now on; 20") {
			t.Errorf("%q", got)
		}
		r.skip(soon)
		if p.count("Old") != 0 {
			t.Error("what was there before comes")
		}
		for i := range 20 {
			r.web.text(fmt.Sprintf("feed%d.example/", i), rss(fmt.Sprint("Feed ", i), item{id: "1", title: "Old"}, item{id: "2", title: fmt.Sprint("New", i)}))
		}
		r.skip(soon)
		all := strings.Join(r.Said(room), "\n")
		for i := range 20 {
			if n := strings.Count(all, fmt.Sprintf("New%d ", i)); n != 1 {
				t.Errorf("New%d came %d times", i, n)
			}
		}
		p.tell("export")
		last := r.Events(room)
		if text := fmt.Sprint(last[len(last)-1].Content.Raw["url"]); !strings.HasPrefix(text, "mxc://") {
			t.Errorf("%v", last[len(last)-1].Content.Raw)
		}
	})
}

// The catalogue speaks both languages, and its texts take the same arguments.
func TestCatalogue(t *testing.T) {
	for key, c := range catalogue {
		for _, verb := range []string{"%s", "%d", "%[1]s", "%[2]s", "%[3]s"} {
			if strings.Count(c.en, verb) != strings.Count(c.zh, verb) {
				t.Errorf("%s: %q and %q", key, c.en, c.zh)
			}
		}
		if c.en == "" || c.zh == "" {
			t.Errorf("%s lacks a language", key)
		}
	}
}

// A list of feeds that is just sent is followed in a direct chat; in a room it is sent
// with the command, or the command replies to it.
func TestListFiles(t *testing.T) {
	both(t, func(t *testing.T, r *rig) {
		file := func(name string) []byte {
			r.web.text(name+".example/", rss(name, old))
			return feed.WriteOPML("list", []feed.Link{{URL: "http://" + name + ".example/", Title: name}})
		}
		alice, room := r.chat("alice")
		send := func(in id.RoomID, body []byte, caption string) string {
			before := len(r.Said(in))
			alice.File(in, "feeds.opml", body, caption)
			r.Settle()
			r.Pass(time.Millisecond)
			r.Settle()
			return strings.Join(r.Said(in)[before:], "\n")
		}
		for caption, name := range map[string]string{"": "a", "import": "b", "!news import": "c", "my feeds": "d"} {
			if got := send(room, file(name), caption); !strings.Contains(got, "1 feeds are followed") {
				t.Errorf("%q: %q", caption, got)
			}
		}
		if got := send(room, []byte("hello"), ""); !strings.Contains(got, "it is no OPML list") {
			t.Errorf("%q", got)
		}
		group := alice.CreateRoom(r.Bot())
		r.User("bob").Join(group)
		r.levels(alice, group, 0)
		if got := send(group, file("e"), "") + send(group, file("f"), "import"); got != "" {
			t.Errorf("%q", got)
		}
		if got := send(group, file("g"), "!news import"); !strings.Contains(got, "1 feeds are followed") {
			t.Errorf("%q", got)
		}
		sent := alice.File(group, "feeds.opml", file("h"), "")
		alice.Reply(group, sent, "!news import")
		r.Settle()
		r.Pass(time.Millisecond)
		r.Settle()
		if got := r.tell(alice, group, "!news list"); !strings.Contains(got, "2. h") || strings.Contains(got, "3.") {
			t.Errorf("%q", got)
		}
	})
}
