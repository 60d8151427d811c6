package news

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"github.com/teahouse-chat/teahouse/appservices/kit/kittest"
)

// levels sets who may speak in a room: everybody, or only its maker.
func (r *rig) levels(maker *kittest.User, room id.RoomID, speak int) {
	maker.SetState(room, event.StatePowerLevels, "", map[string]any{
		"users": map[string]int{string(maker.ID): 100}, "state_default": 50, "events_default": speak,
	})
	r.Settle()
}

// asides is what the service says to somebody anywhere but in a room.
func (r *rig) asides(u *kittest.User, but id.RoomID) string {
	var all []string
	for _, room := range r.Rooms() {
		for _, ev := range r.Events(room) {
			if room != but && ev.Type == event.StateMember && ev.GetStateKey() == string(u.ID) {
				all = append(all, r.Said(room)...)
				break
			}
		}
	}
	return strings.Join(all, "\n")
}

// Where the service may not speak nothing is followed, and who asked is told elsewhere.
func TestFollowWhereMute(t *testing.T) {
	both(t, func(t *testing.T, r *rig) {
		r.web.text("tea.example/", rss("Tea", old))
		alice := r.User("alice")
		room := alice.CreateRoom(r.Bot())
		r.User("bob").Join(room)
		r.levels(alice, room, 50)
		for _, text := range []string{"!news follow http://tea.example/", "!news import http://tea.example/", "!news 关注 http://tea.example/"} {
			before := len(r.asides(alice, room))
			r.tell(alice, room, text)
			if got := r.asides(alice, room)[before:]; !strings.Contains(got, "may not write") && !strings.Contains(got, "不能发言") {
				t.Errorf("%s: %q", text, got)
			}
		}
		r.tell(alice, room, "!news mute coffee")
		if got := r.asides(alice, room); !strings.Contains(got, "mentions one of these: coffee") {
			t.Errorf("%q", got)
		}
		r.levels(alice, room, 0)
		if got := r.tell(alice, room, "!news list"); strings.Contains(got, "tea.example") {
			t.Errorf("%q", got)
		}
		if got := r.tell(alice, room, "!news follow http://tea.example/"); !strings.Contains(got, "is followed here now") {
			t.Errorf("%q", got)
		}
	})
}

// What cannot be sent because the service lost its voice comes once it has it again,
// each entry once; who followed is told once.
func TestMutedMeanwhile(t *testing.T) {
	both(t, func(t *testing.T, r *rig) {
		items := []item{old}
		publish := func(title string) {
			items = append(items, item{id: fmt.Sprint(len(items)), title: title})
			r.web.text("tea.example/", rss("Tea", items...))
			r.skip(2 * soon)
		}
		r.web.text("tea.example/", rss("Tea", items...))
		alice := r.User("alice")
		room := alice.CreateRoom(r.Bot())
		r.User("bob").Join(room)
		r.levels(alice, room, 0)
		p := &person{r, alice, room}
		p.tell("!news follow http://tea.example/")
		publish("One")
		r.levels(alice, room, 50)
		publish("Two")
		publish("Three")
		r.Kill()
		r.skip(30 * time.Hour)
		if p.count("One") != 1 || p.count("Two") != 0 {
			t.Fatalf("%q", r.Said(room))
		}
		if got := r.asides(alice, room); strings.Count(got, "may not write") != 1 {
			t.Errorf("%q", got)
		}
		r.levels(alice, room, 0)
		r.skip(time.Minute)
		publish("Four")
		for _, title := range []string{"One", "Two", "Three", "Four"} {
			if n := p.count(title); n != 1 {
				t.Errorf("%s came %d times: %q", title, n, r.Said(room))
			}
		}
	})
}

// Who was banned comes back to nothing: what the room followed has ended.
func TestBanned(t *testing.T) {
	both(t, func(t *testing.T, r *rig) {
		r.web.text("tea.example/", rss("Tea", old))
		p := r.follows("alice", "tea.example/")
		p.SetState(p.room, event.StateMember, string(r.Bot()), map[string]any{"membership": "ban"})
		r.Settle()
		r.web.text("tea.example/", rss("Tea", old, item{id: "1", title: "One"}))
		asked := r.web.times("tea.example/")
		r.skip(24 * time.Hour)
		if r.web.times("tea.example/") != asked {
			t.Error("a feed that nobody follows is fetched")
		}
		p.Invite(p.room, r.Bot())
		r.Settle()
		if got := p.tell("list"); !strings.Contains(got, "Nothing is followed") {
			t.Errorf("%q", got)
		}
	})
}

// THREATS S1: nothing is told of the inner network. What is forbidden is answered as
// what is not there.
func TestProblemsTellNothing(t *testing.T) {
	both(t, func(t *testing.T, r *rig) {
		u, room := r.chat("alice")
		p := &person{r, u, room}
		r.web.serve("broken.example/", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTeapot) })
		r.web.serve("large.example/", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(make([]byte, 5<<20)) })
		r.web.serve("away.example/", func(w http.ResponseWriter, q *http.Request) {
			http.Redirect(w, q, "http://127.0.0.1/", http.StatusFound)
		})
		r.web.text("page.example/", "<html>hello</html>")
		nowhere := p.tell("follow http://nxdomain.example/")
		if !strings.Contains(nowhere, "cannot be reached") {
			t.Errorf("%q", nowhere)
		}
		for _, host := range []string{"127.0.0.1", "10.0.0.7:22", "inner.example", "[fe80::1]", "away.example"} {
			got := p.tell("follow http://" + host + "/")
			if strings.ReplaceAll(got, "http://"+host+"/", "http://nxdomain.example/") != nowhere {
				t.Errorf("%s: %q", host, got)
			}
			if got := p.tell("import http://" + host + "/"); !strings.Contains(got, "cannot be reached") || strings.Contains(got, "dial") || strings.Contains(got, "127.0") {
				t.Errorf("%s: %q", host, got)
			}
		}
		for text, want := range map[string]string{
			"follow http://broken.example/": "HTTP 418", "follow http://large.example/": "too large", "follow http://page.example/": "it is no feed",
			"follow https://page.example/": "no secure connection",
		} {
			if got := p.tell(text); !strings.Contains(got, want) {
				t.Errorf("%s: %q", text, got)
			}
		}
		p.tell("language zh")
		if got := p.tell("follow http://127.0.0.1/"); !strings.Contains(got, "无法访问") {
			t.Errorf("%q", got)
		}
	})
}

// What is refused though the service may speak is tried a few times, over hours, and then
// given up; the rest comes at once, but not in quiet hours.
func TestRefusedForItself(t *testing.T) {
	both(t, func(t *testing.T, r *rig) {
		items := []item{old}
		publish := func(titles ...string) {
			for _, title := range titles {
				items = append(items, item{id: fmt.Sprint(len(items)), title: title})
			}
			r.web.text("tea.example/", rss("Tea", items...))
			r.skip(2 * soon)
		}
		r.web.text("tea.example/", rss("Tea", items...))
		p := r.follows("alice", "tea.example/")
		r.Forbid("Swear")
		publish("One", "Swearing", "Two")
		r.skip(time.Minute)
		for range 3 {
			r.skip(7 * time.Hour)
		}
		publish("Three")
		r.Forbid("")
		r.skip(24 * time.Hour)
		for title, want := range map[string]int{"One": 1, "Two": 1, "Three": 1, "Swearing": 0, "I may not write": 0} {
			if n := p.count(title); n != want {
				t.Errorf("%s came %d times: %q", title, n, r.Said(p.room))
			}
		}
		p.tell("quiet 1:00-20:00")
		r.until(21, 30)
		r.Forbid("Late")
		publish("Late")
		r.Forbid("")
		r.until(10, 0)
		r.skip(time.Minute)
		if p.count("Late") != 0 {
			t.Error("what was refused comes in quiet hours")
		}
		r.until(20, 1)
		if p.count("Late") != 1 {
			t.Errorf("%q", r.Said(p.room))
		}
	})
}
