package rooms

import (
	"bytes"
	"encoding/json"
	"errors"
	"maps"

	"github.com/teahouse-chat/teahouse/internal/db"
	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms/auth"
	"github.com/teahouse-chat/teahouse/rooms/event"
	"github.com/teahouse-chat/teahouse/rooms/state"
)

// Proto is what a sender decides about an event; the engine adds the rest.
type Proto struct {
	Type      string
	StateKey  *string // nil for a message event
	Content   json.RawMessage
	Redacts   matrix.EventID // of m.room.redaction
	Sender    matrix.UserID  // the builder's sender if empty
	Timestamp *int64         // ms since 1970; nil is now
}

// Builder appends events to a room, each on top of the one before, to be
// committed together. It lives for one call of Update's function; errors of its
// methods must be returned from that function as they are, because some ask
// Update to fetch something and call again.
type Builder struct {
	e         *Engine
	room      *Room
	sender    matrix.UserID
	head      *head
	got       *fetched
	creating  bool // the room is new
	importing bool // what comes was accepted by another server
	hurried   bool // states are resolved under the room's turn
	older     bool // the events are added to the room's past
	events    []*Stored
	then      []func(tx *db.Tx) error
	// what the commit has to store beside the events
	layers        []state.Layer
	newKeys       []auth.Key
	redacted      map[state.EventNID]*Stored
	strips        []redaction
	memberChanges []memberChange
	serverMoves   []serverMove
	moves         []Move
	onStored      []func()  // called after the commit
	known         []*Stored // events that are stored already, and get a place now
	gapped        *Stored   // the newest that came without all that it builds on
	outside       *Stored   // an event that is stored from outside
	outsideState  []byte
}

// fetched is what Update has read from the database for a builder.
type fetched struct {
	events  map[state.EventNID]*Stored
	ids     map[matrix.EventID]*Stored // nil where there is none
	keys    map[auth.Key]state.KeyNID
	threads map[matrix.EventID]int64
	// of branches
	branches map[SnapshotNID]*branch
	merges   map[string]*merged
	auths    map[state.EventNID][]state.EventNID
	// of events of other servers
	taken     map[matrix.EventID]bool // ids that another room claims
	numbers   map[matrix.EventID]int64
	snapshots map[*merged]*branch          // stored by events that are being committed
	builtOn   map[matrix.EventID]bool      // unknown events that known ones build on
	awaiting  map[matrix.EventID][]*Stored // redactions by their unknown target
	chain     nidSet                       // what authorised the room's present state; nil before it is asked for
	// of rooms with a policy server: what it has signed of what a local user sends
	signed []*event.Event
	// of redactions: nobody brings in events of other servers meanwhile
	settled bool
}

// need is an error that asks Update to fetch and call again.
type need struct {
	event  state.EventNID
	id     matrix.EventID
	key    *auth.Key
	allot  bool // give the key a number if it has none
	thread matrix.EventID
	// of branches
	branches []SnapshotNID
	merge    *mergeJob
	events   []state.EventNID
	auths    []state.EventNID
	chain    bool // what authorised the room's present state
	// of rooms with a policy server
	sign   *event.Event
	signer *policy
}

func (n *need) Error() string { return "rooms: something must be fetched first" }

// Room is the room that is built on.
func (b *Builder) Room() *Room { return b.room }

// Joined is the number of joined members, what was appended included.
func (b *Builder) Joined() int { return b.head.joined }

// State returns the room's state event, what was appended included; nil if
// there is none.
func (b *Builder) State(typ, stateKey string) (*Stored, error) {
	return b.stateIn(b.head.state, auth.Key{Type: typ, StateKey: stateKey})
}

func (b *Builder) stateIn(m *state.Map, k auth.Key) (*Stored, error) {
	key, err := b.key(k)
	if err != nil {
		return nil, err
	}
	nid, ok := m.Get(key)
	if !ok {
		return nil, nil
	}
	return b.stored(nid)
}

// Then adds to the commit something that has to happen with the events or not
// at all.
func (b *Builder) Then(op func(tx *db.Tx) error) { b.then = append(b.then, op) }

// Content is the content of a state event, nil if there is none.
func (b *Builder) Content(typ, stateKey string) (json.RawMessage, error) {
	st, err := b.State(typ, stateKey)
	if st == nil || err != nil {
		return nil, err
	}
	return st.Event.Content, nil
}

func (b *Builder) key(k auth.Key) (state.KeyNID, error) {
	n, asked := b.got.keys[k]
	if n != 0 {
		return n, nil
	}
	// It may have got its number since it was asked for.
	if n, ok := b.e.keys.known(k); ok || asked {
		return n, nil
	}
	return 0, &need{key: &k}
}

func (b *Builder) stored(nid state.EventNID) (*Stored, error) {
	if st := b.head.pending.get(nid); st != nil {
		return st, nil
	}
	if st, ok := b.got.events[nid]; ok {
		return st, nil
	}
	if st, ok := b.e.cache.Get(nid); ok {
		return st, nil
	}
	return nil, &need{event: nid}
}

// Same returns the room's state event that p would replace if it says the same
// and has the same sender; nil if p changes anything.
func (b *Builder) Same(p Proto) (*Stored, error) {
	if p.StateKey == nil {
		return nil, nil
	}
	st, err := b.State(p.Type, *p.StateKey)
	if st == nil || err != nil || st.Sender != b.sender {
		return nil, err
	}
	content, err := event.Canonical(p.Content)
	if err != nil || !bytes.Equal(content, st.Event.Content) {
		return nil, nil // content that is not canonical JSON is Append's to refuse
	}
	return st, nil
}

// Append builds, authorises and signs an event and adds it to the commit. It
// fails with M_FORBIDDEN, naming the rule, if the room's state does not allow
// the event.
func (b *Builder) Append(p Proto) (*Stored, error) {
	if p.Sender == "" {
		p.Sender = b.sender
	}
	if b.head.state.Len() == 0 && !b.creating {
		return nil, errUnknownRoom
	}
	target, awaits, err := b.redactionTarget(p)
	if err != nil {
		return nil, err
	}
	if by, err := b.policy(); err != nil {
		return nil, err
	} else if by != nil && (p.Type != matrix.TypePolicy || p.StateKey == nil || *p.StateKey != "") {
		return b.appendSigned(p, by)
	}
	if len(b.head.extremities) > maxPrevEvents {
		return b.appendMerging(p)
	}
	there := b.head.servers
	ev, authState, authEvents, err := b.build(p, b.head.state, b.head.extremities)
	if err != nil {
		return nil, err
	}
	if err := auth.Check(ev, authState); err != nil {
		return nil, forbidden(err)
	}
	if b.creating && len(b.events) == 0 {
		b.room.ID = ev.RoomID
	}
	st := &Stored{
		Event: ev, NID: state.EventNID(b.e.eventSeq.Next()), Room: b.room.NID, Relation: relationOf(ev),
	}
	if ev.IsState() {
		st.Auth = authEvents
	}
	if err := b.count(st); err != nil {
		return nil, err
	}
	if err := b.advance(st); err != nil {
		return nil, err
	}
	if err := b.sendOut(st, there); err != nil {
		return nil, err
	}
	if target != nil {
		b.redact(target, st)
	}
	if awaits {
		b.await(st)
	}
	b.events = append(b.events, st)
	return st, nil
}

// build makes the signed event, the view of the state that authorises it, and the
// numbers of its auth events. It goes on top of prevs, where the state is before.
func (b *Builder) build(p Proto, before *state.Map, prevs []extremity) (ev *event.Event, st auth.State, nids []state.EventNID, err error) {
	d, stateOf, nids, err := b.draft(p, before, prevs)
	if err == nil {
		ev, err = event.Build(b.room.Version, d, b.e.ServerName, b.e.Key)
	}
	var bad *event.FormatError
	if errors.As(err, &bad) {
		return nil, nil, nil, formatError(bad)
	}
	return ev, stateOf, nids, err
}

// draft is build without the event.
func (b *Builder) draft(p Proto, before *state.Map, prevs []extremity) (d event.Draft, stateOf authState, nids []state.EventNID, err error) {
	v := b.room.Version
	stateOf = make(authState, 0, 8)
	d = event.Draft{
		RoomID: b.room.ID, Type: p.Type, StateKey: p.StateKey, Sender: p.Sender, Content: p.Content,
		Redacts: p.Redacts,
	}
	if p.Timestamp != nil {
		d.OriginServerTS = *p.Timestamp
	} else {
		d.OriginServerTS = b.e.Now().UnixMilli()
	}
	if p.Type == matrix.TypeCreate && v.RoomIDHash {
		d.RoomID, d.OriginServerTS = "", b.e.createTime(d.OriginServerTS)
	}
	for _, k := range auth.Needed(v, p.Type, p.StateKey, p.Sender, p.Content) {
		st, err := b.stateIn(before, k)
		if err != nil {
			return d, nil, nil, err
		}
		if st == nil {
			continue
		}
		stateOf = append(stateOf, st.Event)
		d.AuthEvents = append(d.AuthEvents, st.Ref())
		nids = append(nids, st.NID)
	}
	if v.RoomIDHash && p.Type != matrix.TypeCreate {
		// The create event is implied by the room id, but the rules look at it.
		create, err := b.State(matrix.TypeCreate, "")
		if err != nil {
			return d, nil, nil, err
		}
		if create != nil {
			stateOf = append(stateOf, create.Event)
		}
	}
	for _, x := range prevs {
		d.PrevEvents = append(d.PrevEvents, x.ref)
		d.Depth = max(d.Depth, x.depth)
	}
	d.Depth = min(d.Depth+1, 1<<53-1)
	if !v.StrictJSON {
		// Old rooms may hold numbers that canonical JSON has no form for, but
		// servers write them in different ways and so would not agree on the hash:
		// none are added.
		d.Content, err = event.Canonical(p.Content)
	}
	return d, stateOf, nids, err
}

// advance moves the head over the event.
func (b *Builder) advance(st *Stored) error {
	h := b.head
	if st.IsState() {
		k := auth.Key{Type: st.Type, StateKey: st.StateKey()}
		key, err := b.key(k)
		if err != nil {
			return err
		}
		if key == 0 { // the database has been asked, and a second signature costs more than a number
			key = b.e.keys.number(k)
		}
		st.Key = key
		st.Replaces, _ = h.state.Get(key)
		if st.Type == matrix.TypeMember {
			if err := b.countMember(st); err != nil {
				return err
			}
		}
		if h.servers != nil { // others may still build on what was before
			b.e.branches.Add(SnapshotNID(h.chain.Top()), b.current())
		}
		next := h.state.Set(key, st.NID)
		var layer state.Layer
		layer, h.chain = h.chain.Next(b.e.snapSeq.Next(), []state.Entry{{Key: key, Event: st.NID}}, next)
		h.state = next
		b.layers = append(b.layers, layer)
		b.newKeys = append(b.newKeys, k)
	}
	st.Snapshot = SnapshotNID(h.chain.Top())
	st.Resolved = st.Snapshot
	h.extremities = append(h.extremities[:0], extremityOf(st))
	h.pending.add(st)
	return nil
}

// countMember keeps the numbers of joined and invited members.
func (b *Builder) countMember(st *Stored) error {
	var old *Stored
	if st.Replaces != 0 {
		var err error
		if old, err = b.stored(st.Replaces); err != nil {
			return err
		}
		b.head.count(old.Membership(), -1)
	}
	b.head.count(st.Membership(), 1)
	user := matrix.UserID(st.StateKey())
	b.memberChanges = append(b.memberChanges, memberChange{user, st, st})
	b.moved(user, old, st)
	var moves memberMoves
	moves.add(b.e.ServerName, user, old, st)
	b.moveServers(moves, st)
	return nil
}

// count gives the event its place in the running unread counts.
func (b *Builder) count(st *Stored) error {
	h := b.head
	var err error
	if st.Counted, err = b.counts(st); err != nil {
		return err
	}
	if st.Relation.Type == relThread {
		st.Thread = st.Relation.Target
		n, ok := h.threads[st.Thread]
		if !ok {
			if n, ok = b.got.threads[st.Thread]; !ok {
				return &need{thread: st.Thread}
			}
		}
		if st.Counted {
			n++
		}
		st.Unread = n
		h.threads = maps.Clone(h.threads)
		if h.threads == nil || len(h.threads) >= threadsKept {
			h.threads = map[matrix.EventID]int64{}
		}
		h.threads[st.Thread] = n
		return nil
	}
	if st.Counted {
		h.unread++
	}
	st.Unread = h.unread
	return nil
}

// counts tells whether the event counts as unread for everybody who is not meant
// in particular.
func (b *Builder) counts(st *Stored) (bool, error) {
	if b.e.Counts == nil {
		return false, nil
	}
	var failed error
	counts := b.e.Counts(st.Event, func(key string) bool {
		levels, err := b.Levels()
		if err != nil {
			failed = err
			return false
		}
		return levels.User(st.Sender) >= levels.Notification(key)
	})
	return counts, failed
}

// authState is the handful of state events that authorise an event.
type authState []*event.Event

// Event implements auth.State.
func (s authState) Event(typ, stateKey string) *event.Event {
	for _, e := range s {
		if e.Is(typ, stateKey) {
			return e
		}
	}
	return nil
}

// forbidden tells the sender of an event which rule it breaks: 403 M_FORBIDDEN, or
// 400 M_INVALID_PARAM for what nobody may say.
func forbidden(err error) error {
	var r *auth.Rejection
	switch {
	case !errors.As(err, &r):
		return err
	case r.Malformed:
		return matrix.InvalidParam("%s", r.Why).Because(r)
	}
	return matrix.Forbidden("%s", r.Why).Because(r)
}

// formatError tells the sender of an event what is wrong with it.
func formatError(bad *event.FormatError) error {
	if bad.TooLarge {
		return matrix.TooLarge("%s", bad.What)
	}
	return matrix.BadJSON("%s", bad.What)
}
