package media_test

import (
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/teahouse-chat/teahouse/internal/config"
	"github.com/teahouse-chat/teahouse/internal/testrig"
	"github.com/teahouse-chat/teahouse/media"
)

// site is a web site on the network.
func site(t *testing.T, n *testrig.Network, host string, h http.Handler) {
	t.Helper()
	l, err := n.Listen("tcp", host+":80")
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: h}
	go func() { _ = srv.Serve(l) }()
	t.Cleanup(func() { _ = srv.Close() })
}

func (p *person) preview(address string) reply {
	p.t.Helper()
	return p.ask("GET", v1+"preview_url?url="+url.QueryEscape(address), nil)
}

// Previews hold what a page says and its picture, are kept, and go nowhere that
// they must not (THREATS S1, S2).
func TestPreviews(t *testing.T) {
	n := testrig.NewNetwork()
	s := testrig.Start(t, testrig.Options{Network: n, Change: func(c *config.Config) {
		c.Media.Previews.Enabled, c.Media.Previews.Deny = true, []string{"*.denied.example"}
	}})
	alice := newPerson(t, s, "alice")
	var asked atomic.Int32
	picture := photo(t, 40, 30)
	mux := http.NewServeMux()
	mux.HandleFunc("/page", func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		if r.Header.Get("Accept-Language") != "en" || !strings.Contains(r.Header.Get("User-Agent"), "Teahouse") {
			t.Errorf("%v", r.Header)
		}
		w.Header().Set("Content-Type", "text/html")
		_, _ = w.Write([]byte(`<meta property="og:title" content="Tea"><meta property="og:type" content="article"><meta property="og:image" content="/p.jpg">`))
	})
	mux.HandleFunc("/p.jpg", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(picture) })
	mux.HandleFunc("/direct", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "image/jpeg")
		_, _ = w.Write(picture)
	})
	mux.HandleFunc("/fakepicture", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		_, _ = w.Write([]byte(`<title>fake</title><meta property="og:image" content="/page">`))
	})
	mux.HandleFunc("/endless", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		_, _ = w.Write([]byte("<title>endless</title>"))
		for r.Context().Err() == nil {
			if _, err := w.Write(make([]byte, 1<<16)); err != nil {
				return
			}
		}
	})
	mux.HandleFunc("/inside", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "http://169.254.169.254/latest", http.StatusFound)
	})
	mux.HandleFunc("/loop", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/loop", http.StatusFound) })
	mux.HandleFunc("/todenied", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "http://x.denied.example/", http.StatusFound)
	})
	mux.HandleFunc("/pdf", func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Content-Type", "application/pdf") })
	site(t, n, "site.example", mux)
	site(t, n, "x.denied.example", mux)

	for range 2 {
		var p struct {
			Title string `json:"og:title"`
			Image string `json:"og:image"`
			Type  string `json:"og:image:type"`
			Width int    `json:"og:image:width"`
			Size  int    `json:"matrix:image:size"`
		}
		r := alice.preview("http://site.example/page#part")
		if err := json.Unmarshal(r.body, &p); err != nil || p.Title != "Tea" || p.Type != "image/jpeg" || p.Width != 40 || p.Size != len(picture) {
			t.Fatalf("%d %s %v", r.StatusCode, r.body, err)
		}
		ref, err := media.ParseRef(p.Image)
		if err != nil {
			t.Fatal(err)
		}
		alice.get(ref).is(t, picture)
	}
	if asked.Load() != 1 {
		t.Errorf("asked %d times", asked.Load())
	}
	s.Clock.Advance(25 * time.Hour)
	alice.preview("http://site.example/page")
	if asked.Load() != 2 {
		t.Errorf("asked %d times after a day", asked.Load())
	}
	if r := alice.preview("http://site.example/direct"); !strings.Contains(string(r.body), "mxc://test/") {
		t.Errorf("a picture by itself: %s", r.body)
	}
	for path, want := range map[string]string{"fakepicture": `{"og:title":"fake"}`, "endless": `{"og:title":"endless"}`} {
		if r := alice.preview("http://site.example/" + path); string(r.body) != want {
			t.Errorf("%s: %s", path, r.body)
		}
	}
	for address, want := range map[string]string{
		"http://site.example/inside": "502 M_UNKNOWN", "http://site.example/loop": "502 M_UNKNOWN", "http://site.example/todenied": "403 M_FORBIDDEN",
		"http://x.denied.example/page": "403 M_FORBIDDEN", "http://site.example/pdf": "404 M_NOT_FOUND", "http://site.example/missing": "404 M_NOT_FOUND",
		"http://127.0.0.1/": "502 M_UNKNOWN", "http://[::ffff:169.254.169.254]/": "502 M_UNKNOWN", "http://0.0.0.0:80/": "502 M_UNKNOWN",
		"http://nowhere.example/": "502 M_UNKNOWN", "ftp://site.example/": "400 M_INVALID_PARAM", "http://u:p@site.example/": "400 M_INVALID_PARAM",
		"": "400 M_INVALID_PARAM", "site.example": "400 M_INVALID_PARAM", "http://site.example/" + strings.Repeat("x", 3000): "400 M_INVALID_PARAM",
	} {
		r := alice.preview(address)
		status, code, _ := strings.Cut(want, " ")
		if r.code() != code || !strings.HasPrefix(r.Status, status) {
			t.Errorf("%.60s: %d %s", address, r.StatusCode, r.body)
		}
	}
	nobody(t, s).preview("http://site.example/page").fails(t, 401, "M_MISSING_TOKEN")
	off := testrig.Start(t, testrig.Options{})
	newPerson(t, off, "alice").preview("http://site.example/page").fails(t, 403, "M_FORBIDDEN")
}
