package rooms

import (
	"context"
	"errors"

	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms/auth"
	"github.com/teahouse-chat/teahouse/rooms/event"
)

// Prepare makes the event that Append would make, and keeps nothing of it: an
// invite that another server has to sign before it is brought in by Receive.
// It fails with M_FORBIDDEN, naming the rule, if the room does not allow it.
// spec: server-server#inviting-to-a-room
func (e *Engine) Prepare(ctx context.Context, r *Room, sender matrix.UserID, p Proto) (*event.Event, error) {
	if p.Sender == "" {
		p.Sender = sender
	}
	_, ev, err := e.prepare(ctx, r, p)
	return ev, err
}

// Template drafts an event of another server's user, p.Sender, for their server
// to sign: on top of all that is here, and allowed by the room's state. It fails
// with M_FORBIDDEN, naming the rule, if it is not, and with M_NOT_FOUND if nobody of
// this server is in the room. The draft's content is canonical.
// spec: server-server#joining-rooms
func (e *Engine) Template(ctx context.Context, r *Room, p Proto) (event.Draft, error) {
	if r.LocalMemberCount() == 0 { // the state that is known may be old
		return event.Draft{}, errUnknownRoom
	}
	d, ev, err := e.prepare(ctx, r, p)
	if err != nil {
		return event.Draft{}, err
	}
	d.Content = ev.Content
	return d, nil
}

func (e *Engine) prepare(ctx context.Context, r *Room, p Proto) (d event.Draft, ev *event.Event, err error) {
	got := newFetched()
	for tries := range updateTries {
		d, ev, err = e.tryPrepare(ctx, r, p, got, tries >= hurry)
		var n *need
		switch {
		case errors.As(err, &n):
			err = e.fetch(ctx, r, got, n)
		case errors.Is(err, errHeadFailed):
			err = e.reloadHead(ctx, r)
		default:
			return d, ev, err
		}
		if err != nil {
			return d, nil, err
		}
	}
	return d, nil, errUpdateTries
}

// tryPrepare builds the event under the room's turn.
func (e *Engine) tryPrepare(ctx context.Context, r *Room, p Proto, got *fetched, hurried bool) (d event.Draft, ev *event.Event, err error) {
	if err := r.turn.Acquire(ctx, 1); err != nil {
		return d, nil, err
	}
	defer r.turn.Release(1)
	if r.head.failed.Load() {
		return d, nil, errHeadFailed
	}
	if r.head.state.Len() == 0 {
		return d, nil, errUnknownRoom
	}
	b := &Builder{e: e, room: r, head: r.head.clone(), got: got, hurried: hurried}
	prevs, before, err := b.footing()
	if err != nil {
		return d, nil, err
	}
	d, st, _, err := b.draft(p, before, prevs)
	if err == nil {
		ev, err = event.Build(r.Version, d, e.ServerName, e.Key)
	}
	var bad *event.FormatError
	switch {
	case errors.As(err, &bad):
		return d, nil, formatError(bad)
	case err != nil:
		return d, nil, err
	}
	if err := auth.Check(ev, st); err != nil {
		return d, nil, forbidden(err)
	}
	if before == b.head.state {
		return d, ev, nil
	}
	if st, err = b.stateFor(b.head.state, ev); err != nil {
		return d, nil, err
	}
	if err := auth.Check(ev, st); err != nil {
		return d, nil, forbidden(err)
	}
	return d, ev, nil
}
