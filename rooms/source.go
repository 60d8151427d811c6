package rooms

import (
	"context"
	"fmt"
	"maps"

	"github.com/teahouse-chat/teahouse/internal/db"
	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms/auth"
	"github.com/teahouse-chat/teahouse/rooms/resolve"
	"github.com/teahouse-chat/teahouse/rooms/state"
)

var (
	authsByNIDs = db.SQL(`SELECT event_nid, auth FROM events WHERE event_nid IN {ints $1}`)
	nidsByIDs   = db.SQL(`SELECT event_id, event_nid FROM events WHERE event_id IN {texts $1}`)
)

// source gives state resolution the records of a room's events. Under a room's
// turn it reads memory only: what is not there is asked for by a *need.
type source struct {
	ctx      context.Context // nil: memory only
	e        *Engine
	got      *fetched
	pending  *pendingEvents
	arriving *Stored // the event that is being admitted; may be nil
	err      error   // of Key, which cannot return one
}

var _ interface {
	resolve.Source
	resolve.AuthSource
} = (*source)(nil)

// inMemory finds an event without reading the database. Pending events are
// looked for first: they are cached before they cease to be pending.
func (s *source) inMemory(nid state.EventNID) *Stored {
	if s.arriving != nil && s.arriving.NID == nid {
		return s.arriving
	}
	if st := s.pending.get(nid); st != nil {
		return st
	}
	if st, ok := s.got.events[nid]; ok {
		return st
	}
	st, _ := s.e.cache.Get(nid)
	return st
}

// Records implements resolve.Source.
func (s *source) Records(nids []state.EventNID) ([]*resolve.Record, error) {
	events := make([]*Stored, len(nids))
	var missing []state.EventNID
	for i, nid := range nids {
		if events[i] = s.inMemory(nid); events[i] == nil {
			missing = append(missing, nid)
		}
	}
	if len(missing) > 0 {
		if s.ctx == nil {
			return nil, &need{events: missing}
		}
		read, err := s.e.Events(s.ctx, missing)
		if err != nil {
			return nil, err
		}
		for i := range events {
			if events[i] == nil {
				events[i], read = read[0], read[1:]
			}
		}
		if err := s.warm(read); err != nil {
			return nil, err
		}
	}
	records := make([]*resolve.Record, len(nids))
	for i, st := range events {
		a, err := s.authOf(st)
		if err != nil {
			return nil, err
		}
		records[i] = &resolve.Record{NID: st.NID, Key: st.Key, Event: st.Event, Auth: a, Rejected: st.Flags&Rejected != 0}
	}
	return records, nil
}

// warm looks up, with one query, the keys that judging these events will ask for.
func (s *source) warm(events []*Stored) error {
	var keys []auth.Key
	for _, st := range events {
		keys = append(keys, auth.NeededBy(st.Event)...)
	}
	_, err := s.e.keys.findAll(s.ctx, keys)
	return err
}

// authOf lists an event's auth events by number. Only events that were stored
// before there was a column for it do not bring the list along.
func (s *source) authOf(st *Stored) ([]state.EventNID, error) {
	if st.Auth != nil || len(st.AuthEvents) == 0 || !st.IsState() {
		return st.Auth, nil
	}
	if l, ok := s.e.auths.Get(st.NID); ok {
		return l, nil
	}
	if l, ok := s.got.auths[st.NID]; ok {
		return l, nil
	}
	if s.ctx == nil {
		return nil, &need{auths: []state.EventNID{st.NID}}
	}
	lists, err := s.e.authsByIDs(s.ctx, []*Stored{st})
	return lists[st.NID], err
}

// authsByIDs looks the numbers of events' auth events up.
func (e *Engine) authsByIDs(ctx context.Context, events []*Stored) (map[state.EventNID][]state.EventNID, error) {
	var ids []matrix.EventID
	for _, st := range events {
		ids = append(ids, st.AuthEvents...)
	}
	if len(ids) == 0 && len(events) == 0 {
		return nil, nil
	}
	byID := make(map[matrix.EventID]state.EventNID, len(ids))
	err := db.Each(ctx, e.DB, nidsByIDs, func(s db.Scanner) error {
		var id matrix.EventID
		var nid state.EventNID
		err := s.Scan(&id, &nid)
		byID[id] = nid
		return err
	}, ids)
	if err != nil {
		return nil, err
	}
	lists := make(map[state.EventNID][]state.EventNID, len(events))
	for _, st := range events {
		nids := make([]state.EventNID, len(st.AuthEvents))
		for i, id := range st.AuthEvents {
			if nids[i] = byID[id]; nids[i] == 0 {
				return nil, fmt.Errorf("rooms: auth event %s of %s is missing", id, st.ID)
			}
		}
		lists[st.NID] = nids
	}
	return lists, nil
}

// AuthEvents implements resolve.AuthSource.
func (s *source) AuthEvents(nids []state.EventNID) ([][]state.EventNID, error) {
	lists := make([][]state.EventNID, len(nids))
	var missing []state.EventNID
	var at []int
	for i, nid := range nids {
		if l, ok := s.e.auths.Get(nid); ok {
			lists[i] = l
			continue
		}
		if l, ok := s.got.auths[nid]; ok {
			lists[i] = l
			continue
		}
		if st := s.inMemory(nid); st != nil && st.Auth != nil {
			lists[i] = st.Auth
			continue
		}
		missing, at = append(missing, nid), append(at, i)
	}
	if len(missing) == 0 {
		return lists, nil
	}
	if s.ctx == nil {
		return nil, &need{auths: missing}
	}
	read, err := s.e.readAuths(s.ctx, missing)
	for i, nid := range missing {
		lists[at[i]] = read[nid]
	}
	return lists, err
}

// readAuths reads the auth events of events, without the events.
func (e *Engine) readAuths(ctx context.Context, nids []state.EventNID) (map[state.EventNID][]state.EventNID, error) {
	read := make(map[state.EventNID][]state.EventNID, len(nids))
	var bare []state.EventNID
	err := db.Each(ctx, e.DB, authsByNIDs, func(s db.Scanner) error {
		var nid state.EventNID
		var packed []byte
		if err := s.Scan(&nid, &packed); err != nil {
			return err
		}
		if len(packed) == 0 {
			bare = append(bare, nid)
			return nil
		}
		l, err := decodeNIDs(packed)
		read[nid] = l
		return err
	}, nids)
	if err != nil {
		return nil, err
	}
	events, err := e.Events(ctx, bare)
	if err != nil {
		return nil, err
	}
	looked, err := e.authsByIDs(ctx, events)
	if err != nil {
		return nil, err
	}
	maps.Copy(read, looked)
	for nid, l := range read {
		e.auths.Add(nid, l)
	}
	for _, nid := range nids {
		if _, ok := read[nid]; !ok {
			return nil, fmt.Errorf("rooms: event %d is missing", nid)
		}
	}
	return read, nil
}

// Key implements resolve.Source.
func (s *source) Key(typ, stateKey string) (state.KeyNID, bool) {
	k := auth.Key{Type: typ, StateKey: stateKey}
	n, ok := s.e.keys.known(k)
	if !ok {
		n, ok = s.got.keys[k]
	}
	switch {
	case ok:
	case s.ctx != nil:
		var err error
		if n, err = s.e.keys.find(s.ctx, k); err != nil && s.err == nil {
			s.err = err
		}
	case s.err == nil:
		s.err = &need{key: &k}
	}
	return n, n != 0
}
