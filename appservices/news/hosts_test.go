package news

import (
	"fmt"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/teahouse-chat/teahouse/appservices/news/feed"
)

func TestLanes(t *testing.T) {
	var due []source
	for i := range 50 {
		due = append(due, source{nid: int64(i), url: fmt.Sprintf("http://many.example:%d/%d", 80+i%2, i)})
	}
	due = append(due, source{nid: 50, url: "http://one.example/"}, source{nid: 51, url: "https://two.example/a"}, source{nid: 52, url: "http://two.example/b"})
	all := lanes(due)
	byHost, seen := map[string]int{}, map[int64]bool{}
	for i, lane := range all {
		byHost[hostOf(lane[0].url)]++
		for _, s := range lane {
			if seen[s.nid] || hostOf(s.url) != hostOf(lane[0].url) {
				t.Errorf("the feed %d is in the lane of %s", s.nid, lane[0].url)
			}
			seen[s.nid] = true
		}
		if i > 0 && len(lane) < len(all[i-1]) {
			t.Error("long lanes go before short ones")
		}
	}
	if len(seen) != len(due) || byHost["many.example"] != perHost || byHost["one.example"] != 1 || byHost["two.example"] != 2 {
		t.Errorf("%d feeds in %v", len(seen), byHost)
	}
}

// However many feeds of a site are due, it has few requests at a time.
func TestOneSite(t *testing.T) {
	both(t, func(t *testing.T, r *rig) {
		var mu sync.Mutex
		now, most, fetched := 0, 0, 0
		var links []feed.Link
		for i := range 60 {
			links = append(links, feed.Link{URL: fmt.Sprintf("http://site.example/%d", i)})
			r.web.serve(fmt.Sprintf("site.example/%d", i), func(w http.ResponseWriter, _ *http.Request) {
				mu.Lock()
				now++
				most, fetched = max(most, now), fetched+1
				mu.Unlock()
				time.Sleep(2 * time.Millisecond) // so that those that come together meet
				mu.Lock()
				now--
				mu.Unlock()
				_, _ = w.Write([]byte(rss("Site")))
			})
		}
		r.web.text("list.example/", string(feed.WriteOPML("list", links)))
		u, room := r.chat("alice")
		r.tell(u, room, "import http://list.example/")
		r.skip(time.Hour)
		mu.Lock()
		defer mu.Unlock()
		if fetched < len(links) || most > perHost || most < 2 {
			t.Errorf("%d fetches, %d at a time", fetched, most)
		}
	})
}
