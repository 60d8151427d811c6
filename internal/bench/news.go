package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"
)

// newsFeeds measures the news service inside a server of its own: how long a sweep of
// all feeds takes, with a site on this machine, and the memory of the whole process.
func newsFeeds(ctx context.Context, b *bench) (err error) {
	fresh, err := b.another("")
	if err != nil {
		return err
	}
	site, err := newSite(b.n(10_000, 200))
	if err != nil {
		return err
	}
	defer site.close()
	interval := time.Duration(b.n(120, 5)) * time.Second
	if err := fresh.configure(fmt.Sprintf("federation: {enabled: false}\nservices: {news: {enabled: true, allow_addresses: [127.0.0.0/8], min_interval: %s}}\n", interval)); err != nil {
		return err
	}
	if _, err := fresh.start(ctx); err != nil {
		return err
	}
	other := &bench{opts: b.opts, server: fresh, scenario: b.scenario}
	for range b.connections() {
		other.conns = append(other.conns, &conn{address: fresh.address})
	}
	n := &newsBench{bench: other, site: site}
	err = n.measure(ctx)
	b.figures = append(b.figures, other.figures...)
	if stopErr := fresh.stop(); err == nil {
		err = stopErr
	}
	return err
}

type newsBench struct {
	*bench
	site  *site
	rooms []*room
}

// perRoom is how many feeds a room follows, and each feed is followed in five rooms.
const perRoom = 100

func (n *newsBench) measure(ctx context.Context) error {
	users, err := n.people(ctx, 1)
	if err != nil {
		return err
	}
	n.rooms = make([]*room, n.site.count*5/perRoom)
	if _, err := n.all(ctx, len(n.rooms), func(c *conn, i int) (err error) {
		n.rooms[i], err = n.chat(c, users[0])
		return err
	}); err != nil {
		return err
	}
	began, cpu := time.Now(), n.server.cpu()
	if _, err := n.all(ctx, len(n.rooms), func(c *conn, i int) error {
		body := fmt.Appendf(nil, `{"msgtype":"m.text","body":"import http://%s/list/%d"}`, n.site.address(), i)
		_, err := c.do("PUT", fmt.Sprintf("%s/send/m.room.message/i%d", n.rooms[i].path(), i), users[0].token, body)
		return err
	}); err != nil {
		return err
	}
	if err := n.site.wait(ctx, 0); err != nil {
		return err
	}
	n.cost(fmt.Sprintf("%d feeds followed %d times, until all are fetched", n.site.count, len(n.rooms)*perRoom), time.Since(began).Seconds(), "s", 900)
	n.note("CPU a feed, with following it", ms(n.server.cpu()-cpu)/float64(n.site.count), "ms")
	peak, err := n.server.peak()
	if err != nil {
		return err
	}
	n.cost("largest memory of homeserver and news so far", peak, "MB", 300)
	return n.again(ctx, users[0])
}

// again has every tenth feed publish something, and waits until all were looked at once
// more and the entries are in the rooms.
func (n *newsBench) again(ctx context.Context, u user) error {
	began, cpu := time.Now(), n.server.cpu()
	n.site.publish()
	if err := n.site.wait(ctx, 1); err != nil {
		return err
	}
	n.cost("the next sweep, with the interval", time.Since(began).Seconds(), "s", 900)
	n.note("CPU a feed that was looked at again", ms(n.server.cpu()-cpu)/float64(n.site.count), "ms")
	want := n.site.count / 10 * 5
	c := &conn{address: n.server.address} // the others have been idle for too long
	defer c.close()
	for {
		got := 0
		for _, r := range n.rooms {
			answer, err := c.do("GET", r.path()+"/messages?dir=b&limit=60", u.token, nil)
			if err != nil {
				return err
			}
			got += strings.Count(string(answer), `"body":"Extra`) + strings.Count(string(answer), `• Extra`)
		}
		if got >= want {
			n.note("entries delivered to rooms", float64(got), "")
			break
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%d of %d entries were delivered: %w", got, want, ctx.Err())
		case <-time.After(time.Second):
		}
	}
	n.note("until the entries are in the rooms", time.Since(began).Seconds(), "s")
	peak, err := n.server.peak()
	if err != nil {
		return err
	}
	n.cost("largest memory of homeserver and news", peak, "MB", 300)
	return nil
}

// chat makes a direct chat with @news and waits until it is there.
func (n *newsBench) chat(c *conn, u user) (*room, error) {
	answer, err := c.do("POST", "/_matrix/client/v3/createRoom", u.token, []byte(`{"preset":"trusted_private_chat","is_direct":true,"invite":["@news:localhost"]}`))
	if err != nil {
		return nil, err
	}
	r := &room{id: text(answer, "room_id")}
	for range 600 {
		answer, err := c.do("GET", r.path()+"/joined_members", u.token, nil)
		if err != nil {
			return nil, err
		}
		if strings.Contains(string(answer), "@news:localhost") {
			return r, nil
		}
		time.Sleep(50 * time.Millisecond)
	}
	return nil, fmt.Errorf("@news does not join %s", r.id)
}

// site is a web site with many feeds and lists of them.
type site struct {
	listener net.Listener
	server   *http.Server
	count    int
	body     string

	mu      sync.Mutex
	round   int
	fetched []map[string]bool // by round
	done    chan struct{}
}

func newSite(count int) (*site, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	s := &site{listener: l, count: count, done: make(chan struct{}, 2), fetched: []map[string]bool{{}, {}}}
	var items strings.Builder
	for i := range 25 { // about 25 KB, as feeds are
		fmt.Fprintf(&items, "<item><guid>old-%d</guid><title>Old entry %d</title><link>/old/%d</link><pubDate>%s</pubDate><description>%s</description></item>",
			i, i, i, time.Now().Add(-time.Duration(i)*time.Minute).UTC().Format(time.RFC1123Z), strings.Repeat("&lt;p&gt;The kettle is &lt;b&gt;on&lt;/b&gt;.&lt;/p&gt; ", 16))
	}
	s.body = items.String()
	s.server = &http.Server{Handler: s}
	go func() { _ = s.server.Serve(l) }()
	return s, nil
}

func (s *site) address() string { return s.listener.Addr().String() }
func (s *site) close()          { _ = s.server.Close() }

func (s *site) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var n int
	if _, err := fmt.Sscanf(r.URL.Path, "/list/%d", &n); err == nil {
		fmt.Fprint(w, `<opml version="2.0"><body>`)
		for i := range perRoom {
			fmt.Fprintf(w, `<outline xmlUrl="http://%s/feed/%d"/>`, r.Host, (n*perRoom/5+i)%s.count)
		}
		fmt.Fprint(w, `</body></opml>`)
		return
	}
	if _, err := fmt.Sscanf(r.URL.Path, "/feed/%d", &n); err != nil {
		http.NotFound(w, r)
		return
	}
	round := s.note(r.URL.Path)
	fresh := round > 0 && n%10 == 0
	tag := fmt.Sprintf(`"%d-%v"`, n, fresh)
	w.Header().Set("ETag", tag)
	if r.Header.Get("If-None-Match") == tag {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	extra := ""
	if fresh {
		extra = fmt.Sprintf("<item><guid>extra</guid><title>Extra of %d</title><link>/extra/%d</link></item>", n, n)
	}
	fmt.Fprintf(w, `<rss version="2.0"><channel><title>Feed %d</title><link>http://%s/</link>%s%s</channel></rss>`, n, r.Host, extra, s.body)
}

// note counts a fetch and gives the round that it is in.
func (s *site) note(path string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := s.fetched[s.round]
	all[path] = true
	if len(all) == s.count {
		select {
		case s.done <- struct{}{}:
		default:
		}
	}
	return s.round
}

// publish begins the next round.
func (s *site) publish() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.round = 1
	for len(s.done) > 0 {
		<-s.done
	}
}

// wait waits until every feed was fetched in the round.
func (s *site) wait(ctx context.Context, round int) error {
	select {
	case <-s.done:
		return nil
	case <-ctx.Done():
		s.mu.Lock()
		defer s.mu.Unlock()
		return fmt.Errorf("%d of %d feeds were fetched: %w", len(s.fetched[round]), s.count, ctx.Err())
	}
}
