package rooms

import (
	"context"
	"errors"
	"slices"

	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms/event"
	"github.com/teahouse-chat/teahouse/rooms/state"
)

// ImportState makes this server take part in a room by an event, as a rule a
// join, that another server has accepted: st is the state before the event,
// chain what authorises it, both with their signatures checked, in any order. A
// room that this server does not know becomes visible in one step; what it has
// of a room that none of its users is in any more is continued from there.
// spec: server-server#joining-rooms
func (e *Engine) ImportState(ctx context.Context, v *event.Version, id matrix.RoomID, st, chain []*event.Event, join *event.Event) (*Stored, error) {
	var joined *Stored
	r, err := e.enterOrMake(ctx, id, func(ctx context.Context) (r *Room, err error) {
		r, joined, err = e.importNew(ctx, RoomNID(e.roomSeq.Next()), v, id, st, chain, join)
		return r, err
	})
	if r == nil || err != nil {
		return joined, err
	}
	defer r.intake.Release(1)
	return e.importInto(ctx, r, v, st, chain, join)
}

// importInto goes on with a room that is known, whose intake is held. One that is
// known from outside only may have been given a wrong version by whoever told of
// it: it is made anew.
func (e *Engine) importInto(ctx context.Context, r *Room, v *event.Version, st, chain []*event.Event, join *event.Event) (*Stored, error) {
	if r.Shell() {
		_, joined, err := e.importNew(ctx, r.NID, v, r.ID, st, chain, join)
		r.replaced = err == nil
		return joined, err
	}
	got := newFetched()
	outcomes, err := e.storeOutliers(ctx, r, got, slices.Concat(chain, st))
	if err != nil {
		return nil, err
	}
	in := &intake{
		e: e, room: r, got: got, events: []Incoming{{Event: join, State: idsOf(vouched(st, outcomes[len(chain):]))}},
		replace: r.LocalMemberCount() == 0,
	}
	if outcomes, err = in.do(ctx); err != nil {
		return nil, err
	}
	return imported(outcomes[0])
}

// vouched are the events of a state that could be brought in. One whose auth
// events nobody gave is as good as not there.
func vouched(st []*event.Event, outcomes []Outcome) []*event.Event {
	kept := make([]*event.Event, 0, len(st))
	for i, ev := range st {
		if outcomes[i].Event != nil {
			kept = append(kept, ev)
		}
	}
	return kept
}

// importNew makes a room.
func (e *Engine) importNew(ctx context.Context, nid RoomNID, v *event.Version, id matrix.RoomID, st, chain []*event.Event, join *event.Event) (*Room, *Stored, error) {
	r := newRoom(nid, id, v)
	in := &intake{e: e, room: r, got: newFetched(), replace: true, creating: true}
	o := &outliers{e: e, room: r.NID, id: id, version: v, got: in.got}
	all := slices.Concat(chain, st)
	defer o.claim(all)()
	judged, err := o.admitAll(ctx, all)
	if err != nil {
		return nil, nil, err
	}
	in.events = []Incoming{{Event: join, State: idsOf(vouched(st, judged[len(chain):]))}}
	if o.create == nil {
		return nil, nil, matrix.NewError(400, matrix.CodeUnknown, "The state of the room has no create event")
	}
	in.outliers = o
	outcomes, err := in.do(ctx)
	if err != nil {
		return nil, nil, err
	}
	joined, err := imported(outcomes[0])
	return r, joined, err
}

func idsOf(events []*event.Event) []matrix.EventID {
	ids := make([]matrix.EventID, len(events))
	for i, ev := range events {
		ids[i] = ev.ID
	}
	return ids
}

func imported(out Outcome) (*Stored, error) {
	switch {
	case out.Event != nil && out.Event.Flags == 0:
		return out.Event, nil
	case len(out.Missing) > 0:
		return nil, matrix.NewError(400, matrix.CodeUnknown, "The event refers to %s, which is not in the auth chain", out.Missing[0])
	case out.Why == nil:
		out.Why = errors.New("it was not accepted when it came before")
	}
	return nil, matrix.Forbidden("The room does not allow the event: %s", out.Why).Because(out.Why)
}

// begin lets the builder start from the state that was given with the event.
func (in *intake) begin(b *Builder) error {
	if in.outliers != nil {
		for _, st := range in.outliers.events {
			b.add(st, false)
		}
		b.newKeys = append(b.newKeys, in.outliers.keys...)
	}
	return b.replaceHead(in.events[0])
}

// joined tells whether the event was accepted; if not, the room stays as it was.
func (in *intake) joined(b *Builder) bool {
	if len(in.outcomes) == 0 || in.outcomes[0].Event == nil || in.outcomes[0].Known || in.outcomes[0].Event.Flags != 0 {
		b.head.pending.remove(b.events)
		return false
	}
	for i := range b.memberChanges {
		b.memberChanges[i].by = in.outcomes[0].Event
	}
	for i := range b.serverMoves {
		b.serverMoves[i].by = in.outcomes[0].Event
	}
	return true
}

// replaceHead makes the state that another server gave the current one, in the
// place of whatever this server thought of the room, but for departures of its
// users that the other one has not heard of.
func (b *Builder) replaceHead(in Incoming) error {
	m, err := b.stateOfIDs(in.State)
	if err != nil {
		return err
	}
	if b.head.extremities, err = b.unheard(m); err != nil {
		return err
	}
	return b.moveHead(b.snapshot(b.current(), m, b.got.number("given", b.e.snapSeq.Next), false), nil)
}

// unheard are those ends of the room's history that are member events of local
// users which are missing in a state: it has what they have replaced.
func (b *Builder) unheard(given *state.Map) ([]extremity, error) {
	var left []extremity
	for _, x := range b.head.extremities {
		st, err := b.stored(x.nid)
		if err != nil {
			return nil, err
		}
		if !st.IsState() || st.Type != matrix.TypeMember || !b.e.Local(st.Sender) {
			continue
		}
		if n, ok := given.Get(st.Key); ok && n == st.Replaces {
			left = append(left, x)
		}
	}
	return left, nil
}

// stateOfIDs is the state that is made of these events, rejected ones left out.
func (b *Builder) stateOfIDs(ids []matrix.EventID) (*state.Map, error) {
	entries := make([]state.Entry, 0, len(ids))
	for _, id := range ids {
		st, err := b.byID(id)
		if err != nil {
			return nil, err
		}
		if st != nil && st.Flags&Rejected == 0 && st.IsState() && st.Room == b.room.NID {
			entries = append(entries, state.Entry{Key: st.Key, Event: st.NID})
		}
	}
	return state.FromEntries(entries), nil
}
