package feed

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/teahouse-chat/teahouse/internal/dialer"
)

// site is a fetcher for which every public host is a test server, and those in
// inner.example are private.
func site(t *testing.T, h http.HandlerFunc) *Fetcher {
	t.Helper()
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	d := dialer.New(dialer.Options{
		Resolve: func(_ context.Context, host string) ([]netip.Addr, error) {
			if strings.HasSuffix(host, "inner.example") {
				return []netip.Addr{netip.MustParseAddr("10.0.0.7")}, nil
			}
			return []netip.Addr{netip.MustParseAddr("9.9.9.9")}, nil
		},
		Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, srv.Listener.Addr().String())
		},
	})
	return &Fetcher{
		Client: d.Client(dialer.ClientOptions{Timeout: 20 * time.Second, MaxBody: MaxBody, MaxRedirects: MaxRedirects}), UserAgent: "test", Now: func() time.Time { return day },
	}
}

func TestFetch(t *testing.T) {
	f := site(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "public, max-age=7200")
		switch r.URL.Path {
		case "/feed":
			w.Header().Set("ETag", `"1"`)
			w.Header().Set("Last-Modified", "Sun, 01 Nov 2026 08:00:00 GMT")
			if r.Header.Get("If-None-Match") == `"1"` {
				w.WriteHeader(http.StatusNotModified)
				return
			}
			_, _ = w.Write([]byte(rss2()))
		case "/moved":
			http.Redirect(w, r, "/moved2", http.StatusMovedPermanently)
		case "/moved2":
			http.Redirect(w, r, "/for-now", http.StatusPermanentRedirect)
		case "/for-now":
			http.Redirect(w, r, "/later-moved", http.StatusFound)
		case "/later-moved":
			http.Redirect(w, r, "/feed", http.StatusMovedPermanently)
		case "/gone":
			w.WriteHeader(http.StatusGone)
		case "/busy":
			w.Header().Set("Retry-After", "120")
			w.WriteHeader(http.StatusTooManyRequests)
		case "/down":
			w.Header().Set("Retry-After", "Sun, 01 Nov 2026 09:00:00 GMT")
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	})
	ctx := t.Context()
	a, err := f.Fetch(ctx, Request{URL: "http://site.example/feed"})
	if err != nil || a.ETag != `"1"` || a.LastModified == "" || a.MaxAge != 2*time.Hour || len(a.Body) == 0 || a.Moved != "http://site.example/feed" {
		t.Fatalf("%+v %v", a, err)
	}
	if a, err = f.Fetch(ctx, Request{URL: "http://site.example/feed", ETag: a.ETag}); err != nil || a.Body != nil || a.ETag != `"1"` {
		t.Errorf("%+v %v", a, err)
	}
	// Only what is moved for good moves, up to the first detour.
	if a, err = f.Fetch(ctx, Request{URL: "http://site.example/moved"}); err != nil || a.Moved != "http://site.example/for-now" || a.URL.Path != "/feed" {
		t.Errorf("%+v %v", a, err)
	}
	if _, err = f.Fetch(ctx, Request{URL: "http://site.example/gone"}); !errors.Is(err, ErrGone) {
		t.Error(err)
	}
	for path, want := range map[string]time.Duration{"busy": 2 * time.Minute, "down": time.Hour} {
		var s *StatusError
		if _, err = f.Fetch(ctx, Request{URL: "http://site.example/" + path}); !errors.As(err, &s) || s.RetryAfter != want {
			t.Errorf("%s: %v", path, err)
		}
	}
}

// THREATS S1, S2: a feed leads nowhere inside, and takes neither memory nor time
// without end.
func TestHostileSites(t *testing.T) {
	var bomb bytes.Buffer
	z := gzip.NewWriter(&bomb)
	for range 100 {
		_, _ = z.Write(make([]byte, 1<<20))
	}
	_ = z.Close()
	f := site(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/endless":
			_, _ = w.Write([]byte(`<rss version="2.0"><channel>`))
			for r.Context().Err() == nil {
				if _, err := w.Write([]byte(strings.Repeat("<item><title>x</title></item>", 1000))); err != nil {
					return
				}
			}
		case "/slow":
			for r.Context().Err() == nil {
				_, _ = w.Write([]byte(" "))
				_ = http.NewResponseController(w).Flush()
				select {
				case <-time.After(5 * time.Millisecond):
				case <-r.Context().Done():
				}
			}
		case "/huge":
			w.Header().Set("Content-Length", "99999999999")
		case "/bomb":
			w.Header().Set("Content-Encoding", "gzip")
			_, _ = w.Write(bomb.Bytes())
		case "/loop":
			http.Redirect(w, r, "/loop", http.StatusMovedPermanently)
		case "/headers":
			w.Header().Set("X", strings.Repeat("x", 1<<20))
		default:
			http.Redirect(w, r, strings.TrimPrefix(r.URL.RequestURI(), "/to?"), http.StatusMovedPermanently)
		}
	})
	f.Client.Timeout = time.Second
	for _, address := range []string{
		"http://site.example/endless", "http://site.example/slow", "http://site.example/huge", "http://site.example/bomb", "http://site.example/loop", "http://site.example/headers",
		"http://site.example/to?http://inner.example/", "http://site.example/to?http://127.0.0.1:8008/_matrix/", "http://site.example/to?http://169.254.169.254/latest/",
		"http://site.example/to?http://[::1]/", "http://site.example/to?http://[::ffff:10.0.0.1]/", "http://site.example/to?http://0.0.0.0/", "http://site.example/to?file:///etc/passwd",
		"http://site.example/to?http://user:password@site.example/", "http://site.example/to?gopher://site.example/",
		"http://inner.example/", "http://127.0.0.1/", "http://localhost.inner.example/", "http://[fe80::1]/", "http://2130706433.inner.example/",
	} {
		if a, err := f.Fetch(t.Context(), Request{URL: address}); err == nil {
			t.Errorf("%s: %d bytes of %s", address, len(a.Body), a.URL)
		}
	}
}

func TestCheckURL(t *testing.T) {
	for in, want := range map[string]string{
		"https://Example.org/Feed#x": "https://example.org/Feed", "example.org/feed.xml": "https://example.org/feed.xml", "feed://example.org/": "https://example.org/",
		"feed:https://example.org/": "https://example.org/", "http://example.org": "http://example.org/", " https://example.org/ ": "https://example.org/",
		"ftp://example.org/": "", "https://u:p@example.org/": "", "https:///x": "", "": "", "javascript:alert(1)": "", "file:///etc/passwd": "",
		"https://example.org/" + strings.Repeat("x", 3000): "",
	} {
		got, err := CheckURL(in)
		if got != want || (err == nil) != (want != "") {
			t.Errorf("%.60s: %s %v", in, got, err)
		}
	}
}

func TestDiscover(t *testing.T) {
	page := `<html><head><base href="/blog/"><link rel="alternate" type="application/rss+xml" title="Comments" href="comments.xml">
		<LINK REL="Alternate" TYPE="application/atom+xml; charset=utf-8" TITLE="The &amp; feed" HREF="atom.xml"><link rel=alternate type=application/atom+xml href=atom.xml>
		<link rel="alternate" type="application/rss+xml" href="javascript:x"><link rel=stylesheet type=application/rss+xml href=no><link rel="alternate" hreflang="de" href="/de">
		<body><a rel="feed" type="application/feed+json" href="https://other.example/feed.json">JSON</a>`
	list := Discover([]byte(page), "text/html", base)
	want := []Link{{"https://example.org/blog/atom.xml", "The & feed"}, {"https://other.example/feed.json", ""}, {"https://example.org/blog/comments.xml", "Comments"}}
	if len(list) != len(want) || list[0] != want[0] || list[1] != want[1] || list[2] != want[2] {
		t.Errorf("%+v", list)
	}
	if list := Discover([]byte(strings.Repeat("<div>", 1_000_000)+page), "text/html", base); len(list) != 0 {
		t.Errorf("%+v after more tokens than are read", list)
	}
}

func TestOPML(t *testing.T) {
	list := []Link{{"https://example.org/a?x=1&y=2", "Tea & <more>"}, {"https://example.org/b", ""}}
	back, err := ReadOPML(WriteOPML("mine", list))
	list[1].Title = list[1].URL
	if err != nil || len(back) != 2 || back[0] != list[0] || back[1] != list[1] {
		t.Errorf("%+v %v", back, err)
	}
	odd := `<?xml version="1.0" encoding="windows-1252"?><OPML><head><title>caf` + "\xe9" + `</title></head><body><outline text="Folder"><outline TEXT="A&nbsp;b" xmlurl="http://a.example/"/>
		<outline text="again" xmlUrl="http://a.example/"><outline text="deep" xmlUrl="feed"/><outline text="js" xmlUrl="javascript:x"/></outline><outline title="B" text="b" xmlUrl="http://b.example/"></body>`
	if back, err = ReadOPML([]byte(odd)); err != nil || len(back) != 2 || back[0].Title != "A b" || back[1] != (Link{"http://b.example/", "B"}) {
		t.Errorf("%+v %v", back, err)
	}
	for _, bad := range []string{"", "hello", "<rss/>", "<html><outline xmlUrl='http://a/'/></html>"} {
		if back, err := ReadOPML([]byte(bad)); !errors.Is(err, ErrNoList) {
			t.Errorf("%s: %+v %v", bad, back, err)
		}
	}
	if back, err := ReadOPML([]byte("<opml>" + strings.Repeat(`<outline xmlUrl="http://x/`+"\x00"+`"/><outline>`, 100_000))); err != nil || len(back) != 1 {
		t.Errorf("%d %v", len(back), err)
	}
}
