// Package gather brings in state events of other servers that events of theirs
// rest on: the state before an event, and what authorises it. They become known
// to the engine, without a place in the room's history.
package gather

import (
	"context"
	"errors"
	"slices"

	"github.com/teahouse-chat/teahouse/federation/acl"
	"github.com/teahouse-chat/teahouse/federation/fetch"
	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms"
	"github.com/teahouse-chat/teahouse/rooms/event"
)

const (
	// bulk is from how many missing events on a state is fetched whole.
	bulk = 100
	// authRounds is how often the auth events of auth events are fetched one by
	// one before the whole chain is asked for.
	authRounds = 3
	// A state may lack one event, and one more of so many: the keys of servers
	// that are long gone cannot be had any more.
	lacking    = 20
	knownBatch = 500
)

// Gatherer is what is shared by all that is gathered at the same time.
type Gatherer struct {
	Rooms *rooms.Engine
	Fetch *fetch.Client
	whole chan struct{} // held by whoever has the whole state of a room in memory
}

// New makes a gatherer.
func New(engine *rooms.Engine, client *fetch.Client) *Gatherer {
	return &Gatherer{Rooms: engine, Fetch: client, whole: make(chan struct{}, 1)}
}

// Job gathers for one room, from some servers, within the budget of its contexts.
type Job struct {
	*Gatherer
	Room    *rooms.Room
	Servers []matrix.ServerName            // asked in this order
	Failed  func(matrix.ServerName, error) // told of servers that fail; may be nil
}

// Of is the room as package fetch names it.
func Of(r *rooms.Room) fetch.Room { return fetch.Room{ID: r.ID, Version: r.Version} }

func (j *Job) failed(server matrix.ServerName, err error) {
	if err != nil && j.Failed != nil {
		j.Failed(server, err)
	}
}

// Candidates are servers to ask about a room: the preferred ones, and then others
// that are in it, up to most; never this server, nor one that the room keeps out.
func (g *Gatherer) Candidates(ctx context.Context, r *rooms.Room, most int, preferred ...matrix.ServerName) ([]matrix.ServerName, error) {
	var list []matrix.ServerName
	for _, s := range slices.Concat(preferred, r.Servers()) {
		if len(list) >= most || s == g.Rooms.ServerName || slices.Contains(list, s) {
			continue
		}
		ok, err := acl.Allows(ctx, g.Rooms, r, s)
		if err != nil {
			return nil, err
		}
		if ok {
			list = append(list, s)
		}
	}
	return list, nil
}

// StateBefore brings in the state before an event and gives its ids; nil if no
// server tells it.
func (j *Job) StateBefore(ctx context.Context, ev *event.Event) ([]matrix.EventID, error) {
	for _, server := range j.Servers {
		ids, err := j.Fetch.StateIDs(ctx, server, Of(j.Room), ev.ID)
		j.failed(server, err)
		if err != nil || len(ids.State) == 0 {
			continue
		}
		missing, err := j.Unknown(ctx, slices.Concat(ids.Auth, ids.State))
		if err != nil {
			return nil, err
		}
		if err := j.bringState(ctx, server, ev.ID, missing); err != nil {
			return nil, err
		}
		if missing, err = j.Unknown(ctx, ids.State); err != nil {
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
func (j *Job) bringState(ctx context.Context, server matrix.ServerName, at matrix.EventID, missing []matrix.EventID) error {
	if len(missing) < bulk {
		return j.bringEvents(ctx, missing)
	}
	select {
	case j.whole <- struct{}{}:
		defer func() { <-j.whole }()
	case <-ctx.Done():
		return nil
	}
	st, err := j.Fetch.State(ctx, server, Of(j.Room), at)
	if err != nil {
		j.failed(server, err)
		return nil
	}
	return j.bring(ctx, slices.Concat(st.Auth, st.State))
}

// Authorise makes those auth events of an event known that are missing, as far as
// they can be had.
// spec: server-server#get_matrixfederationv1event_authroomideventid
func (j *Job) Authorise(ctx context.Context, ev *event.Event, missing []matrix.EventID) error {
	if err := j.bringEvents(ctx, missing); err != nil {
		return err
	}
	for _, server := range j.Servers {
		var err error
		if missing, err = j.Unknown(ctx, missing); err != nil || len(missing) == 0 {
			return err
		}
		chain, err := j.Fetch.EventAuth(ctx, server, Of(j.Room), ev.ID)
		j.failed(server, err)
		if err := j.bring(ctx, chain); err != nil {
			return err
		}
	}
	return nil
}

// bringEvents fetches events one by one, and what authorises them.
func (j *Job) bringEvents(ctx context.Context, ids []matrix.EventID) error {
	var all []*event.Event
	asked := map[matrix.EventID]bool{}
	for round := 0; round < authRounds && len(ids) > 0; round++ {
		for _, id := range ids {
			asked[id] = true
		}
		events, err := j.Fetch.Events(ctx, j.Servers, Of(j.Room), ids)
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
		if ids, err = j.Unknown(ctx, next); err != nil {
			return err
		}
	}
	return j.bring(ctx, all)
}

// bring makes state events known that have no place in the room's history here.
func (j *Job) bring(ctx context.Context, events []*event.Event) error {
	ids := make([]matrix.EventID, len(events))
	for i, ev := range events {
		ids[i] = ev.ID
	}
	missing, err := j.Unknown(ctx, ids)
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
	_, err = j.Rooms.StoreOutliers(ctx, j.Room.ID, list)
	return err
}

// Unknown are those of the events that are not known at all.
func (g *Gatherer) Unknown(ctx context.Context, ids []matrix.EventID) ([]matrix.EventID, error) {
	var missing []matrix.EventID
	err := g.Known(ctx, ids, func(id matrix.EventID, st *rooms.Stored) {
		if st == nil {
			missing = append(missing, id)
		}
	})
	return missing, err
}

// Known looks events up, a bounded number at a time: they may be the state of a
// large room. It tells of each, nil if it is not known.
func (g *Gatherer) Known(ctx context.Context, ids []matrix.EventID, tell func(matrix.EventID, *rooms.Stored)) error {
	for batch := range slices.Chunk(ids, knownBatch) {
		known, err := g.Rooms.Known(ctx, batch)
		if err != nil {
			return err
		}
		for _, id := range batch {
			tell(id, known[id])
		}
	}
	return nil
}
