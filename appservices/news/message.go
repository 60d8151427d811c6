package news

import (
	"fmt"
	"html"
	"net/url"
	"slices"
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
	if short := firstRunes(first, 80); short != first {
		first = short + "…"
	}
	if first == "" {
		return e.link
	}
	return first
}

// name is how people are told of the entry's feed: by its host if it has no title.
func (e *entry) name() string {
	if u, err := url.Parse(e.address); e.from == "" && err == nil {
		return u.Hostname()
	}
	return e.from
}

// source is what a message shows last.
func (e *entry) source() string {
	if e.author == "" || e.author == e.from {
		return e.name()
	}
	return e.name() + " · " + e.author
}

func anchor(link, text string) string {
	if link == "" {
		return html.EscapeString(text)
	}
	return `<a href="` + html.EscapeString(link) + `">` + html.EscapeString(text) + `</a>`
}

// linked is a text with its address behind it.
func linked(text, link string) string {
	switch {
	case text == "":
		return link
	case link == "" || link == text:
		return text
	}
	return text + " " + link
}

// message is an entry as a message of its own. One without a title, as on microblogs,
// is its text with the link below.
func (e *entry) message() *event.MessageEventContent {
	title, link := linked(e.heading(), e.link), "<p><b>"+anchor(e.link, e.heading())+"</b></p>"
	var plain, formatted []string
	switch {
	case e.text == "":
		plain, formatted = []string{title}, []string{link}
	case e.title != "":
		plain, formatted = []string{title, e.text}, []string{link, e.html}
	case e.link != "":
		plain, formatted = []string{e.text, e.link}, []string{e.html, "<p>" + anchor(e.link, e.link) + "</p>"}
	default:
		plain, formatted = []string{e.text}, []string{e.html}
	}
	plain = append(plain, "— "+e.source())
	formatted = append(formatted, "<p><i>"+html.EscapeString(e.source())+"</i></p>")
	return content(strings.Join(plain, "\n"), strings.Join(formatted, ""))
}

// content is a message of the service's own accord: it mentions nobody, whatever is
// quoted in it.
func content(plain, formatted string) *event.MessageEventContent {
	return &event.MessageEventContent{
		MsgType: event.MsgText, Body: plain, Format: event.FormatHTML, FormattedBody: formatted, Mentions: &event.Mentions{},
	}
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
			if size += len(html.EscapeString(entries[n].heading())) + 2*len(html.EscapeString(entries[n].link)) + len(entries[n].from) + len("<li></li>30. "); size > maxListBytes && n > 0 {
				break
			}
			n++
		}
		shown := byFeed(entries[:n])
		pages = append(pages, page{shown, listMessage(shown, title)})
		entries = entries[n:]
	}
	return pages
}

// byFeed puts entries in the order in which a list shows them: feed by feed, as these
// first come.
func byFeed(entries []entry) []entry {
	order := map[int64]int{}
	for _, e := range entries {
		if _, ok := order[e.feed]; !ok {
			order[e.feed] = len(order)
		}
	}
	sorted := slices.Clone(entries)
	slices.SortStableFunc(sorted, func(a, b entry) int { return order[a.feed] - order[b.feed] })
	return sorted
}

// listMessage is entries, in the order of byFeed, as one message. They have numbers, to
// react with.
func listMessage(entries []entry, title string) *event.MessageEventContent {
	var plain, formatted strings.Builder
	plain.WriteString(title)
	formatted.WriteString("<p><b>" + html.EscapeString(title) + "</b></p>")
	for i, e := range entries {
		if i == 0 || e.feed != entries[i-1].feed {
			if i > 0 {
				formatted.WriteString("</ol>")
			}
			plain.WriteString("\n\n" + e.name())
			formatted.WriteString("<p>" + html.EscapeString(e.name()) + fmt.Sprintf(`</p><ol start="%d">`, i+1))
		}
		plain.WriteString(fmt.Sprintf("\n%d. ", i+1) + linked(e.heading(), e.link))
		formatted.WriteString("<li>" + anchor(e.link, e.heading()) + "</li>")
	}
	formatted.WriteString("</ol>")
	return content(plain.String(), formatted.String())
}
