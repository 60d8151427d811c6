package media_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/teahouse-chat/teahouse/internal/config"
	"github.com/teahouse-chat/teahouse/internal/testrig"
	"github.com/teahouse-chat/teahouse/media"
)

// What is uploaded is downloaded, with a header that keeps browsers from running
// it (THREATS M4).
func TestUploadAndDownload(t *testing.T) {
	each(t, nil, func(t *testing.T, s *testrig.Server) {
		alice, bob := newPerson(t, s, "alice"), newPerson(t, s, "bob")
		data := bytes.Repeat([]byte("tea "), 100_000)
		ref := alice.upload(data, "text/plain; charset=utf-8", "leaves.txt")
		r := bob.get(ref)
		r.is(t, data)
		for name, want := range map[string]string{
			"Content-Type": "text/plain; charset=utf-8", "Content-Disposition": "inline; filename=leaves.txt", "X-Content-Type-Options": "nosniff",
			"Cross-Origin-Resource-Policy": "cross-origin", "Content-Length": fmt.Sprint(len(data)), "Accept-Ranges": "bytes",
		} {
			if got := r.Header.Get(name); got != want {
				t.Errorf("%s: %q", name, got)
			}
		}
		if p := r.Header.Get("Content-Security-Policy"); !strings.Contains(p, "sandbox") || !strings.Contains(p, "script-src 'none'") {
			t.Errorf("policy %q", p)
		}
		etag := r.Header.Get("ETag")
		head := bob.ask("HEAD", v1+"download"+testrig.Path(ref.Server, ref.ID), nil)
		if head.StatusCode != http.StatusOK || len(head.body) != 0 || head.Header.Get("ETag") != etag || head.ContentLength != int64(len(data)) {
			t.Errorf("HEAD: %d %v", head.StatusCode, head.Header)
		}
		if r := bob.get(ref, "If-None-Match", etag); r.StatusCode != http.StatusNotModified || len(r.body) != 0 {
			t.Errorf("If-None-Match: %d", r.StatusCode)
		}
		for header, want := range map[string]string{"bytes=4-11": "tea tea ", "bytes=-4": "tea ", "bytes=399996-": "tea "} {
			if r := bob.get(ref, "Range", header); r.StatusCode != http.StatusPartialContent || string(r.body) != want {
				t.Errorf("%s: %d %q", header, r.StatusCode, r.body)
			}
		}
		if r := bob.get(ref, "Range", "bytes=400000-"); r.StatusCode != http.StatusRequestedRangeNotSatisfiable {
			t.Errorf("a range behind the end: %d", r.StatusCode)
		}
		nobody(t, s).get(ref).fails(t, 401, "M_MISSING_TOKEN")
		named := bob.ask("GET", v1+"download"+testrig.Path(ref.Server, ref.ID, "other name;é.txt"), nil)
		if _, params, err := mime.ParseMediaType(named.Header.Get("Content-Disposition")); err != nil || params["filename"] != "other name;é.txt" {
			t.Errorf("%v %v", named.Header, err)
		}
		if got := bob.Must("GET", "/v1/media/config", nil)["m.upload.size"]; got != float64(100<<20) {
			t.Errorf("config: %v", got)
		}
		bob.get(media.Ref{Server: "test", ID: "nothing"}).fails(t, 404, "M_NOT_FOUND")
		bob.get(media.Ref{Server: "elsewhere", ID: "nothing"}).fails(t, 404, "M_NOT_FOUND")
	})
}

// THREATS M4, M1: types that could run are attachments, whatever they are called;
// names neither deceive nor lead anywhere.
func TestNamesAndTypes(t *testing.T) {
	each(t, nil, func(t *testing.T, s *testrig.Server) {
		alice := newPerson(t, s, "alice")
		for _, c := range []struct{ typ, name, wantType, want, wantName string }{
			{"image/png", "a.png", "image/png", "inline", "a.png"},
			{"Text/Plain; charset=utf-8", "", "Text/Plain; charset=utf-8", "inline", ""},
			{"text/html", "a.html", "text/html", "attachment", "a.html"},
			{"image/svg+xml", "a.svg", "image/svg+xml", "attachment", "a.svg"},
			{"application/xhtml+xml", "", "application/xhtml+xml", "attachment", ""},
			{"text/plain, text/html", "", "application/octet-stream", "attachment", ""},
			{"image/png\ttext/html", "", "application/octet-stream", "attachment", ""},
			{"", "x", "application/octet-stream", "attachment", "x"},
			{"text", "x", "text", "attachment", "x"},
			{"image/" + strings.Repeat("x", 300), "x", "application/octet-stream", "attachment", "x"},
			{"image/png", "../../etc/passwd", "image/png", "inline", ".._.._etc_passwd"},
			{"image/png", "..", "image/png", "inline", ""},
			{"image/png", "invoice\u202Egnp.exe", "image/png", "inline", "invoicegnp.exe"},
			{"image/png", "a\"b\r\nX-Evil: 1", "image/png", "inline", "a\"bX-Evil: 1"},
			{"image/png", strings.Repeat("é", 200), "image/png", "inline", strings.Repeat("é", 127)},
		} {
			r := alice.get(alice.upload([]byte("<script>"), c.typ, c.name))
			how, params, err := mime.ParseMediaType(r.Header.Get("Content-Disposition"))
			if err != nil || how != c.want || params["filename"] != c.wantName || r.Header.Get("Content-Type") != c.wantType {
				t.Errorf("%q %q: %q, %q %v", c.typ, c.name, r.Header.Get("Content-Type"), r.Header.Get("Content-Disposition"), err)
			}
			if r.Header.Get("X-Evil") != "" || r.Header.Get("X-Content-Type-Options") != "nosniff" {
				t.Errorf("%q: %v", c.name, r.Header)
			}
		}
		alice.ask("POST", old+"upload?filename=a%00b", strings.NewReader("x")).fails(t, 400, "M_INVALID_PARAM")
		alice.ask("POST", old+"upload?filename=a%ffb", strings.NewReader("x")).fails(t, 400, "M_INVALID_PARAM")
	})
}

// THREATS M1: no server name or media id leads out of the store.
func TestIDsAreChecked(t *testing.T) {
	s := testrig.Start(t, testrig.Options{})
	alice := newPerson(t, s, "alice")
	for _, path := range []string{
		"test/..%2f..%2fteahouse.db", "test/%2e%2e", "..%2f..%2fx/abc", "test/a%00b", "test/a.b", "test/a%20b", "te%20st/abc", "test/" + strings.Repeat("a", 300),
		"test/%252e%252e%252f", "test/a%5cb",
	} {
		for _, door := range []string{v1 + "download/", v1 + "thumbnail/", old + "download/"} {
			if r := alice.ask("GET", door+path+"?width=10&height=10", nil); r.StatusCode != 400 && r.StatusCode != 404 {
				t.Errorf("%s%s: %d %s", door, path, r.StatusCode, r.body)
			}
		}
		if r := alice.ask("PUT", old+"upload/"+path, strings.NewReader("x")); r.StatusCode != 400 && r.StatusCode != 404 {
			t.Errorf("PUT %s: %d %s", path, r.StatusCode, r.body)
		}
	}
}

// Files can be announced first, within limits, and are waited for.
func TestAnnouncedUploads(t *testing.T) {
	each(t, func(c *config.Media) { c.PendingUploads = 3 }, func(t *testing.T, s *testrig.Server) {
		alice, bob := newPerson(t, s, "alice"), newPerson(t, s, "bob")
		create := func(p *person) media.Ref {
			t.Helper()
			r := p.ask("POST", "/_matrix/media/v1/create", nil)
			if r.StatusCode != 200 || !strings.Contains(string(r.body), "unused_expires_at") {
				t.Fatalf("%d %s", r.StatusCode, r.body)
			}
			return refOf(t, r.body)
		}
		ref := create(alice)
		place := old + "upload" + testrig.Path(ref.Server, ref.ID)
		bob.ask("GET", v1+"download"+testrig.Path(ref.Server, ref.ID)+"?timeout_ms=0", nil).fails(t, 504, "M_NOT_YET_UPLOADED")
		bob.ask("PUT", place, strings.NewReader("not mine")).fails(t, 403, "M_FORBIDDEN")
		got := make(chan reply)
		go func() {
			r, _ := bob.try(t.Context(), "GET", v1+"download"+testrig.Path(ref.Server, ref.ID)+"?timeout_ms=60000", nil)
			got <- r
		}()
		if r := alice.ask("PUT", place+"?filename=x.txt", strings.NewReader("late"), "Content-Type", "text/plain"); r.StatusCode != 200 || string(r.body) != "{}" {
			t.Fatalf("%d %s", r.StatusCode, r.body)
		}
		(<-got).is(t, []byte("late"))
		alice.ask("PUT", place, strings.NewReader("again")).fails(t, 409, "M_CANNOT_OVERWRITE_MEDIA")
		alice.ask("PUT", old+"upload/test/unknown", strings.NewReader("x")).fails(t, 404, "M_NOT_FOUND")
		alice.ask("PUT", old+"upload/elsewhere/abc", strings.NewReader("x")).fails(t, 404, "M_NOT_FOUND")

		late := create(alice)
		for range 2 {
			create(alice)
		}
		alice.ask("POST", "/_matrix/media/v1/create", nil).fails(t, 429, "M_LIMIT_EXCEEDED")
		create(bob)
		s.Clock.Advance(25 * time.Hour)
		alice.ask("PUT", old+"upload"+testrig.Path(late.Server, late.ID), strings.NewReader("x")).fails(t, 404, "M_NOT_FOUND")
		bob.ask("GET", v1+"download"+testrig.Path(late.Server, late.ID)+"?timeout_ms=0", nil).fails(t, 404, "M_NOT_FOUND")
		create(alice)
	})
}

// Without a token there is what the mode allows.
func TestUnauthenticated(t *testing.T) {
	s := testrig.Start(t, testrig.Options{Change: func(c *config.Config) { c.Media.Unauthenticated = "open" }})
	alice := newPerson(t, s, "alice")
	before := alice.upload([]byte("before"), "text/plain", "")
	path := func(ref media.Ref) string { return old + "download" + testrig.Path(ref.Server, ref.ID) }
	for _, version := range []string{"v3", "r0", "v1"} {
		nobody(t, s).ask("GET", "/_matrix/media/"+version+"/download"+testrig.Path(before.Server, before.ID), nil).is(t, []byte("before"))
	}
	o := s.Options
	o.Change = nil // frozen
	s.Stop()
	s = testrig.Start(t, o)
	alice.s = s
	after := alice.upload([]byte("after"), "text/plain", "")
	nobody(t, s).ask("GET", path(before), nil).is(t, []byte("before"))
	nobody(t, s).ask("GET", path(after), nil).fails(t, 404, "M_NOT_FOUND")
	alice.get(after).is(t, []byte("after"))
	o.Change = func(c *config.Config) { c.Media.Unauthenticated = "off" }
	s.Stop()
	s = testrig.Start(t, o)
	nobody(t, s).ask("GET", path(before), nil).fails(t, 404, "M_UNRECOGNIZED")
}

// endless never ends.
type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }

// Files that are too large, by what is announced or by what comes; uploads that
// stop; users who have too much (THREATS M3, M5).
func TestLimits(t *testing.T) {
	each(t, func(c *config.Media) { c.MaxUpload, c.UserQuota = 1000, 2500 }, func(t *testing.T, s *testrig.Server) {
		alice, bob := newPerson(t, s, "alice"), newPerson(t, s, "bob")
		alice.ask("POST", old+"upload", bytes.NewReader(make([]byte, 1001))).fails(t, 413, "M_TOO_LARGE")
		if r, err := alice.try(t.Context(), "POST", old+"upload", endless{}); err == nil {
			r.fails(t, 413, "M_TOO_LARGE")
		}
		first := alice.upload(bytes.Repeat([]byte("x"), 1000), "", "")
		alice.upload(bytes.Repeat([]byte("y"), 1000), "", "")
		r := alice.ask("POST", old+"upload", bytes.NewReader(make([]byte, 1000)))
		r.fails(t, 403, "M_RESOURCE_LIMIT_EXCEEDED")
		if !strings.Contains(string(r.body), "2000 of the 2500 bytes") {
			t.Errorf("%s", r.body)
		}
		alice.ask("POST", old+"upload", io.MultiReader(bytes.NewReader(make([]byte, 1000)))).fails(t, 403, "M_RESOURCE_LIMIT_EXCEEDED") // no length told
		bob.upload(bytes.Repeat([]byte("x"), 1000), "", "")
		alice.get(first).is(t, bytes.Repeat([]byte("x"), 1000))
		nothingIsLeft(t, s)
	})
}

// The same bytes are there once, however often and at the same time they come.
func TestSameBytesAtOnce(t *testing.T) {
	each(t, nil, func(t *testing.T, s *testrig.Server) {
		alice := newPerson(t, s, "alice")
		data := bytes.Repeat([]byte("same"), 1<<18)
		refs := make([]media.Ref, 8)
		var group sync.WaitGroup
		for i := range refs {
			group.Go(func() {
				r, err := alice.try(t.Context(), "POST", old+"upload", bytes.NewReader(data))
				if err != nil || r.StatusCode != 200 {
					t.Errorf("%d %s %v", r.StatusCode, r.body, err)
					return
				}
				refs[i] = refOf(t, r.body)
			})
		}
		group.Wait()
		for _, ref := range refs {
			alice.get(ref).is(t, data)
		}
		if n := len(files(t, s)); n != 1 {
			t.Errorf("%d files", n)
		}
		nothingIsLeft(t, s)
	})
}

// An upload that stops leaves nothing behind (THREATS M5).
func TestUploadThatStops(t *testing.T) {
	s := testrig.Start(t, testrig.Options{})
	alice := newPerson(t, s, "alice")
	ctx, cancel := context.WithCancel(t.Context())
	if r, err := alice.try(ctx, "POST", old+"upload", &stops{bytes.NewReader(make([]byte, 1<<20)), ctx, cancel}); err == nil {
		t.Errorf("it was answered: %d", r.StatusCode)
	}
	nothingIsLeft(t, s)
	if kept := files(t, s); len(kept) != 0 {
		t.Errorf("%v", kept)
	}
}
