package history

import (
	"context"
	"math"
	"slices"

	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms"
)

const (
	// maxAsked is how often other servers are asked for history for one page.
	maxAsked = 3
	// gapsAhead is how many gaps a walk knows of that it comes to.
	gapsAhead = 40
)

// gaps are the places in a room's history that a walk back comes to, behind which
// there is something that this server does not have. It has its place further on
// in the walk, wherever that is. So the walk has it brought in before it goes on;
// what cannot be had, it passes.
type gaps struct {
	ahead []rooms.Gap // the nearest first, those that are passed left out
	known bool        // ahead is up to date
	began bool
	tried map[matrix.EventID]bool // what was asked for; whether it may be had at another time
	asked int
	above int64 // the position of the event that the walk stands behind
	open  bool  // there is something behind the end that cannot be had now
}

// look finds out which gaps are ahead, beginning with that behind the event which
// the walk starts after.
func (w *walk) look(ctx context.Context) error {
	if w.gaps.known || !w.backwards || w.reader.remote == nil {
		return nil
	}
	if !w.gaps.began {
		if err := w.begin(ctx); err != nil {
			return err
		}
	}
	ahead, err := w.reader.engine.BackwardFrom(ctx, w.reader.room, w.gaps.above, gapsAhead)
	w.gaps.ahead, w.gaps.known = slices.DeleteFunc(ahead, w.gaps.passed), true
	return err
}

// begin finds the event that the walk starts after.
func (w *walk) begin(ctx context.Context) error {
	w.gaps.began, w.gaps.above = true, w.place
	if w.place >= w.reader.room.View().Position {
		return nil
	}
	above, err := w.reader.engine.Timeline(ctx, rooms.TimelineQuery{Room: w.reader.room, From: w.place, Limit: 1})
	if len(above) > 0 {
		w.gaps.above = above[0].Position
	}
	return err
}

func (g *gaps) passed(gap rooms.Gap) bool {
	_, ok := g.tried[gap.Missing]
	return ok
}

// edge is the position of the nearest gap; below all else if there is none.
func (g *gaps) edge() int64 {
	if len(g.ahead) == 0 {
		return math.MinInt64
	}
	return g.ahead[0].By.Position
}

// bridge has brought in what is behind the gaps that the walk stands at. It tells
// whether the page ends here, so that the next one can do the same.
func (w *walk) bridge(ctx context.Context, wanted int) (full bool, err error) {
	for {
		if err := w.look(ctx); err != nil {
			return false, err
		}
		if edge := w.gaps.edge(); edge <= w.place || edge <= w.bound {
			return false, nil
		}
		if w.gaps.asked >= maxAsked {
			return true, nil
		}
		if err := w.ask(ctx, w.gaps.ahead, wanted); err != nil {
			return false, err
		}
	}
}

// ask has other servers asked for what is behind gaps. Whoever waits for a page
// waits in vain only once.
func (w *walk) ask(ctx context.Context, list []rooms.Gap, wanted int) error {
	w.gaps.asked++
	came, open, err := w.reader.remote.Backfill(ctx, w.reader.room, list, wanted)
	if err != nil {
		return err
	}
	if !came {
		w.gaps.asked = maxAsked
	}
	if w.gaps.tried == nil {
		w.gaps.tried = map[matrix.EventID]bool{}
	}
	w.gaps.tried[list[0].Missing], w.gaps.known = open, false
	return nil
}

// atEnd tells whether the walk is over where this server has nothing more. There
// are gaps whose place is not known: behind events that were turned down.
func (w *walk) atEnd(ctx context.Context, wanted int) (bool, error) {
	if !w.backwards || w.bound != math.MinInt64 || w.reader.remote == nil {
		return true, nil
	}
	all, err := w.reader.engine.Backward(ctx, w.reader.room)
	if err != nil {
		return false, err
	}
	var left []rooms.Gap
	w.gaps.open = false
	for _, g := range all {
		open, tried := w.gaps.tried[g.Missing]
		here := g.By.Position > w.place && g.By.Position <= w.gaps.above
		if g.By.Position == 0 && !tried {
			left = append(left, g)
		}
		w.gaps.open = w.gaps.open || (g.By.Position == 0 || here) && (open || !tried)
	}
	if len(left) == 0 || w.gaps.asked >= maxAsked {
		return true, nil
	}
	return false, w.ask(ctx, left, wanted)
}
