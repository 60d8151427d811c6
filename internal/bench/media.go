package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"image"
	"image/color"
	"image/jpeg"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// files measures files against what the disk and SHA-256 alone take: a large one up
// and down, a thumbnail made, and the same served from what is kept.
func files(ctx context.Context, b *bench) error {
	fresh, err := b.another("")
	if err != nil {
		return err
	}
	if err := fresh.configure("federation: {enabled: false}\nmedia: {max_upload: 2 GiB}\n"); err != nil {
		return err
	}
	if _, err := fresh.start(ctx); err != nil {
		return err
	}
	other := &bench{opts: b.opts, server: fresh, scenario: b.scenario}
	for range b.connections() {
		other.conns = append(other.conns, &conn{address: fresh.address})
	}
	defer func() { b.figures = append(b.figures, other.figures...) }()
	users, err := other.people(ctx, 1)
	if err != nil {
		return err
	}
	f := &mediaBench{bench: other, token: users[0].token, size: int64(b.n(1<<30, 32<<20))}
	err = f.large(ctx)
	if err == nil {
		err = f.thumbnails(ctx)
	}
	if stopErr := fresh.stop(); err == nil {
		err = stopErr
	}
	return err
}

type mediaBench struct {
	*bench
	token string
	size  int64
}

// large moves one large file.
func (f *mediaBench) large(ctx context.Context) error {
	source := filepath.Join(f.server.dir, "source")
	if err := f.makeFile(source); err != nil {
		return err
	}
	alone, err := f.alone(source)
	if err != nil {
		return err
	}
	before, err := f.server.resident()
	if err != nil {
		return err
	}
	file, err := os.Open(source)
	if err != nil {
		return err
	}
	defer file.Close()
	began, cpu := time.Now(), f.server.cpu()
	body, err := f.do(ctx, "POST", "/_matrix/media/v3/upload", file, f.size)
	if err != nil {
		return err
	}
	f.cost("upload to cp and SHA-256, time", time.Since(began).Seconds()/alone.Seconds(), "", 1.25)
	f.note("upload, CPU a GiB", (f.server.cpu()-cpu).Seconds()*float64(1<<30)/float64(f.size), "s")
	var answer struct {
		URI string `json:"content_uri"`
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		return err
	}
	began, cpu = time.Now(), f.server.cpu()
	if err := f.get(ctx, "download", answer.URI, ""); err != nil {
		return err
	}
	f.cost("download to cp and SHA-256, time", time.Since(began).Seconds()/alone.Seconds(), "", 1.25)
	f.note("download, CPU a GiB", (f.server.cpu()-cpu).Seconds()*float64(1<<30)/float64(f.size), "s")
	after, err := f.server.resident()
	if err != nil {
		return err
	}
	f.cost("memory that both have added", after-before, "MB", 64)
	return os.Remove(source)
}

// makeFile writes bytes that no disk compresses.
func (f *mediaBench) makeFile(name string) error {
	out, err := os.Create(name)
	if err != nil {
		return err
	}
	block := make([]byte, 1<<20)
	for i := range block {
		block[i] = byte(i*i>>7 ^ i)
	}
	for at := int64(0); at < f.size; at += int64(len(block)) {
		block[at>>20&0xfffff] ^= byte(at>>20) + 1
		if _, err := out.Write(block); err != nil {
			return err
		}
	}
	return out.Close()
}

// alone copies the file, syncs it and hashes it, as cp, sync and sha256sum do.
func (f *mediaBench) alone(source string) (time.Duration, error) {
	began := time.Now()
	in, err := os.Open(source)
	if err != nil {
		return 0, err
	}
	defer in.Close()
	copied := source + ".copy"
	out, err := os.Create(copied)
	if err != nil {
		return 0, err
	}
	if _, err := io.Copy(struct{ io.Writer }{out}, struct{ io.Reader }{in}); err != nil {
		return 0, err
	}
	if err := out.Sync(); err != nil {
		return 0, err
	}
	if _, err := out.Seek(0, io.SeekStart); err != nil {
		return 0, err
	}
	if _, err := io.Copy(sha256.New(), out); err != nil {
		return 0, err
	}
	took := time.Since(began)
	_ = out.Close()
	return took, os.Remove(copied)
}

func (f *mediaBench) request(ctx context.Context, method, path string, body io.Reader, size int64) (*http.Response, error) {
	r, err := http.NewRequestWithContext(ctx, method, "http://"+f.server.address+path, body)
	if err != nil {
		return nil, err
	}
	r.Header.Set("Authorization", "Bearer "+f.token)
	r.ContentLength = size
	answer, err := http.DefaultClient.Do(r)
	if err == nil && answer.StatusCode != http.StatusOK {
		_ = answer.Body.Close()
		err = fmt.Errorf("%s %s: status %d", method, path, answer.StatusCode)
	}
	return answer, err
}

func (f *mediaBench) do(ctx context.Context, method, path string, body io.Reader, size int64) ([]byte, error) {
	answer, err := f.request(ctx, method, path, body, size)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	return io.ReadAll(answer.Body)
}

func (f *mediaBench) path(door, uri, query string) string {
	return "/_matrix/client/v1/media/" + door + "/" + strings.TrimPrefix(uri, "mxc://") + query
}

func (f *mediaBench) get(ctx context.Context, door, uri, query string) error {
	answer, err := f.request(ctx, "GET", f.path(door, uri, query), nil, 0)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	_, err = io.Copy(io.Discard, answer.Body)
	return err
}

// thumbnails makes one of a photograph of 12 megapixels, and serves it.
func (f *mediaBench) thumbnails(ctx context.Context) error {
	const photos = 5
	cpu := time.Duration(0)
	uri := ""
	for i := range photos {
		photo, err := twelveMegapixels(i)
		if err != nil {
			return err
		}
		body, err := f.do(ctx, "POST", "/_matrix/media/v3/upload", bytes.NewReader(photo), int64(len(photo)))
		if err != nil {
			return err
		}
		var answer struct {
			URI string `json:"content_uri"`
		}
		if err := json.Unmarshal(body, &answer); err != nil {
			return err
		}
		uri = answer.URI
		before := f.server.cpu()
		if err := f.get(ctx, "thumbnail", uri, "?width=320&height=240&method=scale"); err != nil {
			return err
		}
		cpu += f.server.cpu() - before
	}
	f.cost("12 megapixels to 320 x 240, CPU", ms(cpu)/photos, "ms", 250)
	path := f.path("thumbnail", uri, "?width=320&height=240&method=scale")
	r, err := f.all(ctx, f.n(30_000, 500), func(c *conn, _ int) error {
		_, err := c.do("GET", path, f.token, nil)
		return err
	})
	if err != nil {
		return err
	}
	f.rate("cached thumbnail", r.rate(), "/s", 5000)
	f.note("cached thumbnail, CPU", r.cpuMS(), "ms")
	return nil
}

// twelveMegapixels is a photograph with noise, as cameras make them.
func twelveMegapixels(seed int) ([]byte, error) {
	img := image.NewRGBA(image.Rect(0, 0, 4000, 3000))
	state := uint32(seed)*2654435761 + 1
	for y := range 3000 {
		for x := range 4000 {
			state = state*1664525 + 1013904223
			noise := uint8(state >> 29)
			img.SetRGBA(x, y, color.RGBA{uint8(x/16) + noise, uint8(y/12) + noise, uint8((x + y) / 28), 255})
		}
	}
	var b bytes.Buffer
	err := jpeg.Encode(&b, img, &jpeg.Options{Quality: 90})
	return b.Bytes(), err
}
