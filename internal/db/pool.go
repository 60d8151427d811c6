package db

import (
	"context"
	"errors"
	"sync"
)

var errClosed = errors.New("db: the database is closed")

// pool lends connections for reading. It opens them when they are first needed
// and prefers the one used last, whose caches are warm.
type pool struct {
	dialer dialer
	slots  chan struct{} // one token per connection lent

	mu     sync.Mutex
	idle   []conn
	closed bool
}

func newPool(d dialer, size int) *pool {
	return &pool{dialer: d, slots: make(chan struct{}, size)}
}

// get lends a connection; used tells that it has been used before, so that it
// may have been lost unnoticed.
func (p *pool) get(ctx context.Context) (c conn, used bool, err error) {
	select {
	case p.slots <- struct{}{}:
	default:
		select {
		case p.slots <- struct{}{}:
		case <-ctx.Done():
			return nil, false, ctx.Err()
		}
	}
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		<-p.slots
		return nil, false, errClosed
	}
	if n := len(p.idle); n > 0 {
		c = p.idle[n-1]
		p.idle = p.idle[:n-1]
		p.mu.Unlock()
		return c, true, nil
	}
	p.mu.Unlock()
	if c, err = p.dialer.dial(ctx, false); err != nil {
		<-p.slots
		return nil, false, err
	}
	return c, false, nil
}

// put takes a connection back.
func (p *pool) put(c conn) {
	p.mu.Lock()
	keep := !p.closed && !c.lost()
	if keep {
		p.idle = append(p.idle, c)
	}
	p.mu.Unlock()
	if !keep {
		c.close()
	}
	<-p.slots
}

// close closes the idle connections; one that is lent is closed when it comes
// back.
func (p *pool) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	for _, c := range p.idle {
		c.close()
	}
	p.idle = nil
}
