package joining

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/teahouse-chat/teahouse/federation/keys"
	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms/event"
)

// The limits of an answer to send_join.
const (
	maxAnswer   = 512 << 20 // bytes
	maxEvents   = 500_000
	maxValue    = 1 << 20  // bytes of one event, or of whatever else is one token
	maxNesting  = 64       // of what is passed over
	maxServers  = 100_000  // in servers_in_room
	largeAnswer = 32 << 20 // bytes from which on few may be read at a time
	batchSize   = 256      // events whose signatures are checked together
	keysTime    = time.Minute
)

// Why an answer is of no use.
var (
	errValueTooLarge = errors.New("an event of the answer is too large")
	errTooMany       = errors.New("the answer has too many events")
	errNested        = errors.New("the answer is nested too deeply")
)

// residence is what a server that is in a room tells of it: good events only.
type residence struct {
	state, chain []*event.Event
	event        *event.Event // the join as that server passes it on; may be nil
	servers      []matrix.ServerName
	dropped      int   // events that were bad
	why          error // what was wrong with one of them
}

// read is one event on its way from an answer.
type read struct {
	event   *event.Event
	isState bool // it is in the list of state events
	bad     error
}

// reader takes an answer in, piece by piece: events are parsed as they come, and
// their signatures are checked while more is read.
// spec: server-server#put_matrixfederationv2send_joinroomideventid
type reader struct {
	ctx      context.Context
	keys     Keys
	version  *event.Version
	room     matrix.RoomID
	large    *semaphore.Weighted // held by whoever reads a large answer
	body     metered
	json     *json.Decoder
	events   map[matrix.EventID]*read
	order    []*read
	batch    []*read
	checking sync.WaitGroup
	count    int
	isLarge  bool
	partial  bool // members were left out
	got      residence
}

// metered counts what one value may still take from the answer.
type metered struct {
	io.Reader
	left  int
	total int64
}

func (m *metered) Read(p []byte) (int, error) {
	if m.left <= 0 {
		return 0, errValueTooLarge
	}
	n, err := m.Reader.Read(p[:min(len(p), m.left)])
	m.left -= n
	m.total += int64(n)
	return n, err
}

// readResidence reads the answer to send_join.
func (j *Joining) readResidence(ctx context.Context, body io.Reader, v *event.Version, room matrix.RoomID) (*residence, error) {
	r := &reader{
		ctx: ctx, keys: j.Keys, version: v, room: room, large: j.large, body: metered{Reader: body},
		events: map[matrix.EventID]*read{},
	}
	r.json = json.NewDecoder(&r.body)
	err := r.answer()
	r.check()
	r.checking.Wait()
	if r.isLarge {
		r.large.Release(1)
	}
	switch {
	case err != nil:
		return nil, err
	case r.partial:
		return nil, malformed("it leaves out members, who were asked for")
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return r.result()
}

// token reads one token, none of which may be large.
func (r *reader) token() (json.Token, error) {
	r.body.left = maxValue
	t, err := r.json.Token()
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return t, err
}

// value reads one value, which may not be large.
func (r *reader) value(v any) error {
	r.body.left = maxValue
	return r.json.Decode(v)
}

func (r *reader) expect(want json.Token) error {
	t, err := r.token()
	if err == nil && t != want {
		err = errNotAnswer
	}
	return err
}

// answer reads the whole: an object, or, from the first version of the
// interface, a list of a status and the object.
// spec: server-server#put_matrixfederationv1send_joinroomideventid
func (r *reader) answer() error {
	t, err := r.token()
	if err != nil {
		return err
	}
	listed := t == json.Delim('[')
	if listed {
		if t, err = r.token(); err != nil {
			return err
		}
		if _, ok := t.(float64); !ok {
			return errNotAnswer
		}
		if t, err = r.token(); err != nil {
			return err
		}
	}
	if t != json.Delim('{') {
		return errNotAnswer
	}
	for r.json.More() {
		if err := r.member(); err != nil {
			return err
		}
	}
	if err := r.expect(json.Delim('}')); err != nil || !listed {
		return err
	}
	return r.expect(json.Delim(']'))
}

// member reads one member of the answer. Those that are not known are passed
// over.
func (r *reader) member() error {
	t, err := r.token()
	if err != nil {
		return err
	}
	switch t {
	case "state":
		return r.list(func() error { return r.event(true) })
	case "auth_chain":
		return r.list(func() error { return r.event(false) })
	case "servers_in_room":
		return r.list(r.server)
	case "members_omitted":
		return r.value(&r.partial)
	case "event":
		var raw json.RawMessage
		if err := r.value(&raw); err != nil {
			return err
		}
		r.got.event, _ = event.Parse(r.version, raw) // one that is bad is as good as none
		return nil
	}
	return r.skip()
}

// list reads a list by its items; null is as good as none.
func (r *reader) list(item func() error) error {
	t, err := r.token()
	switch {
	case err != nil || t == nil:
		return err
	case t != json.Delim('['):
		return errNotAnswer
	}
	for r.json.More() {
		if err := item(); err != nil {
			return err
		}
		if err := r.ctx.Err(); err != nil {
			return err
		}
	}
	return r.expect(json.Delim(']'))
}

// skip passes over a value of any size.
func (r *reader) skip() error {
	for depth := 0; ; {
		t, err := r.token()
		if err != nil {
			return err
		}
		switch t {
		case json.Delim('{'), json.Delim('['):
			if depth++; depth > maxNesting {
				return errNested
			}
		case json.Delim('}'), json.Delim(']'):
			depth--
		}
		if depth == 0 {
			return nil
		}
	}
}

func (r *reader) server() error {
	var name matrix.ServerName
	if err := r.value(&name); err != nil {
		return err
	}
	if len(r.got.servers) == maxServers {
		return errTooMany
	}
	if _, err := matrix.ParseServerName(string(name)); err == nil {
		r.got.servers = append(r.got.servers, name)
	}
	return nil
}

// event takes in one event. One that is bad, or of another room, is dropped.
func (r *reader) event(isState bool) error {
	var raw json.RawMessage
	if err := r.value(&raw); err != nil {
		return err
	}
	if r.count++; r.count > maxEvents {
		return errTooMany
	}
	if err := r.slowDown(); err != nil {
		return err
	}
	ev, err := event.Parse(r.version, raw)
	if err == nil && ev.RoomID != r.room {
		err = fmt.Errorf("%s is of another room, %s", ev.ID, ev.RoomID)
	}
	if err != nil {
		r.drop(err)
		return nil
	}
	if there := r.events[ev.ID]; there != nil {
		there.isState = there.isState || isState
		return nil
	}
	one := &read{event: ev, isState: isState}
	r.events[ev.ID] = one
	r.order = append(r.order, one)
	if r.batch = append(r.batch, one); len(r.batch) == batchSize {
		r.check()
	}
	return nil
}

// slowDown lets few answers become large at a time.
func (r *reader) slowDown() error {
	if r.isLarge || r.body.total < largeAnswer {
		return nil
	}
	if err := r.large.Acquire(r.ctx, 1); err != nil {
		return err
	}
	r.isLarge = true
	return nil
}

func (r *reader) drop(why error) {
	r.got.dropped++
	if r.got.why == nil {
		r.got.why = why
	}
}

// check has the signatures of a batch checked while more is read.
func (r *reader) check() {
	batch := r.batch
	r.batch = nil
	if len(batch) == 0 {
		return
	}
	r.checking.Go(func() {
		events := make([]*event.Event, len(batch))
		for i, one := range batch {
			events[i] = one.event
		}
		ctx, cancel := context.WithTimeout(r.ctx, keysTime)
		defer cancel()
		for i, err := range r.keys.VerifyEvents(ctx, events) {
			batch[i].bad = err
		}
	})
}

// result sorts the good events. Of two state events for the same thing the first
// one counts.
func (r *reader) result() (*residence, error) {
	type key struct{ typ, stateKey string }
	taken := make(map[key]bool, len(r.order))
	for _, one := range r.order {
		ev := one.event
		if one.bad != nil {
			if _, theirs := errors.AsType[*keys.Error](one.bad); !theirs {
				return nil, one.bad
			}
			r.drop(fmt.Errorf("%s: %w", ev.ID, one.bad))
			continue
		}
		k := key{ev.Type, ev.StateKey()}
		if one.isState && ev.IsState() && !taken[k] {
			taken[k] = true
			r.got.state = append(r.got.state, ev)
		} else {
			r.got.chain = append(r.got.chain, ev)
		}
	}
	r.got.state, r.got.chain = slices.Clip(r.got.state), slices.Clip(r.got.chain)
	return &r.got, nil
}

// checkCreate tells whether the state has the room's create event, and no other
// is told of.
// spec: server-server#joining-rooms
func (r *residence) checkCreate(v *event.Version, room matrix.RoomID) error {
	var create *event.Event
	for _, list := range [][]*event.Event{r.state, r.chain} {
		for _, ev := range list {
			if ev.Type != matrix.TypeCreate {
				continue
			}
			if create != nil && create != ev {
				return malformed("the room has two create events")
			}
			create = ev
		}
	}
	if create == nil || !slices.Contains(r.state, create) {
		return malformed("the state has no create event")
	}
	return checkCreate(create, v, room)
}

// checkCreate tells whether a create event is that of a room of the version.
func checkCreate(create *event.Event, v *event.Version, room matrix.RoomID) error {
	var content struct {
		Version *string `json:"room_version"`
	}
	if err := json.Unmarshal(create.Content, &content); err != nil {
		return malformed("the create event's room_version is not a text")
	}
	version := "1"
	if content.Version != nil {
		version = *content.Version
	}
	switch {
	case !create.Is(matrix.TypeCreate, ""):
		return malformed("the create event has a state key")
	case version != v.ID:
		return malformed("the create event is of room version %.20q, not %s", version, v.ID)
	case create.RoomID != room:
		return malformed("the create event is that of another room")
	case !v.RoomIDHash && create.Sender.Server() != room.Server():
		return malformed("the create event's sender is not of the room's server")
	}
	return nil
}
