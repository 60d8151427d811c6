package feed

import (
	"net/url"
	"slices"
	"strings"

	"golang.org/x/net/html"
	"golang.org/x/net/html/atom"
)

const (
	maxTokens = 50_000
	maxLinks  = 20
)

// Link is a feed that a page names.
type Link struct {
	URL   string
	Title string
}

var feedTypes = []string{"application/rss+xml", "application/atom+xml", "application/feed+json", "application/rdf+xml", "application/json", "text/xml", "application/xml"}

// Discover finds the feeds that a page names, the main one first. The page is read as
// a stream of tokens, so that its depth does not matter.
func Discover(text []byte, contentType string, base *url.URL) []Link {
	var list []Link
	z := html.NewTokenizer(strings.NewReader(string(utf8Text(text, contentType))))
	z.SetMaxBuf(maxToken)
	for range maxTokens {
		kind := z.Next()
		if kind == html.ErrorToken || len(list) == maxLinks {
			break
		}
		if kind != html.StartTagToken && kind != html.SelfClosingTagToken {
			continue
		}
		name, more := z.TagName()
		switch atom.Lookup(name) {
		case atom.Base:
			if u, err := url.Parse(Resolve(base, attribute(z, more, "href")["href"])); err == nil && u.Host != "" {
				base = u
			}
		case atom.Link, atom.A:
			a := attribute(z, more, "rel", "type", "href", "title")
			rel := strings.Fields(strings.ToLower(a["rel"]))
			kind, _, _ := strings.Cut(strings.ToLower(a["type"]), ";")
			if !slices.Contains(rel, "alternate") && !slices.Contains(rel, "feed") || !slices.Contains(feedTypes, strings.TrimSpace(kind)) {
				continue
			}
			l := Link{URL: Resolve(base, a["href"]), Title: Plain(a["title"], maxTitle)}
			if l.URL != "" && !slices.ContainsFunc(list, func(o Link) bool { return o.URL == l.URL }) {
				list = append(list, l)
			}
		}
	}
	// Feeds of comments are named like the others, after or before them.
	slices.SortStableFunc(list, func(a, b Link) int { return comments(a) - comments(b) })
	return list
}

func comments(l Link) int {
	if strings.Contains(strings.ToLower(l.Title+l.URL), "comments") {
		return 1
	}
	return 0
}

// attribute reads the attributes of a tag that are asked for.
func attribute(z *html.Tokenizer, more bool, wanted ...string) map[string]string {
	all := map[string]string{}
	for n := 0; more && n < 50; n++ {
		var key, value []byte
		key, value, more = z.TagAttr()
		if _, there := all[string(key)]; !there && slices.Contains(wanted, string(key)) {
			all[string(key)] = string(value)
		}
	}
	return all
}
