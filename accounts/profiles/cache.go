package profiles

import (
	"sync"

	"github.com/teahouse-chat/teahouse/internal/matrix"
)

// The cache is bounded in users and in the size of one profile, hence in bytes.
const (
	maxCached      = 8192
	maxCachedBytes = 2048
)

// cache remembers profiles. age counts the drops, so that a profile which was
// read before a change is not put in after it.
type cache struct {
	mu    sync.Mutex
	age   uint64
	users map[matrix.UserID]Fields // nil: known to have none
}

func newCache() cache { return cache{users: make(map[matrix.UserID]Fields)} }

// get returns what is known, who is not, and the age to give to put.
func (c *cache) get(users []matrix.UserID) (found map[matrix.UserID]Fields, missing []matrix.UserID, age uint64) {
	found = make(map[matrix.UserID]Fields, len(users))
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, u := range users {
		f, ok := c.users[u]
		switch {
		case !ok:
			missing = append(missing, u)
		case f != nil:
			found[u] = f
		}
	}
	return found, missing, c.age
}

func (c *cache) put(read map[matrix.UserID]Fields, age uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.age != age {
		return
	}
	for u, f := range read {
		if f.size() > maxCachedBytes {
			continue
		}
		if len(c.users) >= maxCached {
			for old := range c.users { // any one
				delete(c.users, old)
				break
			}
		}
		c.users[u] = f
	}
}

func (c *cache) drop(user matrix.UserID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.age++
	delete(c.users, user)
}
