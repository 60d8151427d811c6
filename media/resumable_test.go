package media_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/teahouse-chat/teahouse/internal/config"
	"github.com/teahouse-chat/teahouse/internal/testrig"
	"github.com/teahouse-chat/teahouse/media"
)

const parted = "/_matrix/media/unstable/chat.teahouse.resumable/upload"

// begin begins an upload in parts and gives its path.
func (p *person) begin(size int, name string) string {
	p.t.Helper()
	r := p.ask("POST", parted, nil, "Tus-Resumable", "1.0.0", "Upload-Length", fmt.Sprint(size), "Upload-Metadata",
		"filename "+base64.StdEncoding.EncodeToString([]byte(name))+",filetype "+base64.StdEncoding.EncodeToString([]byte("text/plain")))
	if r.StatusCode != 201 {
		p.t.Fatalf("%d %s", r.StatusCode, r.body)
	}
	u, err := url.Parse(r.Header.Get("Location"))
	if err != nil || !strings.HasPrefix(u.Path, parted+"/") {
		p.t.Fatalf("%v %v", u, err)
	}
	return u.Path
}

// patch sends a part.
func (p *person) patch(path string, at int, data io.Reader) reply {
	p.t.Helper()
	return p.ask("PATCH", path, data, "Tus-Resumable", "1.0.0", "Upload-Offset", fmt.Sprint(at), "Content-Type", "application/offset+octet-stream")
}

func (p *person) offset(path string) string {
	p.t.Helper()
	return p.ask("HEAD", path, nil, "Tus-Resumable", "1.0.0").Header.Get("Upload-Offset")
}

// stops gives up once all of it is read.
type stops struct {
	io.Reader
	ctx  context.Context
	stop func()
}

func (s *stops) Read(p []byte) (int, error) {
	n, err := s.Reader.Read(p)
	if err == io.EOF {
		s.stop()
		return n, s.ctx.Err()
	}
	return n, err
}

// An upload in parts survives lost connections and a restart, and becomes a file
// like any other.
func TestResumableUpload(t *testing.T) {
	each(t, func(c *config.Media) { c.PendingUploads = 2 }, func(t *testing.T, s *testrig.Server) {
		alice, bob := newPerson(t, s, "alice"), newPerson(t, s, "bob")
		data := bytes.Repeat([]byte("0123456789abcdef"), 20_000)
		path := alice.begin(len(data), "../large.txt")
		if r := alice.patch(path, 0, bytes.NewReader(data[:100_000])); r.StatusCode != 204 || r.Header.Get("Upload-Offset") != "100000" {
			t.Fatalf("%d %s %v", r.StatusCode, r.body, r.Header)
		}
		if r := alice.patch(path, 50, strings.NewReader("x")); r.StatusCode != 409 {
			t.Errorf("a part at the wrong place: %d", r.StatusCode)
		}
		for _, method := range []string{"HEAD", "GET", "DELETE", "PATCH"} {
			if r := bob.ask(method, path, nil, "Tus-Resumable", "1.0.0", "Upload-Offset", "100000", "Content-Type", "application/offset+octet-stream"); r.StatusCode != 404 {
				t.Errorf("%s by somebody else: %d", method, r.StatusCode)
			}
		}
		nobody(t, s).ask("GET", path, nil).fails(t, 401, "M_MISSING_TOKEN")
		alice.ask("GET", path, nil).fails(t, 409, "M_NOT_YET_UPLOADED")

		// The connection is lost in the middle of a part.
		ctx, cancel := context.WithCancel(t.Context())
		_, err := alice.try(ctx, "PATCH", path, &stops{bytes.NewReader(data[100_000:200_000]), ctx, cancel},
			"Tus-Resumable", "1.0.0", "Upload-Offset", "100000", "Content-Type", "application/offset+octet-stream")
		if err == nil {
			t.Error("an upload that stopped was answered")
		}
		o := s.Options
		s.Stop()
		s = testrig.Start(t, o)
		alice.s, bob.s = s, s
		at, err := strconv.Atoi(alice.offset(path))
		if err != nil || at < 100_000 || at > 200_000 {
			t.Fatalf("after a restart it is at %d, %v", at, err)
		}
		last := alice.patch(path, at, bytes.NewReader(data[at:]))
		ref, err := media.ParseRef(last.Header.Get("Matrix-Content-Uri"))
		if err != nil || last.StatusCode != 204 {
			t.Fatalf("%d %v %v", last.StatusCode, last.Header, err)
		}
		if r := alice.ask("GET", path, nil); refOf(t, r.body) != ref { // the last answer was lost
			t.Errorf("%s", r.body)
		}
		if at := alice.offset(path); at != fmt.Sprint(len(data)) {
			t.Errorf("at the end it is at %s", at)
		}
		r := bob.get(ref)
		r.is(t, data)
		if r.Header.Get("Content-Disposition") != "inline; filename=.._large.txt" || r.Header.Get("Content-Type") != "text/plain" {
			t.Errorf("%v", r.Header)
		}
		alice.ask("DELETE", path, nil, "Tus-Resumable", "1.0.0")
		bob.get(ref).is(t, data)
		if left := below(t, s, "parts"); len(left) != 0 {
			t.Errorf("%v", left)
		}
	})
}

// Uploads in parts have the limits of others, and do not stay for ever.
func TestResumableLimits(t *testing.T) {
	each(t, func(c *config.Media) { c.PendingUploads, c.MaxUpload, c.UserQuota = 2, 1000, 1500 }, func(t *testing.T, s *testrig.Server) {
		alice := newPerson(t, s, "alice")
		begin := func(length string) reply {
			return alice.ask("POST", parted, nil, "Tus-Resumable", "1.0.0", "Upload-Length", length)
		}
		begin("1001").fails(t, 413, "M_TOO_LARGE")
		begin("-1").fails(t, 400, "M_INVALID_PARAM")
		begin("").fails(t, 400, "M_INVALID_PARAM")
		first := alice.begin(1000, "a")
		begin("1000").fails(t, 403, "M_RESOURCE_LIMIT_EXCEEDED")
		alice.begin(10, "b")
		begin("1").fails(t, 429, "M_LIMIT_EXCEEDED")
		alice.patch(first, 0, strings.NewReader(strings.Repeat("x", 2000)))
		if r := alice.ask("GET", first, nil); r.StatusCode == 200 && len(alice.get(refOf(t, r.body)).body) != 1000 {
			t.Error("more came than was announced")
		}
		if r := alice.ask("DELETE", first, nil, "Tus-Resumable", "1.0.0"); r.StatusCode != 204 {
			t.Errorf("%d %s", r.StatusCode, r.body)
		}
		for _, id := range []string{"..%2f..%2fteahouse.db", "x.info", "unknown"} {
			alice.ask("GET", parted+"/"+id, nil).fails(t, 404, "M_NOT_FOUND")
		}
		s.Clock.Advance(25 * time.Hour)
		tidy(t, s)
		eventually(t, func() bool { return len(below(t, s, "parts")) == 0 })
	})
}
