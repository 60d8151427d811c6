package resolve_test

import (
	"crypto/ed25519"
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms/auth"
	"github.com/teahouse-chat/teahouse/rooms/event"
	"github.com/teahouse-chat/teahouse/rooms/resolve"
	"github.com/teahouse-chat/teahouse/rooms/resolve/spec"
	"github.com/teahouse-chat/teahouse/rooms/state"
)

var testKey = event.SigningKey{ID: "ed25519:test", Private: ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))}

// failer is what a world needs of a *testing.T or *rapid.T.
type failer interface {
	Helper()
	Fatal(args ...any)
	Fatalf(format string, args ...any)
}

// world is one room with all its branches: a resolve.Source, and the same as the
// literal resolver wants it.
type world struct {
	t       failer
	v       *event.Version
	room    *spec.Room
	records []*resolve.Record // by number, from 1
	nids    map[matrix.EventID]state.EventNID
	keys    map[auth.Key]state.KeyNID
	create  *event.Event
	batches int // calls of Records
	loaded  int // records asked for
}

// branch is a point in the room's graph: the state after its last event.
type branch struct {
	last  *event.Event
	state *state.Map
}

func newWorld(t failer, id string) *world {
	v, ok := event.Lookup(id)
	if !ok {
		t.Fatalf("no version %s", id)
	}
	return &world{t: t, v: v,
		room: &spec.Room{Version: v, Events: map[matrix.EventID]*event.Event{}, Rejected: spec.Set{}},
		nids: map[matrix.EventID]state.EventNID{}, keys: map[auth.Key]state.KeyNID{}}
}

// start makes the create event. Its sender is also among the content's creators
// where the version wants that.
func (w *world) start(sender string, more map[string]any) branch {
	content := map[string]any{"room_version": w.v.ID}
	maps.Copy(content, more)
	if w.v.CreatorInContent {
		content["creator"] = sender
	}
	w.create = w.build(nil, nil, matrix.TypeCreate, new(string), sender, content, 1)
	return branch{w.create, (*state.Map)(nil).Set(w.add(w.create, nil))}
}

func (w *world) build(prev, authEvents []event.Ref, typ string, stateKey *string, sender string, content any, ts int64) *event.Event {
	w.t.Helper()
	raw, err := json.Marshal(content)
	if err != nil {
		w.t.Fatal(err)
	}
	d := event.Draft{Type: typ, StateKey: stateKey, Sender: matrix.UserID(sender), Content: raw,
		OriginServerTS: ts, PrevEvents: prev, AuthEvents: authEvents, Depth: 1}
	for _, p := range prev {
		d.Depth = max(d.Depth, w.room.Events[p.ID].Depth+1)
	}
	switch {
	case typ != matrix.TypeCreate:
		d.RoomID = w.create.RoomID
	case !w.v.RoomIDHash:
		d.RoomID = "!room:a.example"
	}
	e, err := event.Build(w.v, d, d.Sender.Server(), testKey)
	if err != nil {
		w.t.Fatalf("building a %s: %v", typ, err)
	}
	return e
}

// add makes the event known and returns where it would stand.
func (w *world) add(e *event.Event, authEvents []event.Ref) (state.KeyNID, state.EventNID) {
	if nid, ok := w.nids[e.ID]; ok {
		return w.records[nid-1].Key, nid
	}
	key := auth.Key{Type: e.Type, StateKey: e.StateKey()}
	if w.keys[key] == 0 {
		w.keys[key] = state.KeyNID(len(w.keys) + 1)
	}
	rec := &resolve.Record{NID: state.EventNID(len(w.records) + 1), Key: w.keys[key], Event: e}
	for _, a := range authEvents {
		rec.Auth = append(rec.Auth, w.nids[a.ID])
	}
	w.records = append(w.records, rec)
	w.nids[e.ID] = rec.NID
	w.room.Events[e.ID] = e
	return rec.Key, rec.NID
}

// Records is resolve.Source.
func (w *world) Records(nids []state.EventNID) ([]*resolve.Record, error) {
	w.batches++
	w.loaded += len(nids)
	list := make([]*resolve.Record, len(nids))
	for i, nid := range nids {
		list[i] = w.records[nid-1]
	}
	return list, nil
}

// Key is resolve.Source.
func (w *world) Key(typ, stateKey string) (state.KeyNID, bool) {
	key, ok := w.keys[auth.Key{Type: typ, StateKey: stateKey}]
	return key, ok
}

// edges is the same source with its auth graph at hand.
type edges struct{ *world }

// AuthEvents is resolve.AuthSource.
func (e edges) AuthEvents(nids []state.EventNID) ([][]state.EventNID, error) {
	lists := make([][]state.EventNID, len(nids))
	for i, nid := range nids {
		lists[i] = e.records[nid-1].Auth
	}
	return lists, nil
}

// view is a numbered state as auth.State.
type view struct {
	w *world
	m *state.Map
}

func (v view) Event(typ, stateKey string) *event.Event {
	nid, ok := v.m.Get(v.w.keys[auth.Key{Type: typ, StateKey: stateKey}])
	if !ok {
		return nil
	}
	return v.w.records[nid-1].Event
}

// draft is an event to be sent.
type draft struct {
	typ, key, sender string
	content          any
	ts               int64
	authFrom         *state.Map // where to take auth events from; nil: the state before
}

// send appends an event to a branch. It is false if the event is not allowed:
// then it is known, and rejected, but the branch stays as it is.
func (w *world) send(b branch, d draft) (branch, bool) {
	w.t.Helper()
	raw, _ := json.Marshal(d.content)
	from := view{w, b.state}
	if d.authFrom != nil {
		from.m = d.authFrom
	}
	var refs []event.Ref
	var list []*event.Event
	for _, key := range auth.Needed(w.v, d.typ, &d.key, matrix.UserID(d.sender), raw) {
		if a := from.Event(key.Type, key.StateKey); a != nil {
			refs = append(refs, a.Ref())
			list = append(list, a)
		}
	}
	e := w.build([]event.Ref{b.last.Ref()}, refs, d.typ, &d.key, d.sender, d.content, d.ts)
	if _, known := w.nids[e.ID]; known {
		return b, false
	}
	key, nid := w.add(e, refs)
	rejected := func(id matrix.EventID) bool { return w.room.Rejected[id] }
	authState := w.authState(list)
	if auth.CheckAuthEvents(e, list, rejected) != nil || auth.Check(e, authState) != nil || auth.Check(e, view{w, b.state}) != nil {
		w.room.Rejected[e.ID] = true
		w.records[nid-1].Rejected = true
		return b, false
	}
	return branch{e, b.state.Set(key, nid)}, true
}

// must is send for events that the test knows to be allowed.
func (w *world) must(b branch, typ, key, sender string, content any, ts int64) branch {
	w.t.Helper()
	next, ok := w.send(b, draft{typ: typ, key: key, sender: sender, content: content, ts: ts})
	if !ok {
		w.t.Fatalf("version %s: %s of %q by %s is not allowed", w.v.ID, typ, key, sender)
	}
	return next
}

// authState is the state of just an event's auth events; the room id stands for
// the create event where that is none of them.
func (w *world) authState(list []*event.Event) auth.State {
	s := spec.State{}
	for _, a := range list {
		s[auth.Key{Type: a.Type, StateKey: a.StateKey()}] = a.ID
	}
	if w.v.RoomIDHash {
		s[auth.Key{Type: matrix.TypeCreate}] = w.create.ID
	}
	return spec.View{Room: w.room, State: s}
}

// merge joins branches with a message after all of them.
func (w *world) merge(branches ...branch) branch {
	sets := make([]*state.Map, len(branches))
	var prev []event.Ref
	for i, b := range branches {
		sets[i] = b.state
		prev = append(prev, b.last.Ref())
	}
	e := w.build(prev, nil, "m.room.message", nil, string(w.create.Sender), map[string]any{"n": len(w.records)}, 0)
	w.add(e, nil)
	return branch{e, w.resolve(sets)}
}

// resolve resolves with the resolver under test.
func (w *world) resolve(sets []*state.Map) *state.Map {
	w.t.Helper()
	m, err := resolve.Resolve(w.v, sets, w)
	if err != nil {
		w.t.Fatal(err)
	}
	return m
}

// literal resolves word for word.
func (w *world) literal(sets []*state.Map) spec.State {
	states := make([]spec.State, len(sets))
	for i, s := range sets {
		states[i] = w.plain(s)
	}
	return w.room.Resolve(states)
}

// plain is the state with names for numbers.
func (w *world) plain(m *state.Map) spec.State {
	s := spec.State{}
	for _, nid := range m.All() {
		e := w.records[nid-1].Event
		s[auth.Key{Type: e.Type, StateKey: e.StateKey()}] = e.ID
	}
	return s
}

// describe lists how two states differ.
func (w *world) describe(got, want spec.State) string {
	var text string
	keys := maps.Clone(got)
	maps.Copy(keys, want)
	for _, key := range slices.SortedFunc(maps.Keys(keys), func(a, b auth.Key) int {
		return slices.Compare([]string{a.Type, a.StateKey}, []string{b.Type, b.StateKey})
	}) {
		if got[key] != want[key] {
			text += fmt.Sprintf("\n  %s %q: event %d, want %d", key.Type, key.StateKey, w.nids[got[key]], w.nids[want[key]])
		}
	}
	return text
}
