package answers

import (
	"context"
	"sync"
	"time"

	"github.com/teahouse-chat/teahouse/internal/matrix"
)

const (
	// atOnce is how many of the expensive answers are made for one server at a
	// time, and waiting how many more may stand in line.
	atOnce  = 2
	waiting = 20
	// comeBack is when a server for which there is no room in the line may ask
	// again.
	comeBack = 2 * time.Second
)

// gates bound the expensive answers for each server. Only servers that one is
// being made for are remembered.
type gates struct {
	mu sync.Mutex
	of map[matrix.ServerName]*gate
}

type gate struct {
	free  chan struct{}
	users int // who are inside or in line
}

// enter lets a server's request in when it is its turn; leave must be called
// once. 429 M_LIMIT_EXCEEDED if the line is too long.
func (g *gates) enter(ctx context.Context, server matrix.ServerName) (leave func(), err error) {
	g.mu.Lock()
	one := g.of[server]
	if one == nil {
		one = &gate{free: make(chan struct{}, atOnce)}
		g.of[server] = one
	}
	if one.users == atOnce+waiting {
		g.mu.Unlock()
		return nil, matrix.LimitExceeded(comeBack)
	}
	one.users++
	g.mu.Unlock()
	gone := func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		if one.users--; one.users == 0 {
			delete(g.of, server)
		}
	}
	select {
	case one.free <- struct{}{}:
		return func() { <-one.free; gone() }, nil
	case <-ctx.Done():
		gone()
		return nil, ctx.Err()
	}
}
