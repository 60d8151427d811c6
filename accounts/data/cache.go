package data

import (
	"sync"

	"github.com/teahouse-chat/teahouse/internal/matrix"
)

// maxCached bounds the users whose ignore lists are remembered, and
// maxCachedUsers the length of such a list.
const (
	maxCached      = 4096
	maxCachedUsers = 256
)

// cache remembers ignore lists. age counts the drops, so that what was read
// before a change is not put in after it.
type cache struct {
	mu    sync.Mutex
	age   uint64
	lists map[matrix.UserID]Users // nil: ignores nobody
}

func newCache() cache { return cache{lists: make(map[matrix.UserID]Users)} }

// get adds what is known to found, and returns who is not known and the age to
// give to put.
func (c *cache) get(users []matrix.UserID, found map[matrix.UserID]Users) (missing []matrix.UserID, age uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, u := range users {
		list, ok := c.lists[u]
		switch {
		case !ok:
			missing = append(missing, u)
		case list != nil:
			found[u] = list
		}
	}
	return missing, c.age
}

// put remembers the lists of users as they stand in read.
func (c *cache) put(users []matrix.UserID, read map[matrix.UserID]Users, age uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.age != age {
		return
	}
	for _, u := range users {
		if len(read[u]) > maxCachedUsers {
			continue
		}
		if len(c.lists) >= maxCached {
			for old := range c.lists { // any one
				delete(c.lists, old)
				break
			}
		}
		c.lists[u] = read[u]
	}
}

func (c *cache) drop(user matrix.UserID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.age++
	delete(c.lists, user)
}
