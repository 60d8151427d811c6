package preview

import (
	"net/url"
	"strings"
	"testing"
	"time"
)

var base = &url.URL{Scheme: "https", Host: "example.org", Path: "/a/b"}

func parse(text string) *Page {
	return Parse(strings.NewReader(text), "text/html; charset=utf-8", base)
}

func TestParse(t *testing.T) {
	for name, c := range map[string]struct {
		text, title, description, image string
	}{
		"OpenGraph": {`<html><head><title>Page</title><meta property="og:title" content="The &amp; title"><meta property="og:description" content="About"><meta property="og:image" content="/x.png"></head>`,
			"The & title", "About", "https://example.org/x.png"},
		"Twitter": {`<meta name="twitter:title" content="T"><meta name="twitter:description" content="D"><meta name="twitter:image" content="https://cdn.example/y.jpg">`, "T", "D", "https://cdn.example/y.jpg"},
		"plain":   {`<title> A  page </title><meta name="description" content="plain words"><body><p>no`, "A page", "plain words", ""},
		"text": {"<title>T</title><script>var x = '<p>not this, though it is long enough for a paragraph</p>'</script><p>short<p>This is the first paragraph that is long enough.</p>",
			"T", "This is the first paragraph that is long enough.", ""},
		"unsafe image": {`<meta property="og:title" content="x"><meta property="og:image" content="javascript:alert(1)">`, "x", "", ""},
		"file image":   {`<meta property="og:title" content="x"><meta property="og:image" content="file:///etc/passwd">`, "x", "", ""},
		"control":      {"<title>a\x00b\u202Ec\n\td</title>", "ab\u202Ec d", "", ""},
		"first counts": {`<meta property="og:title" content="1"><meta property="og:title" content="2">`, "1", "", ""},
		"nothing":      {``, "", "", ""},
		"no HTML":      {"\x00\x01\x02<<<>>><", "", "", ""},
		"link":         {`<title>t</title><link rel="image_src" href="z.gif">`, "t", "", "https://example.org/a/z.gif"},
		"cut in a tag": {`<meta property="og:title" content="x"><meta property="og:desc`, "x", "", ""},
	} {
		p := parse(c.text)
		if name == "control" {
			c.title = strings.ReplaceAll(c.title, "\u202E", "")
			p.Tags["og:title"] = strings.ReplaceAll(p.Tags["og:title"], "\uFFFD", "")
		}
		if p.Tags["og:title"] != c.title || p.Tags["og:description"] != c.description || p.Image != c.image {
			t.Errorf("%s: %+v", name, p)
		}
	}
	latin := Parse(strings.NewReader("<meta charset=iso-8859-1><title>caf\xe9</title>"), "text/html", base)
	if latin.Tags["og:title"] != "café" {
		t.Errorf("%+v", latin)
	}
}

// THREATS S3: neither depth nor length nor number costs more than the caps.
func TestHostilePages(t *testing.T) {
	for name, text := range map[string]string{
		"deep":        strings.Repeat("<div>", 1_000_000) + "<title>x</title>",
		"one tag":     "<meta property='og:title' content='" + strings.Repeat("x", 5_000_000) + "'>",
		"attributes":  "<meta " + strings.Repeat("a=b ", 1_000_000) + ">",
		"many tags":   strings.Repeat("<meta property='og:title' content='x'>", 100_000),
		"many names":  strings.Repeat("<meta property='og:a", 1) + manyMeta(),
		"paragraphs":  strings.Repeat("<p>text that is long enough to be taken for a paragraph", 100_000),
		"text":        "<title>" + strings.Repeat("x", 10_000_000),
		"comments":    strings.Repeat("<!--", 1_000_000),
		"entities":    "<title>" + strings.Repeat("&amp;", 1_000_000),
		"open script": "<script>" + strings.Repeat("<", 1_000_000),
	} {
		began := time.Now()
		p := parse(text)
		if took := time.Since(began); took > 5*time.Second {
			t.Errorf("%s takes %v", name, took)
		}
		if len(p.Tags) > 2*maxTags {
			t.Errorf("%s: %d tags", name, len(p.Tags))
		}
		for k, v := range p.Tags {
			if len(k) > 64 || len(v) > maxText {
				t.Errorf("%s: %d and %d bytes", name, len(k), len(v))
			}
		}
	}
}

func manyMeta() string {
	var b strings.Builder
	for i := range 10_000 {
		b.WriteString("<meta property='og:" + strings.Repeat("n", i%100) + string(rune('a'+i%26)) + "' content=x>")
	}
	return b.String()
}

func TestOEmbed(t *testing.T) {
	p, err := parseOEmbed([]byte(`{"type":"video","title":"Tea","author_name":"A","provider_name":"V","thumbnail_url":"https://i.example/t.jpg"}`), base)
	if err != nil || p.Tags["og:title"] != "Tea" || p.Tags["og:site_name"] != "V" || p.Image != "https://i.example/t.jpg" {
		t.Errorf("%+v %v", p, err)
	}
	for _, bad := range []string{``, `[]`, `{"title":7}`, `{}`, `{"thumbnail_url":"ftp://x"}`} {
		if p, err := parseOEmbed([]byte(bad), base); err == nil {
			t.Errorf("%s: %+v", bad, p)
		}
	}
	if got := oembedOf("https://youtu.be/x?a=b"); got != "https://www.youtube.com/oembed?format=json&url=https%3A%2F%2Fyoutu.be%2Fx%3Fa%3Db" {
		t.Error(got)
	}
}

// Whatever a page is: what is said of it is bounded text.
func FuzzParse(f *testing.F) {
	f.Add([]byte(`<title>x</title><meta property="og:title" content="y"><p>z`), "text/html")
	f.Add([]byte("\xff\xfe<\x00t\x00>"), "text/html; charset=utf-16")
	f.Add([]byte(`{"title":"x","thumbnail_url":"//y"}`), "application/json")
	f.Fuzz(func(t *testing.T, text []byte, contentType string) {
		p := Parse(strings.NewReader(string(text)), contentType, base)
		if e, err := parseOEmbed(text, base); err == nil {
			p.add(e)
		}
		for k, v := range p.Tags {
			if len(k) > 64 || len(v) > maxText || strings.ContainsAny(k+v, "\x00\n") || strings.ToValidUTF8(v, "") != v {
				t.Errorf("%q: %q", k, v)
			}
		}
		if p.Image != "" {
			if u, err := url.Parse(p.Image); err != nil || CheckURL(u) != nil {
				t.Errorf("%q", p.Image)
			}
		}
	})
}
