package preview

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/teahouse-chat/teahouse/internal/dialer"
	"github.com/teahouse-chat/teahouse/internal/matrix"
)

const (
	maxURL       = 2048
	maxPage      = 1 << 20   // bytes of a page that are read
	maxAnswer    = 100 << 20 // bytes that an answer may announce
	maxOEmbed    = 64 << 10
	requestTime  = 15 * time.Second
	maxRedirects = 4
)

var (
	// ErrRefused says that the lists or the form of the address exclude it.
	ErrRefused = errors.New("preview: this address is not looked at")
	// ErrNothing says that there is nothing to show.
	ErrNothing = errors.New("preview: there is nothing to show")
)

// Options say what is looked at, and how.
type Options struct {
	Dialer    *dialer.Dialer
	Allow     []string // if there are any, only these hosts
	Deny      []string // never these
	Language  string
	UserAgent string
}

// Fetcher looks at pages.
type Fetcher struct {
	o      Options
	client *http.Client
}

// New makes a fetcher.
func New(o Options) *Fetcher {
	f := &Fetcher{o: o, client: o.Dialer.Client(dialer.ClientOptions{Timeout: requestTime, MaxBody: maxAnswer, MaxRedirects: maxRedirects})}
	follow := f.client.CheckRedirect
	f.client.CheckRedirect = func(r *http.Request, via []*http.Request) error {
		if err := f.allowed(r.URL); err != nil {
			return err
		}
		return follow(r, via)
	}
	return f
}

// CheckURL tells whether a URL is one of the web's, without a password in it.
func CheckURL(u *url.URL) error {
	if u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil || len(u.String()) > maxURL {
		return ErrRefused
	}
	return nil
}

func (f *Fetcher) allowed(u *url.URL) error {
	if err := CheckURL(u); err != nil {
		return err
	}
	host := matrix.ServerName(strings.TrimSuffix(strings.ToLower(u.Hostname()), "."))
	if host.In(f.o.Deny) || len(f.o.Allow) > 0 && !host.In(f.o.Allow) {
		return fmt.Errorf("%w: the host %s is excluded", ErrRefused, host)
	}
	return nil
}

// get asks for something of a web site.
func (f *Fetcher) get(ctx context.Context, address, accept string) (*http.Response, error) {
	u, err := url.Parse(address)
	if err != nil {
		return nil, ErrRefused
	}
	if err := f.allowed(u); err != nil {
		return nil, err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, ErrRefused
	}
	r.Header.Set("Accept", accept)
	r.Header.Set("User-Agent", f.o.UserAgent)
	if f.o.Language != "" {
		r.Header.Set("Accept-Language", f.o.Language)
	}
	answer, err := f.client.Do(r)
	if err != nil {
		return nil, err
	}
	if answer.StatusCode != http.StatusOK {
		_ = answer.Body.Close()
		return nil, fmt.Errorf("%w: the status is %d", ErrNothing, answer.StatusCode)
	}
	return answer, nil
}

// Look says what is at an address. A picture is its own preview.
func (f *Fetcher) Look(ctx context.Context, address string) (*Page, error) {
	if place := oembedOf(address); place != "" {
		if page, err := f.describe(ctx, place); err == nil {
			return page, nil
		}
	}
	answer, err := f.get(ctx, address, "text/html,application/xhtml+xml,image/*;q=0.8")
	if err != nil {
		return nil, err
	}
	defer func() { _ = answer.Body.Close() }()
	contentType := answer.Header.Get("Content-Type")
	kind, _, _ := mime.ParseMediaType(contentType)
	switch {
	case kind == "text/html" || kind == "application/xhtml+xml":
	case strings.HasPrefix(kind, "image/"):
		return &Page{Tags: map[string]string{}, Image: answer.Request.URL.String()}, nil
	default:
		return nil, fmt.Errorf("%w: it is %s", ErrNothing, clean(kind, 64))
	}
	page := Parse(io.LimitReader(answer.Body, maxPage), contentType, answer.Request.URL)
	if page.oembed != "" && (page.Tags["og:title"] == "" || page.Image == "") {
		if more, err := f.describe(ctx, page.oembed); err == nil {
			page.add(more)
		}
	}
	if len(page.Tags) == 0 && page.Image == "" {
		return nil, ErrNothing
	}
	return page, nil
}

// add fills in what a page does not say.
func (p *Page) add(more *Page) {
	for name, value := range more.Tags {
		if p.Tags[name] == "" {
			p.Tags[name] = value
		}
	}
	if p.Image == "" {
		p.Image = more.Image
	}
}

// Picture fetches a picture, to be read up to the caller's own limit.
func (f *Fetcher) Picture(ctx context.Context, address string) (io.ReadCloser, error) {
	answer, err := f.get(ctx, address, "image/*")
	if err != nil {
		return nil, err
	}
	return answer.Body, nil
}

// providers are sites whose pages say less than their oEmbed descriptions.
var providers = map[string]string{
	"youtube.com": "https://www.youtube.com/oembed", "www.youtube.com": "https://www.youtube.com/oembed", "m.youtube.com": "https://www.youtube.com/oembed",
	"youtu.be": "https://www.youtube.com/oembed", "vimeo.com": "https://vimeo.com/api/oembed.json", "soundcloud.com": "https://soundcloud.com/oembed",
	"open.spotify.com": "https://open.spotify.com/oembed", "www.tiktok.com": "https://www.tiktok.com/oembed", "www.reddit.com": "https://www.reddit.com/oembed",
	"x.com": "https://publish.twitter.com/oembed", "twitter.com": "https://publish.twitter.com/oembed", "www.flickr.com": "https://www.flickr.com/services/oembed/",
}

// oembedOf is where a site describes an address, "" if that is not known.
func oembedOf(address string) string {
	u, err := url.Parse(address)
	if err != nil {
		return ""
	}
	endpoint := providers[strings.ToLower(u.Hostname())]
	if endpoint == "" {
		return ""
	}
	return endpoint + "?" + url.Values{"url": {address}, "format": {"json"}}.Encode()
}

// describe reads an oEmbed description.
func (f *Fetcher) describe(ctx context.Context, place string) (*Page, error) {
	answer, err := f.get(ctx, place, "application/json")
	if err != nil {
		return nil, err
	}
	defer func() { _ = answer.Body.Close() }()
	text, err := io.ReadAll(io.LimitReader(answer.Body, maxOEmbed))
	if err != nil {
		return nil, err
	}
	return parseOEmbed(text, answer.Request.URL)
}

func parseOEmbed(text []byte, base *url.URL) (*Page, error) {
	var d struct {
		Type      string `json:"type"`
		Title     string `json:"title"`
		Author    string `json:"author_name"`
		Provider  string `json:"provider_name"`
		URL       string `json:"url"`
		Thumbnail string `json:"thumbnail_url"`
	}
	if err := json.Unmarshal(text, &d); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNothing, err)
	}
	p := &Page{Tags: map[string]string{}, Image: resolve(base, d.Thumbnail)}
	if d.Type == "photo" && p.Image == "" {
		p.Image = resolve(base, d.URL)
	}
	for name, value := range map[string]string{"og:title": d.Title, "og:description": d.Author, "og:site_name": d.Provider} {
		if value = clean(value, maxText); value != "" {
			p.Tags[name] = value
		}
	}
	if p.Tags["og:title"] == "" && p.Image == "" {
		return nil, ErrNothing
	}
	return p, nil
}
