package inbound

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/teahouse-chat/teahouse/federation/fetch"
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
)

const (
	maxBridges = 20
	// bulk is from how many missing events on a state is fetched whole.
	bulk = 100
	// authRounds is how often the auth events of auth events are fetched one by
	// one before the whole chain is asked for.
	authRounds = 3
	// A state may lack one event, and one more of so many: the keys of servers
	// that are long gone cannot be had any more.
	lacking = 20
)

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
	events, err := w.in.Fetch.Events(ctx, w.servers, w.room, ids)
	if err != nil && !errors.Is(err, fetch.ErrBudget) {
		return err
	}
	for _, id := range ids {
		tips := slices.DeleteFunc(slices.Clone(events), func(ev *event.Event) bool { return ev.ID != id })
		if len(tips) == 0 {
			if tips, err = w.builders(ctx, w.missing[id]); err != nil {
				return err
			}
		}
		for _, ev := range tips {
			if err := w.place(ctx, ev); err != nil {
				return err
			}
		}
	}
	return nil
}

// builders are events that are staged.
func (w *walk) builders(ctx context.Context, ids []matrix.EventID) ([]*event.Event, error) {
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
	st, err := w.stateBefore(ctx, ev)
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

// stateBefore brings in the state before an event and gives its ids; nil if no
// server tells it.
func (w *walk) stateBefore(ctx context.Context, ev *event.Event) ([]matrix.EventID, error) {
	for _, server := range w.servers {
		ids, err := w.in.Fetch.StateIDs(ctx, server, w.room, ev.ID)
		w.note(server, err)
		if err != nil || len(ids.State) == 0 {
			continue
		}
		missing, err := w.unknown(ctx, slices.Concat(ids.Auth, ids.State))
		if err != nil {
			return nil, err
		}
		if err := w.bringState(ctx, server, ev.ID, missing); err != nil {
			return nil, err
		}
		if missing, err = w.unknown(ctx, ids.State); err != nil {
			return nil, err
		}
		vital := slices.ContainsFunc(missing, func(id matrix.EventID) bool { return slices.Contains(ev.AuthEvents, id) })
		if len(missing) > 1+len(ids.State)/lacking || vital {
			continue
		}
		return slices.DeleteFunc(ids.State, func(id matrix.EventID) bool { return slices.Contains(missing, id) }), nil
	}
	return nil, nil
}

// bringState makes events of a state known: all at once if they are many.
func (w *walk) bringState(ctx context.Context, server matrix.ServerName, at matrix.EventID, missing []matrix.EventID) error {
	if len(missing) < bulk {
		return w.bringEvents(ctx, missing)
	}
	select {
	case w.in.whole <- struct{}{}:
		defer func() { <-w.in.whole }()
	case <-ctx.Done():
		return nil
	}
	st, err := w.in.Fetch.State(ctx, server, w.room, at)
	if err != nil {
		w.note(server, err)
		return nil
	}
	return w.bring(ctx, slices.Concat(st.Auth, st.State))
}

// authorise makes the auth events of an event known, as far as they can be had.
// spec: server-server#get_matrixfederationv1event_authroomideventid
func (f *fill) authorise(ctx context.Context, ev *event.Event) error {
	missing, err := f.unknown(ctx, ev.AuthEvents)
	if err != nil || len(missing) == 0 {
		return err
	}
	f.in.mu.Lock()
	missing = slices.DeleteFunc(missing, func(id matrix.EventID) bool { return f.q.here(f.in.key(id)) })
	f.in.mu.Unlock()
	if err := f.bringEvents(ctx, missing); err != nil {
		return err
	}
	for _, server := range f.servers {
		if missing, err = f.unknown(ctx, missing); err != nil || len(missing) == 0 {
			return err
		}
		chain, err := f.in.Fetch.EventAuth(ctx, server, f.room, ev.ID)
		f.note(server, err)
		if err := f.bring(ctx, chain); err != nil {
			return err
		}
	}
	return nil
}

// bringEvents fetches events one by one, and what authorises them.
func (f *fill) bringEvents(ctx context.Context, ids []matrix.EventID) error {
	var all []*event.Event
	asked := map[matrix.EventID]bool{}
	for round := 0; round < authRounds && len(ids) > 0; round++ {
		for _, id := range ids {
			asked[id] = true
		}
		events, err := f.in.Fetch.Events(ctx, f.servers, f.room, ids)
		if err != nil && !errors.Is(err, fetch.ErrBudget) {
			return err
		}
		all = append(all, events...)
		var next []matrix.EventID
		for _, ev := range events {
			for _, id := range ev.AuthEvents {
				if !asked[id] && !slices.Contains(next, id) {
					next = append(next, id)
				}
			}
		}
		if ids, err = f.unknown(ctx, next); err != nil {
			return err
		}
	}
	return f.bring(ctx, all)
}

// bring makes state events known that have no place in the room's history here.
func (f *fill) bring(ctx context.Context, events []*event.Event) error {
	ids := make([]matrix.EventID, len(events))
	for i, ev := range events {
		ids[i] = ev.ID
	}
	missing, err := f.unknown(ctx, ids)
	if err != nil || len(missing) == 0 {
		return err
	}
	fresh := make(map[matrix.EventID]bool, len(missing))
	for _, id := range missing {
		fresh[id] = true
	}
	var list []*event.Event
	for _, ev := range events {
		if fresh[ev.ID] {
			fresh[ev.ID] = false // may stand in both lists of an answer
			list = append(list, ev)
		}
	}
	_, err = f.in.Rooms.StoreOutliers(ctx, f.r.ID, list)
	return err
}
