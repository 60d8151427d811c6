package preview

import (
	"io"
	"net/url"
	"strings"
	"unicode"

	"golang.org/x/net/html"
	"golang.org/x/net/html/atom"
	"golang.org/x/net/html/charset"
)

const (
	maxTokens    = 50_000
	maxToken     = 64 << 10 // bytes of one tag or text
	maxTags      = 50       // that are taken over
	maxText      = 1000     // bytes of one value
	maxParagraph = 300
	minParagraph = 40
)

// Page is what a page says about itself.
type Page struct {
	Tags   map[string]string // og:title and the like
	Image  string            // URL of a picture, "" for none
	oembed string            // URL of its description as JSON
}

// Parse reads a page of the content type that was told, whose URL is base. Whatever
// the page is like, there is a result.
func Parse(r io.Reader, contentType string, base *url.URL) *Page {
	p := &parser{og: map[string]string{}, twitter: map[string]string{}}
	if decoded, err := charset.NewReader(r, contentType); err == nil {
		p.read(decoded)
	}
	return p.page(base)
}

type parser struct {
	og, twitter          map[string]string
	title, description   string
	paragraph            string
	image, oembed        string
	text                 *strings.Builder // where text goes: the title or a paragraph
	inTitle, inParagraph bool
}

func (p *parser) read(r io.Reader) {
	z := html.NewTokenizer(r)
	z.SetMaxBuf(maxToken)
	for range maxTokens {
		switch z.Next() {
		case html.ErrorToken:
			return
		case html.TextToken:
			if p.text != nil && p.text.Len() < maxText {
				p.text.Write(z.Text())
			}
		case html.StartTagToken, html.SelfClosingTagToken:
			p.start(z)
		case html.EndTagToken:
			name, _ := z.TagName()
			p.end(atom.Lookup(name))
		}
	}
}

func (p *parser) start(z *html.Tokenizer) {
	name, more := z.TagName()
	switch atom.Lookup(name) {
	case atom.Meta:
		p.meta(attributes(z, more))
	case atom.Link:
		a := attributes(z, more)
		switch {
		case a["rel"] == "image_src" && p.image == "":
			p.image = a["href"]
		case strings.Contains(a["rel"], "alternate") && a["type"] == "application/json+oembed" && p.oembed == "":
			p.oembed = a["href"]
		}
	case atom.Title:
		if p.title == "" {
			p.text, p.inTitle = &strings.Builder{}, true
		}
	case atom.P:
		p.end(atom.P)
		if p.paragraph == "" {
			p.text, p.inParagraph = &strings.Builder{}, true
		}
	}
}

func (p *parser) end(tag atom.Atom) {
	switch {
	case tag == atom.Title && p.inTitle:
		p.title, p.text, p.inTitle = clean(p.text.String(), maxText), nil, false
	case tag == atom.P && p.inParagraph:
		if text := clean(p.text.String(), maxParagraph); len(text) >= minParagraph {
			p.paragraph = text
		}
		p.text, p.inParagraph = nil, false
	}
}

func (p *parser) meta(a map[string]string) {
	name := a["property"]
	if name == "" {
		name = a["name"]
	}
	name = strings.ToLower(name)
	into := p.og
	switch {
	case strings.HasPrefix(name, "og:"):
	case strings.HasPrefix(name, "twitter:"):
		into, name = p.twitter, "og:"+strings.TrimPrefix(name, "twitter:")
	case name == "description":
		p.description = clean(a["content"], maxText)
		return
	default:
		return
	}
	value := clean(a["content"], maxText)
	if _, there := into[name]; !there && value != "" && len(into) < maxTags && len(name) <= 64 && clean(name, 64) == name {
		into[name] = value
	}
}

// attributes are those of a tag, each by its first value.
func attributes(z *html.Tokenizer, more bool) map[string]string {
	all := map[string]string{}
	for more && len(all) < maxTags {
		var key, value []byte
		key, value, more = z.TagAttr()
		if _, there := all[string(key)]; !there {
			all[string(key)] = string(value)
		}
	}
	all["rel"], all["type"] = strings.ToLower(all["rel"]), strings.ToLower(all["type"])
	return all
}

// clean makes one line of text, of at most n bytes.
func clean(s string, n int) string {
	if len(s) > 8*n {
		s = s[:8*n]
	}
	s = strings.Map(func(r rune) rune {
		switch {
		case unicode.IsSpace(r):
			return ' '
		case unicode.IsControl(r), unicode.Is(unicode.Bidi_Control, r):
			return -1
		}
		return r
	}, strings.ToValidUTF8(s, ""))
	s = strings.Join(strings.Fields(s), " ")
	if len(s) > n {
		s = strings.TrimSpace(strings.ToValidUTF8(s[:n], ""))
	}
	return s
}

// page puts together what was found: OpenGraph first, then Twitter's tags, then the
// page's own.
func (p *parser) page(base *url.URL) *Page {
	page := &Page{Tags: map[string]string{}}
	for _, name := range []string{"og:title", "og:description", "og:image", "og:site_name"} {
		if p.og[name] == "" && p.twitter[name] != "" {
			p.og[name] = p.twitter[name]
		}
	}
	for name, value := range p.og {
		if !strings.HasPrefix(name, "og:image") {
			page.Tags[name] = value
		}
	}
	or := func(name string, values ...string) {
		for _, v := range values {
			if page.Tags[name] == "" && v != "" {
				page.Tags[name] = v
			}
		}
	}
	or("og:title", p.title)
	or("og:description", p.description, p.paragraph)
	for _, image := range []string{p.og["og:image:secure_url"], p.og["og:image:url"], p.og["og:image"], p.image} {
		if page.Image == "" {
			page.Image = resolve(base, image)
		}
	}
	page.oembed = resolve(base, p.oembed)
	return page
}

// resolve makes a full web address of a reference; "" if it leads elsewhere.
func resolve(base *url.URL, ref string) string {
	if ref == "" {
		return ""
	}
	u, err := base.Parse(strings.TrimSpace(ref))
	if err != nil || CheckURL(u) != nil {
		return ""
	}
	return u.String()
}
