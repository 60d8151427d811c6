package news

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"

	"maunium.net/go/mautrix/id"
)

// none is a time of the day that is not set.
const none = -1

// room is how a room wants its news.
type room struct {
	language  string
	zone      *time.Location // of the digest
	digest    int            // the minute of the day, or none
	quietZone *time.Location
	quietFrom int // likewise; both or neither
	quietTo   int
	muted     []string
	asker     id.UserID // who had it follow something last
}

// errTime is a time that cannot be read.
var errTime = errors.New("news: this is no time of the day")

// parseMinute reads a time of the day, "7", "07:30", "7.30" or "7:30pm", as minutes.
func parseMinute(text string) (int, error) {
	text = strings.NewReplacer("：", ":", ".", ":").Replace(strings.ToUpper(text))
	layout, clock := "15:04", text
	for _, half := range []string{"AM", "PM"} {
		if before, ok := strings.CutSuffix(text, half); ok {
			layout, clock = "3:04PM", before
			if !strings.Contains(clock, ":") {
				clock += ":00"
			}
			clock += half
		}
	}
	if !strings.Contains(clock, ":") {
		clock += ":00"
	}
	t, err := time.Parse(layout, clock)
	if err != nil {
		return 0, errTime
	}
	return t.Hour()*60 + t.Minute(), nil
}

// cutTime takes the time, or the two, off what may have a time zone behind: "8 pm
// Europe/Berlin" is "8pm" and "Europe/Berlin".
func cutTime(text string) (clock, zone string) {
	text = strings.NewReplacer("–", "-", "—", "-", "～", "-", "~", "-").Replace(text)
	text = besides.ReplaceAllString(strings.Join(strings.Fields(text), " "), "$1$2")
	clock, zone, _ = strings.Cut(text, " ")
	return clock, zone
}

// besides are the spaces that people put into times.
var besides = regexp.MustCompile(`(?i) ?(-) ?| ([ap]m)\b`)

// zoneNamed is the time zone of a name, whatever its case.
func zoneNamed(name string) (string, bool) {
	for _, zone := range []string{name, strings.ToUpper(name), titled(name)} {
		if _, err := time.LoadLocation(zone); err == nil && zone != "Local" && zone != "" {
			return zone, true
		}
	}
	return "", false
}

// titled writes a name as those of time zones are: America/Port_of_Spain.
func titled(name string) string {
	var b strings.Builder
	for _, part := range zoneParts.FindAllString(strings.ToLower(name), -1) {
		switch part {
		case "of", "es", "au":
		default:
			part = strings.ToUpper(part[:1]) + part[1:]
		}
		b.WriteString(part)
	}
	return b.String()
}

var zoneParts = regexp.MustCompile(`[a-z]+|[^a-z]`)

func clockText(minute int) string { return fmt.Sprintf("%02d:%02d", minute/60, minute%60) }

// on is the moment at which a day has a time of the day. Where clocks are put forward
// it may not exist; then it is as much later as they are.
func on(day time.Time, minute int) time.Time {
	return time.Date(day.Year(), day.Month(), day.Day(), 0, minute, 0, 0, day.Location())
}

// last is when a time of the day was last, and next when it will be again.
func last(now time.Time, minute int, zone *time.Location) time.Time {
	today := now.In(zone)
	for days := 0; ; days-- {
		if at := on(today.AddDate(0, 0, days), minute); !at.After(now) {
			return at
		}
	}
}

func next(now time.Time, minute int, zone *time.Location) time.Time {
	today := now.In(zone)
	for days := -1; ; days++ {
		if at := on(today.AddDate(0, 0, days), minute); at.After(now) {
			return at
		}
	}
}

// quiet tells until when nothing is to be sent; the zero time if something may be.
func (r *room) quiet(now time.Time) time.Time {
	if r.quietFrom == none || r.quietFrom == r.quietTo {
		return time.Time{}
	}
	if last(now, r.quietFrom, r.quietZone).After(last(now, r.quietTo, r.quietZone)) {
		return next(now, r.quietTo, r.quietZone)
	}
	return time.Time{}
}

// window says what of the news is sent now: what was found until a time, as a list or
// not. If that time is zero it is nothing, until due. A digest goes before quiet hours:
// somebody chose its time.
func (r *room) window(now time.Time) (until time.Time, list bool, due time.Time) {
	if r.digest != none {
		return last(now, r.digest, r.zone), true, next(now, r.digest, r.zone)
	}
	if end := r.quiet(now); !end.IsZero() {
		return time.Time{}, false, end
	}
	return now, false, time.Time{}
}
