package resolve

import (
	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms/auth"
	"github.com/teahouse-chat/teahouse/rooms/event"
	"github.com/teahouse-chat/teahouse/rooms/state"
)

// partial is a partially resolved state: what was decided so far over a base,
// which is the state that the sets agree on, or nothing. To the authorisation
// rules it shows itself, filled up with the auth events of the event at hand.
type partial struct {
	r       *resolution
	base    *state.Map // its conflicted keys do not count
	decided map[state.KeyNID]state.EventNID
	judged  *Record
	err     error
}

// iterate applies the events, in this order, that the authorisation rules allow.
// spec: rooms/v2#definitions
func (p *partial) iterate(order []state.EventNID) error {
	if err := p.prefetch(order); err != nil {
		return err
	}
	for _, nid := range order {
		p.judged = p.r.graph.records[nid]
		if p.judged.Rejected {
			continue
		}
		err := auth.Check(p.judged.Event, p)
		if p.err != nil {
			return p.err
		}
		if err == nil {
			p.decided[p.judged.Key] = nid
		}
	}
	return nil
}

// prefetch loads in one batch what the checks will ask of the base.
func (p *partial) prefetch(order []state.EventNID) error {
	if p.base == nil {
		return nil
	}
	var nids []state.EventNID
	for _, nid := range order {
		for _, key := range auth.NeededBy(p.r.graph.records[nid].Event) {
			if k, ok := p.r.graph.src.Key(key.Type, key.StateKey); ok {
				if at := p.at(k); at != 0 {
					nids = append(nids, at)
				}
			}
		}
	}
	return p.r.graph.load(nids)
}

// at is the event at the key, 0 if there is none.
func (p *partial) at(key state.KeyNID) state.EventNID {
	if nid, ok := p.decided[key]; ok {
		return nid
	}
	if _, conflicted := p.r.conflicts[key]; conflicted {
		return 0
	}
	nid, _ := p.base.Get(key)
	return nid
}

// Event is auth.State.
func (p *partial) Event(typ, stateKey string) *event.Event {
	if typ == matrix.TypeCreate && p.r.create != nil {
		return p.r.create
	}
	key, ok := p.r.graph.src.Key(typ, stateKey)
	if !ok {
		return nil
	}
	if nid := p.at(key); nid != 0 {
		if err := p.r.graph.load([]state.EventNID{nid}); err != nil {
			p.err = err
			return nil
		}
		return p.r.graph.records[nid].Event
	}
	for _, a := range p.judged.Auth {
		if rec := p.r.graph.records[a]; rec.Key == key && !rec.Rejected {
			return rec.Event
		}
	}
	return nil
}
