package dialer

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"testing/iotest"
	"time"
)

// inside makes a dialer for which every public address leads to a test server,
// and notes what is dialled.
func inside(t *testing.T, h http.HandlerFunc) (*Dialer, *atomic.Pointer[string]) {
	t.Helper()
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	var last atomic.Pointer[string]
	return New(Options{
		Resolve: func(_ context.Context, host string) ([]netip.Addr, error) {
			if host == "inner.example" {
				return []netip.Addr{netip.MustParseAddr("10.0.0.7")}, nil
			}
			return []netip.Addr{netip.MustParseAddr("9.9.9.9")}, nil
		},
		Dial: func(ctx context.Context, network, address string) (net.Conn, error) {
			last.Store(&address)
			return new(net.Dialer).DialContext(ctx, network, srv.Listener.Addr().String())
		},
	}), &last
}

// A redirect leads to a new connection, which is judged again.
func TestRedirectsAreJudged(t *testing.T) {
	for target, good := range map[string]bool{
		"http://public.example/end": true, "http://inner.example/end": false, "http://127.0.0.1/end": false, "http://[::ffff:a9fe:a9fe]/latest": false,
		"http://8.8.4.4/end": true, "http://[::]/end": false, "file:///etc/passwd": false, "gopher://public.example/": false,
	} {
		d, _ := inside(t, func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/start" {
				http.Redirect(w, r, target, http.StatusFound)
			}
		})
		answer, err := d.Client(ClientOptions{MaxRedirects: 3}).Get("http://start.example/start")
		if (err == nil) != good {
			t.Errorf("%s: %v", target, err)
		}
		if err == nil {
			_ = answer.Body.Close()
		}
	}
}

func TestRedirectRules(t *testing.T) {
	d, _ := inside(t, func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "http://loop.example/"+r.URL.Path+"x", http.StatusFound)
	})
	if _, err := d.Client(ClientOptions{MaxRedirects: 3}).Get("http://loop.example/"); !errors.Is(err, ErrRedirected) {
		t.Errorf("a loop ends with %v", err)
	}
	answer, err := d.Client(ClientOptions{}).Get("http://loop.example/")
	if err != nil || answer.StatusCode != http.StatusFound {
		t.Errorf("without redirects: %v", err)
	}
	if _, err := d.Client(ClientOptions{HTTPSOnly: true}).Get("http://loop.example/"); err == nil {
		t.Error("plain HTTP where only HTTPS is allowed")
	}
	o := ClientOptions{MaxRedirects: 3}
	from, _ := http.NewRequest("GET", "https://a.example/", nil)
	to, _ := http.NewRequest("GET", "http://a.example/", nil)
	if err := o.redirect(to, []*http.Request{from}); !errors.Is(err, ErrRedirected) {
		t.Errorf("a step down from HTTPS: %v", err)
	}
}

func TestBodiesAreCapped(t *testing.T) {
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	_, _ = z.Write(make([]byte, 10<<20))
	_ = z.Close()
	d, _ := inside(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/fits":
			_, _ = w.Write(make([]byte, 1000))
		case "/announced":
			_, _ = w.Write(make([]byte, 1001))
		case "/endless":
			for range 100 {
				if _, err := w.Write(make([]byte, 100)); err != nil {
					return
				}
				_ = http.NewResponseController(w).Flush()
			}
		case "/bomb":
			w.Header().Set("Content-Encoding", "gzip")
			_, _ = w.Write(packed.Bytes())
		}
	})
	c := d.Client(ClientOptions{MaxBody: 1000})
	big := d.Client(ClientOptions{MaxBody: 100_000})
	for _, test := range []struct {
		client *http.Client
		path   string
		good   bool
	}{{c, "/fits", true}, {c, "/announced", false}, {c, "/endless", false}, {big, "/bomb", false}, {big, "/endless", true}} {
		answer, err := test.client.Get("http://big.example" + test.path)
		var body []byte
		if err == nil {
			body, err = io.ReadAll(answer.Body)
			_ = answer.Body.Close()
		}
		if (err == nil) != test.good || err != nil && !errors.Is(err, ErrTooLarge) || len(body) > 100_000 {
			t.Errorf("%s: %d bytes, %v", test.path, len(body), err)
		}
	}
}

// A body that drips for ever ends with the time of the client.
func TestSlowBodiesEnd(t *testing.T) {
	done := make(chan struct{})
	d, _ := inside(t, func(w http.ResponseWriter, r *http.Request) {
		defer close(done)
		for r.Context().Err() == nil {
			_, _ = w.Write([]byte("."))
			_ = http.NewResponseController(w).Flush()
			time.Sleep(5 * time.Millisecond)
		}
	})
	answer, err := d.Client(ClientOptions{Timeout: 100 * time.Millisecond}).Get("http://slow.example/")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadAll(answer.Body); err == nil {
		t.Error("the body came to an end")
	}
	_ = answer.Body.Close()
	<-done
}

func TestProxiesOfTheEnvironmentAreNotUsed(t *testing.T) {
	t.Setenv("HTTP_PROXY", "http://proxy.example:3128")
	d, dialled := inside(t, func(http.ResponseWriter, *http.Request) {})
	if d.Transport(nil).Proxy != nil {
		t.Error("there is a proxy")
	}
	answer, err := d.Client(ClientOptions{}).Get("http://direct.example/")
	if err != nil {
		t.Fatal(err)
	}
	_ = answer.Body.Close()
	if *dialled.Load() != "9.9.9.9:80" {
		t.Errorf("dialled %s", *dialled.Load())
	}
}

func TestCapped(t *testing.T) {
	for _, reader := range []func(io.Reader) io.Reader{iotest.OneByteReader, iotest.DataErrReader, func(r io.Reader) io.Reader { return r }} {
		for size := range 6 {
			body, err := io.ReadAll(Capped(io.NopCloser(reader(strings.NewReader("12345"[:size]))), 3))
			if size <= 3 && (err != nil || len(body) != size) || size > 3 && (!errors.Is(err, ErrTooLarge) || len(body) != 3) {
				t.Errorf("%d bytes: %q, %v", size, body, err)
			}
		}
	}
}
