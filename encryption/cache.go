package encryption

import (
	"context"
	"sync"

	lru "github.com/hashicorp/golang-lru/v2"
)

// devicesKept is how many devices' numbers are kept in memory.
const devicesKept = 20_000

// cache holds what was read of the database until a commit changes it.
type cache[K comparable, V any] struct {
	mu     sync.Mutex
	values *lru.Cache[K, V]
	// clock counts drops, so that what was read while one happened is not kept.
	clock int64
}

func newCache[K comparable, V any](size int) *cache[K, V] {
	values, err := lru.New[K, V](size)
	if err != nil {
		panic(err) // the sizes are constants
	}
	return &cache[K, V]{values: values}
}

// get returns the value of k, which read finds where it is not known.
func (c *cache[K, V]) get(ctx context.Context, k K, read func(context.Context) (V, error)) (V, error) {
	c.mu.Lock()
	v, ok := c.values.Get(k)
	began := c.clock
	c.mu.Unlock()
	if ok {
		return v, nil
	}
	v, err := read(ctx)
	if err != nil {
		return v, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.clock == began {
		c.values.Add(k, v)
	}
	return v, nil
}

// many returns the values of keys; read finds those that are not known, and
// leaves out what there is not.
func (c *cache[K, V]) many(ctx context.Context, keys []K, read func(context.Context, []K) (map[K]V, error)) (map[K]V, error) {
	found := make(map[K]V, len(keys))
	var missing []K
	c.mu.Lock()
	for _, k := range keys {
		if v, ok := c.values.Get(k); ok {
			found[k] = v
		} else {
			missing = append(missing, k)
		}
	}
	began := c.clock
	c.mu.Unlock()
	if len(missing) == 0 {
		return found, nil
	}
	values, err := read(ctx, missing)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for k, v := range values {
		found[k] = v
		if c.clock == began {
			c.values.Add(k, v)
		}
	}
	return found, nil
}

func (c *cache[K, V]) drop(k K) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.clock++
	c.values.Remove(k)
}

// clear drops everything.
func (c *cache[K, V]) clear() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.clock++
	c.values.Purge()
}
