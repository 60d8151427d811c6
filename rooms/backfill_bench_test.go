package rooms_test

import (
	"fmt"
	"testing"

	"github.com/teahouse-chat/teahouse/internal/db"
	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms"
	"github.com/teahouse-chat/teahouse/rooms/event"
)

var snapshotBytes = db.SQL(`SELECT COUNT(*), SUM(LENGTH(entries)) FROM snapshots`)

// stored counts the snapshots and their bytes.
func (s *server) stored() (n, bytes float64) {
	s.t.Helper()
	_, _, err := db.One(s.t.Context(), s.DB, snapshotBytes, func(row db.Scanner) (struct{}, error) {
		var count, sum int64
		err := row.Scan(&count, &sum)
		n, bytes = float64(count), float64(sum)
		return struct{}{}, err
	})
	if err != nil {
		s.t.Fatal(err)
	}
	return n, bytes
}

// BenchmarkBackfill fetches the past of a room of 10,000 members, 100 events at a
// time: messages, of which one in ten is a change of the topic, and the joins.
func BenchmarkBackfill(b *testing.B) {
	const members, chunk = 10_000, 100
	a, past, _ := strangers(b, members)
	base := len(a.events())
	from := current(a.events())
	ids := make([]matrix.EventID, 0, len(past))
	for _, ev := range past {
		ids = append(ids, ev.ID)
	}
	last := past[len(past)-1]
	for _, what := range []string{"joins", "messages"} {
		b.Run(what, func(b *testing.B) {
			c := newServer(b, "c", "sqlite")
			c.room, c.v = a.room, a.v
			history, st := past[base:], past
			if what == "messages" {
				history, st = nil, append([]*event.Event{}, past...)
				prev := last
				for i := range chunk * b.N {
					d := draft{sender: a.user, typ: matrix.TypeMessage, content: fmt.Sprintf(`{"body":"message %d","msgtype":"m.text"}`, i),
						prev: []event.Ref{prev.Ref()}, from: from, depth: prev.Depth + 1}
					if i%10 == 0 {
						d.typ, d.key = matrix.TypeTopic, key("")
					}
					prev = a.forge(d)
					history = append(history, prev)
				}
			}
			newest := history[len(history)-1]
			join := c.forge(draft{sender: c.user, typ: matrix.TypeMember, key: (*string)(&c.user), content: `{"membership":"join"}`,
				prev: []event.Ref{newest.Ref()}, from: from, depth: newest.Depth + 1})
			if _, err := c.ImportState(b.Context(), c.v, c.room, st, nil, join); err != nil {
				b.Fatal(err)
			}
			snapshots, bytes := c.stored()
			b.ReportAllocs()
			b.ResetTimer()
			events := 0
			for range b.N {
				batch := history[max(0, len(history)-chunk):]
				history = history[:len(history)-len(batch)]
				if len(batch) == 0 {
					break
				}
				in := make([]rooms.Incoming, len(batch))
				for i, ev := range batch {
					in[i].Event = ev
				}
				in[0].State = ids
				if what == "joins" {
					in[0].State = ids[:base+len(history)]
				}
				out, err := c.Backfill(b.Context(), c.room, in)
				if err != nil || out[0].Event == nil || out[0].Why != nil {
					b.Fatal(out[0], err)
				}
				events += len(in)
			}
			b.StopTimer()
			after, more := c.stored()
			b.ReportMetric((after-snapshots)/float64(events), "snapshots/event")
			b.ReportMetric((more-bytes)/float64(events), "snapshotbytes/event")
			b.ReportMetric(float64(b.Elapsed().Milliseconds())/float64(events), "ms/event")
		})
	}
}
