package feed

import (
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"golang.org/x/text/encoding/charmap"
	"golang.org/x/text/encoding/simplifiedchinese"
	"golang.org/x/text/encoding/unicode"
)

var base = &url.URL{Scheme: "https", Host: "example.org", Path: "/feed"}

func mustParse(t testing.TB, text, contentType string) *Feed {
	t.Helper()
	f, err := Parse([]byte(text), contentType, base)
	if err != nil {
		t.Fatalf("%.300s: %v", text, err)
	}
	return f
}

// rss is a feed of the items, which are written as XML.
func rss2(items ...string) string {
	return `<?xml version="1.0"?><rss version="2.0"><channel><title>Tea</title><link>https://example.org/news/</link><ttl>90</ttl><description>All about tea</description>` +
		strings.Join(items, "") + `</channel></rss>`
}

func TestFormats(t *testing.T) {
	for name, text := range map[string]string{
		"RSS": rss2(`<item><guid>1</guid><title>A &amp;amp; B</title><link>a</link><pubDate>Mon, 02 Nov 2026 10:00:00 GMT</pubDate><description>&lt;p&gt;Hi&lt;/p&gt;</description></item>`),
		"Atom": `<feed xmlns="http://www.w3.org/2005/Atom"><title>Tea</title><link href="https://example.org/news/"/><entry><id>1</id><title>A &amp; B</title>
			<link href="a"/><published>2026-11-02T10:00:00Z</published><summary type="html">&lt;p>Hi&lt;/p></summary></entry></feed>`,
		"JSON": `{"version":"https://jsonfeed.org/version/1.1","title":"Tea","home_page_url":"https://example.org/news/","items":[
			{"id":"1","title":"A & B","url":"a","date_published":"2026-11-02T10:00:00Z","content_html":"<p>Hi</p>"}]}`,
		"RDF": `<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#" xmlns="http://purl.org/rss/1.0/" xmlns:dc="http://purl.org/dc/elements/1.1/"><channel><title>Tea</title>
			<link>https://example.org/news/</link></channel><item><title>A &amp; B</title><link>a</link><description>&lt;p&gt;Hi&lt;/p&gt;</description><dc:date>2026-11-02T10:00:00Z</dc:date></item></rdf:RDF>`,
	} {
		f := mustParse(t, text, "")
		if f.Title != "Tea" || f.Site != "https://example.org/news/" || len(f.Entries) != 1 {
			t.Errorf("%s: %+v", name, f)
			continue
		}
		e := f.Entries[0]
		if e.Title != "A & B" || e.Link != "https://example.org/news/a" || e.Text != "Hi" || e.HTML != "<p>Hi</p>" ||
			!e.Published.Equal(time.Date(2026, 11, 2, 10, 0, 0, 0, time.UTC)) || name != "RDF" && e.ID != "1" || e.Hash == "" {
			t.Errorf("%s: %+v", name, e)
		}
		if name == "RSS" && f.TTL != 90*time.Minute {
			t.Errorf("ttl %v", f.TTL)
		}
	}
}

// Odd encodings come out as they were meant, whatever is told of them.
func TestEncodings(t *testing.T) {
	item := func(title string) string { return rss2("<item><guid>1</guid><title>" + title + "</title></item>") }
	declare := func(text, name string) string {
		return strings.Replace(text, `version="1.0"`, `version="1.0" encoding="`+name+`"`, 1)
	}
	must := func(text string, err error) string {
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	for name, c := range map[string]struct{ text, contentType, title string }{
		"UTF-8":               {item("茶 é"), "", "茶 é"},
		"UTF-8 with BOM":      {"\ufeff" + item("茶"), "", "茶"},
		"declared latin1":     {must(charmap.ISO8859_1.NewEncoder().String(declare(item("café"), "ISO-8859-1"))), "text/xml; charset=utf-8", "café"},
		"charset by header":   {must(charmap.Windows1251.NewEncoder().String(item("чай"))), "text/xml; charset=windows-1251", "чай"},
		"GBK":                 {must(simplifiedchinese.GBK.NewEncoder().String(declare(item("茶馆新闻"), "gb2312"))), "", "茶馆新闻"},
		"GB18030":             {must(simplifiedchinese.GB18030.NewEncoder().String(declare(item("茶馆"), "GB18030"))), "", "茶馆"},
		"UTF-16 LE":           {must(unicode.UTF16(unicode.LittleEndian, unicode.UseBOM).NewEncoder().String(declare(item("茶"), "utf-16"))), "", "茶"},
		"UTF-16 BE":           {must(unicode.UTF16(unicode.BigEndian, unicode.UseBOM).NewEncoder().String(item("茶"))), "", "茶"},
		"UTF-16 without BOM":  {must(unicode.UTF16(unicode.LittleEndian, unicode.IgnoreBOM).NewEncoder().String(declare(item("tea"), "utf-16"))), "", "tea"},
		"UTF-8 called latin1": {declare(item("茶"), "ISO-8859-1"), "", "茶"},
		"no UTF-8":            {must(charmap.Windows1252.NewEncoder().String(item("“café”"))), "", "“café”"},
		"unknown":             {declare(item("tea"), "klingon"), "text/xml; charset=none", "tea"},
		"NUL":                 {item("te\x00a\x01"), "", "tea"},
		"HTML entities":       {item("caf&eacute;&nbsp;&hellip;"), "", "café …"},
		"double escaped":      {item("caf&amp;eacute;"), "", "café"},
	} {
		f, err := Parse([]byte(c.text), c.contentType, base)
		if err != nil || len(f.Entries) != 1 || f.Entries[0].Title != c.title {
			t.Errorf("%s: %+v %v", name, f, err)
		}
	}
}

// A document that is none is an error, and none takes long or much.
func TestMalformed(t *testing.T) {
	deep := strings.Repeat("<a>", 200_000)
	for name, text := range map[string]string{
		"empty": "", "text": "hello", "HTML": "<html><body>hi", "JSON": `{"a":1}`, "JSON list": "[]", "half": rss2("<item>")[:60],
		"deep": `<rss><channel>` + deep, "deep JSON": `{"version":"https://jsonfeed.org/version/1","items":` + strings.Repeat("[", 300_000),
		"entities":    `<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;">]><rss><channel><title>&b;&b;&b;</title></channel></rss>`,
		"external":    `<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]><rss version="2.0"><channel><title>&a;</title></channel></rss>`,
		"binary":      strings.Repeat("\x00\xff\x13", 1000),
		"many spaces": strings.Repeat(" ", 1<<20),
	} {
		began := time.Now()
		f, err := Parse([]byte(text), "", base)
		if err == nil && name != "external" && name != "entities" && name != "deep" && name != "JSON" && name != "half" {
			t.Errorf("%s: %+v", name, f)
		}
		if err == nil && (strings.Contains(f.Title, "root:") || len(f.Title) > maxTitle || len(f.Entries) > 0) {
			t.Errorf("%s: %+v", name, f)
		}
		if took := time.Since(began); took > 10*time.Second {
			t.Errorf("%s takes %v", name, took)
		}
	}
}

func TestHuge(t *testing.T) {
	items := make([]string, 5000)
	for i := range items { // the oldest first
		items[i] = fmt.Sprintf("<item><guid>%d</guid><title>%d</title><pubDate>%s</pubDate></item>", i, i, time.Unix(int64(i)*3600, 0).UTC().Format(time.RFC1123Z))
	}
	f := mustParse(t, rss2(items...), "")
	if len(f.Entries) != maxEntries || f.Entries[0].ID != "4999" {
		t.Errorf("%d entries, the first is %s", len(f.Entries), f.Entries[0].ID)
	}
	long := strings.Repeat("x", 100_000)
	f = mustParse(t, rss2("<item><guid>"+long+"</guid><title>"+long+"</title><link>http://a/"+long+"</link><description>"+long+"</description><author>"+long+"</author></item>"), "")
	e := f.Entries[0]
	if len(e.ID) > maxID || len(e.Title) > maxTitle || e.Link != "" || len(e.Text) > excerptLen+3 || len(e.Author) > maxTitle {
		t.Errorf("%d %d %d %d", len(e.ID), len(e.Title), len(e.Link), len(e.Text))
	}
}

// What comes out of HTML is safe, balanced and short, and the text has its words.
func TestExcerpt(t *testing.T) {
	for _, c := range []struct{ in, html, text string }{
		{"plain & simple", "plain &amp; simple", "plain & simple"},
		{`<p onclick="x()">a <b>bold</b></p><script>alert(1)</script><style>p{}</style>b`, "<p>a <b>bold</b></p>b", "a bold\nb"},
		{`<a href="/x?a=1&amp;b=2" onmouseover=y>rel</a>`, `<a href="https://example.org/x?a=1&amp;b=2">rel</a>`, "rel"},
		{`<a href="javascript:alert(1)">js</a><a href=" jAvAscript:x">js</a><a href="data:text/html,x">d</a><a href="https://u:p@x/">p</a>`, "jsjsdp", "jsjsdp"},
		{`<img src=x onerror=alert(1)><svg onload=alert(1)><b>in svg</b></svg>after`, "after", "after"},
		{`<iframe src="https://evil.example"></iframe><object data=x></object><math><mi//xlink:href="data:x,<script>alert(4)</script>">`, "", ""},
		{"<b><i>open", "<b><i>open</i></b>", "open"},
		{"</b></p>x</i>", "x", "x"},
		{"<b>1<i>2</b>3</i>", "<b>1<i>2</i></b>3", "123"},
		{"a<br>b<br/>c", "a<br>b<br>c", "a\nb\nc"},
		{"<table><tr><td>1</td></tr></table>", "<table><tr><td>1</td></tr></table>", "1"},
		{"<![CDATA[<script>x</script>]]><!-- <b> -->y", "x]]&gt;y", "x]]>y"},
		{"<mx-reply>no</mx-reply><span data-mx-spoiler>s</span><font color=red>f</font>", "nosf", "nosf"},
		{"a\u202eb\x00c", "abc", "abc"},
		{`<a href="mailto:tea@example.org">m</a>`, `<a href="mailto:tea@example.org">m</a>`, "m"},
	} {
		formatted, text, _ := Excerpt(c.in, base, 500)
		if formatted != c.html || text != c.text {
			t.Errorf("%s:\n%s\n%s", c.in, formatted, text)
		}
	}
	formatted, text, cut := Excerpt("<p><b>"+strings.Repeat("word ", 1000)+"</b></p>", base, 12)
	if formatted != "<p><b>word word wo…</b></p>" || text != "word word wo…" || !cut {
		t.Errorf("%s %s %v", formatted, text, cut)
	}
	links, _, _ := Excerpt(strings.Repeat(`<a href="https://example.org/`+strings.Repeat("x", 1000)+`">a</a>`, 500), base, 5000)
	if len(links) > 2*maxHTML || strings.Count(links, "<a ") != strings.Count(links, "</a>") {
		t.Errorf("%d bytes of links", len(links))
	}
	deep, _, _ := Excerpt(strings.Repeat("<div>", 100_000)+"x"+strings.Repeat("</div>", 100_000), base, 500)
	if strings.Count(deep, "<div>") > maxDepth || strings.Count(deep, "<div>") != strings.Count(deep, "</div>") {
		t.Errorf("deep: %s", deep)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(rss2("<item><title>x</title><description>&lt;b&gt;y</description></item>")), "text/xml")
	f.Add([]byte("\xff\xfe<\x00r\x00s\x00s\x00>\x00"), "text/xml; charset=utf-16")
	f.Add([]byte(`{"version":"https://jsonfeed.org/version/1.1","title":"x","items":[{"id":1,"url":"//y","content_html":"<a href=x>"}]}`), "application/json")
	f.Add([]byte(`<opml><body><outline xmlUrl="http://x/"/></body></opml>`), "")
	f.Fuzz(func(t *testing.T, text []byte, contentType string) {
		_ = Discover(text, contentType, base)
		_, _ = ReadOPML(text)
		parsed, err := Parse(text, contentType, base)
		if err != nil {
			return
		}
		for _, e := range parsed.Entries {
			for _, s := range []string{e.ID, e.Link, e.Title, e.Author, e.HTML, e.Text} {
				if !utf8.ValidString(s) || strings.ContainsRune(s, 0) || len(s) > 16*excerptLen+maxURL {
					t.Errorf("%q", s)
				}
			}
			low := strings.ToLower(e.HTML)
			if strings.Contains(low, "<script") || strings.Contains(low, "<img") || strings.Contains(low, "href=\"javascript") {
				t.Errorf("%q", e.HTML)
			}
			if e.ID == "" {
				t.Error("an entry has no id")
			}
		}
		Match(nil, parsed.Entries)
	})
}
