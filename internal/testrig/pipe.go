package testrig

import (
	"net"
	"sync"
	"time"
)

// eager is an end of a pipe whose writes never wait. TLS needs that of one end:
// in its handshake both sides may write before they read.
type eager struct {
	net.Conn
	mu     sync.Mutex
	more   *sync.Cond
	queue  []byte
	closed bool
}

func newEager(c net.Conn) net.Conn {
	e := &eager{Conn: c}
	e.more = sync.NewCond(&e.mu)
	go e.flush()
	return e
}

func (e *eager) Write(p []byte) (int, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return 0, net.ErrClosed
	}
	e.queue = append(e.queue, p...)
	e.more.Signal()
	return len(p), nil
}

func (e *eager) Close() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.closed = true
	e.more.Signal()
	return e.SetDeadline(time.Now().Add(100 * time.Millisecond))
}

func (e *eager) SetWriteDeadline(time.Time) error { return nil }

func (e *eager) flush() {
	e.mu.Lock()
	defer e.mu.Unlock()
	for {
		for len(e.queue) == 0 && !e.closed {
			e.more.Wait()
		}
		if len(e.queue) == 0 {
			_ = e.Conn.Close()
			return
		}
		next := e.queue
		e.queue = nil
		e.mu.Unlock()
		_, err := e.Conn.Write(next)
		e.mu.Lock()
		e.closed = e.closed || err != nil
	}
}
