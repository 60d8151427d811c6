package news

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"maunium.net/go/mautrix/id"

	"github.com/teahouse-chat/teahouse/appservices/kit"
	"github.com/teahouse-chat/teahouse/appservices/kit/kittest"
	"github.com/teahouse-chat/teahouse/appservices/news/feed"
	"github.com/teahouse-chat/teahouse/internal/db/dbtest"
	"github.com/teahouse-chat/teahouse/internal/dialer"
)

// web is the internet of a test: every public host name leads to its sites.
type web struct {
	address string

	mu    sync.Mutex
	sites map[string]http.HandlerFunc // by URL without the scheme
	asked map[string]int
}

func newWeb(t testing.TB) *web {
	t.Helper()
	w := &web{sites: map[string]http.HandlerFunc{}, asked: map[string]int{}}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: w}
	go func() { _ = srv.Serve(l) }()
	t.Cleanup(func() { _ = srv.Close() })
	w.address = l.Addr().String()
	return w
}

func (w *web) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	key := r.Host + r.URL.Path
	w.mu.Lock()
	h := w.sites[key]
	w.asked[key]++
	w.mu.Unlock()
	if h == nil {
		http.NotFound(rw, r)
		return
	}
	h(rw, r)
}

func (w *web) serve(key string, h http.HandlerFunc) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.sites[key] = h
}

// text serves a document.
func (w *web) text(key, text string) {
	w.serve(key, func(rw http.ResponseWriter, _ *http.Request) { _, _ = rw.Write([]byte(text)) })
}

func (w *web) times(key string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.asked[key]
}

// client reaches the sites by a dialer that judges addresses.
func (w *web) client() *http.Client {
	d := dialer.New(dialer.Options{
		Resolve: func(_ context.Context, host string) ([]netip.Addr, error) {
			switch host {
			case "nxdomain.example":
				return nil, &net.DNSError{Err: "no such host", Name: host, Server: "10.0.0.53:53", IsNotFound: true}
			case "inner.example":
				return []netip.Addr{netip.MustParseAddr("10.0.0.7")}, nil
			}
			return []netip.Addr{netip.MustParseAddr("9.9.9.9")}, nil
		},
		Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, w.address)
		},
	})
	return d.Client(dialer.ClientOptions{Timeout: feed.Timeout, MaxBody: feed.MaxBody, MaxRedirects: feed.MaxRedirects})
}

// rig is a homeserver and a web with the service between them.
type rig struct {
	*kittest.Rig
	t   *testing.T
	web *web
}

func start(t *testing.T, url string, seed uint64, faults kittest.Faults) *rig {
	w := newWeb(t)
	return &rig{kittest.Start(t, kittest.Options{Name: "news", Database: url, Seed: seed, Faults: faults, Open: func(ctx context.Context, c kit.Config) (kittest.Service, error) {
		return Open(ctx, c, Options{HTTP: w.client(), UserAgent: "test"})
	}}), t, w}
}

// both runs a test on both databases.
func both(t *testing.T, f func(t *testing.T, r *rig)) {
	t.Helper()
	for _, kind := range []string{"sqlite", "postgres"} {
		t.Run(kind, func(t *testing.T) { f(t, start(t, dbtest.EmptyURL(t, kind), 1, kittest.Faults{})) })
	}
}

// chat is a direct chat of somebody with the service.
func (r *rig) chat(name string) (*kittest.User, id.RoomID) {
	u := r.User(name)
	room := u.Direct(r.Bot())
	r.Settle()
	return u, room
}

// tell says something and gives what the service says to it.
func (r *rig) tell(u *kittest.User, room id.RoomID, text string) string {
	r.t.Helper()
	before := len(r.Said(room))
	u.Say(room, text)
	r.Settle()
	r.Pass(time.Millisecond) // for what was left to a job
	r.Settle()
	return strings.Join(r.Said(room)[before:], "\n")
}

// skip moves the clock at once, rather than from one thing that is due to the next.
func (r *rig) skip(d time.Duration) {
	r.t.Helper()
	r.Clock.Advance(d)
	r.Pass(time.Millisecond)
}

// until lets time pass until a time of the day, in UTC.
func (r *rig) until(hour, minute int) {
	now := r.Clock.Now().UTC()
	at := time.Date(now.Year(), now.Month(), now.Day(), hour, minute, 0, 0, time.UTC)
	if !at.After(now) {
		at = at.AddDate(0, 0, 1)
	}
	r.skip(at.Sub(now))
}

// person is somebody in a room with the service.
type person struct {
	r *rig
	*kittest.User
	room id.RoomID
}

func (p *person) tell(text string) string {
	p.r.t.Helper()
	return p.r.tell(p.User, p.room, text)
}

// count is how many messages of the service begin with a text.
func (p *person) count(text string) int {
	n := 0
	for _, said := range p.r.Said(p.room) {
		if strings.HasPrefix(said, text) {
			n++
		}
	}
	return n
}

// event is the message of the service that begins with a text.
func (p *person) event(text string) id.EventID {
	for _, ev := range p.r.Events(p.room) {
		if body, _ := ev.Content.Raw["body"].(string); ev.Sender == p.r.Bot() && strings.HasPrefix(body, text) {
			return ev.ID
		}
	}
	p.r.t.Fatalf("no message begins with %q", text)
	return ""
}

// item is an entry of a feed.
type item struct {
	id, title, text string
	link            string // "" for one by its id
	at              time.Time
}

// rss is a feed of the items, the newest first.
func rss(title string, items ...item) string {
	var b strings.Builder
	fmt.Fprintf(&b, `<rss version="2.0"><channel><title>%s</title><link>http://%s.example/</link>`, title, strings.ToLower(title))
	for _, i := range slices.Backward(items) {
		if i.link == "" {
			i.link = i.id
		}
		fmt.Fprintf(&b, "<item><guid>%s</guid><title>%s</title><link>/%s</link><description>%s</description>", i.id, i.title, i.link, i.text)
		if !i.at.IsZero() {
			fmt.Fprintf(&b, "<pubDate>%s</pubDate>", i.at.Format(time.RFC1123Z))
		}
		b.WriteString("</item>")
	}
	return b.String() + "</channel></rss>"
}
