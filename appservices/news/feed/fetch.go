package feed

import (
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

const (
	// MaxBody is how many bytes of an answer are read, decompressed.
	MaxBody = 4 << 20
	// Timeout is how long a request may take, with its body.
	Timeout = 30 * time.Second
	// MaxRedirects is how many redirects are followed.
	MaxRedirects = 5
	accept       = "application/atom+xml, application/rss+xml, application/feed+json, application/xml;q=0.9, text/xml;q=0.9, application/json;q=0.8, text/html;q=0.5, */*;q=0.1"
)

// The ways in which a fetch fails that are told apart.
var (
	ErrGone    = errors.New("feed: it is gone for good")
	ErrAddress = errors.New("feed: this is no address of the web")
	// ErrTooLarge is a document of more than MaxBody bytes.
	ErrTooLarge = errors.New("feed: the document is too large")
)

// StatusError is an answer that is no document.
type StatusError struct {
	Status     int
	RetryAfter time.Duration
}

func (e *StatusError) Error() string {
	return fmt.Sprintf("feed: the server answers %d %s", e.Status, http.StatusText(e.Status))
}

// Fetcher gets documents. Its client has to judge addresses, redirects included, and
// to bound time and size; the bounds above are what it should be made with.
type Fetcher struct {
	Client    *http.Client
	UserAgent string
	Now       func() time.Time
}

// Request is what to get and what is there already.
type Request struct {
	URL          string
	ETag         string // of the last answer, "" for none
	LastModified string
}

// Answer is what came.
type Answer struct {
	Body         []byte // nil if nothing has changed
	ContentType  string
	URL          *url.URL // where it came from in the end
	Moved        string   // where to ask from now on: the URL or what it moved to for good
	ETag         string
	LastModified string
	MaxAge       time.Duration // it need not be asked for again earlier
}

// CheckURL tells whether an address can be that of a feed, and gives its one form.
func CheckURL(address string) (string, error) {
	address = strings.TrimPrefix(strings.TrimPrefix(strings.TrimSpace(address), "feed://"), "feed:")
	if !strings.Contains(address, "://") {
		address = "https://" + address
	}
	u, err := url.Parse(address)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || u.User != nil || len(address) > maxURL {
		return "", ErrAddress
	}
	u.Fragment, u.Host = "", strings.ToLower(u.Host)
	if u.Path == "" {
		u.Path = "/"
	}
	return u.String(), nil
}

// Fetch asks for a document.
func (f *Fetcher) Fetch(ctx context.Context, q Request) (*Answer, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, q.URL, nil)
	if err != nil {
		return nil, ErrAddress
	}
	r.Header.Set("Accept", accept)
	r.Header.Set("User-Agent", f.UserAgent)
	if q.ETag != "" {
		r.Header.Set("If-None-Match", q.ETag)
	}
	if q.LastModified != "" {
		r.Header.Set("If-Modified-Since", q.LastModified)
	}
	moved := q.URL
	client := *f.Client
	client.CheckRedirect = func(next *http.Request, via []*http.Request) error {
		if _, err := CheckURL(next.URL.String()); err != nil {
			return err
		}
		if s := next.Response.StatusCode; moved == via[len(via)-1].URL.String() && (s == http.StatusMovedPermanently || s == http.StatusPermanentRedirect) {
			moved = next.URL.String()
		}
		return f.Client.CheckRedirect(next, via)
	}
	answer, err := client.Do(r)
	if err != nil {
		return nil, fmt.Errorf("feed: %w", err)
	}
	defer func() { _ = answer.Body.Close() }()
	return f.read(answer, moved, q)
}

func (f *Fetcher) read(answer *http.Response, moved string, q Request) (*Answer, error) {
	a := &Answer{
		URL: answer.Request.URL, Moved: moved, ContentType: answer.Header.Get("Content-Type"), MaxAge: maxAge(answer.Header),
		ETag: bounded(answer.Header.Get("ETag")), LastModified: bounded(answer.Header.Get("Last-Modified")),
	}
	switch s := answer.StatusCode; {
	case s == http.StatusNotModified && (q.ETag != "" || q.LastModified != ""):
		if a.ETag == "" {
			a.ETag = q.ETag
		}
		if a.LastModified == "" {
			a.LastModified = q.LastModified
		}
		return a, nil
	case s == http.StatusGone:
		return nil, ErrGone
	case s != http.StatusOK:
		return nil, &StatusError{s, f.retryAfter(answer.Header.Get("Retry-After"))}
	}
	text, err := io.ReadAll(io.LimitReader(answer.Body, MaxBody+1))
	if err != nil {
		return nil, fmt.Errorf("feed: %w", err)
	}
	if len(text) > MaxBody {
		return nil, ErrTooLarge
	}
	a.Body = text
	return a, nil
}

// Page tells that a document is a page for people rather than a feed.
func (a *Answer) Page() bool {
	kind, _, _ := mime.ParseMediaType(a.ContentType)
	return kind == "text/html" || kind == "application/xhtml+xml"
}

// bounded drops a validator that nobody would want to keep.
func bounded(s string) string {
	if len(s) > 1024 || clean(s) != s {
		return ""
	}
	return s
}

func maxAge(h http.Header) time.Duration {
	for _, part := range strings.Split(strings.ToLower(h.Get("Cache-Control")), ",") {
		if text, ok := strings.CutPrefix(strings.TrimSpace(part), "max-age="); ok {
			return seconds(text)
		}
	}
	return 0
}

// retryAfter reads a number of seconds or a date.
func (f *Fetcher) retryAfter(text string) time.Duration {
	if at, err := http.ParseTime(text); err == nil {
		return max(at.Sub(f.Now()), 0)
	}
	return seconds(text)
}

func seconds(text string) time.Duration {
	n, err := strconv.ParseInt(strings.TrimSpace(text), 10, 64)
	if err != nil || n < 0 {
		return 0
	}
	return time.Duration(min(n, 366*24*3600)) * time.Second
}
