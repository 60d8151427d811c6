package feed

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

var day = time.Date(2026, 11, 1, 8, 0, 0, 0, time.UTC)

func entryOf(id, link, title, text string, at time.Time) Entry {
	e := Entry{ID: id, Link: link, Title: title, Text: text, HTML: text, Published: at}
	e.Hash = hash(e.Title, e.Link, e.HTML)
	return e
}

func TestMatch(t *testing.T) {
	known := []Known{}
	for _, e := range []Entry{
		entryOf("1", "https://x/1", "One", "first", day),
		entryOf("2", "https://x/2", "Two", "second", day),
		entryOf("3", "https://x/home", "Three", "third", time.Time{}),
	} {
		known = append(known, e.Recognised())
	}
	for name, c := range map[string]struct {
		entries []Entry
		want    []int
	}{
		"the same":                {[]Entry{entryOf("1", "https://x/1", "One", "first", day)}, []int{0}},
		"edited":                  {[]Entry{entryOf("2", "https://x/2", "Two!", "more", day)}, []int{1}},
		"another id":              {[]Entry{entryOf("9", "https://x/1", "One", "first", day)}, []int{0}},
		"another id and link":     {[]Entry{entryOf("9", "https://y/1", "One", "first", day)}, []int{0}},
		"id, text, near date":     {[]Entry{entryOf("9", "https://x/1", "One", "now 12:01", day.Add(6*time.Hour))}, []int{0}},
		"another day":             {[]Entry{entryOf("9", "https://x/1", "One", "today", day.Add(24*time.Hour))}, []int{New}},
		"new":                     {[]Entry{entryOf("4", "https://x/4", "Four", "fourth", day)}, []int{New}},
		"new title, known link":   {[]Entry{entryOf("4", "https://x/home", "Four", "fourth", time.Time{})}, []int{New}},
		"the known id is there":   {[]Entry{entryOf("3", "https://x/home", "Three", "third", time.Time{}), entryOf("4", "https://x/home", "Three", "other", time.Time{})}, []int{2, New}},
		"copies in the document":  {[]Entry{entryOf("7", "", "Seven", "7", day), entryOf("8", "", "Seven", "7", day), entryOf("7", "", "x", "y", day)}, []int{New, Copy, Copy}},
		"reposted beside the old": {[]Entry{entryOf("1", "https://x/1", "One", "first", day), entryOf("1b", "https://x/1b", "One", "first", day)}, []int{0, Copy}},
		"one link for all":        {[]Entry{entryOf("a", "https://x/1", "One", "p", day), entryOf("b", "https://x/1", "One", "q", day)}, []int{New, New}},
	} {
		if got := Match(known, c.entries); !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
}

// No two entries are one known entry; a document that comes again has nothing new,
// in whatever order, and with other ids neither.
func TestMatchProperty(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		draw := func(of string, n int) string { return fmt.Sprint(of, rapid.IntRange(0, n).Draw(t, of)) }
		var entries []Entry
		for i := range rapid.IntRange(0, 12).Draw(t, "entries") {
			entries = append(entries, entryOf(fmt.Sprint("id", i), draw("https://x/", 8), draw("title", 4), draw("text", 4), day.Add(time.Duration(rapid.IntRange(0, 30).Draw(t, "hours"))*time.Hour)))
		}
		cut := rapid.IntRange(0, len(entries)).Draw(t, "known")
		known := taken(nil, entries[:cut])
		used := map[int]bool{}
		for _, at := range Match(known, entries) {
			if at >= 0 && used[at] {
				t.Fatalf("%d twice", at)
			}
			used[at] = at >= 0
		}
		known = taken(known, entries)
		again := rapid.Permutation(entries).Draw(t, "again")
		for i, at := range Match(known, again) {
			if at == New {
				t.Fatalf("%+v is new the second time", again[i])
			}
		}
		for i := range again {
			again[i].ID = fmt.Sprint("made up ", i)
		}
		for i, at := range Match(known, again) {
			if at == New {
				t.Fatalf("%+v is new under another id", again[i])
			}
		}
	})
}

// taken is what is known after a document.
func taken(known []Known, entries []Entry) []Known {
	known = slices.Clone(known)
	for i, at := range Match(known, entries) {
		switch {
		case at == New:
			known = append(known, entries[i].Recognised())
		case at >= 0:
			known[at] = entries[i].Recognised()
		}
	}
	return known
}

// The interval stays within its bounds, asks for no less than was asked for, and
// grows with failures.
func TestInterval(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := Pace{URL: rapid.String().Draw(t, "url"), AtLeast: time.Duration(rapid.Int64Range(0, int64(400*24*time.Hour)).Draw(t, "at least")), Failures: rapid.IntRange(0, 1000).Draw(t, "failures"),
			Min: time.Duration(rapid.IntRange(0, 3*24*3600).Draw(t, "min")) * time.Second}
		low := min(p.Min, longest)
		if low == 0 {
			low = MinInterval
		}
		for range rapid.IntRange(0, 30).Draw(t, "entries") {
			p.Published = append(p.Published, day.Add(time.Duration(rapid.Int64Range(-int64(1000*24*time.Hour), int64(24*time.Hour)).Draw(t, "date"))))
		}
		before := slices.Clone(p.Published)
		d := Interval(p, day)
		if d < low || d > longest || d < min(p.AtLeast, longest) {
			t.Fatalf("%v", d)
		}
		if p.Failures == 0 && p.AtLeast < low && d > max(low, maxInterval) {
			t.Fatalf("%v for a feed that works", d)
		}
		more := p
		more.Failures++
		if Interval(more, day) < d || d != Interval(p, day) || !slices.EqualFunc(before, p.Published, time.Time.Equal) {
			t.Fatal("one more failure shortens it, or it changes")
		}
		more.Failures = 40
		if Interval(more, day) != longest {
			t.Fatalf("%v after forty failures", Interval(more, day))
		}
	})
	every := func(d time.Duration) (p Pace) {
		for i := range 10 {
			p.Published = append(p.Published, day.Add(-time.Duration(i)*d))
		}
		return p
	}
	if a, b := Interval(every(2*time.Hour), day), Interval(every(12*time.Hour), day); a > 30*time.Minute || a < 27*time.Minute || b > 3*time.Hour || b < 2*time.Hour {
		t.Errorf("%v %v", a, b)
	}
}
