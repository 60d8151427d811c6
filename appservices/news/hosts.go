package news

import (
	"cmp"
	"context"
	"net/url"
	"slices"
	"time"
)

const (
	// perHost is how many feeds of one host are fetched at a time.
	perHost = 4
	// longestPause is the longest pause between two requests to a host.
	longestPause = 5 * time.Second
	// laneFor is how long the feeds of a host are fetched before all that is due is
	// looked at anew: a host that answers slowly does not hold up others for longer.
	laneFor = time.Minute
)

// lanes parts feeds into lists whose feeds are fetched one after the other: at most
// perHost for a host, and the short ones first.
func lanes(due []source) [][]source {
	type lane struct {
		host string
		n    int
	}
	count := map[string]int{}
	places := map[lane]int{}
	var all [][]source
	for _, s := range due {
		host := hostOf(s.url)
		key := lane{host, count[host] % perHost}
		count[host]++
		at, ok := places[key]
		if !ok {
			at = len(all)
			places[key], all = at, append(all, nil)
		}
		all[at] = append(all[at], s)
	}
	slices.SortStableFunc(all, func(a, b []source) int { return cmp.Compare(len(a), len(b)) })
	return all
}

// hostOf is the host of an address, whatever the port.
func hostOf(address string) string {
	u, err := url.Parse(address)
	if err != nil {
		return ""
	}
	return u.Hostname()
}

// fetchLane fetches the feeds of a lane. After each it leaves the host alone for as long
// as that took, so that one that is busy is asked less. What it does not come to stays
// due.
func (n *News) fetchLane(ctx context.Context, lane []source) error {
	end := n.now().Add(laneFor)
	for i, s := range lane {
		until, err := n.refresh(ctx, s)
		if err != nil {
			return err
		}
		now := n.now()
		if i == len(lane)-1 || now.After(end) {
			break
		}
		if !n.pause(ctx, until.Sub(now)) {
			return ctx.Err()
		}
	}
	return nil
}

// pause waits; false if ctx ended first.
func (n *News) pause(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	alarm, stop := n.Clock().Timer(d)
	defer stop()
	select {
	case <-alarm:
		return true
	case <-ctx.Done():
		return false
	}
}
