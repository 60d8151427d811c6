package push

import (
	"context"
	"encoding/json"
	"strings"

	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms"
	"github.com/teahouse-chat/teahouse/rooms/state"
)

// upgraded carries over what a user has set for a room when they join the one that
// it was upgraded to. Nobody waits for it.
// spec: client-server#server-behaviour-19
func (f *follower) upgraded(ctx context.Context, in sight, ev *rooms.Stored) error {
	user := matrix.UserID(ev.StateKey())
	if ev.Type != matrix.TypeMember || !ev.IsState() || ev.Membership() != matrix.MembershipJoin || !f.p.Rooms.Local(user) {
		return nil
	}
	create, err := f.p.Rooms.StateEvent(ctx, in.state, matrix.TypeCreate, "")
	if err != nil || create == nil {
		return err
	}
	old := rooms.Predecessor(create)
	if old == "" {
		return nil
	}
	if ev.Replaces != 0 {
		was, err := f.p.Rooms.Events(ctx, []state.EventNID{ev.Replaces})
		if err != nil || was[0].Membership() != matrix.MembershipInvite && was[0].Membership() != matrix.MembershipKnock {
			return err // they have been there before
		}
	}
	f.carrying.Go(func() {
		if err := f.p.carryOver(ctx, user, old, in.ID); err != nil && ctx.Err() == nil {
			f.p.Log.Error("what a user has set for a room could not be carried over to the one that it was upgraded to",
				"user", user, "room", old, "to", in.ID, "error", err)
		}
	})
	return nil
}

// carryOver gives a user the rules and the account data of one room for another,
// as far as they have none for it.
func (p *Push) carryOver(ctx context.Context, user matrix.UserID, from, to matrix.RoomID) error {
	old, err := p.Rooms.Room(ctx, from)
	if matrix.HasCode(err, matrix.CodeNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	// Any room can name any other: only who knows that one is concerned.
	if m, err := p.Rooms.Membership(ctx, old, user); err != nil || m.Membership == "" {
		return err
	}
	if err := p.Data.CarryOver(ctx, user, from, to); err != nil {
		return err
	}
	return p.edit(ctx, user, func(b *book) error { return b.carryOver(from, to) })
}

// carryOver copies the rules that are named after a room: those of the kind
// "room", and what clients mute rooms by.
func (b *book) carryOver(from, to matrix.RoomID) error {
	for _, kind := range kinds {
		for _, r := range *b.copy().Own.Kind(kind) {
			id := strings.ReplaceAll(r.ID, string(from), string(to))
			if id == r.ID || indexOf(*b.Own.Kind(kind), id) >= 0 {
				continue
			}
			was := r.ID
			if err := r.rename(id, from, to); err != nil {
				return err
			}
			if err := b.put(kind, r, place{after: was}); err != nil {
				return err
			}
			if err := b.enable(kind, id, r.Enabled); err != nil {
				return err
			}
		}
	}
	return nil
}

// rename makes a rule about one room one about another.
func (r *Rule) rename(id string, from, to matrix.RoomID) error {
	r.ID = id
	if len(r.Conditions) == 0 {
		return nil
	}
	text, err := json.Marshal(r.Conditions)
	if err != nil {
		return err
	}
	r.Conditions, err = decodeConditions([]byte(strings.ReplaceAll(string(text), string(from), string(to))))
	return err
}
