package media_test

import (
	"bytes"
	"image/jpeg"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/teahouse-chat/teahouse/internal/config"
	"github.com/teahouse-chat/teahouse/internal/db/dbtest"
	"github.com/teahouse-chat/teahouse/internal/s3test"
	"github.com/teahouse-chat/teahouse/internal/testrig"
	"github.com/teahouse-chat/teahouse/media"
)

// TestFilesInABucket: a whole server keeps its files on a real S3 server, once each,
// and serves them from there in every form, also after a restart.
func TestFilesInABucket(t *testing.T) {
	bucket := s3test.Start(t)
	for _, kind := range []string{"sqlite", "postgres"} {
		t.Run(kind, func(t *testing.T) {
			bucket.MakeBucket(kind)
			s := testrig.Start(t, testrig.Options{Database: dbtest.URL(t, kind), Change: inBucket(bucket, kind, false)})
			alice, bob := newPerson(t, s, "alice"), newPerson(t, s, "bob")
			data := bytes.Repeat([]byte("green tea, "), 2<<20) // more than one part
			large := alice.upload(data, "text/plain", "tea.txt")
			same := bob.upload(data, "text/x-other", "")
			photoRef := alice.upload(photo(t, 640, 480), "image/jpeg", "")
			if n := len(bucket.Objects(kind)); n != 2 {
				t.Errorf("%d objects for two contents: %v", n, bucket.Objects(kind))
			}
			for _, name := range bucket.Objects(kind) {
				if !strings.HasPrefix(name, "house/") {
					t.Errorf("the object %s is not below the prefix", name)
				}
			}
			thumbnail := func(p *person) {
				t.Helper()
				r := p.ask("GET", v1+"thumbnail"+testrig.Path(photoRef.Server, photoRef.ID)+"?width=320&height=240", nil)
				if c, err := jpeg.DecodeConfig(bytes.NewReader(r.body)); err != nil || c.Width != 320 || c.Height != 240 {
					t.Errorf("thumbnail: %d %+v %v", r.StatusCode, c, err)
				}
			}
			everything := func(p *person) {
				t.Helper()
				r := p.get(large)
				r.is(t, data)
				if etag := r.Header.Get("ETag"); p.get(large, "If-None-Match", etag).StatusCode != http.StatusNotModified {
					t.Errorf("the file has changed from %s", etag)
				}
				if r := p.get(large, "Range", "bytes=11000007-11000012"); r.StatusCode != http.StatusPartialContent || string(r.body) != string(data[11000007:11000013]) {
					t.Errorf("a part: %d %q", r.StatusCode, r.body)
				}
				if r := p.ask("HEAD", v1+"download"+testrig.Path(large.Server, large.ID), nil); r.ContentLength != int64(len(data)) {
					t.Errorf("%d bytes are announced", r.ContentLength)
				}
				thumbnail(p)
			}
			everything(bob)
			if n := len(bucket.Objects(kind)); n != 3 {
				t.Errorf("%d objects with the thumbnail", n)
			}
			s = s.Restart()
			alice = &person{s.Login("alice"), s, t}
			everything(alice)
			if n := len(bucket.Objects(kind)); n != 3 {
				t.Errorf("%d objects after a restart: the thumbnail was made again", n)
			}
			remove := func(ref media.Ref, left int) {
				t.Helper()
				if n, err := s.Media.Delete(t.Context(), media.Target{Ref: ref}); n != 1 || err != nil {
					t.Errorf("%d files deleted, %v", n, err)
				}
				eventually(t, func() bool { return len(bucket.Objects(kind)) == left })
			}
			remove(large, 3) // what bob has uploaded is the same
			alice.get(large).fails(t, 404, "M_NOT_FOUND")
			alice.get(same).is(t, data)
			remove(same, 2)
			remove(photoRef, 0)
			nothingIsLeft(t, s)
		})
	}
}

func inBucket(b *s3test.Server, name string, redirect bool) func(*config.Config) {
	return func(c *config.Config) {
		c.Media.Store = "s3://" + name + "/house"
		c.Media.S3 = config.S3{
			Endpoint: b.Endpoint, Region: b.Region, AccessKey: config.Secret(b.AccessKey), SecretKey: config.Secret(b.SecretKey), Redirect: redirect,
		}
	}
}

// Other servers are told where in the bucket a file is, if that is switched on: by a
// link that gives this file alone, and only what they may have.
// spec: server-server#get_matrixfederationv1mediadownloadmediaid
func TestRedirectsIntoTheBucket(t *testing.T) {
	bucket := s3test.Start(t)
	bucket.MakeBucket("tea")
	n := testrig.NewNetwork()
	s := testrig.Start(t, testrig.Options{Name: "here", Network: n, Federate: true, Change: inBucket(bucket, "tea", true)})
	peer := testrig.NewPeer(t, n, "there")
	alice := newPerson(t, s, "alice")
	text, picture := alice.upload([]byte("green tea"), "text/plain", "tea.txt"), alice.upload(photo(t, 640, 480), "image/jpeg", "")
	for path, want := range map[string]struct{ contentType, disposition string }{
		"download/" + text.ID: {"text/plain", "inline; filename=tea.txt"}, "download/" + picture.ID: {"image/jpeg", "inline"},
		"thumbnail/" + picture.ID + "?width=96&height=96&method=crop": {"image/jpeg", "inline; filename=thumbnail.jpeg"},
	} {
		place := redirected(t, peer, path)
		r, err := http.Get(place)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(r.Body)
		_ = r.Body.Close()
		if r.StatusCode != 200 || err != nil || want.contentType == "text/plain" && string(body) != "green tea" || want.contentType == "image/jpeg" && !bytes.HasPrefix(body, []byte("\xff\xd8")) {
			t.Errorf("%s: %d %v %.100q", path, r.StatusCode, r.Header, body)
		}
		u, err := url.Parse(place)
		if err != nil {
			t.Fatal(err)
		}
		// This S3 server does not heed what the header is to be; others do.
		if q := u.Query(); q.Get("response-content-type") != want.contentType || q.Get("response-content-disposition") != want.disposition ||
			q.Get("X-Amz-Expires") != "600" || strings.Contains(place, bucket.SecretKey) {
			t.Errorf("%s", place)
		}
		for _, other := range []string{u.Scheme + "://" + u.Host + u.Path, strings.Replace(place, u.Path, u.Path[:len(u.Path)-1]+"0", 1)} {
			r, err := http.Get(other)
			if err != nil {
				t.Fatal(err)
			}
			_ = r.Body.Close()
			if r.StatusCode == http.StatusOK {
				t.Errorf("%s is given to anybody", other)
			}
		}
	}
	if _, err := s.Media.Quarantine(t.Context(), media.Target{Ref: text}); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"download/" + text.ID, "download/unknown"} {
		if body, err := askRaw(t, peer, "/_matrix/federation/v1/media/"+path); err == nil {
			t.Errorf("%s: %q", path, body)
		}
	}
	alice.get(picture).is(t, photo(t, 640, 480)) // users get it from here
}

// redirected is the link in the second part of what a server answers another.
func redirected(t *testing.T, peer *testrig.Peer, path string) string {
	t.Helper()
	body, err := askRaw(t, peer, "/_matrix/federation/v1/media/"+path)
	if err != nil {
		t.Fatal(err)
	}
	first, _, _ := strings.Cut(string(body), "\r\n")
	_, params, err := mime.ParseMediaType("multipart/mixed; boundary=" + strings.TrimPrefix(first, "--"))
	if err != nil {
		t.Fatal(err)
	}
	parts := multipart.NewReader(bytes.NewReader(body), params["boundary"])
	if _, err := parts.NextPart(); err != nil {
		t.Fatal(err)
	}
	file, err := parts.NextPart()
	if err != nil {
		t.Fatal(err)
	}
	if rest, err := io.ReadAll(file); err != nil || len(rest) > 0 || file.Header.Get("Location") == "" {
		t.Fatalf("%s: %q", path, body)
	}
	return file.Header.Get("Location")
}
