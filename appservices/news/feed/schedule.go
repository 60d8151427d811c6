package feed

import (
	"hash/fnv"
	"math"
	"slices"
	"time"
)

const (
	// MinInterval is how often a feed is fetched at most, where nothing else is said.
	MinInterval = 15 * time.Minute
	maxInterval = 6 * time.Hour  // of a feed that works; see "Which entry is which"
	longest     = 24 * time.Hour // whatever the reason
	paceOf      = 10             // entries whose distance counts
	perEntry    = 4              // fetches between two entries, as a rule
)

// Pace is what is known of how often a feed is worth looking at.
type Pace struct {
	URL       string
	Published []time.Time   // of the entries, in any order
	Min       time.Duration // the shortest interval, whatever the feed; 0 means MinInterval
	AtLeast   time.Duration // that the feed or its server asked to be left alone for, the largest of all
	Failures  int           // in a row
}

// Interval says how long after now to fetch the feed again: the more often it
// publishes the sooner; for a feed that fails twice as long after each failure, up to
// a day; and never sooner than it asked for, up to a day as well. Feeds that are alike
// are spread a little, always in the same way.
func Interval(p Pace, now time.Time) time.Duration {
	low := min(p.Min, longest)
	if low <= 0 {
		low = MinInterval
	}
	base := spread(p.URL, clamp(pace(p.Published, now, low)/perEntry, low, max(low, maxInterval)))
	for range min(p.Failures, 30) {
		base = min(2*base, longest)
	}
	return clamp(base, min(max(p.AtLeast, low), longest), longest)
}

// pace is the mean distance of the last dates, or a tenth of the silence since then if
// that is longer.
func pace(dates []time.Time, now time.Time, low time.Duration) time.Duration {
	past := slices.DeleteFunc(slices.Clone(dates), func(t time.Time) bool { return t.IsZero() || t.After(now) })
	if len(past) == 0 {
		return math.MaxInt64
	}
	slices.SortFunc(past, func(a, b time.Time) int { return b.Compare(a) })
	past = past[:min(len(past), paceOf)]
	silence := now.Sub(past[0]) / paceOf
	if len(past) == 1 {
		return max(silence, perEntry*low)
	}
	return max(silence, past[0].Sub(past[len(past)-1])/time.Duration(len(past)-1))
}

// spread makes an interval up to a tenth shorter, by the URL.
func spread(url string, d time.Duration) time.Duration {
	h := fnv.New32a()
	_, _ = h.Write([]byte(url))
	return d - d/10*time.Duration(h.Sum32()%1000)/1000
}

func clamp(d, low, high time.Duration) time.Duration { return min(max(d, low), high) }
