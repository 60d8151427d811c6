package media_test

import (
	"bytes"
	"context"
	"image"
	"image/color"
	"image/jpeg"
	"io"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/teahouse-chat/teahouse/federation/transport"
	"github.com/teahouse-chat/teahouse/internal/testrig"
)

// photo is a JPEG.
func photo(t testing.TB, w, h int) []byte {
	t.Helper()
	img := image.NewRGBA(image.Rect(0, 0, w, h))
	for i := range w * h {
		img.Set(i%w, i/w, color.RGBA{uint8(i), uint8(i / w), 7, 255})
	}
	var b bytes.Buffer
	if err := jpeg.Encode(&b, img, nil); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// askRaw asks a server and gives the answer as it comes.
func askRaw(t *testing.T, p *testrig.Peer, path string) ([]byte, error) {
	t.Helper()
	r := transport.Request{Destination: "here", Method: http.MethodGet, Path: path, Timeout: time.Minute}
	if at := bytes.IndexByte([]byte(path), '?'); at >= 0 {
		u, err := http.NewRequestWithContext(context.Background(), "GET", "http://x"+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Path, r.Query = path[:at], u.URL.Query()
	}
	body, err := p.Client.Stream(t.Context(), r)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	return io.ReadAll(body)
}

// Thumbnails are made once, kept, and of what a picture is, not of what it is
// called (THREATS M2).
func TestThumbnails(t *testing.T) {
	each(t, nil, func(t *testing.T, s *testrig.Server) {
		alice := newPerson(t, s, "alice")
		ref := alice.upload(photo(t, 1600, 1200), "application/x-lies", "")
		path := v1 + "thumbnail" + testrig.Path(ref.Server, ref.ID)
		var group sync.WaitGroup
		for range 6 {
			group.Go(func() {
				r, err := alice.try(t.Context(), "GET", path+"?width=320&height=240&method=scale", nil)
				if err != nil || r.StatusCode != 200 || r.Header.Get("Content-Type") != "image/jpeg" || r.Header.Get("Content-Disposition") != "inline; filename=thumbnail.jpeg" {
					t.Errorf("%v %v", err, r)
					return
				}
				if c, err := jpeg.DecodeConfig(bytes.NewReader(r.body)); err != nil || c.Width != 320 || c.Height != 240 {
					t.Errorf("%+v %v", c, err)
				}
			})
		}
		group.Wait()
		if n := len(files(t, s)); n != 2 {
			t.Errorf("%d files", n)
		}
		etag := alice.ask("GET", path+"?width=320&height=240", nil).Header.Get("ETag")
		if r := alice.ask("GET", path+"?width=320&height=240", nil, "If-None-Match", etag); r.StatusCode != http.StatusNotModified {
			t.Errorf("%d", r.StatusCode)
		}
		alice.ask("GET", path+"?width=5000&height=5000&method=scale", nil).is(t, photo(t, 1600, 1200)) // never larger than it is
		for query, want := range map[string]string{
			"": "M_MISSING_PARAM", "?width=1": "M_MISSING_PARAM", "?width=x&height=1": "M_INVALID_PARAM", "?width=0&height=1": "M_INVALID_PARAM",
			"?width=1&height=1&method=stretch": "M_INVALID_PARAM", "?width=99999999999999999999&height=1": "M_INVALID_PARAM",
		} {
			alice.ask("GET", path+query, nil).fails(t, 400, want)
		}
		text := alice.upload([]byte("<svg onload=alert(1)>"), "image/png", "")
		alice.ask("GET", v1+"thumbnail"+testrig.Path(text.Server, text.ID)+"?width=32&height=32", nil).fails(t, 400, "M_UNKNOWN")
		for i := range 40 { // more sizes than are kept, and still all are served
			if r := alice.ask("GET", path+"?method=crop&height=20&width="+string(rune('1'+i%9))+string(rune('0'+i/9)), nil); r.StatusCode != 200 {
				t.Errorf("%d %s", r.StatusCode, r.body)
			}
		}
		if err := s.Media.Tidy(t.Context()); err != nil {
			t.Fatal(err)
		}
		if n := len(files(t, s)); n > 2+32 {
			t.Errorf("%d files", n)
		}
		nobody(t, s).ask("GET", path+"?width=32&height=32", nil).fails(t, 401, "M_MISSING_TOKEN")
		nobody(t, s).ask("GET", old+"thumbnail"+testrig.Path(ref.Server, ref.ID)+"?width=32&height=32", nil).fails(t, 404, "M_NOT_FOUND")
	})
}
