package news

import (
	"html"
	"strings"

	"maunium.net/go/mautrix/event"
)

const (
	// burst is how many entries a room gets as messages of their own at a time.
	burst = 8
	// maxList bounds one list, in entries and in bytes; an event has 64 KiB.
	maxList      = 30
	maxListBytes = 16 << 10
)

// entry is one that a room is owed.
type entry struct {
	feed     int64
	n        int64
	from     string // the feed's title
	address  string // and its address
	keywords string
	link     string
	title    string
	author   string
	html     string
	text     string
	found    int64
	ref      int64 // the message that the room refused, if it did
	refused  int   // how often it did
}

// heading is what a message shows first.
func (e *entry) heading() string {
	if e.title != "" {
		return e.title
	}
	first, _, _ := strings.Cut(e.text, "\n")
	if short := []rune(first); len(short) > 80 {
		first = string(short[:80]) + "…"
	}
	if first == "" {
		return e.link
	}
	return first
}

// source is what a message shows last.
func (e *entry) source() string {
	if e.author == "" || e.author == e.from {
		return e.from
	}
	return e.from + " · " + e.author
}

func anchor(link, text string) string {
	if link == "" {
		return html.EscapeString(text)
	}
	return `<a href="` + html.EscapeString(link) + `">` + html.EscapeString(text) + `</a>`
}

// linked is a text with its address behind it.
func linked(text, link string) string {
	if link == "" || link == text {
		return text
	}
	return text + " " + link
}

// message is an entry as a message of its own.
func (e *entry) message() *event.MessageEventContent {
	var plain, formatted strings.Builder
	plain.WriteString(linked(e.heading(), e.link))
	formatted.WriteString("<p><b>" + anchor(e.link, e.heading()) + "</b></p>")
	if e.title != "" && e.text != "" {
		plain.WriteString("\n" + e.text)
		formatted.WriteString(e.html)
	}
	plain.WriteString("\n— " + e.source())
	formatted.WriteString("<p><i>" + html.EscapeString(e.source()) + "</i></p>")
	return &event.MessageEventContent{MsgType: event.MsgText, Body: plain.String(), Format: event.FormatHTML, FormattedBody: formatted.String()}
}

// page is the entries of one list.
type page struct {
	entries []entry
	content *event.MessageEventContent
}

// lists makes lists of entries, as many as are needed, by feed in the order in which
// the feeds first come.
func lists(entries []entry, title string) []page {
	var pages []page
	for len(entries) > 0 {
		n, size := 0, 0
		for n < len(entries) && n < maxList {
			if size += len(html.EscapeString(entries[n].heading())) + 2*len(html.EscapeString(entries[n].link)) + len(entries[n].from); size > maxListBytes && n > 0 {
				break
			}
			n++
		}
		pages = append(pages, page{entries[:n], listMessage(entries[:n], title)})
		entries = entries[n:]
	}
	return pages
}

func listMessage(entries []entry, title string) *event.MessageEventContent {
	var order []int64
	byFeed := map[int64][]entry{}
	for _, e := range entries {
		if byFeed[e.feed] == nil {
			order = append(order, e.feed)
		}
		byFeed[e.feed] = append(byFeed[e.feed], e)
	}
	var plain, formatted strings.Builder
	plain.WriteString(title)
	formatted.WriteString("<p><b>" + html.EscapeString(title) + "</b></p>")
	for _, feed := range order {
		plain.WriteString("\n\n" + byFeed[feed][0].from)
		formatted.WriteString("<p>" + html.EscapeString(byFeed[feed][0].from) + "</p><ul>")
		for _, e := range byFeed[feed] {
			plain.WriteString("\n• " + linked(e.heading(), e.link))
			formatted.WriteString("<li>" + anchor(e.link, e.heading()) + "</li>")
		}
		formatted.WriteString("</ul>")
	}
	return &event.MessageEventContent{MsgType: event.MsgText, Body: plain.String(), Format: event.FormatHTML, FormattedBody: formatted.String()}
}
