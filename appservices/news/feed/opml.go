package feed

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strings"
)

// MaxList is how many feeds a list may have.
const MaxList = 1000

// ErrNoList says that a document is no list of feeds.
var ErrNoList = errors.New("feed: this is no OPML list")

// outline is one line of a list. Programs write its attributes as they like.
func outline(e xml.StartElement) (l Link, ok bool) {
	var text string
	for _, a := range e.Attr {
		switch strings.ToLower(a.Name.Local) {
		case "xmlurl":
			l.URL = a.Value
		case "title":
			l.Title = line(a.Value, maxTitle)
		case "text":
			text = line(a.Value, maxTitle)
		}
	}
	if l.Title == "" {
		l.Title = text
	}
	l.URL = Resolve(nil, l.URL)
	u, err := url.Parse(l.URL)
	return l, err == nil && u.Host != ""
}

// ReadOPML reads a list of feeds, whatever folders they are in, each feed once.
func ReadOPML(text []byte) ([]Link, error) {
	d := xml.NewDecoder(bytes.NewReader(utf8Text(text, "")))
	d.Strict, d.Entity = false, xml.HTMLEntity
	var list []Link
	root := false
	seen := map[string]bool{}
	for len(list) < MaxList {
		token, err := d.RawToken()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrNoList, err)
		}
		e, ok := token.(xml.StartElement)
		switch {
		case !ok:
		case !root:
			if !strings.EqualFold(e.Name.Local, "opml") {
				return nil, ErrNoList
			}
			root = true
		case strings.EqualFold(e.Name.Local, "outline"):
			if l, ok := outline(e); ok && !seen[l.URL] {
				seen[l.URL] = true
				list = append(list, l)
			}
		}
	}
	if !root {
		return nil, ErrNoList
	}
	return list, nil
}

// WriteOPML makes a list that every reader takes.
func WriteOPML(title string, list []Link) []byte {
	type line struct {
		Type  string `xml:"type,attr"`
		Text  string `xml:"text,attr"`
		Title string `xml:"title,attr"`
		URL   string `xml:"xmlUrl,attr"`
	}
	document := struct {
		XMLName xml.Name `xml:"opml"`
		Version string   `xml:"version,attr"`
		Title   string   `xml:"head>title"`
		Lines   []line   `xml:"body>outline"`
	}{Version: "2.0", Title: title}
	for _, l := range list {
		name := l.Title
		if name == "" {
			name = l.URL
		}
		document.Lines = append(document.Lines, line{"rss", name, name, l.URL})
	}
	text, _ := xml.MarshalIndent(document, "", "  ") // strings can always be written
	return append([]byte(xml.Header), append(text, '\n')...)
}
