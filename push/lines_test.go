package push

import (
	"testing"

	"pgregory.net/rapid"
)

// A line says of any stretch how many of its events notified the user.
func TestLines(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		type ev struct {
			common            int64
			counted, notified bool
		}
		var events []ev
		var l line
		end := tip{bend: bend{follows: true}}
		common, bends := int64(0), 0
		for i := range rapid.IntRange(1, 60).Draw(t, "events") {
			e := ev{counted: rapid.Bool().Draw(t, "counted"), notified: rapid.Bool().Draw(t, "notified")}
			if e.counted {
				common++
			}
			e.common = common
			events = append(events, e)
			if b, ok := end.add(int64(i+1), e.common, e.counted, e.notified); ok {
				l, bends = append(l, b), bends+1
			}
		}
		at := func(i int) int64 {
			if i == 0 {
				return 0
			}
			return events[i-1].common
		}
		for from := range len(events) + 1 {
			want := int64(0)
			for to := from; to <= len(events); to++ {
				if to > from && events[to-1].notified {
					want++
				}
				if got := l.between(int64(from), at(from), int64(to), at(to)); got != want {
					t.Fatalf("from %d to %d: %d, not %d in %+v: %+v", from, to, got, want, events, l)
				}
			}
		}
		for i, e := range events {
			if got := l.counted(int64(i+1), e.common, e.counted); got != e.notified {
				t.Fatalf("event %d: %v in %+v: %+v", i+1, got, events, l)
			}
		}
	})
}

func TestSilenceCostsNothing(t *testing.T) {
	end, bends := tip{bend: bend{follows: true}}, 0
	add := func(position int64, notified bool) {
		if _, ok := end.add(position, position, true, notified); ok {
			bends++
		}
	}
	for i := range int64(1000) {
		add(i+1, false)
	}
	if bends != 2 {
		t.Errorf("a muted room takes %d bends", bends)
	}
	for i := range int64(1000) {
		add(i+1001, true)
	}
	if bends != 4 {
		t.Errorf("a room that was muted and is not any more takes %d bends", bends)
	}
}
