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

func newCache[K comparable, V any]() *cache[K, V] {
	values, err := lru.New[K, V](devicesKept)
	if err != nil {
		panic(err) // the size is a constant
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

func (c *cache[K, V]) drop(k K) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.clock++
	c.values.Remove(k)
}
