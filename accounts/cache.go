package accounts

import (
	"sync"
	"sync/atomic"

	"github.com/teahouse-chat/teahouse/internal/httpx"
	"github.com/teahouse-chat/teahouse/internal/matrix"
)

// session is a live session as it is kept in memory. All but touched is
// immutable: a change of the account makes the cache forget it.
type session struct {
	caller  httpx.Caller
	userNID int64
	expires int64 // milliseconds since the epoch, 0 for never
	locked  bool
	touched atomic.Int64 // when the last use was noted
}

// maxCachedSessions bounds the cache; at about 300 bytes a session.
const maxCachedSessions = 100_000

// sessionCache holds live sessions by the hash of their token.
//
// A reader that misses takes the generation, reads the database and offers what
// it found with that generation. An eviction in between has moved the
// generation on; the offer is refused and the reader reads again. So a row that
// was read before the commit that ended it never stays.
type sessionCache struct {
	mu         sync.RWMutex
	byToken    map[tokenHash]*session
	byUser     map[matrix.UserID]map[tokenHash]*session
	generation uint64
}

func newSessionCache() *sessionCache {
	return &sessionCache{byToken: make(map[tokenHash]*session), byUser: make(map[matrix.UserID]map[tokenHash]*session)}
}

// get returns the session, or nil and the generation to offer one with.
func (c *sessionCache) get(h tokenHash) (*session, uint64) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.byToken[h], c.generation
}

// offer stores a session unless something was evicted since the generation.
func (c *sessionCache) offer(h tokenHash, s *session, generation uint64) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.generation != generation {
		return false
	}
	if len(c.byToken) >= maxCachedSessions {
		for old, victim := range c.byToken { // any one will do
			c.drop(old, victim)
			break
		}
	}
	c.byToken[h] = s
	of := c.byUser[s.caller.User]
	if of == nil {
		of = make(map[tokenHash]*session, 1)
		c.byUser[s.caller.User] = of
	}
	of[h] = s
	return true
}

// evict forgets the sessions of a user's devices, of all of them if none is
// named.
func (c *sessionCache) evict(user matrix.UserID, devices ...matrix.DeviceID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.generation++
	for h, s := range c.byUser[user] {
		if len(devices) == 0 {
			c.drop(h, s)
		}
		for _, d := range devices {
			if s.caller.Device == d {
				c.drop(h, s)
			}
		}
	}
}

func (c *sessionCache) drop(h tokenHash, s *session) {
	delete(c.byToken, h)
	of := c.byUser[s.caller.User]
	delete(of, h)
	if len(of) == 0 {
		delete(c.byUser, s.caller.User)
	}
}
