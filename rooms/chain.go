package rooms

import (
	"context"
	"slices"

	"github.com/teahouse-chat/teahouse/internal/db"
	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms/state"
)

// Known returns the events with these ids, of whatever room and whatever became
// of them: outliers and rejected ones, too. It is for those who ask what is there,
// not for those who show it.
func (e *Engine) Known(ctx context.Context, ids []matrix.EventID) (map[matrix.EventID]*Stored, error) {
	known := make(map[matrix.EventID]*Stored, len(ids))
	for part := range slices.Chunk(ids, readAtOnce) {
		events, err := e.eventsByID(ctx, part)
		if err != nil {
			return nil, err
		}
		for _, st := range events {
			known[st.ID] = st
		}
	}
	return known, nil
}

// StateBefore is the room's state before an event, as the event itself sees it.
// 404 M_NOT_FOUND for an outlier, whose place in the history is not known.
func (e *Engine) StateBefore(ctx context.Context, st *Stored) (*state.Map, error) {
	if st.Flags&Outlier != 0 {
		return nil, matrix.NotFound("This server does not know the room's state before the event")
	}
	m, err := e.stateAfter(ctx, st)
	if err != nil || !st.IsState() || st.Flags&Rejected != 0 {
		return m, err
	}
	return m.Set(st.Key, st.Replaces), nil
}

// stateAfter is the state after an event.
func (e *Engine) stateAfter(ctx context.Context, st *Stored) (*state.Map, error) {
	if b, ok := e.branches.Get(st.Snapshot); ok {
		return b.state, nil
	}
	if r := e.loadedNID(st.Room); r != nil {
		if v := r.View(); v.Snapshot == st.Snapshot {
			return v.State, nil
		}
	}
	return e.Snapshot(ctx, st.Snapshot)
}

// readAtOnce bounds what one query is asked for.
const readAtOnce = 5000

// AuthChain lists what authorises these events, what authorises that, and so on,
// in the order of the numbers, so that each event comes after those that it rests
// on. The events themselves are in it only where another one rests on them.
// spec: server-server#definitions
func (e *Engine) AuthChain(ctx context.Context, nids []state.EventNID) ([]state.EventNID, error) {
	chain, err := e.impliedCreate(ctx, nids)
	if err != nil {
		return nil, err
	}
	seen := nidSet{}
	for _, nid := range chain {
		seen.add(nid)
	}
	src := &source{ctx: ctx, e: e, got: newFetched(), pending: newHead().pending}
	for layer := nids; len(layer) > 0; {
		var next []state.EventNID
		for part := range slices.Chunk(layer, readAtOnce) {
			lists, err := src.AuthEvents(part)
			if err != nil {
				return nil, err
			}
			for _, list := range lists {
				for _, nid := range list {
					if seen.add(nid) {
						next = append(next, nid)
					}
				}
			}
		}
		chain, layer = append(chain, next...), next
	}
	slices.Sort(chain)
	return chain, nil
}

// AuthChainBeyond is AuthChain without the events that are given: what a server
// has to be told beside a state.
func (e *Engine) AuthChainBeyond(ctx context.Context, nids []state.EventNID) ([]state.EventNID, error) {
	chain, err := e.AuthChain(ctx, nids)
	if err != nil {
		return nil, err
	}
	given := nidSet{}
	for _, nid := range nids {
		given.add(nid)
	}
	return slices.DeleteFunc(chain, given.has), nil
}

// fetchChain reads what authorised the room's present state.
func (e *Engine) fetchChain(ctx context.Context, r *Room, got *fetched) error {
	var nids []state.EventNID
	for _, nid := range r.View().State.All() {
		nids = append(nids, nid)
	}
	chain, err := e.AuthChain(ctx, nids)
	got.chain = nidSet{}
	for _, nid := range chain {
		got.chain.add(nid)
	}
	return err
}

var createNID = db.SQL(`SELECT event_nid FROM events WHERE event_id = $1`)

// impliedCreate is the create event of the room that the events are of, where its
// id takes the place of a mention among the auth events.
// spec: rooms/v12#event-format
func (e *Engine) impliedCreate(ctx context.Context, nids []state.EventNID) ([]state.EventNID, error) {
	if len(nids) == 0 {
		return nil, nil
	}
	events, err := e.Events(ctx, nids[:1])
	if err != nil || !events[0].Version.RoomIDHash {
		return nil, err
	}
	nid, found, err := db.One(ctx, e.DB, createNID, scanOne[state.EventNID], "$"+string(events[0].RoomID[1:]))
	if err != nil || !found || len(nids) == 1 && nid == nids[0] {
		return nil, err
	}
	return []state.EventNID{nid}, nil
}

// nidSet is a set of event numbers, in words of 64. The numbers of a room that
// was joined follow each other, so that most words are full.
type nidSet map[state.EventNID]uint64

// add tells whether the number is new.
func (s nidSet) add(nid state.EventNID) bool {
	word, bit := nid>>6, uint64(1)<<(nid&63)
	if s[word]&bit != 0 {
		return false
	}
	s[word] |= bit
	return true
}

func (s nidSet) has(nid state.EventNID) bool { return s[nid>>6]&(1<<(nid&63)) != 0 }
