package inbound

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/teahouse-chat/teahouse/federation/fetch"
	"github.com/teahouse-chat/teahouse/federation/gather"
	"github.com/teahouse-chat/teahouse/internal/db"
	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms/event"
)

// walkLimits bound what is fetched to close one gap: some days of a busy room. A
// longer one is bridged by the state behind it, and clients page into what was
// left out as they do into any history.
var walkLimits = fetch.Limits{Requests: 400, Events: 25_000, Bytes: 128 << 20, Time: 5 * time.Minute}

const (
	// missingRounds is how often get_missing_events is asked before backfill,
	// which tells more at once.
	missingRounds = 2
	missingLimit  = 50
	// shortPage is how much every server gives at least of what it has between
	// what was asked about: fewer events are all that it has there.
	shortPage     = 10
	backfillLimit = 100
	// maxFrontier bounds the events at which a walk goes on. A gap has a few; a
	// hostile server could let them grow with every event.
	maxFrontier = 1000
	askedFrom   = 20 // events that one request goes on from
)

// walk goes back from events to those that are known.
type walk struct {
	*fill
	missing map[matrix.EventID][]matrix.EventID // what is to be fetched, and what builds on it
	order   []matrix.EventID                    // as it was found; some is fetched already
	placed  map[matrix.EventID]bool             // looked up, and has its place or is staged
	rounds  int
	server  int
	back    bool // backfill is asked
}

// close fetches the events between those that are known and the items, or, if
// that cannot be done, the state behind.
func (f *fill) close(ctx context.Context, missing map[matrix.EventID][]matrix.EventID) error {
	w := &walk{fill: f, missing: missing, placed: map[matrix.EventID]bool{}}
	for id := range missing {
		w.order = append(w.order, id)
	}
	slices.Sort(w.order)
	limited, cancel := fetch.WithBudget(ctx, walkLimits)
	defer cancel()
	if err := w.run(limited); err != nil || len(w.missing) == 0 {
		return err
	}
	return w.bridge(ctx)
}

// run asks server after server until nothing is missing or nobody tells more.
func (w *walk) run(ctx context.Context) error {
	for len(w.missing) > 0 && len(w.missing) <= maxFrontier && w.server < len(w.job.Servers) {
		server := w.job.Servers[w.server]
		events, err := w.ask(ctx, server)
		w.rounds++
		switch {
		case errors.Is(err, fetch.ErrBudget):
			return nil
		case ctx.Err() != nil:
			return ctx.Err()
		}
		w.note(server, err)
		w.broken = w.broken || server == w.origin && errors.Is(err, fetch.ErrMalformed)
		n, err := w.accept(ctx, server, events)
		switch {
		case err != nil:
			return err
		case n == 0 && !w.back && !slices.Contains(w.away, server):
			w.back = true
		case n == 0:
			w.server++
			w.back = w.rounds >= missingRounds
		case w.rounds >= missingRounds, !w.back && len(events) < shortPage:
			w.back = true
		}
	}
	return nil
}

// ask asks for a page. An error is the server's, or the budget's.
func (w *walk) ask(ctx context.Context, server matrix.ServerName) ([]*event.Event, error) {
	w.order = slices.DeleteFunc(w.order, func(id matrix.EventID) bool { _, ok := w.missing[id]; return !ok })
	from := w.order[:min(len(w.order), askedFrom)]
	if w.back {
		return w.in.Fetch.Backfill(ctx, server, gather.Of(w.r), from, backfillLimit)
	}
	tips, err := w.r.Extremities(ctx)
	if err != nil {
		return nil, err
	}
	m := fetch.Missing{Limit: missingLimit}
	for _, x := range tips[:min(len(tips), askedFrom)] {
		m.Earliest = append(m.Earliest, x.ID)
	}
	for _, id := range from {
		for _, builder := range w.missing[id] {
			if !slices.Contains(m.Latest, builder) && len(m.Latest) < askedFrom {
				m.Latest = append(m.Latest, builder)
			}
		}
	}
	return w.in.Fetch.MissingEvents(ctx, server, gather.Of(w.r), m)
}

// accept stages those of the events that were missing, and finds out what is
// missing now. It tells how many there were: what nobody asked for is no use.
func (w *walk) accept(ctx context.Context, from matrix.ServerName, events []*event.Event) (int, error) {
	page := make(map[matrix.EventID]*event.Event, len(events))
	builders := map[matrix.EventID][]matrix.EventID{}
	for _, ev := range events {
		page[ev.ID] = ev
		for _, id := range ev.PrevEvents {
			if !w.placed[id] {
				builders[id] = nil
			}
		}
	}
	absent, err := w.unplaced(ctx, builders)
	if err != nil {
		return 0, err
	}
	for id := range builders {
		if _, ok := absent[id]; !ok {
			w.placed[id] = true
		}
	}
	var taken []*event.Event
	for _, id := range w.order {
		if w.missing[id] != nil && page[id] != nil {
			taken = append(taken, w.take(page, id)...)
		}
	}
	return len(taken), w.stage(ctx, from, taken)
}

// take moves an event that was missing, and what it leads to, from a page.
func (w *walk) take(page map[matrix.EventID]*event.Event, id matrix.EventID) []*event.Event {
	var taken []*event.Event
	list := []matrix.EventID{id}
	for n := 0; n < len(list); n++ {
		ev := page[list[n]]
		delete(page, list[n])
		delete(w.missing, list[n])
		w.placed[list[n]] = true
		taken = append(taken, ev)
		for _, prev := range ev.PrevEvents {
			if w.placed[prev] {
				continue
			}
			if w.missing[prev] == nil {
				if page[prev] != nil {
					list = append(list, prev)
				} else {
					w.order = append(w.order, prev)
				}
			}
			w.missing[prev] = append(w.missing[prev], ev.ID)
		}
	}
	return taken
}

// stage stores fetched events, so that they are brought in when the gap is
// closed, after a restart if need be.
func (f *fill) stage(ctx context.Context, from matrix.ServerName, events []*event.Event) error {
	if len(events) == 0 {
		return nil
	}
	rows, seqs := make([]*row, len(events)), make([]int64, len(events))
	now := f.in.Now().UnixMilli()
	for i, ev := range events {
		rows[i] = &row{
			seq: f.in.seq.Next(), id: f.in.key(ev.ID), needs: f.in.needsOf(ev), origin: from, received: now, size: len(ev.JSON),
			checked: true, fetched: true,
		}
		seqs[i] = rows[i].seq
	}
	f.hold(rows)
	var written map[int64]bool
	err := f.in.DB.Write(context.WithoutCancel(ctx), func(tx *db.Tx) error {
		for i, ev := range events {
			if err := tx.Exec(insertStaged, rows[i].seq, f.r.NID, ev.ID, from, now, true, ev.JSON, false); err != nil {
				return err
			}
		}
		var err error
		written, err = writtenOf(ctx, tx, seqs)
		return err
	})
	for _, w := range rows {
		if written[w.seq] {
			f.rows = append(f.rows, w)
		}
	}
	return err
}

// hold makes others wait for events that are about to be staged.
func (f *fill) hold(rows []*row) {
	f.in.mu.Lock()
	defer f.in.mu.Unlock()
	for _, w := range rows {
		f.q.held[w.id]++
		f.held = append(f.held, w.id)
	}
}
