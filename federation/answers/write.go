package answers

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"slices"
	"strconv"

	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms/event"
	"github.com/teahouse-chat/teahouse/rooms/state"
)

// maxBytes bounds a list of events that was not asked for in full; what servers
// send each other in one answer is not much larger as a rule.
const maxBytes = 6 << 20

// fitting is how many events, from the first on, fit into an answer. One fits
// always.
func fitting(events []*event.Event) int {
	bytes := 0
	for n, ev := range events {
		if bytes += len(ev.JSON); bytes > maxBytes && n > 0 {
			return n
		}
	}
	return len(events)
}

// transaction is an answer of events in the form in which they are sent, too.
type transaction struct {
	origin matrix.ServerName
	ts     int64
	events []*event.Event
}

func (a *Answers) transaction(events []*event.Event) *transaction {
	return &transaction{a.Engine.ServerName, a.Now().UnixMilli(), events}
}

// WriteTo writes the answer as JSON.
func (t *transaction) WriteTo(w io.Writer) (int64, error) {
	b := newWriter(w)
	b.text(`{"origin":"` + string(t.origin) + `","origin_server_ts":` + strconv.FormatInt(t.ts, 10) + `,"pdus":[`)
	b.list(t.events)
	b.text("]}")
	return b.end()
}

// missing is an answer of events alone.
type missing []*event.Event

// WriteTo writes the answer as JSON.
func (m *missing) WriteTo(w io.Writer) (int64, error) {
	b := newWriter(w)
	b.text(`{"events":[`)
	b.list(*m)
	b.text("]}")
	return b.end()
}

// readAtOnce is how many elements of a large list are in memory at a time.
const readAtOnce = 200

// lists is an answer of lists that are read while they are written: a state may
// be larger than what fits into memory many times over.
type lists struct {
	ctx  context.Context // of the request that is answered
	of   []list
	read func(context.Context, []state.EventNID) ([]json.RawMessage, error)
	done func()
}

type list struct {
	name string
	nids []state.EventNID
}

// WriteTo writes the answer as JSON.
func (l *lists) WriteTo(w io.Writer) (int64, error) {
	defer l.done()
	b := newWriter(w)
	for i, one := range l.of {
		b.text([]string{"{", ","}[min(i, 1)] + `"` + one.name + `":[`)
		first := true
		for part := range slices.Chunk(one.nids, readAtOnce) {
			elements, err := l.read(l.ctx, part)
			if err != nil {
				return b.written, err
			}
			for _, e := range elements {
				b.element(first, e)
				first = false
			}
			if b.err != nil {
				return b.end()
			}
		}
		b.text("]")
	}
	b.text("}")
	return b.end()
}

// writer writes JSON piece by piece; the first failure is kept until the end.
type writer struct {
	*bufio.Writer
	written int64
	err     error
}

func newWriter(w io.Writer) *writer { return &writer{Writer: bufio.NewWriterSize(w, 32<<10)} }

func (w *writer) bytes(b []byte) {
	if w.err == nil {
		var n int
		n, w.err = w.Write(b)
		w.written += int64(n)
	}
}

func (w *writer) text(s string) { w.bytes([]byte(s)) }

func (w *writer) element(first bool, e []byte) {
	if !first {
		w.text(",")
	}
	w.bytes(e)
}

func (w *writer) list(events []*event.Event) {
	for i, ev := range events {
		w.element(i == 0, ev.JSON)
	}
}

func (w *writer) end() (int64, error) {
	if w.err == nil {
		w.err = w.Flush()
	}
	return w.written, w.err
}
