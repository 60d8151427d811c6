package inbound

import (
	"context"
	"fmt"
	"slices"
	"testing"

	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms"
)

// put adds rows of an origin.
func (q *queue) put(origin matrix.ServerName, rows ...*row) {
	for _, r := range rows {
		r.origin = origin
		q.add(r)
	}
}

func needs(id key, others ...key) *row { return &row{seq: int64(id), id: id, needs: others, size: 100} }

func keysOf(rows []*row) []key {
	list := make([]key, len(rows))
	for i, r := range rows {
		list[i] = r.id
	}
	return list
}

// A chunk holds what can be brought in, each after what it needs.
func TestNext(t *testing.T) {
	q := newQueue(1)
	q.put("a", needs(3, 2), needs(2, 1), needs(1, 77), needs(9, 8), needs(5, 5), needs(6, 7), needs(7, 6))
	if got := keysOf(q.next()); !slices.Equal(got, []key{1, 9, 2}) {
		t.Errorf("%v", got) // 3 stands before 2, so it comes with the next
	}
	q.remove(map[*row]bool{q.rows[1]: true, q.rows[9]: true})
	if got := keysOf(q.next()); !slices.Equal(got, []key{2, 3}) {
		t.Errorf("%v", got)
	}
	q.held[99] = 1
	q.put("a", needs(10, 99), needs(11), needs(12, 11))
	q.setStuck(q.rows[2], true)
	if got := keysOf(q.next()); !slices.Equal(got, []key{11, 12}) {
		t.Errorf("%v", got)
	}
	q.rows[11].busy = true
	if got := keysOf(q.next()); len(got) > 0 {
		t.Errorf("%v", got)
	}
}

// An origin that has much in a room leaves space for others.
func TestNextIsFair(t *testing.T) {
	q := newQueue(1)
	for i := range key(500) {
		q.put("noisy", needs(i+1, i))
	}
	q.put("quiet", needs(1001), needs(1002))
	got := keysOf(q.next())
	if len(got) != chunk || !slices.Contains(got, 1001) || !slices.Contains(got, 1002) || slices.Index(got, 1001) > chunk/2 {
		t.Errorf("%v", got)
	}
	if q := newQueue(2); len(q.next()) > 0 {
		t.Error("there is something in an empty queue")
	}
}

// Rows that something must be fetched for are picked together the first time, and
// one by one afterwards, those that failed least first.
func TestDue(t *testing.T) {
	q := newQueue(1)
	for i := range key(30) {
		q.put("a", needs(i+1))
	}
	q.put("b", needs(100), needs(101))
	for _, r := range q.order {
		q.setStuck(r, true)
	}
	q.rows[1].retryAt = 50
	if got := q.due(10); len(got) != fillRows || got[0].id != 2 {
		t.Errorf("%v", keysOf(got))
	}
	for _, r := range q.order {
		r.tries = 2
	}
	q.rows[100].tries = 1
	if got := keysOf(q.due(10)); !slices.Equal(got, []key{100}) {
		t.Errorf("%v", got)
	}
	q.rows[100].busy = true
	if got := keysOf(q.due(60)); !slices.Equal(got, []key{1}) {
		t.Errorf("%v", got)
	}
}

func TestDependents(t *testing.T) {
	q := newQueue(1)
	q.put("a", needs(4, 3), needs(3, 2), needs(2, 1), needs(1), needs(5, 9), needs(6, 7, 2), needs(7, 6))
	gone := map[*row]bool{q.rows[2]: true}
	q.dependents(gone)
	var got []key
	for r := range gone {
		got = append(got, r.id)
	}
	slices.Sort(got)
	if !slices.Equal(got, []key{2, 3, 4, 6, 7}) {
		t.Errorf("%v", got)
	}
	if n := q.loads["a"].rows; n != 7 {
		t.Errorf("%d rows", n)
	}
	q.remove(gone)
	if n := q.loads["a"].rows; n != 2 || len(q.rows) != 2 || len(q.order) != 2 {
		t.Errorf("%d rows", n)
	}
}

func TestInOrder(t *testing.T) {
	var rows []*row
	for i := range key(1000) {
		rows = append(rows, needs(i, i+1, i+7, i%3+5000))
	}
	got := keysOf(inOrder(rows))
	for i, k := range got {
		if k != key(999-i) {
			t.Fatalf("%d: %d", i, k)
		}
	}
	circle := keysOf(inOrder([]*row{needs(1, 2), needs(2, 1), needs(3)}))
	if len(circle) != 3 || circle[0] != 3 {
		t.Errorf("%v", circle)
	}
}

// A copy of an event that replaced another in the database replaces it here.
func TestReplacedRow(t *testing.T) {
	q := newQueue(1)
	q.put("a", needs(1))
	q.setStuck(q.rows[1], true)
	q.add(&row{seq: 0, id: 1, origin: "late"})
	if q.rows[1].origin != "a" {
		t.Error("an older copy took the place of a newer one")
	}
	q.add(&row{seq: 5, id: 1, origin: "b", size: 7})
	if r := q.rows[1]; r.origin != "b" || r.seq != 5 || r.stuck || q.stuck != 0 || len(q.order) != 1 || q.loads["a"] != nil || q.loads["b"].bytes != 7 {
		t.Errorf("%+v, %+v", r, q)
	}
}

// An origin that has staged too much is to wait; one whose events wait for other
// servers is not.
func TestTooMuch(t *testing.T) {
	in := &Inbound{queues: map[rooms.RoomNID]*queue{}}
	add := func(room rooms.RoomNID, origin matrix.ServerName, n, size int) *queue {
		q := in.queue(room)
		for range n {
			in.rows++
			q.put(origin, &row{seq: int64(in.rows), id: key(in.rows), size: size})
		}
		return q
	}
	add(1, "a", maxOriginRows-1, 1)
	if in.tooMuch("a") {
		t.Error("too early")
	}
	q := add(2, "a", 1, 1)
	if !in.tooMuch("a") || in.tooMuch("b") {
		t.Error("too late, or another's")
	}
	for _, r := range in.queues[1].order {
		q1 := in.queues[1]
		q1.setStuck(r, true)
		break
	}
	if in.tooMuch("a") || len(q.rows) != 1 {
		t.Error("what waits counts")
	}
	if !in.jammed(1, "a") || in.jammed(1, "b") || in.jammed(2, "a") {
		t.Error("jammed")
	}
	add(3, "large", 11, maxOriginBytes/10)
	if !in.tooMuch("large") {
		t.Error("bytes don't count")
	}
	add(4, "small", spared, 1)
	in.rows = maxRows
	if !in.tooMuch("a") || in.tooMuch("small") || in.tooMuch("new") {
		t.Error("of a full house")
	}
	in.rows = 2 * maxRows
	if !in.tooMuch("new") {
		t.Error("of an overfull house")
	}
}

// Origins take turns, and none has more than its share.
func TestFair(t *testing.T) {
	f := newFair(4, 2)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	const noisy, quiet = 60, 10
	started, release := make(chan matrix.ServerName, noisy+quiet), make(chan struct{})
	task := func(origin matrix.ServerName) func(context.Context) {
		return func(context.Context) {
			started <- origin
			<-release
		}
	}
	for range noisy {
		f.add("noisy", task("noisy"))
	}
	for i := range quiet {
		f.add(matrix.ServerName(fmt.Sprint("quiet", i%5)), task("quiet"))
	}
	f.start(ctx)
	total, others := 0, 0
	next := func() {
		total++
		if <-started != "noisy" {
			others++
		}
	}
	for range 4 {
		next()
	}
	for others < quiet { // as long as any waits, one begins whenever another ends
		release <- struct{}{}
		next()
	}
	if total > 3*quiet {
		t.Errorf("the quiet ones' tasks were among the first %d only", total)
	}
	f.mu.Lock()
	if running := f.running["noisy"]; running > 2 {
		t.Errorf("the noisy one has %d at a time", running)
	}
	f.mu.Unlock()
	close(release)
	for range noisy + quiet - total {
		<-started
	}
	cancel()
	f.add("a", func(context.Context) { t.Error("a task runs after the end") })
	f.wait()
}
