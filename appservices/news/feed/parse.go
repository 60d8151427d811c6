package feed

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/mmcdole/gofeed"
	"github.com/mmcdole/gofeed/rss"
)

const (
	maxEntries = 500 // of one document; the newest count
	maxURL     = 2048
	maxID      = 512
	maxTitle   = 300
	excerptLen = 600 // characters of an entry's text
)

// ErrNoFeed says that a document is no feed.
var ErrNoFeed = errors.New("feed: this is no feed")

// Feed is what a document says.
type Feed struct {
	Title   string
	About   string
	Site    string        // URL of the page that it belongs to, "" if it does not say
	TTL     time.Duration // it asks not to be fetched more often; 0 if it does not say
	Entries []Entry       // the newest first
}

// Entry is one thing that was published.
type Entry struct {
	ID        string // what the feed calls it, else its link, else a hash
	Link      string // "" if there is none
	Title     string // plain, one line; "" if there is none
	Author    string
	HTML      string // the beginning, in the subset that Matrix clients show
	Text      string // the same as plain lines
	Published time.Time
	Hash      string // of what a message shows
}

// Parse reads a document of the content type that was told, whose URL is base. What
// a parser panics about is no feed either.
func Parse(text []byte, contentType string, base *url.URL) (f *Feed, err error) {
	defer func() {
		if v := recover(); v != nil {
			f, err = nil, fmt.Errorf("%w: %v", ErrNoFeed, v)
		}
	}()
	p := gofeed.NewParser()
	p.KeepOriginalFeed = true
	parsed, err := p.Parse(bytes.NewReader(bytes.TrimSpace(utf8Text(text, contentType))))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNoFeed, err)
	}
	f = &Feed{
		Title: Plain(parsed.Title, maxTitle), About: Plain(parsed.Description, maxTitle), Site: Resolve(base, parsed.Link), TTL: ttl(parsed),
	}
	if site, err := url.Parse(f.Site); err == nil && f.Site != "" {
		base = site // links are relative to the page, where they are
	}
	f.Entries = make([]Entry, 0, min(len(parsed.Items), maxEntries))
	for _, item := range newest(parsed.Items) {
		f.Entries = append(f.Entries, entry(item, base))
	}
	return f, nil
}

// newest cuts the items to those that count, the newest first: by their dates if all
// have one, else as they stand.
func newest(items []*gofeed.Item) []*gofeed.Item {
	items = slices.DeleteFunc(slices.Clone(items), func(i *gofeed.Item) bool { return i == nil })
	if !slices.ContainsFunc(items, func(i *gofeed.Item) bool { return date(i).IsZero() }) {
		slices.SortStableFunc(items, func(a, b *gofeed.Item) int { return cmp.Compare(date(b).UnixMilli(), date(a).UnixMilli()) })
	}
	return items[:min(len(items), maxEntries)]
}

func date(i *gofeed.Item) time.Time {
	switch {
	case i.PublishedParsed != nil:
		return *i.PublishedParsed
	case i.UpdatedParsed != nil:
		return *i.UpdatedParsed
	}
	return time.Time{}
}

func entry(i *gofeed.Item, base *url.URL) Entry {
	e := Entry{Link: Resolve(base, i.Link), Title: Plain(i.Title, maxTitle), Published: date(i)}
	if len(i.Authors) > 0 && i.Authors[0] != nil {
		e.Author = Plain(i.Authors[0].Name, maxTitle)
	}
	if e.Link == "" && len(i.Enclosures) > 0 && i.Enclosures[0] != nil {
		e.Link = Resolve(base, i.Enclosures[0].URL)
	}
	markup := i.Description
	if strings.TrimSpace(markup) == "" {
		markup = i.Content
	}
	within := base
	if u, err := url.Parse(e.Link); err == nil && e.Link != "" {
		within = u
	}
	e.HTML, e.Text, _ = Excerpt(markup, within, excerptLen)
	e.ID = strings.TrimSpace(clean(i.GUID))
	switch {
	case e.ID == "" && e.Link != "":
		e.ID = e.Link
	case e.ID == "":
		e.ID = hash(e.Title, e.Text)
	case len(e.ID) > maxID:
		e.ID = hash(e.ID)
	}
	e.Hash = hash(e.Title, e.Link, e.HTML)
	return e
}

// print is what the second rule of recognising goes by; "" if there is too little to
// go by.
func (e *Entry) print() string {
	if e.Title == "" && e.Text == "" {
		return ""
	}
	return hash(e.Title, e.Text, strconv.FormatInt(e.Published.Unix(), 10))
}

// hash is short enough to be stored for each entry and long enough not to collide.
func hash(parts ...string) string {
	h := sha256.New()
	for _, p := range parts {
		fmt.Fprintf(h, "%d:%s", len(p), p)
	}
	return hex.EncodeToString(h.Sum(nil)[:16])
}

// ttl is what RSS has for it, in minutes.
func ttl(f *gofeed.Feed) time.Duration {
	original, ok := f.OriginalFeed().(*rss.Feed)
	if !ok {
		return 0
	}
	minutes, err := strconv.Atoi(strings.TrimSpace(original.TTL))
	if err != nil || minutes < 0 {
		return 0
	}
	return time.Duration(min(minutes, 60*24*365)) * time.Minute
}
