package rooms

import (
	"errors"

	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms/auth"
	"github.com/teahouse-chat/teahouse/rooms/event"
	"github.com/teahouse-chat/teahouse/rooms/state"
)

// judge applies the authorisation rules three times, and asks what the room's
// policy server said.
func (b *Builder) judge(a *arrival) (Flags, error, error) {
	flags, why, err := b.judgeThen(a)
	if flags != 0 || err != nil || a.known != nil && b.isState(a.known) {
		return flags, why, err
	}
	if a.before.state != b.head.state {
		st, err := b.stateFor(b.head.state, a.ev)
		if err != nil {
			return 0, nil, err
		}
		// spec: server-server#soft-failure
		if why := auth.Check(a.ev, st); why != nil {
			return SoftFailed, why, nil
		}
	}
	// spec: server-server#checks-performed-on-receipt-of-a-pdu
	by, err := b.policy()
	if err != nil || by.recommends(a.ev) {
		return 0, nil, err
	}
	return SoftFailed, errNotRecommended, nil
}

// judgeThen applies the rules as they were when the event was sent: by its auth
// events, and by the state before it.
func (b *Builder) judgeThen(a *arrival) (Flags, error, error) {
	switch {
	case a.known != nil && a.known.Flags&Rejected != 0:
		return Rejected, nil, nil
	case a.known == nil && a.ev.Type == matrix.TypeCreate:
		return Rejected, errCreate, nil
	}
	create, err := b.State(matrix.TypeCreate, "")
	if err != nil {
		return 0, nil, err
	}
	a.authEvents = authEventsOf(a.ev, a.auths, create)
	if why := checkAuthEvents(a.ev, a.auths, a.authEvents); why != nil {
		return Rejected, why, nil
	}
	st, err := b.stateFor(a.before.state, a.ev)
	if err != nil {
		return 0, nil, err
	}
	if why := auth.Check(a.ev, st); why != nil {
		return Rejected, why, nil
	}
	return 0, nil, nil
}

// isState tells whether an event is part of the room's present state.
func (b *Builder) isState(st *Stored) bool {
	nid, ok := b.head.state.Get(st.Key)
	return ok && nid == st.NID
}

var errRestsOn = errors.New("the room's present state rests on the event, which the state before it, as it was told, forbids")

// contradicts tells whether an event that fails the rules is one that the room's
// present state is made of, or was authorised by. Then the state before the event
// is not what others told, and nothing is made of the event.
func (b *Builder) contradicts(a *arrival, flags Flags) (bool, error) {
	switch {
	case flags&Rejected == 0 || a.known == nil || a.known.Flags&Rejected != 0:
		return false, nil
	case b.isState(a.known):
		return true, nil
	case b.got.chain == nil:
		return false, &need{chain: true}
	}
	return b.got.chain.has(a.known.NID), nil
}

// authEventsOf is what an event's auth events say, with the create event where
// the room id implies it.
func authEventsOf(ev *event.Event, auths []*Stored, create *Stored) authState {
	st := make(authState, 0, len(auths)+1)
	for _, a := range auths {
		st = append(st, a.Event)
	}
	if ev.Version.RoomIDHash && create != nil {
		st = append(st, create.Event)
	}
	return st
}

// checkAuthEvents judges an event by its auth events.
func checkAuthEvents(ev *event.Event, auths []*Stored, st authState) error {
	rejected := func(id matrix.EventID) bool {
		for _, a := range auths {
			if a.ID == id {
				return a.Flags&Rejected != 0
			}
		}
		return false
	}
	if err := auth.CheckAuthEvents(ev, st[:len(auths)], rejected); err != nil {
		return err
	}
	return auth.Check(ev, st)
}

// stateFor picks from a state what decides on an event.
func (b *Builder) stateFor(m *state.Map, ev *event.Event) (authState, error) {
	keys := auth.NeededBy(ev)
	if ev.Version.RoomIDHash {
		keys = append(keys, auth.Key{Type: matrix.TypeCreate})
	}
	st := make(authState, 0, len(keys))
	for _, k := range keys {
		s, err := b.stateIn(m, k)
		if err != nil {
			return nil, err
		}
		if s != nil {
			st = append(st, s.Event)
		}
	}
	return st, nil
}
