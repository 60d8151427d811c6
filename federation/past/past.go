// Package past brings in history that only other servers have, when a client
// pages into it.
//
// Invariants:
//   - Several servers are asked, one after the other, within a budget of requests,
//     events, bytes and time; whoever waits for a page gets an answer in time.
//   - What is fetched goes through the checks of the engine's Backfill and gets its
//     place before what is here; nothing of what the room is now changes.
//   - A gap is filled by one request at a time; the others wait for it and find
//     what it brought. What nobody could tell is not asked for again at once, so
//     that servers that are gone or slow do not hold up every page.
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

	lru "github.com/hashicorp/golang-lru/v2"
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
	serverTime = 8 * time.Second
	vainKept   = 10_000
	vainTime   = 30 * time.Second // for which nobody is asked again
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
	Now    func() time.Time
	Log    *slog.Logger
	flight singleflight.Group
	vain   *lru.Cache[matrix.EventID, failure] // events that were asked for in vain
}

// failure is that nobody told an event.
type failure struct {
	at   time.Time
	open bool // somebody may: a server could not be asked
}

// New makes a Past.
func New(g *gather.Gatherer, ask Asker, now func() time.Time, log *slog.Logger) (*Past, error) {
	vain, err := lru.New[matrix.EventID, failure](vainKept)
	return &Past{Gatherer: g, Ask: ask, Now: now, Log: log, vain: vain}, err
}

// Backfill brings in what is behind gaps in a room's history, about as many events
// as wanted, those behind the first gap above all. It tells whether any came, and
// whether there may be more behind the first gap that cannot be had now.
// spec: server-server#backfilling-and-retrieving-missing-events
func (p *Past) Backfill(ctx context.Context, r *rooms.Room, gaps []rooms.Gap, wanted int) (came, open bool, err error) {
	if len(gaps) == 0 {
		return false, false, nil
	}
	if f, vain := p.inVain(gaps[0]); vain {
		return false, f.open, nil
	}
	type outcome struct{ came, open bool }
	out, err, _ := p.flight.Do(string(r.ID)+string(gaps[0].Missing), func() (any, error) {
		// Whoever waits for the same gap does not lose it with the first of them.
		limited, cancel := fetch.WithBudget(context.WithoutCancel(ctx), limits)
		defer cancel()
		came, open, err := p.backfill(limited, r, gaps, wanted)
		return outcome{came, open}, err
	})
	o, _ := out.(outcome)
	return o.came, o.open, err
}

func (p *Past) inVain(g rooms.Gap) (failure, bool) {
	f, ok := p.vain.Get(g.Missing)
	return f, ok && p.Now().Sub(f.at) < vainTime
}

func (p *Past) backfill(ctx context.Context, r *rooms.Room, gaps []rooms.Gap, wanted int) (came, open bool, err error) {
	from, senders := p.wanted(r, gaps)
	servers, err := p.Candidates(ctx, r, maxServers, senders...)
	if err != nil {
		return false, false, err
	}
	for i, server := range servers {
		events, err := p.tell(ctx, server, r, from, min(max(wanted, leastPage), mostPage))
		if err != nil {
			p.Log.DebugContext(ctx, "a server does not tell a room's history", "server", server, "room", r.ID, "error", err)
			open = true
			if ctx.Err() != nil || errors.Is(err, fetch.ErrBudget) {
				break
			}
			continue
		}
		// The server that told the history knows best what it rests on.
		job := &gather.Job{Gatherer: p.Gatherer, Room: r, Servers: slices.Concat(servers[i:], servers[:i])}
		some, err := p.take(ctx, job, events)
		if err != nil {
			return false, false, err
		}
		came = came || some
		if st, err := p.placed(ctx, r, from[0]); st != nil || err != nil {
			return came, false, err
		}
	}
	p.vain.Add(from[0], failure{p.Now(), open})
	return came, open, nil
}

// wanted names what is behind the gaps, and servers whose users built on it.
func (p *Past) wanted(r *rooms.Room, gaps []rooms.Gap) (from []matrix.EventID, senders []matrix.ServerName) {
	for i, g := range gaps {
		if _, vain := p.inVain(g); len(from) == maxFrom || slices.Contains(from, g.Missing) || vain && i > 0 {
			continue
		}
		from = append(from, g.Missing)
		if s := g.By.Sender.Server(); r.HasServer(s) {
			senders = append(senders, s)
		}
	}
	return from, senders
}

// tell asks one server, which may be so slow that another one is asked. An answer
// begins with what is deepest, and may not come to the first that is wanted.
func (p *Past) tell(ctx context.Context, server matrix.ServerName, r *rooms.Room, from []matrix.EventID, page int) ([]*event.Event, error) {
	ctx, cancel := context.WithTimeout(ctx, serverTime)
	defer cancel()
	events, err := p.Fetch.Backfill(ctx, server, gather.Of(r), from, page)
	if err != nil || len(from) == 1 || slices.ContainsFunc(events, func(ev *event.Event) bool { return ev.ID == from[0] }) {
		return events, err
	}
	more, err := p.Fetch.Backfill(ctx, server, gather.Of(r), from[:1], page)
	return append(events, more...), err
}

// placed finds an event that has its place in the room's history; nil if it has
// none.
func (p *Past) placed(ctx context.Context, r *rooms.Room, id matrix.EventID) (*rooms.Stored, error) {
	known, err := p.Rooms.Known(ctx, []matrix.EventID{id})
	if st := known[id]; err == nil && st != nil && st.Room == r.NID && st.Flags&rooms.Outlier == 0 {
		return st, nil
	}
	return nil, err
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
		st, err := p.placed(ctx, job.Room, id)
		if st != nil && st.Position != 0 && st.Served() {
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
