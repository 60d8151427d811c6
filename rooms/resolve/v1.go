package resolve

import (
	"bytes"
	"cmp"
	"crypto/sha1"
	"slices"

	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms/auth"
	"github.com/teahouse-chat/teahouse/rooms/event"
	"github.com/teahouse-chat/teahouse/rooms/state"
)

// v1 is the state resolution of room version 1. Keys that some states lack are
// no conflict here, and the rules see the state alone, without auth events.
//
// All keys of one pass are decided on the state before the pass, so that their
// order does not matter. If no candidate for a key is allowed, the one with the
// lowest depth stands, as with the keys that the first three passes decide.
// spec: rooms/v1#state-resolution
func (r *resolution) v1() (*state.Map, error) {
	p := &partial{r: r, base: r.sets[0], decided: make(map[state.KeyNID]state.EventNID)}
	if err := r.graph.load(r.conflictedEvents()); err != nil {
		return nil, err
	}
	passes := p.contests()
	var candidates []state.EventNID
	for _, list := range slices.Concat(passes...) {
		for _, rec := range list {
			candidates = append(candidates, rec.NID)
		}
	}
	if err := p.prefetch(candidates); err != nil {
		return nil, err
	}
	for i, pass := range passes {
		pick := p.lastAllowed
		if i == len(passes)-1 {
			pick = p.newestAllowed
		}
		winners := make([]*Record, 0, len(pass))
		for _, list := range pass {
			winners = append(winners, pick(list))
		}
		if p.err != nil {
			return nil, p.err
		}
		for _, w := range winners {
			p.decided[w.Key] = w.NID
		}
	}
	return r.finish(p.decided), nil
}

// contests groups by pass the candidates for each key, lowest depth first. Keys
// with one candidate are decided at once.
func (p *partial) contests() [][][]*Record {
	passes := make([][][]*Record, 4)
	for key, nids := range p.r.conflicts {
		var list []*Record
		for _, nid := range nids {
			if rec := p.r.graph.records[nid]; rec != nil && !rec.Rejected { // 0 has none
				list = append(list, rec)
			}
		}
		switch len(list) {
		case 0:
		case 1:
			p.decided[key] = list[0].NID
		default:
			slices.SortFunc(list, byDepth)
			pass := passOf(list[0].Event.Type)
			passes[pass] = append(passes[pass], list)
		}
	}
	return passes
}

func passOf(typ string) int {
	switch typ {
	case matrix.TypePowerLevels:
		return 0
	case matrix.TypeJoinRules:
		return 1
	case matrix.TypeMember:
		return 2
	}
	return 3
}

// byDepth orders by ascending depth, then by descending sha1 of the id.
func byDepth(a, b *Record) int {
	if c := cmp.Compare(a.Event.Depth, b.Event.Depth); c != 0 {
		return c
	}
	x, y := sha1.Sum([]byte(a.Event.ID)), sha1.Sum([]byte(b.Event.ID))
	return bytes.Compare(y[:], x[:])
}

// lastAllowed goes up the list as long as each event is allowed by the state
// with the one before it.
func (p *partial) lastAllowed(list []*Record) *Record {
	current := list[0]
	for _, next := range list[1:] {
		if auth.Check(next.Event, with{p, current.Event}) != nil {
			break
		}
		current = next
	}
	return current
}

// newestAllowed takes the event that is highest in the list of those allowed.
func (p *partial) newestAllowed(list []*Record) *Record {
	for i := len(list) - 1; i > 0; i-- {
		if p.allowed(list[i]) {
			return list[i]
		}
	}
	return list[0]
}

func (p *partial) allowed(rec *Record) bool {
	p.judged = &Record{} // without auth events
	return auth.Check(rec.Event, p) == nil
}

// with is a partial state with one more event.
type with struct {
	*partial
	event *event.Event
}

// Event is auth.State.
func (w with) Event(typ, stateKey string) *event.Event {
	if w.event.Is(typ, stateKey) {
		return w.event
	}
	w.judged = &Record{}
	return w.partial.Event(typ, stateKey)
}
