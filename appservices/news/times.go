package news

import (
	"errors"
	"fmt"
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

// parseMinute reads a time of the day, "7", "07:30" or "7:30", as minutes.
func parseMinute(text string) (int, error) {
	text = strings.ReplaceAll(text, "：", ":")
	if !strings.Contains(text, ":") {
		text += ":00"
	}
	t, err := time.Parse("15:04", text)
	if err != nil {
		return 0, errTime
	}
	return t.Hour()*60 + t.Minute(), nil
}

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
