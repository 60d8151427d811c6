package push

import (
	"context"

	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms"
	"github.com/teahouse-chat/teahouse/rooms/event"
	"github.com/teahouse-chat/teahouse/rooms/state"
)

// sight is a room as it was when an event came.
type sight struct {
	*rooms.Room
	state  *state.Map
	joined int
}

// subject takes an event of the room for rules to be held against.
func (p *Push) subject(ctx context.Context, in sight, ev *rooms.Stored) (s *subject, failed func() error) {
	var err error
	info := RoomInfo{Members: in.joined, Allowed: func(key string) bool {
		levels, e := p.Rooms.Levels(ctx, in.state)
		if e != nil {
			err = e
			return false
		}
		return levels.User(ev.Sender) >= levels.Notification(key)
	}}
	return subjectOf(ev.Event, info), func() error { return err }
}

// nameIn is what a user is called in a room.
func (p *Push) nameIn(ctx context.Context, in sight, user matrix.UserID) (string, error) {
	st, err := p.Rooms.StateEvent(ctx, in.state, matrix.TypeMember, string(user))
	if err != nil || st == nil {
		return "", err
	}
	name, _ := stringOf(event.Member(st.Content, "displayname"))
	return name, nil
}

// event holds an event against the rules of everybody whom it may concern.
func (f *follower) event(ctx context.Context, in sight, ev *rooms.Stored) error {
	w, err := f.watched(ctx, in.Room)
	if err != nil {
		return err
	}
	s, failed := f.p.subject(ctx, in, ev)
	v := judge(s)
	if err := failed(); err != nil {
		return err
	}
	out := &found{room: ev.Room, thread: ev.Thread}
	row := highlightRow{room: ev.Room, position: ev.Position, event: ev.NID, thread: ev.Thread, sender: ev.Sender, ts: f.p.Now().UnixMilli()}
	if v.Common.Highlight {
		row.kind = kindOf(ev.Counted)
		out.highlights = append(out.highlights, row)
	}
	for u, r := range v.Others {
		if one := w.users[u]; one != nil && one.person != nil || r.Highlight == v.Common.Highlight || !in.IsLocalMember(u) {
			continue
		}
		row.user, row.kind = u, kindOf(ev.Counted)
		out.highlights = append(out.highlights, row)
	}
	for u, one := range w.users {
		r := v.For(u)
		if one.person != nil {
			if r, err = f.personal(ctx, in, s, u, one.person); err != nil {
				return err
			}
			one.note(out, u, row, v.Common, ev, r)
		}
		if r.Notify {
			f.p.offer(u, note{room: ev.Room, event: ev.NID, position: ev.Position, thread: ev.Thread, result: r})
		}
	}
	if f.p.pushers.has(ev.Sender) && (!ev.IsState() || ev.Counted) { // who writes has read
		f.p.readOn(ev.Sender, ev.Room)
	}
	if err := f.invited(ctx, in, ev, s, v); err != nil {
		return err
	}
	if err := f.upgraded(ctx, in, ev); err != nil {
		return err
	}
	if err := failed(); err != nil {
		return err
	}
	f.p.ledger.add(out)
	if ev.RedactedBy != 0 {
		f.redacted(ev)
	}
	return nil
}

func kindOf(counted bool) highlightKind {
	if counted {
		return standsTo
	}
	return addsTo
}

// personal is what a user's own rules say.
func (f *follower) personal(ctx context.Context, in sight, s *subject, u matrix.UserID, p *person) (Result, error) {
	if _, ignored := p.ignores[s.event.Sender]; ignored {
		return Result{}, nil
	}
	name := ""
	if p.rules.named {
		var err error
		if name, err = f.p.nameIn(ctx, in, u); err != nil {
			return Result{}, err
		}
	}
	return p.rules.on(s, name), nil
}

// note adds what an event is to a user whose counts are their own. An own event
// says nothing: whoever writes has read what came before.
func (w *watch) note(out *found, u matrix.UserID, row highlightRow, common Result, ev *rooms.Stored, r Result) {
	if ev.Sender == u {
		return
	}
	row.user = u
	switch {
	case r.Highlight && !common.Highlight:
		row.kind = standsTo
		out.highlights = append(out.highlights, row)
	case !r.Highlight && common.Highlight:
		row.kind = plainTo
		out.highlights = append(out.highlights, row)
	case r.Highlight && !ev.Counted: // the line has it already
		row.kind = standsTo
		out.highlights = append(out.highlights, row)
	}
	t := w.tips[ev.Thread]
	if t == nil {
		t = &tip{bend: bend{follows: true}}
		w.tips[ev.Thread] = t
	}
	if t.position >= ev.Position { // gone through before a crash
		return
	}
	if b, ok := t.add(ev.Position, ev.Unread, ev.Counted, r.Notify); ok {
		if out.bends == nil {
			out.bends = map[matrix.UserID]bend{}
		}
		out.bends[u] = b
	}
}

// invited tells a local user of an invite: they are no member yet.
func (f *follower) invited(ctx context.Context, in sight, ev *rooms.Stored, s *subject, v *Verdict) error {
	if ev.Type != matrix.TypeMember || !ev.IsState() || ev.Membership() != matrix.MembershipInvite {
		return nil
	}
	u := matrix.UserID(ev.StateKey())
	if !f.p.Rooms.Local(u) || u == ev.Sender || !f.p.pushers.has(u) {
		return nil
	}
	r := v.For(u)
	if _, ok := f.custom[u]; ok {
		if err := f.know(ctx, []matrix.UserID{u}); err != nil {
			return err
		}
		var err error
		if r, err = f.personal(ctx, in, s, u, f.people[u]); err != nil {
			return err
		}
	}
	blocked, err := f.p.People.BlocksInvites(ctx, u)
	if err != nil || blocked || !r.Notify {
		return err
	}
	f.p.offer(u, note{room: ev.Room, event: ev.NID, position: ev.Position, result: r})
	return nil
}

// outside holds an invite to a room that nobody of this server is in against the
// rules of whom it is for.
func (f *follower) outside(ctx context.Context, in sight, ev *rooms.Stored) error {
	s, failed := f.p.subject(ctx, in, ev)
	if err := f.invited(ctx, in, ev, s, judge(s)); err != nil {
		return err
	}
	return failed()
}

// redacted takes note of an event that lost its content: it is nobody's unread
// any more.
func (f *follower) redacted(ev *rooms.Stored) {
	if ev.Position <= 0 || ev.IsState() && !ev.Counted {
		return
	}
	f.p.ledger.add(&found{room: ev.Room, redacted: &redacted{ev.Position, ev.Thread, ev.Unread, ev.Counted}})
	if w := f.rooms[ev.Room]; w != nil {
		for u := range w.users {
			f.p.readOn(u, ev.Room)
		}
	}
}
