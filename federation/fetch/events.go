package fetch

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"sync"
	"time"

	"github.com/teahouse-chat/teahouse/federation/transport"
	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms/event"
)

const (
	eventTime = 15 * time.Second
	// An event has 64 KiB in canonical form; with everything written as escapes it
	// has six times as much.
	eventBytes = 512 << 10
	// atOnce is how many events are asked for at the same time.
	atOnce = 8
)

// ErrNotGiven says that a server's answer did not hold the event that it was
// asked for, or not properly signed.
var ErrNotGiven = errors.New("fetch: the server did not give the event")

// Event asks a server for an event.
// spec: server-server#get_matrixfederationv1eventeventid
func (c *Client) Event(ctx context.Context, server matrix.ServerName, room Room, id matrix.EventID) (*event.Event, error) {
	var events []*event.Event
	r := reading{c: c, budget: budgetOf(ctx), from: server, room: room, most: 1}
	err := c.get(ctx, transport.Request{
		Destination: server, Method: http.MethodGet, Timeout: eventTime, MaxAnswer: eventBytes,
		Path: transport.Path("/_matrix/federation/v1/event", string(id)),
	}, map[string]func(json.RawMessage) error{"pdus": r.list(&events)})
	switch {
	case err != nil && len(events) == 0:
		return nil, err
	case len(events) == 0 || events[0].ID != id:
		return nil, ErrNotGiven
	}
	if events, err = c.verified(ctx, server, events); err != nil {
		return nil, err
	}
	if len(events) == 0 {
		return nil, ErrNotGiven
	}
	return events[0], nil
}

// Events asks for events one by one, several at a time, and each of the servers
// until one has it. Those that nobody gives are left out of the result. The error
// is nil, ErrBudget, the context's or our own; what came before it is returned.
func (c *Client) Events(ctx context.Context, servers []matrix.ServerName, room Room, ids []matrix.EventID) ([]*event.Event, error) {
	s := search{c: c, servers: servers, room: room, useless: map[matrix.ServerName]bool{}}
	next := make(chan int)
	var working sync.WaitGroup
	for range min(atOnce, len(ids)) {
		working.Go(func() {
			for i := range next {
				s.find(ctx, i, ids[i])
			}
		})
	}
	for i := range ids {
		next <- i
	}
	close(next)
	working.Wait()
	return s.found, s.err
}

// search is one call of Events.
type search struct {
	c       *Client
	servers []matrix.ServerName
	room    Room

	mu      sync.Mutex
	found   []*event.Event
	useless map[matrix.ServerName]bool // cannot be reached, or give nothing of the room
	err     error
}

// find asks the servers in turn. Different events begin at different servers.
func (s *search) find(ctx context.Context, nth int, id matrix.EventID) {
	for i := range s.servers {
		server := s.servers[(nth+i)%len(s.servers)]
		if s.over(server) {
			continue
		}
		ev, err := s.c.Event(ctx, server, s.room, id)
		if err == nil {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.found = append(s.found, ev)
			return
		}
		s.failed(ctx, server, err)
	}
}

// over tells whether there is no point in asking a server.
func (s *search) over(server matrix.ServerName) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err != nil || s.useless[server]
}

func (s *search) failed(ctx context.Context, server matrix.ServerName, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var remote *transport.RemoteError
	switch {
	case errors.Is(err, ErrBudget), ctx.Err() != nil:
		s.err = err
	case errors.Is(err, ErrNotGiven):
	case errors.As(err, &remote) && remote.Status != http.StatusForbidden && remote.Status != http.StatusTooManyRequests && remote.Status < 500:
	case remote != nil, Unreachable(err):
		s.useless[server] = true
	default:
		s.err = err
	}
}

// Unreachable tells whether a server gave no answer, or none that is of use, so
// that it may do so at another time.
func Unreachable(err error) bool {
	var remote *transport.RemoteError
	var gone *transport.UnreachableError
	return errors.As(err, &gone) || errors.Is(err, transport.ErrNotAllowed) ||
		errors.As(err, &remote) && (remote.Status >= 500 || remote.Status == http.StatusTooManyRequests)
}
