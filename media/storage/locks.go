package storage

import "sync"

// locks let one goroutine at a time decide over a hash. They remember only those
// that somebody holds or waits for.
type locks struct {
	mu sync.Mutex
	of map[Hash]*lock
}

type lock struct {
	sync.Mutex
	users int
}

// take waits for the lock of h and gives the function that frees it.
func (l *locks) take(h Hash) (free func()) {
	l.mu.Lock()
	one := l.of[h]
	if one == nil {
		one = &lock{}
		l.of[h] = one
	}
	one.users++
	l.mu.Unlock()
	one.Lock()
	return func() {
		one.Unlock()
		l.mu.Lock()
		defer l.mu.Unlock()
		if one.users--; one.users == 0 {
			delete(l.of, h)
		}
	}
}
