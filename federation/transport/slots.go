package transport

import (
	"context"
	"sync"

	"github.com/teahouse-chat/teahouse/internal/matrix"
)

// slots bounds the requests that run to each destination. It remembers only
// those that there are requests to.
type slots struct {
	limit int
	mu    sync.Mutex
	of    map[matrix.ServerName]*slot
}

type slot struct {
	free  chan struct{}
	users int // who hold a slot or wait for one
}

// take waits for a slot; release gives it back, once.
func (s *slots) take(ctx context.Context, server matrix.ServerName) (release func(), err error) {
	s.mu.Lock()
	one := s.of[server]
	if one == nil {
		one = &slot{free: make(chan struct{}, s.limit)}
		s.of[server] = one
	}
	one.users++
	s.mu.Unlock()
	leave := func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if one.users--; one.users == 0 {
			delete(s.of, server)
		}
	}
	select {
	case one.free <- struct{}{}:
		return func() { <-one.free; leave() }, nil
	case <-ctx.Done():
		leave()
		return nil, ctx.Err()
	}
}
