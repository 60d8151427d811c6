package feed

import (
	"net/url"
	"slices"
	"strings"
	"sync"
	"unicode"
	"unicode/utf8"

	"github.com/microcosm-cc/bluemonday"
	"golang.org/x/net/html"
	"golang.org/x/net/html/atom"
)

const (
	maxMarkup = 256 << 10 // bytes of an entry's HTML that are looked at
	maxToken  = 64 << 10  // bytes of one tag or text
	maxDepth  = 20        // of nested tags that are kept; Matrix allows 100
	maxHTML   = 16 << 10  // bytes of HTML that are kept: an event has 64 KiB
)

// subset is what Matrix clients show, without pictures, which would have to be
// uploaded, and without colours.
// spec: client-server#mroommessage-msgtypes
var subset = sync.OnceValue(func() *bluemonday.Policy {
	p := bluemonday.NewPolicy()
	p.AllowElements("del", "h1", "h2", "h3", "h4", "h5", "h6", "blockquote", "p", "ul", "ol", "li", "sup", "sub", "b", "i", "u",
		"strong", "em", "s", "code", "hr", "br", "div", "table", "thead", "tbody", "tr", "th", "td", "caption", "pre", "a")
	p.AllowAttrs("href").OnElements("a")
	p.AllowURLSchemes("http", "https", "mailto")
	p.RequireParseableURLs(true)
	return p
})

// blocks are the tags that end a line of text.
var blocks = []atom.Atom{
	atom.P, atom.Br, atom.Div, atom.Li, atom.Tr, atom.H1, atom.H2, atom.H3, atom.H4, atom.H5, atom.H6, atom.Blockquote, atom.Pre, atom.Hr,
	atom.Ul, atom.Ol, atom.Table, atom.Section, atom.Article, atom.Figure, atom.Figcaption,
}

// hidden are tags whose content is no text.
var hidden = []atom.Atom{atom.Script, atom.Style, atom.Iframe, atom.Noscript, atom.Object, atom.Template, atom.Svg, atom.Math, atom.Title, atom.Textarea, atom.Select}

// void are tags without an end.
var void = []atom.Atom{atom.Br, atom.Hr, atom.Img, atom.Input, atom.Wbr, atom.Source, atom.Embed, atom.Link, atom.Meta, atom.Area, atom.Col, atom.Track, atom.Base}

// Excerpt makes of an entry's HTML what a message shows of it: the beginning, with
// about limit characters of text, as HTML and as plain text. Links are resolved
// against base. cut tells that there was more.
func Excerpt(markup string, base *url.URL, limit int) (formatted, plain string, cut bool) {
	w := &excerpt{base: base, left: limit}
	z := html.NewTokenizer(strings.NewReader(strings.ToValidUTF8(prefix(markup, maxMarkup), "")))
	z.SetMaxBuf(maxToken)
	for !w.cut {
		kind := z.Next()
		if kind == html.ErrorToken {
			break
		}
		w.token(kind, z)
		w.cut = w.cut || w.out.Len() > maxHTML
	}
	w.cut = w.cut || len(markup) > maxMarkup
	if w.cut {
		w.out.WriteString("…")
		w.text.WriteString("…")
	}
	for _, tag := range slices.Backward(w.open) {
		w.out.WriteString("</" + tag.String() + ">")
	}
	return strings.TrimSpace(clean(subset().Sanitize(w.out.String()))), lines(w.text.String()), w.cut
}

// excerpt rewrites a stream of tokens.
type excerpt struct {
	base *url.URL
	left int // characters
	out  strings.Builder
	text strings.Builder
	open []atom.Atom
	deep int // tags that are open beyond those kept
	skip atom.Atom
	cut  bool
}

func (w *excerpt) token(kind html.TokenType, z *html.Tokenizer) {
	switch kind {
	case html.TextToken:
		if w.skip == 0 {
			w.say(string(z.Text()))
		}
	case html.StartTagToken, html.SelfClosingTagToken:
		name, more := z.TagName()
		if tag := atom.Lookup(name); tag != 0 && w.skip == 0 {
			w.start(tag, z, more, kind == html.SelfClosingTagToken)
		}
	case html.EndTagToken:
		name, _ := z.TagName()
		w.end(atom.Lookup(name))
	}
}

func (w *excerpt) say(text string) {
	for _, word := range strings.SplitAfter(text, " ") {
		if n := utf8.RuneCountInString(word); n > w.left {
			word, w.cut = string([]rune(word)[:w.left]), true
		}
		w.left -= utf8.RuneCountInString(word)
		w.out.WriteString(html.EscapeString(word))
		w.text.WriteString(word)
		if w.cut {
			return
		}
	}
}

func (w *excerpt) start(tag atom.Atom, z *html.Tokenizer, more, closed bool) {
	if slices.Contains(blocks, tag) {
		w.text.WriteString("\n")
	}
	switch {
	case slices.Contains(void, tag):
		if tag == atom.Br || tag == atom.Hr {
			w.out.WriteString("<" + tag.String() + ">")
		}
	case slices.Contains(hidden, tag):
		if !closed {
			w.skip = tag
		}
	case closed:
	case len(w.open) >= maxDepth:
		w.deep++
	default:
		w.open = append(w.open, tag)
		w.out.WriteString("<" + tag.String())
		if href := w.href(z, more); tag == atom.A && href != "" {
			w.out.WriteString(` href="` + html.EscapeString(href) + `"`)
		}
		w.out.WriteString(">")
	}
}

// href is the address that a link leads to, "" if it is not shown.
func (w *excerpt) href(z *html.Tokenizer, more bool) string {
	for n := 0; more && n < 50; n++ {
		var key, value []byte
		if key, value, more = z.TagAttr(); string(key) == "href" {
			return Resolve(w.base, string(value))
		}
	}
	return ""
}

func (w *excerpt) end(tag atom.Atom) {
	switch {
	case w.skip != 0:
		if tag == w.skip {
			w.skip = 0
		}
		return
	case slices.Contains(blocks, tag):
		w.text.WriteString("\n")
	}
	at := -1
	for i := len(w.open) - 1; i >= 0 && at < 0; i-- {
		if w.open[i] == tag {
			at = i
		}
	}
	switch {
	case w.deep > 0 && tag != 0:
		w.deep--
	case at >= 0:
		for _, open := range slices.Backward(w.open[at:]) {
			w.out.WriteString("</" + open.String() + ">")
		}
		w.open = w.open[:at]
	}
}

// Resolve makes a full address of the web, or of mail, of a reference; "" if it is
// none.
func Resolve(base *url.URL, ref string) string {
	ref = strings.TrimSpace(ref)
	if ref == "" || len(ref) > maxURL || strings.ContainsFunc(ref, unicode.IsControl) {
		return ""
	}
	u, err := url.Parse(ref)
	if err != nil {
		return ""
	}
	if base != nil {
		u = base.ResolveReference(u)
	}
	switch {
	case u.Scheme == "mailto" && u.Opaque != "":
	case (u.Scheme == "http" || u.Scheme == "https") && u.Host != "" && u.User == nil:
	default:
		return ""
	}
	return u.String()
}

// Plain makes one line of plain text of at most n bytes of what may be HTML.
func Plain(markup string, n int) string {
	_, text, _ := Excerpt(markup, nil, 4*n)
	return line(text, n)
}

// line makes one line of at most n bytes of a plain text.
func line(s string, n int) string { return cutTo(strings.Join(strings.Fields(clean(s)), " "), n) }

// clean removes what no message may hold.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		if r == 0 || r != '\n' && r != '\t' && unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r) {
			return -1
		}
		return r
	}, strings.ToValidUTF8(s, ""))
}

// lines makes lines of single words apart of a text, without empty ones in a row.
func lines(s string) string {
	var list []string
	for _, line := range strings.Split(clean(s), "\n") {
		if line = strings.Join(strings.Fields(line), " "); line != "" {
			list = append(list, line)
		}
	}
	return strings.Join(list, "\n")
}

func prefix(s string, n int) string { return s[:min(len(s), n)] }

// cutTo shortens a text to n bytes, at the end of a character.
func cutTo(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return strings.TrimSpace(strings.ToValidUTF8(s[:n-len("…")], "")) + "…"
}
