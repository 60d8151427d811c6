package state

// Change is a key at which two states differ; 0 stands for "no event".
type Change struct {
	Key      KeyNID
	Old, New EventNID
}

// Diff lists the keys at which b differs from a, in order. What the two share
// is skipped chunk by chunk.
func Diff(a, b *Map) []Change {
	changes, _ := diff(a, b)
	return changes
}

// diff also tells how many entries it had to compare.
func diff(a, b *Map) (changes []Change, compared int) {
	x, y := cursor{m: a}, cursor{m: b}
	for {
		x.skipShared(&y)
		old, okOld := x.entry()
		fresh, okNew := y.entry()
		switch {
		case !okOld && !okNew:
			return changes, compared
		case !okNew || okOld && old.Key < fresh.Key:
			changes = append(changes, Change{old.Key, old.Event, 0})
			x.next()
		case !okOld || fresh.Key < old.Key:
			changes = append(changes, Change{fresh.Key, 0, fresh.Event})
			y.next()
		default:
			if old.Event != fresh.Event {
				changes = append(changes, Change{old.Key, old.Event, fresh.Event})
			}
			x.next()
			y.next()
		}
		compared++
	}
}

// cursor stands on an entry of a Map, or behind the last.
type cursor struct {
	m    *Map
	i, j int // chunk, entry of the chunk
}

func (c *cursor) chunk() *chunk {
	if c.m == nil || c.i >= len(c.m.spans) {
		return nil
	}
	return c.m.spans[c.i].chunk
}

func (c *cursor) entry() (Entry, bool) {
	ch := c.chunk()
	if ch == nil {
		return Entry{}, false
	}
	return ch.entries[c.j], true
}

func (c *cursor) next() {
	if c.j++; c.j == len(c.m.spans[c.i].chunk.entries) {
		c.i, c.j = c.i+1, 0
	}
}

// skipShared moves both cursors behind the chunks that they share from here on.
// They stand at the start of such a chunk: neither passes a key that the other
// has not come to, so they reach it together.
func (c *cursor) skipShared(d *cursor) {
	if c.m == nil || d.m == nil {
		return
	}
	x, y := c.m.spans[c.i:], d.m.spans[d.i:]
	n := 0
	for n < len(x) && n < len(y) && x[n].chunk == y[n].chunk {
		n++
	}
	c.i += n
	d.i += n
}
