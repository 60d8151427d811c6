package fetch

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"

	"github.com/teahouse-chat/teahouse/federation/keys"
	"github.com/teahouse-chat/teahouse/federation/transport"
	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms/event"
)

// keyTime is how long the keys of what came in one answer are waited for.
const keyTime = 30 * time.Second

// Asker asks other servers; it is a *transport.Client.
type Asker interface {
	Stream(ctx context.Context, r transport.Request) (io.ReadCloser, error)
}

// Verifier checks all signatures that events need; it is a *keys.Ring.
type Verifier interface {
	VerifyEvents(ctx context.Context, events []*event.Event) []error
}

// Room is the room that is asked about.
type Room struct {
	ID      matrix.RoomID
	Version *event.Version
}

// Client asks other servers for events. It is safe for concurrent use.
type Client struct {
	ask  Asker
	keys Verifier
	log  *slog.Logger
}

// New makes a client; log may be nil.
func New(ask Asker, keys Verifier, log *slog.Logger) *Client {
	if log == nil {
		log = slog.Default()
	}
	return &Client{ask: ask, keys: keys, log: log}
}

// Verify checks the signatures of events: an error, or nil, for each. A
// *keys.Error is the event's fault, and keys.ErrNoKey in it says that another
// attempt may end otherwise; any other error is our own.
// spec: server-server#validating-hashes-and-signatures-on-received-events
func (c *Client) Verify(ctx context.Context, events []*event.Event) []error {
	return c.keys.VerifyEvents(ctx, events)
}

// verified are those of the events that are properly signed.
func (c *Client) verified(ctx context.Context, from matrix.ServerName, events []*event.Event) ([]*event.Event, error) {
	ctx, cancel := context.WithTimeout(ctx, keyTime)
	defer cancel()
	good := events[:0]
	for i, err := range c.Verify(ctx, events) {
		var bad *keys.Error
		switch {
		case err == nil:
			good = append(good, events[i])
		case !errors.As(err, &bad):
			return nil, err
		default:
			c.log.Debug("An event that was fetched is not properly signed", "event", events[i].ID, "room", events[i].RoomID, "from", from, "error", err)
		}
	}
	return good, nil
}

// reading is what an answer is read with.
type reading struct {
	c      *Client
	budget *budget
	from   matrix.ServerName
	room   Room
	most   int // events
	bad    int // were malformed
}

var errTooMany = errors.New("fetch: the answer has too many events")

// ErrMalformed says that all that a server gave were events which no server can
// accept.
var ErrMalformed = errors.New("fetch: the events are malformed")

// list makes a reader of a list of PDUs, which adds those that are well-formed
// and of the room.
func (r *reading) list(into *[]*event.Event) func(raw json.RawMessage) error {
	return func(raw json.RawMessage) error {
		if r.most == 0 {
			return errTooMany
		}
		if r.most--; !r.budget.event() {
			return ErrBudget
		}
		ev, err := event.Parse(r.room.Version, raw)
		switch {
		case err != nil:
			r.bad++
			r.c.log.Debug("An event that was fetched is malformed", "room", r.room.ID, "from", r.from, "error", err)
		case ev.RoomID != r.room.ID:
			r.c.log.Debug("An event that was fetched is of another room", "event", ev.ID, "room", r.room.ID, "from", r.from)
		default:
			*into = append(*into, ev)
		}
		return nil
	}
}

// get asks a server within the budget and hands the elements of lists in its
// answer on, one by one.
func (c *Client) get(ctx context.Context, r transport.Request, lists map[string]func(json.RawMessage) error) error {
	b := budgetOf(ctx)
	var err error
	if r.MaxAnswer, err = b.begin(r.MaxAnswer); err != nil {
		return err
	}
	body, err := c.ask.Stream(ctx, r)
	if err != nil {
		b.end(r.MaxAnswer)
		return failed(ctx, err)
	}
	counted := &counter{r: body}
	err = readLists(counted, lists)
	b.end(max(r.MaxAnswer-counted.n, 0))
	_ = body.Close()
	switch {
	case errors.Is(err, ErrBudget), errors.Is(err, errTooMany):
		return err
	case err != nil:
		return failed(ctx, &transport.UnreachableError{Server: r.Destination, Err: fmt.Errorf("its answer cannot be read: %w", err)})
	}
	return nil
}

// failed tells the end of the budget's time from a failure of the server.
func failed(ctx context.Context, err error) error {
	if ctx.Err() != nil && errors.Is(context.Cause(ctx), ErrBudget) {
		return ErrBudget
	}
	return err
}

type counter struct {
	r io.Reader
	n int64
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	return n, err
}

var errShape = errors.New("it is not the JSON that it should be")

// readLists reads a JSON object without holding it whole.
func readLists(r io.Reader, lists map[string]func(json.RawMessage) error) error {
	d := json.NewDecoder(r)
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return errors.Join(errShape, err)
	}
	for d.More() {
		name, err := d.Token()
		if err != nil {
			return err
		}
		text, _ := name.(string)
		if add := lists[text]; add != nil {
			err = readList(d, add)
		} else {
			err = d.Decode(&json.RawMessage{})
		}
		if err != nil {
			return err
		}
	}
	_, err := d.Token()
	return err
}

func readList(d *json.Decoder, add func(json.RawMessage) error) error {
	t, err := d.Token()
	switch {
	case err != nil:
		return err
	case t == nil: // null is as good as no list
		return nil
	case t != json.Delim('['):
		return errShape
	}
	for d.More() {
		var raw json.RawMessage
		if err := d.Decode(&raw); err != nil {
			return err
		}
		if err := add(raw); err != nil {
			return err
		}
	}
	_, err = d.Token()
	return err
}
