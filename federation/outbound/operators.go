package outbound

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"time"

	"github.com/teahouse-chat/teahouse/internal/db"
	"github.com/teahouse-chat/teahouse/internal/matrix"
)

// Destination is how it stands with a server, for operators.
type Destination struct {
	Server      matrix.ServerName
	Failures    int       // since it last took something
	LastSuccess time.Time // when it last took something; exact to a day if that is long ago, zero if it never did
	LastFailure time.Time // zero if it never failed
	NextTry     time.Time // zero if it is not resting
	Error       string    // of the last failure
	Events      int       // that it still has to get; maxCounted stands for more
	EDUs        int       // that are stored for it
}

// maxCounted is up to where waiting events are counted.
const maxCounted = 1000

// Destinations lists the servers that were ever sent to, those first that fail.
func (q *Queues) Destinations(ctx context.Context) ([]Destination, error) {
	rows, err := readRows(ctx, q.DB)
	if err != nil {
		return nil, err
	}
	waiting := map[matrix.ServerName]int{}
	if err := db.Each(ctx, q.DB, countEDUs, func(s db.Scanner) error {
		var server matrix.ServerName
		var n int
		err := s.Scan(&server, &n)
		waiting[server] = n
		return err
	}); err != nil {
		return nil, err
	}
	after := map[matrix.ServerName]int64{}
	queued := map[matrix.ServerName]int{}
	q.mu.Lock()
	now := q.Now().UnixMilli()
	for server, d := range q.all {
		r := d.row(now)
		r.lastSuccess = max(r.lastSuccess, rows[server].lastSuccess)
		rows[server] = r
		queued[server] = len(d.queue)
		if d.more {
			after[server] = d.newest
		}
	}
	q.mu.Unlock()
	for server, position := range after {
		n, err := q.Rooms.CountOutgoing(ctx, server, position, maxCounted)
		if err != nil {
			return nil, err
		}
		queued[server] = min(queued[server]+n, maxCounted)
	}
	list := make([]Destination, 0, len(rows))
	for _, server := range slices.Sorted(maps.Keys(rows)) {
		r := rows[server]
		list = append(list, Destination{
			Server: server, Failures: r.failures, LastSuccess: moment(r.lastSuccess), LastFailure: moment(r.lastFailure),
			NextTry: moment(r.retryAt), Error: r.problem, Events: queued[server], EDUs: waiting[server],
		})
	}
	slices.SortStableFunc(list, func(a, b Destination) int { return cmp.Compare(b.Failures, a.Failures) })
	return list, nil
}

func moment(ms int64) time.Time {
	if ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(ms)
}

func ms(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}
