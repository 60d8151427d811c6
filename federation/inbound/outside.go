package inbound

import (
	"context"
	"slices"

	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms"
	"github.com/teahouse-chat/teahouse/rooms/event"
	"github.com/teahouse-chat/teahouse/rooms/state"
)

// concernsUs tells whether an event of a room that no user of ours is in ends the
// invite or the knock of one of them. The state of the room is not known here, so
// that the rules cannot judge the event: an invitation can be taken back by who
// has made it, and a knock be answered by who knows the id of its event.
func (in *Inbound) concernsUs(ctx context.Context, r *rooms.Room, ev *event.Event) (bool, error) {
	user := matrix.UserID(ev.StateKey())
	if !ev.Is(matrix.TypeMember, string(user)) || !in.Rooms.Local(user) ||
		ev.Membership() != matrix.MembershipLeave && ev.Membership() != matrix.MembershipBan {
		return false, nil
	}
	m, err := in.Rooms.Membership(ctx, r, user)
	if err != nil || m.Membership != matrix.MembershipInvite && m.Membership != matrix.MembershipKnock {
		return false, err
	}
	ended, err := in.Rooms.Events(ctx, []state.EventNID{m.Event})
	if err != nil || m.Membership == matrix.MembershipInvite && ended[0].Sender != ev.Sender {
		return false, err
	}
	return slices.Contains(ev.AuthEvents, ended[0].ID), nil
}

// outside brings in what concerns our users of a room that none of them is in.
func (in *Inbound) outside(ctx context.Context, r *rooms.Room, items []*item) error {
	for _, it := range items {
		if it.fate != waits {
			continue
		}
		ok, err := in.concernsUs(ctx, r, it.ev)
		if err != nil {
			return err
		}
		if !ok {
			in.drop(it, "nobody of this server is in the room", nil)
			continue
		}
		if _, err := in.Rooms.StoreOutside(ctx, r.Version, it.ev, nil); err != nil {
			return err
		}
		in.metrics.pdus.WithLabelValues("accepted").Inc()
		it.fate = done
	}
	return nil
}
