package media

import (
	"bytes"
	"errors"
	"io"
	"mime"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/media/storage"
)

// inlineTypes are those that browsers may show: none of them holds a script.
// spec: client-server#serving-inline-content
var inlineTypes = []string{
	"text/css", "text/plain", "text/csv", "application/json", "application/ld+json", "image/jpeg", "image/gif", "image/png", "image/apng",
	"image/webp", "image/avif", "video/mp4", "video/webm", "video/ogg", "video/quicktime", "audio/mp4", "audio/webm", "audio/aac", "audio/mpeg",
	"audio/ogg", "audio/wave", "audio/wav", "audio/x-wav", "audio/x-pn-wav", "audio/flac", "audio/x-flac",
}

// policy keeps whatever a browser makes of a file from running.
// spec: client-server#content-repo-client-behaviour
const policy = "sandbox; default-src 'none'; script-src 'none'; plugin-types application/pdf; style-src 'unsafe-inline'; object-src 'self';"

// disposition says whether a file is shown or saved, and under which name.
func disposition(contentType, name string) string {
	kind, _, err := mime.ParseMediaType(contentType)
	how := "attachment"
	if err == nil && slices.Contains(inlineTypes, kind) {
		how = "inline"
	}
	if name == "" {
		return how
	}
	if text := mime.FormatMediaType(how, map[string]string{"filename": name}); text != "" {
		return text
	}
	return how
}

// describe writes the header that every file is served with.
func describe(h http.Header, contentType, name string) {
	h.Set("Content-Type", contentType)
	h.Set("Content-Disposition", disposition(contentType, name))
	h.Set("Content-Security-Policy", policy)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cross-Origin-Resource-Policy", "cross-origin")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("X-Robots-Tag", "noindex, nofollow")
	// A file never changes, but it may be deleted.
	h.Set("Cache-Control", "private, max-age=86400")
}

// content is bytes that are served.
type content struct {
	hash storage.Hash
	typ  string
	name string
	ts   int64
}

func (c content) describe(h http.Header) {
	describe(h, c.typ, c.name)
	h["Etag"] = []string{`"` + string(c.hash) + `"`}
}

const (
	cachedBytes = 64 << 10 // of the largest file that is kept in memory
	cachedFiles = 512
)

// send serves bytes from the depot: whole or in ranges, or that they have not
// changed. Small ones that were asked for are kept in memory: what a hash names
// does not change, and whether it may be served was decided before.
func (m *Media) send(w http.ResponseWriter, r *http.Request, c content) error {
	if data, ok := m.cache.Get(c.hash); ok {
		c.describe(w.Header())
		http.ServeContent(w, r, "", time.UnixMilli(c.ts), bytes.NewReader(data))
		return nil
	}
	o, err := m.Depot.Open(r.Context(), c.hash)
	if errors.Is(err, storage.ErrNotFound) {
		m.Log.ErrorContext(r.Context(), "a file's bytes are missing; \"teahouse media check\" tells what else is", "hash", string(c.hash))
		return errNotFound
	}
	if err != nil {
		return err
	}
	defer func() { _ = o.Close() }()
	if o.Size() <= cachedBytes {
		data := make([]byte, o.Size())
		if _, err := io.ReadFull(o, data); err != nil {
			return err
		}
		m.cache.Add(c.hash, data)
		c.describe(w.Header())
		http.ServeContent(w, r, "", time.UnixMilli(c.ts), bytes.NewReader(data))
		return nil
	}
	c.describe(w.Header())
	var seeker io.ReadSeeker = o
	if f := storage.File(o); f != nil {
		seeker = f // so that the kernel sends it
	}
	http.ServeContent(w, r, "", time.UnixMilli(c.ts), seeker)
	return nil
}

var errNotFound = matrix.NotFound("There is no such file here")

// query is the first value of a parameter, which must be text.
func query(r *http.Request, name string) (string, error) {
	value := r.URL.Query().Get(name)
	if strings.ContainsRune(value, 0) || strings.ToValidUTF8(value, "") != value {
		return "", matrix.InvalidParam("%q in the query is not text", name)
	}
	return value, nil
}
