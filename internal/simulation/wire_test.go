package simulation_test

import (
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// deafness is how long a connection lasts on which an answer is lost: until the
// other side is done with what it was asked.
const deafness = 5 * time.Second

// wire is a connection over a link, as who has dialled has it. Writes never wait.
type wire struct {
	net.Conn
	link  *link
	ended chan struct{}
	end   func()
	deaf  atomic.Bool

	mu    sync.Mutex
	more  chan struct{} // has room for one
	queue []parcel
	last  time.Time // when the newest arrives
}

// parcel is what was written at once.
type parcel struct {
	data []byte
	at   time.Time
	fate fate
}

func (k *link) connect(c net.Conn) *wire {
	w := &wire{Conn: c, link: k, ended: make(chan struct{}), more: make(chan struct{}, 1)}
	w.end = sync.OnceFunc(func() { close(w.ended) })
	k.mu.Lock()
	k.wires[w] = true
	k.mu.Unlock()
	go w.carry()
	return w
}

func (w *wire) Write(data []byte) (int, error) {
	select {
	case <-w.ended:
		return 0, net.ErrClosed
	default:
	}
	delay, fate := w.link.post()
	w.mu.Lock()
	defer w.mu.Unlock()
	if at := time.Now().Add(delay); at.After(w.last) {
		w.last = at
	}
	w.queue = append(w.queue, parcel{append([]byte(nil), data...), w.last, fate})
	select {
	case w.more <- struct{}{}:
	default:
	}
	return len(data), nil
}

// carry brings parcel after parcel over the link.
func (w *wire) carry() {
	defer w.Close()
	for {
		w.mu.Lock()
		queue := w.queue
		w.queue = nil
		w.mu.Unlock()
		for _, p := range queue {
			if !w.deliver(p) {
				return
			}
		}
		if len(queue) > 0 {
			continue
		}
		select {
		case <-w.more:
		case <-w.ended:
			return
		}
	}
}

// deliver brings one parcel, and tells whether the wire holds.
func (w *wire) deliver(p parcel) bool {
	select {
	case <-time.After(time.Until(p.at)):
	case <-w.ended:
		return false
	}
	if w.link.pass(w.ended) != nil || p.fate == lost {
		return false
	}
	if p.fate == answered {
		w.deaf.Store(true)
		time.AfterFunc(deafness, func() { _ = w.Close() })
	}
	_, err := w.Conn.Write(p.data)
	return err == nil
}

func (w *wire) Read(p []byte) (int, error) {
	for {
		n, err := w.Conn.Read(p)
		if err != nil {
			return n, err
		}
		if w.link.pass(w.ended) != nil {
			return 0, net.ErrClosed
		}
		if !w.deaf.Load() {
			return n, nil
		}
	}
}

func (w *wire) Close() error {
	w.end()
	w.link.mu.Lock()
	delete(w.link.wires, w)
	w.link.mu.Unlock()
	return w.Conn.Close()
}
