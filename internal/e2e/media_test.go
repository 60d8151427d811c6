package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"image"
	"image/color"
	"image/jpeg"
	"io"
	"math/rand/v2"
	"mime"
	"net/http"
	"testing"

	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/id"
)

// bytesOf makes a file that no two seeds have in common and nothing can compress.
func bytesOf(seed byte, size int) []byte {
	data := make([]byte, size)
	_, _ = rand.NewChaCha8([32]byte{seed}).Read(data)
	return data
}

// picture makes a photo.
func picture(t *testing.T, w, h int) []byte {
	t.Helper()
	img := image.NewRGBA(image.Rect(0, 0, w, h))
	for i := range w * h {
		img.Set(i%w, i/w, color.RGBA{uint8(i % w), uint8(i / w), 99, 255})
	}
	var b bytes.Buffer
	must(t, jpeg.Encode(&b, img, nil))
	return b.Bytes()
}

// part downloads a range of a file as mautrix-go does with a header of its own.
func part(t *testing.T, c *mautrix.Client, uri id.ContentURI, span string) (*http.Response, []byte) {
	t.Helper()
	_, res, err := c.MakeFullRequestWithResp(t.Context(), mautrix.FullRequest{
		Method: http.MethodGet, Headers: http.Header{"Range": {"bytes=" + span}}, DontReadResponse: true,
		URL: c.BuildURL(mautrix.ClientURLPath{"v1", "media", "download", uri.Homeserver, uri.FileID}),
	})
	must(t, err)
	defer res.Body.Close()
	return res, ok(io.ReadAll(res.Body))
}

// gets downloads a file and compares it.
func gets(t *testing.T, c *mautrix.Client, uri id.ContentURI, want []byte) {
	t.Helper()
	if got := ok(c.DownloadBytes(t.Context(), uri)); !bytes.Equal(got, want) {
		t.Errorf("%s gets %d bytes of %s, which has %d, or others", c.UserID, len(got), uri, len(want))
	}
}

// TestFilesByMautrix: mautrix-go uploads files, small and large, at once and after
// they were announced; another user, of the same server or of another, gets them
// whole and in parts, as thumbnails, and after the servers were killed.
func TestFilesByMautrix(t *testing.T) {
	houses(t, func(t *testing.T, a, b *process) {
		ctx := t.Context()
		alice, bob := register(t, a, "alice"), register(t, b, "bob")
		if limit := ok(alice.GetMediaConfig(ctx)).UploadSize; limit < 20<<20 {
			t.Errorf("%d bytes may be uploaded", limit)
		}
		text := []byte("green tea")
		small := ok(alice.UploadBytesWithName(ctx, text, "text/plain", "tea \U0001F375.txt")).ContentURI
		res := ok(bob.Download(ctx, small))
		got := ok(io.ReadAll(res.Body))
		_ = res.Body.Close()
		_, params, err := mime.ParseMediaType(res.Header.Get("Content-Disposition"))
		if !bytes.Equal(got, text) || err != nil || params["filename"] != "tea \U0001F375.txt" || res.Header.Get("Content-Type") != "text/plain" {
			t.Errorf("bob gets %q with %v", got, res.Header)
		}
		large := bytesOf(1, 20<<20+7)
		streamed := ok(alice.UploadMedia(ctx, mautrix.ReqUploadMedia{
			Content: bytes.NewReader(large), ContentLength: int64(len(large)), ContentType: "application/octet-stream",
		})).ContentURI
		for _, file := range []struct { // the large one in parts before it is there as a whole
			uri        id.ContentURI
			data       []byte
			from, till int
		}{{small, text, 0, 4}, {small, text, 6, 8}, {streamed, large, 15_000_000, 15_000_999}, {streamed, large, 0, 0}} {
			res, got := part(t, bob, file.uri, fmt.Sprintf("%d-%d", file.from, file.till))
			if span := fmt.Sprintf("bytes %d-%d/%d", file.from, file.till, len(file.data)); res.StatusCode != http.StatusPartialContent ||
				res.Header.Get("Content-Range") != span || !bytes.Equal(got, file.data[file.from:file.till+1]) {
				t.Errorf("%s: %d %v with %d bytes", span, res.StatusCode, res.Header, len(got))
			}
		}
		if res, got := part(t, bob, streamed, "-7"); res.StatusCode != http.StatusPartialContent || !bytes.Equal(got, large[20<<20:]) {
			t.Errorf("the end: %d with %d bytes", res.StatusCode, len(got))
		}
		gets(t, bob, streamed, large)

		announced := ok(alice.CreateMXC(ctx)).ContentURI
		_, err = bob.DownloadWithParams(ctx, announced, mautrix.DownloadExtra{Query: map[string]string{"timeout_ms": "1"}})
		if !errors.Is(err, mautrix.RespError{ErrCode: "M_NOT_YET_UPLOADED"}) {
			t.Errorf("before it is uploaded: %v", err)
		}
		waits := make(chan []byte, 1)
		go func() {
			data, err := bob.DownloadBytes(ctx, announced)
			if err != nil {
				t.Error(err)
			}
			waits <- data
		}()
		late := bytesOf(2, 3<<20)
		ok(alice.UploadMedia(ctx, mautrix.ReqUploadMedia{MXC: announced, ContentBytes: late, ContentType: "application/octet-stream"}))
		if !bytes.Equal(<-waits, late) {
			t.Error("who waits for an announced file gets another")
		}
		if _, err := alice.UploadMedia(ctx, mautrix.ReqUploadMedia{MXC: announced, ContentBytes: text}); !errors.Is(err, mautrix.RespError{ErrCode: "M_CANNOT_OVERWRITE_MEDIA"}) {
			t.Errorf("the file again: %v", err)
		}
		background := ok(alice.UploadAsync(ctx, mautrix.ReqUploadMedia{ContentBytes: large, ContentType: "application/octet-stream"})).ContentURI
		gets(t, bob, background, large)

		photo := ok(alice.UploadBytes(ctx, picture(t, 640, 480), "image/jpeg")).ContentURI
		thumbnails(t, bob, photo)

		a.kill()
		if a != b { // what came from there stays
			gets(t, bob, streamed, large)
			b.kill()
			b.run()
			gets(t, bob, small, text)
		}
		a.run()
		gets(t, alice, streamed, large)
		gets(t, bob, announced, late)
		thumbnails(t, bob, photo)
		stranger := ok(mautrix.NewClient(b.url, "", ""))
		if _, err := stranger.Download(ctx, small); !errors.Is(err, mautrix.MMissingToken) {
			t.Errorf("without a token: %v", err)
		}
	})
}

// thumbnails asks for smaller pictures of one of 640 × 480; what is not cropped is
// at least as large as was asked for.
func thumbnails(t *testing.T, c *mautrix.Client, photo id.ContentURI) {
	t.Helper()
	for _, size := range []struct {
		method     string
		w, h       int
		gotW, gotH int
	}{{"scale", 320, 240, 320, 240}, {"crop", 96, 96, 96, 96}, {"scale", 100, 100, 134, 100}, {"scale", 1000, 1000, 640, 480}} {
		res := ok(c.DownloadThumbnail(t.Context(), photo, size.h, size.w, mautrix.DownloadThumbnailExtra{Method: size.method}))
		is, err := jpeg.DecodeConfig(res.Body)
		_ = res.Body.Close()
		if err != nil || is.Width != size.gotW || is.Height != size.gotH {
			t.Errorf("%s to %d × %d: %d × %d, %v", size.method, size.w, size.h, is.Width, is.Height, err)
		}
	}
}
