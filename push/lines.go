package push

import "sort"

// A line is a user's own running count of a thread, or of the main timeline: how
// many of its events notify the user. It goes along with the running count that
// everybody shares, or stays level, until the next bend. Where the rules of a
// user say what everybody's say it has no bends at all; a user who has muted a
// room gets two, and no more however much is said there.
type bend struct {
	position int64
	common   int64 // the shared running count there, the event at position included
	own      int64 // the user's own
	follows  bool  // goes along with the shared one from here on
}

// at is the line's value where the shared running count is common.
func (b bend) at(common int64) int64 {
	if b.follows {
		return b.own + common - b.common
	}
	return b.own
}

// line is a line's bends in order.
type line []bend

// last is the last bend up to a position; before the first bend, a line that
// goes along with the shared count.
func (l line) last(position int64) bend {
	i := l.index(position)
	if i < 0 {
		return bend{follows: true}
	}
	return l[i]
}

// index is the place of the last bend up to a position, -1 if there is none.
func (l line) index(position int64) int {
	return sort.Search(len(l), func(i int) bool { return l[i].position > position }) - 1
}

// between is how many events notify the user above one position and up to
// another, given the shared running counts there.
func (l line) between(after, from, upTo, to int64) int64 {
	return l.last(upTo).at(to) - l.last(after).at(from)
}

// counted tells whether the event at a position, where the shared running count
// is common, notified the user; shared tells whether it did everybody.
func (l line) counted(position, common int64, shared bool) bool {
	before := common
	if shared {
		before--
	}
	return l.last(position).at(common) > l.last(position-1).at(before)
}

// tip is the end of a line, to which events are added.
type tip struct {
	bend
	missed bool // the line went another way than expected at the event before
}

// add moves the tip over an event: common is the shared running count with it,
// counted tells whether it is in that, and notified whether it notifies the user.
// If the line does not go on as it went, the new bend is returned, too.
//
// A line that goes the other way once keeps its direction, as a single event is
// more often an exception than a change; twice in a row turns it.
func (t *tip) add(position, common int64, counted, notified bool) (bend, bool) {
	before := common
	if counted {
		before--
	}
	own := t.at(before)
	if notified {
		own++
	}
	if own == t.at(common) {
		t.missed = t.missed && !counted
		return bend{}, false
	}
	next := bend{position: position, common: common, own: own, follows: t.follows}
	if counted {
		if t.missed {
			next.follows = notified
		}
		t.missed = !t.missed
	}
	t.bend = next
	return next, true
}
