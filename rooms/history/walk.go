package history

import (
	"context"
	"math"

	"github.com/teahouse-chat/teahouse/internal/filter"
	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms"
)

// maxScanned bounds how many events one request looks at, and scanPage how many
// it reads at once where it finds few that fit.
const (
	maxScanned = 2000
	scanPage   = 500
)

// walk goes through a room's timeline, event by event, from a place between two
// events.
type walk struct {
	reader    *reader
	filter    *filter.Events
	backwards bool
	place     int64 // a point: where the next step starts
	bound     int64 // a point: where the walk ends
	ended     bool  // there is nothing behind place that the reader may see
	start     int64 // where the first event was met
	created   bool  // the room's first event has been passed
	gaps      gaps
}

func (rd *reader) walk(f *filter.Events, backwards bool) *walk {
	w := &walk{reader: rd, filter: f, backwards: backwards, bound: rd.access.Until, place: math.MinInt64}
	if backwards {
		w.place, w.bound = min(rd.room.View().Position, rd.access.Until), math.MinInt64
	}
	w.start = w.place
	return w
}

// from starts the walk at a point instead of the end of the timeline.
func (w *walk) from(point int64) {
	w.start = point
	if w.place = point; w.backwards {
		w.place = min(point, w.reader.access.Until)
	}
}

// to ends the walk at a point, if not earlier.
func (w *walk) to(point int64) {
	if w.backwards {
		w.bound = max(w.bound, point)
	} else {
		w.bound = min(w.bound, point)
	}
}

// take walks on until it has found as many events as wanted, or has looked at
// as many as one request may.
func (w *walk) take(ctx context.Context, limit int) ([]*rooms.Stored, error) {
	if !w.filter.TakesRoom(w.reader.room.ID) {
		w.ended = true
		return nil, nil
	}
	var taken []*rooms.Stored
	for scanned, page := 0, limit; len(taken) < limit && !w.ended && scanned < maxScanned; page = scanPage {
		if full, err := w.bridge(ctx, limit-len(taken)); full || err != nil {
			return taken, err
		}
		events, err := w.next(ctx, page)
		if err != nil {
			return nil, err
		}
		if w.ended {
			if w.ended, err = w.atEnd(ctx, limit-len(taken)); err != nil {
				return nil, err
			}
			continue
		}
		scanned += len(events)
		fitting, err := w.fitting(ctx, events)
		if err != nil {
			return nil, err
		}
		taken = w.pass(events, fitting, taken, limit)
		if w.created && !w.ended && w.gaps.edge() <= w.place {
			// Nothing comes before a room's first event, unless a gap was filled after
			// all else had been fetched, or is yet to be filled.
			if _, err := w.next(ctx, 1); err != nil {
				return nil, err
			}
		}
	}
	return taken, nil
}

// next reads the events ahead, up to the bound, and up to the next gap.
func (w *walk) next(ctx context.Context, limit int) ([]*rooms.Stored, error) {
	q := rooms.TimelineQuery{Room: w.reader.room, From: w.place, Backwards: w.backwards, Limit: limit}
	if w.backwards && w.place < math.MaxInt64 {
		q.From++ // the event right at the place is the first
	}
	events, err := w.reader.engine.Timeline(ctx, q)
	if err != nil {
		return nil, err
	}
	edge := w.gaps.edge()
	for i, st := range events {
		if w.backwards && st.Position <= w.bound || !w.backwards && st.Position > w.bound {
			events = events[:i]
			break
		}
		if st.Position < edge {
			if i == 0 { // what the gap is behind is not shown
				w.place, w.gaps.above = edge-1, edge
				return nil, nil
			}
			events = events[:i]
			break
		}
	}
	w.ended = len(events) == 0
	return events, nil
}

// fitting filters events by what the reader may see and by the filter.
func (w *walk) fitting(ctx context.Context, events []*rooms.Stored) ([]*rooms.Stored, error) {
	fitting, err := w.reader.visible(ctx, events)
	if err != nil {
		return nil, err
	}
	kept := fitting[:0]
	for _, st := range fitting {
		if w.filter.Takes(st.Type, st.Sender, st.Content) {
			kept = append(kept, st)
		}
	}
	if !w.filter.Related() || len(kept) == 0 {
		return kept, nil
	}
	return w.related(ctx, kept)
}

// related leaves the events that others relate to as the filter wants.
// spec: client-server#filtering-by-reaction-or-relation
func (w *walk) related(ctx context.Context, events []*rooms.Stored) ([]*rooms.Stored, error) {
	ids := make([]matrix.EventID, len(events))
	for i, st := range events {
		ids[i] = st.ID
	}
	children, err := w.reader.engine.Relations(ctx, ids)
	if err != nil {
		return nil, err
	}
	picked := map[matrix.EventID]bool{}
	for _, c := range children {
		if w.filter.TakesRelation(c.RelType, c.Sender) {
			picked[c.Target] = true
		}
	}
	kept := events[:0]
	for _, st := range events {
		if picked[st.ID] {
			kept = append(kept, st)
		}
	}
	return kept, nil
}

// pass moves over events, of which some fit, until enough are taken.
func (w *walk) pass(events, fitting, taken []*rooms.Stored, limit int) []*rooms.Stored {
	for _, st := range events {
		if len(fitting) > 0 && st == fitting[0] {
			if len(taken) == limit {
				return taken
			}
			taken, fitting = append(taken, st), fitting[1:]
		}
		if w.start == math.MinInt64 {
			w.start = st.Position - 1
		}
		w.place = st.Position
		if w.backwards {
			w.place--
			w.gaps.above = st.Position
			w.created = w.created || st.Is(matrix.TypeCreate, "")
		}
	}
	return taken
}
