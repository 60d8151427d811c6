package data

import "sync"

// maxCached bounds each cache.
const maxCached = 4096

// cache is a bounded map of things read from the database. age counts the
// drops, so that what was read before a change is not put in after it.
type cache[K comparable, V any] struct {
	mu     sync.Mutex
	age    uint64
	values map[K]V
}

func newCache[K comparable, V any]() cache[K, V] { return cache[K, V]{values: make(map[K]V)} }

// now is the age to give to put; ask before reading the database.
func (c *cache[K, V]) now() uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.age
}

func (c *cache[K, V]) get(key K) (V, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	v, ok := c.values[key]
	return v, ok
}

func (c *cache[K, V]) put(key K, v V, age uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.age != age {
		return
	}
	if len(c.values) >= maxCached {
		for old := range c.values { // any one
			delete(c.values, old)
			break
		}
	}
	c.values[key] = v
}

func (c *cache[K, V]) drop(key K) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.age++
	delete(c.values, key)
}
