// Package past brings in history that only other servers have, when a client
// pages into it.
//
// Invariants:
//   - Several servers are asked, one after the other, within a budget of requests,
//     events, bytes and time; whoever waits for a page gets an answer in time.
//   - What is fetched goes through the checks of the engine's Backfill and gets its
//     place before what is here; nothing of what the room is now changes.
//   - A room is continued by one request at a time; the others wait for it and find
//     what it brought.
package past

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"time"

	"golang.org/x/sync/singleflight"

	"github.com/teahouse-chat/teahouse/federation/fetch"
	"github.com/teahouse-chat/teahouse/federation/gather"
	"github.com/teahouse-chat/teahouse/federation/transport"
	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms"
	"github.com/teahouse-chat/teahouse/rooms/event"
)

// limits bound what one page of history may cost.
var limits = fetch.Limits{Requests: 150, Events: 60_000, Bytes: 96 << 20, Time: 25 * time.Second}

const (
	maxServers = 5 // that are asked for a page
	maxFrom    = 20
	leastPage  = 20
	mostPage   = 100
	// maxStates is how many events of a page may need the state before them told.
	maxStates = 10
	nearTime  = 5 * time.Second
)

// Asker asks other servers; it is a *transport.Client.
type Asker interface {
	JSON(ctx context.Context, r transport.Request, answer any) error
}

// Past finds history.
type Past struct {
	*gather.Gatherer
	Ask    Asker
	Log    *slog.Logger
	flight singleflight.Group
}

// New makes a Past.
func New(g *gather.Gatherer, ask Asker, log *slog.Logger) *Past {
	return &Past{Gatherer: g, Ask: ask, Log: log}
}

// Backfill brings in events from before what this server has of a room, about as
// many as wanted. It tells whether any came.
// spec: server-server#backfilling-and-retrieving-missing-events
func (p *Past) Backfill(ctx context.Context, r *rooms.Room, wanted int) (bool, error) {
	came, err, _ := p.flight.Do(string(r.ID), func() (any, error) {
		// Whoever waits for the same room does not lose it with the first of them.
		limited, cancel := fetch.WithBudget(context.WithoutCancel(ctx), limits)
		defer cancel()
		return p.backfill(limited, r, wanted)
	})
	ok, _ := came.(bool)
	return ok, err
}

func (p *Past) backfill(ctx context.Context, r *rooms.Room, wanted int) (bool, error) {
	gaps, err := p.Rooms.Backward(ctx, r)
	if err != nil || len(gaps) == 0 {
		return false, err
	}
	var from []matrix.EventID
	var senders []matrix.ServerName
	for _, g := range gaps[:min(len(gaps), maxFrom)] {
		if !slices.Contains(from, g.Missing) {
			from = append(from, g.Missing)
		}
		if s := g.By.Sender.Server(); r.HasServer(s) {
			senders = append(senders, s)
		}
	}
	servers, err := p.Candidates(ctx, r, maxServers, senders...)
	if err != nil {
		return false, err
	}
	page := min(max(wanted, leastPage), mostPage)
	for i, server := range servers {
		events, err := p.Fetch.Backfill(ctx, server, gather.Of(r), from, page)
		if err != nil {
			p.Log.DebugContext(ctx, "a server does not tell a room's history", "server", server, "room", r.ID, "error", err)
			if ctx.Err() != nil || errors.Is(err, fetch.ErrBudget) {
				return false, nil
			}
			continue
		}
		// The server that told the history knows best what it rests on.
		job := &gather.Job{Gatherer: p.Gatherer, Room: r, Servers: slices.Concat(servers[i:], servers[:i])}
		if came, err := p.take(ctx, job, events); came || err != nil {
			return came, err
		}
	}
	return false, nil
}

// take gives events to the engine, with what they need, and tells whether any of
// them got a place.
func (p *Past) take(ctx context.Context, job *gather.Job, events []*event.Event) (bool, error) {
	incoming := make([]rooms.Incoming, len(events))
	for i, ev := range events {
		incoming[i].Event = ev
	}
	for round := 0; len(incoming) > 0; round++ {
		outcomes, err := p.Rooms.Backfill(ctx, job.Room.ID, incoming)
		if err != nil {
			return false, err
		}
		came := slices.ContainsFunc(outcomes, func(o rooms.Outcome) bool { return o.Event != nil && !o.Known })
		if came || round > 0 || ctx.Err() != nil {
			return came, nil
		}
		// Nothing fits without the states before the oldest of them.
		if err := p.complete(ctx, job, incoming, outcomes); err != nil {
			return false, err
		}
	}
	return false, nil
}

// complete fetches what the events lack: auth events, and the states before those
// whose previous events are not among them.
func (p *Past) complete(ctx context.Context, job *gather.Job, incoming []rooms.Incoming, outcomes []rooms.Outcome) error {
	here := make(map[matrix.EventID]bool, len(incoming))
	for _, in := range incoming {
		here[in.Event.ID] = true
	}
	order := make([]int, len(incoming))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(incoming[a].Event.Depth, incoming[b].Event.Depth) })
	states := 0
	for _, i := range order {
		ev := incoming[i].Event
		missing, err := p.Unknown(ctx, slices.DeleteFunc(slices.Clone(ev.AuthEvents), func(id matrix.EventID) bool { return here[id] }))
		if err != nil {
			return err
		}
		if err := job.Authorise(ctx, ev, missing); err != nil {
			return err
		}
		open := slices.ContainsFunc(outcomes[i].Missing, func(id matrix.EventID) bool {
			return slices.Contains(ev.PrevEvents, id) && !here[id]
		})
		if !open || states == maxStates {
			continue
		}
		states++
		if incoming[i].State, err = job.StateBefore(ctx, ev); err != nil {
			return err
		}
	}
	return nil
}

// EventNear asks other servers which event is the nearest to a time, and brings
// it in; nil if none of them tells.
// spec: server-server#get_matrixfederationv1timestamp_to_eventroomid
func (p *Past) EventNear(ctx context.Context, r *rooms.Room, ts int64, backwards bool) (*rooms.Stored, error) {
	ctx, cancel := fetch.WithBudget(ctx, limits)
	defer cancel()
	servers, err := p.Candidates(ctx, r, maxServers)
	if err != nil {
		return nil, err
	}
	direction := "f"
	if backwards {
		direction = "b"
	}
	for i, server := range servers {
		var answer struct {
			ID matrix.EventID `json:"event_id"`
			TS int64          `json:"origin_server_ts"`
		}
		err := p.Ask.JSON(ctx, transport.Request{
			Destination: server, Method: http.MethodGet, Timeout: nearTime,
			Path:  transport.Path("/_matrix/federation/v1/timestamp_to_event", string(r.ID)),
			Query: url.Values{"ts": {fmt.Sprint(ts)}, "dir": {direction}},
		}, &answer)
		if err != nil || backwards && answer.TS > ts || !backwards && answer.TS < ts {
			continue
		}
		if _, err := matrix.ParseEventID(string(answer.ID)); err != nil {
			continue
		}
		job := &gather.Job{Gatherer: p.Gatherer, Room: r, Servers: slices.Concat(servers[i:], servers[:i])}
		if st, err := p.bring(ctx, job, answer.ID); st != nil || err != nil {
			return st, err
		}
	}
	return nil, nil
}

// bring makes one event part of the room's past.
func (p *Past) bring(ctx context.Context, job *gather.Job, id matrix.EventID) (*rooms.Stored, error) {
	find := func() (*rooms.Stored, error) {
		known, err := p.Rooms.Known(ctx, []matrix.EventID{id})
		if st := known[id]; err == nil && st != nil && st.Room == job.Room.NID && st.Position != 0 && st.Served() {
			return st, nil
		}
		return nil, err
	}
	if st, err := find(); st != nil || err != nil {
		return st, err
	}
	ev, err := p.Fetch.Event(ctx, job.Servers[0], gather.Of(job.Room), id)
	if err != nil {
		return nil, nil
	}
	if _, err := p.take(ctx, job, []*event.Event{ev}); err != nil {
		return nil, err
	}
	return find()
}
