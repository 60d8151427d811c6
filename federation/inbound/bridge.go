package inbound

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/teahouse-chat/teahouse/federation/fetch"
	"github.com/teahouse-chat/teahouse/federation/gather"
	"github.com/teahouse-chat/teahouse/internal/db"
	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms"
	"github.com/teahouse-chat/teahouse/rooms/event"
)

var (
	// bridgeLimits bound what the states behind one gap may cost: the whole state
	// of a room of some 50,000 members, once.
	bridgeLimits = fetch.Limits{Requests: 400, Events: 150_000, Bytes: 192 << 20, Time: 5 * time.Minute}
	authLimits   = fetch.Limits{Requests: 100, Events: 40_000, Bytes: 64 << 20, Time: time.Minute}
	// endLimits bound the search for the events at the far end. Whoever refers to
	// what there never was makes us ask all servers for all of it.
	endLimits = fetch.Limits{Requests: 20, Time: time.Minute}
)

// maxBridges bounds at how many places one gap is bridged.
const maxBridges = 10

// bridge gives events at the far end of the gap the state before them as other
// servers tell it. What lies behind stays out, to be paged into.
//
// An event that cannot be had at all is bridged by those that build on it. As a
// rule it can, and then its builders get their states by the rules, from all that
// they build on.
func (w *walk) bridge(ctx context.Context) error {
	ctx, cancel := fetch.WithBudget(ctx, bridgeLimits)
	defer cancel()
	var ids []matrix.EventID
	for _, id := range w.order {
		if w.missing[id] != nil {
			ids = append(ids, id)
		}
	}
	if len(ids) > maxBridges {
		return nil
	}
	search, end := fetch.WithBudget(ctx, endLimits)
	events, err := w.in.Fetch.Events(search, w.job.Servers, gather.Of(w.r), ids)
	end()
	if err != nil && !errors.Is(err, fetch.ErrBudget) {
		return err
	}
	var builders []matrix.EventID
	for _, id := range ids {
		if !slices.ContainsFunc(events, func(ev *event.Event) bool { return ev.ID == id }) {
			builders = append(builders, w.missing[id]...)
		}
	}
	staged, err := w.staged(ctx, builders)
	if err != nil {
		return err
	}
	for _, ev := range append(events, staged...) {
		if err := w.place(ctx, ev); err != nil {
			return err
		}
	}
	return nil
}

// staged reads events that are staged.
func (w *walk) staged(ctx context.Context, ids []matrix.EventID) ([]*event.Event, error) {
	rows, err := db.All(ctx, w.in.DB, pdusByID, scanPDU, w.r.NID, ids)
	if err != nil {
		return nil, err
	}
	events := make([]*event.Event, len(rows))
	for i, p := range rows {
		if events[i], err = event.Load(w.r.Version, p.id, w.r.ID, p.json); err != nil {
			return nil, err
		}
	}
	return events, nil
}

// place brings an event in with the state before it.
func (w *walk) place(ctx context.Context, ev *event.Event) error {
	st, err := w.job.StateBefore(ctx, ev)
	if err != nil || st == nil {
		return err
	}
	if err := w.authorise(ctx, ev); err != nil {
		return err
	}
	incoming := []rooms.Incoming{{Event: ev, State: st}}
	outcomes, err := w.in.give(ctx, w.r, incoming)
	if err != nil {
		return err
	}
	if out := outcomes[0]; out.Event != nil && !out.Known {
		w.bridged = true
		w.in.Log.Info("The state of a room was taken from another server, since earlier events cannot be had", "room", w.r.ID, "event", ev.ID, "why", out.Why)
	}
	return nil
}

// authorise makes the auth events of an event known, as far as they can be had.
func (f *fill) authorise(ctx context.Context, ev *event.Event) error {
	missing, err := f.in.Unknown(ctx, ev.AuthEvents)
	if missing = f.notHere(missing); err != nil || len(missing) == 0 {
		return err
	}
	return f.job.Authorise(ctx, ev, missing)
}
