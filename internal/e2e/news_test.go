package e2e

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"github.com/teahouse-chat/teahouse/internal/db/dbtest"
)

// paper is a feed on this machine, and a page that names it.
type paper struct {
	*httptest.Server
	mu    sync.Mutex
	items []string
}

func newPaper(t *testing.T) *paper {
	p := &paper{}
	p.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/" {
			w.Header().Set("Content-Type", "text/html")
			_, _ = w.Write([]byte(`<html><head><link rel="alternate" type="application/rss+xml" href="/feed.xml"></head><body>Tea`))
			return
		}
		p.mu.Lock()
		defer p.mu.Unlock()
		_, _ = w.Write([]byte(`<rss version="2.0"><channel><title>The Tea Paper</title><link>https://tea.example/</link>` + strings.Join(p.items, "") + `</channel></rss>`))
	}))
	t.Cleanup(p.Close)
	return p
}

// publish adds an entry, or changes the one with the same title.
func (p *paper) publish(title, text string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	item := fmt.Sprintf("<item><guid>%s</guid><title>%s</title><link>%s</link><description>%s</description><pubDate>%s</pubDate></item>",
		title, title, title, text, time.Now().UTC().Format(time.RFC1123Z))
	for i, had := range p.items {
		if strings.Contains(had, "<guid>"+title+"</guid>") {
			p.items[i] = item
			return
		}
	}
	p.items = append([]string{item}, p.items...)
}

// reader is somebody who talks with @news.
type reader struct {
	t      *testing.T
	client *mautrix.Client
	room   id.RoomID
}

// meet starts a direct chat with @news and waits until it is there.
func meet(t *testing.T, p *process, name string) *reader {
	t.Helper()
	r := &reader{t: t, client: register(t, p, name)}
	news := id.NewUserID("news", p.name)
	r.until("@news is there", func() bool { // a server sends a service nothing of the time before it knew it
		answer, err := r.client.GetDisplayName(t.Context(), news)
		return err == nil && answer.DisplayName == "News"
	})
	r.room = ok(r.client.CreateRoom(t.Context(), &mautrix.ReqCreateRoom{Invite: []id.UserID{news}, IsDirect: true, Preset: "trusted_private_chat"})).RoomID
	r.until("@news joins", func() bool {
		members, err := r.client.JoinedMembers(t.Context(), r.room)
		return err == nil && len(members.Joined) == 2
	})
	return r
}

func (r *reader) until(what string, ok func() bool) {
	r.t.Helper()
	for deadline := time.Now().Add(90 * time.Second); !ok(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			r.t.Fatalf("%s: it never happens", what)
		}
	}
}

// texts are what @news has said, the oldest first, edits not counted.
func (r *reader) texts() []string {
	var all []string
	for _, ev := range history(r.t, r.client, r.room) {
		m, ok := ev.Content.Parsed.(*event.MessageEventContent)
		if ok && ev.Sender != r.client.UserID && ev.Type == event.EventMessage && (m.RelatesTo == nil || m.RelatesTo.Type != event.RelReplace) {
			all = append([]string{m.Body}, all...)
		}
	}
	return all
}

// says tells @news something and waits for an answer that has a text.
func (r *reader) says(text, answer string) {
	r.t.Helper()
	before := len(r.texts())
	ok(r.client.SendText(r.t.Context(), r.room, text))
	r.until("an answer to "+text, func() bool {
		all := r.texts()
		return len(all) > before && strings.Contains(strings.Join(all[before:], "\n"), answer)
	})
}

// gets waits for an entry.
func (r *reader) gets(title string) {
	r.t.Helper()
	r.until("that "+title+" arrives", func() bool { return r.count(title) > 0 })
}

func (r *reader) count(title string) int {
	n := 0
	for _, text := range r.texts() {
		if strings.HasPrefix(text, title+" ") {
			n++
		}
	}
	return n
}

// file is the last file that @news has sent.
func (r *reader) file() id.EventID {
	for _, ev := range history(r.t, r.client, r.room) {
		if m, ok := ev.Content.Parsed.(*event.MessageEventContent); ok && m.MsgType == event.MsgFile {
			return ev.ID
		}
	}
	r.t.Fatal("@news has sent no file")
	return ""
}

// answers tells @news something as a reply.
func (r *reader) answers(to id.EventID, text, answer string) {
	r.t.Helper()
	m := &event.MessageEventContent{MsgType: event.MsgText, Body: text, RelatesTo: (&event.RelatesTo{}).SetReplyTo(to)}
	ok(r.client.SendMessageEvent(r.t.Context(), r.room, event.EventMessage, m))
	r.until("an answer to "+text, func() bool { return strings.Contains(strings.Join(r.texts(), "\n"), answer) })
}

// publishes has a broadcast room made, in which @news alone speaks.
func (r *reader) publishes(paper *paper) {
	r.t.Helper()
	r.says("publish "+paper.URL, "#news_")
	r.says("publish "+paper.URL, "#news_") // the same one
	all := r.texts()
	alias := all[len(all)-1][strings.Index(all[len(all)-1], "#news_"):]
	place := &reader{r.t, r.client, ok(r.client.JoinRoom(r.t.Context(), alias, nil)).RoomID}
	if _, err := r.client.SendText(r.t.Context(), place.room, "may I?"); !errors.Is(err, mautrix.MForbidden) {
		r.t.Errorf("somebody speaks in a broadcast room: %v", err)
	}
	list := ok(r.client.PublicRooms(r.t.Context(), nil))
	if len(list.Chunk) != 1 || list.Chunk[0].Name != "The Tea Paper" {
		r.t.Errorf("the directory has %+v", list.Chunk)
	}
	paper.publish("Four", "for everybody")
	place.gets("Four")
	r.gets("Four")
}

// asksForBob has somebody without power ask in another's room, and then that one.
func (r *reader) asksForBob(p *process, paper *paper) {
	r.t.Helper()
	bob := &reader{t: r.t, client: register(r.t, p, "bob")}
	news := id.NewUserID("news", p.name)
	bob.room = ok(bob.client.CreateRoom(r.t.Context(), &mautrix.ReqCreateRoom{Preset: "public_chat", Invite: []id.UserID{news}})).RoomID
	ok(r.client.JoinRoomByID(r.t.Context(), bob.room))
	r.until("@news joins", func() bool {
		members, err := r.client.JoinedMembers(r.t.Context(), bob.room)
		return err == nil && len(members.Joined) == 3
	})
	there := &reader{r.t, r.client, bob.room}
	there.says("!news follow "+paper.URL, "Only people who may change")
	bob.says("!news follow "+paper.URL, "is followed here now")
	there.says("!news list", "1. The Tea Paper")
}

// TestNews is a person's conversation with @news inside the server: they follow the
// feed of a page, its new entries arrive, each once, also those that were published
// while the server was killed.
func TestNews(t *testing.T) {
	for _, kind := range []string{"sqlite", "postgres"} {
		t.Run(kind, func(t *testing.T) {
			paper := newPaper(t)
			paper.publish("Old", "before anybody followed")
			p := startAs(t, kind, t.TempDir(), "localhost", "", fmt.Sprintf(
				"federation: {enabled: false}\nservices: {news: {enabled: true, database: %q, allow_addresses: [127.0.0.0/8], min_interval: 1s}}\n", dbtest.EmptyURL(t, kind)))
			alice := meet(t, p, "alice")
			alice.says("help", "follow")
			alice.says("follow http://127.0.0.1:1/", "found no feed")
			alice.says("follow "+paper.URL, "The Tea Paper is followed here now")
			alice.says("list", "The Tea Paper")
			paper.publish("One", "&lt;b&gt;bold&lt;/b&gt;&lt;script&gt;x&lt;/script&gt;")
			alice.gets("One")
			p.kill()
			paper.publish("Two", "while it was down")
			p.run()
			alice.gets("Two")
			p.kill()
			p.run()
			paper.publish("Three", "and on")
			alice.gets("Three")
			for title, want := range map[string]int{"Old": 0, "One": 1, "Two": 1, "Three": 1} {
				if got := alice.count(title); got != want {
					t.Errorf("%s came %d times: %q", title, got, alice.texts())
				}
			}
			alice.says("export", "news.opml")
			alice.answers(alice.file(), "import", "0 feeds are followed from now on; 1")
			alice.publishes(paper)
			alice.asksForBob(p, paper)
			alice.says("unfollow 1", "not followed any more")
			alice.says("取消关注 1", "没有关注")
		})
	}
}

// TestNewsProcess is the same service as a process of its own, which the server knows
// by its registration, and which is killed, too.
func TestNewsProcess(t *testing.T) {
	paper := newPaper(t)
	paper.publish("Old", "before anybody followed")
	dir, listen, measured, path := t.TempDir(), freeAddress(t, "127.0.0.1"), freeAddress(t, "127.0.0.1"), ok(binary())
	config, registration := filepath.Join(dir, "news.yaml"), filepath.Join(dir, "registration.yaml")
	write := func(homeserver string) {
		must(t, os.WriteFile(config, fmt.Appendf(nil,
			"server_name: localhost\nservices: {news: {homeserver: %q, listen: %q, allow_addresses: [127.0.0.0/8], min_interval: 1s, metrics: {address: %q}}}\n", homeserver, listen, measured), 0o600))
	}
	write("")
	must(t, os.WriteFile(registration, ok(exec.Command(path, "news", "--registration", "--config", config).Output()), 0o600))
	inside := freeAddress(t, "127.0.0.1") // where the metrics of the server are, which has such a service itself
	p := startAs(t, "sqlite", t.TempDir(), "localhost", "", fmt.Sprintf(
		"federation: {enabled: false}\nappservices: [%q]\nservices: {news: {enabled: true, user: feeds}}\nmetrics: {address: %q}\n", registration, inside))
	write(p.url)
	run := func() (kill func()) {
		cmd := exec.Command(path, "news", "--config", config)
		cmd.Stdout, cmd.Stderr = t.Output(), t.Output()
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		must(t, cmd.Start())
		return func() {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		}
	}
	kill := run()
	alice := meet(t, p, "alice")
	alice.says("follow "+paper.URL+"/feed.xml", "is followed here now")
	paper.publish("One", "first")
	alice.gets("One")
	kill()
	paper.publish("Two", "second")
	kill = run()
	defer kill()
	alice.gets("Two")
	if alice.count("One") != 1 || alice.count("Two") != 1 {
		t.Errorf("%q", alice.texts())
	}
	for address, service := range map[string]string{measured: "teahouse-news", inside: "teahouse-news-inside"} {
		answer := ok(http.Get("http://" + address + "/metrics"))
		text := string(ok(io.ReadAll(answer.Body)))
		_ = answer.Body.Close()
		for _, name := range []string{"inbox_events", "outbox_rows", "handler_seconds_count"} {
			if !strings.Contains(text, fmt.Sprintf("teahouse_service_%s{service=%q} ", name, service)) {
				t.Errorf("the metrics of %s lack %s", service, name)
			}
		}
	}
}
