package queries

import (
	"context"
	"net/http"
	"sync"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"
	"golang.org/x/sync/singleflight"

	"github.com/teahouse-chat/teahouse/internal/matrix"
)

const (
	// keepFailure is how long it is remembered that there was no answer, or none
	// but a refusal.
	keepFailure = 15 * time.Second
	// maxBytes bounds what is remembered of one kind, and entryBytes is what an
	// entry costs beside its key and value.
	maxBytes   = 16 << 20
	entryBytes = 256
)

// cache remembers the answers to one kind of question, by a key that tells the
// questions apart.
type cache[V any] struct {
	now    func() time.Time
	keep   time.Duration
	size   func(V) int
	asking singleflight.Group
	// refusals are not remembered where they may end at any time.
	noRefusals bool

	mu    sync.Mutex
	kept  *simplelru.LRU[string, answer[V]]
	bytes int
}

type answer[V any] struct {
	value V
	err   error
	until time.Time
	bytes int
}

func newCache[V any](now func() time.Time, keep time.Duration, size func(V) int) (*cache[V], error) {
	c := &cache[V]{now: now, keep: keep, size: size}
	var err error
	c.kept, err = simplelru.NewLRU(maxBytes/entryBytes, func(_ string, a answer[V]) { c.bytes -= a.bytes })
	return c, err
}

// get gives the answer that is remembered, or asks for it.
func (c *cache[V]) get(ctx context.Context, key string, ask func(context.Context) (V, error)) (V, error) {
	if a, ok := c.known(key); ok {
		return a.value, a.err
	}
	v, err, _ := c.asking.Do(key, func() (any, error) {
		v, err := ask(context.WithoutCancel(ctx)) // others wait, too
		c.put(key, v, err)
		return v, err
	})
	value, _ := v.(V)
	return value, err
}

func (c *cache[V]) known(key string) (answer[V], bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	a, ok := c.kept.Get(key)
	return a, ok && c.now().Before(a.until)
}

func (c *cache[V]) put(key string, v V, err error) {
	a := answer[V]{value: v, err: err, until: c.now().Add(c.keep), bytes: len(key) + entryBytes}
	if err != nil && c.noRefusals && matrix.AsError(err).Status < http.StatusInternalServerError {
		return
	}
	if err != nil {
		a.until = c.now().Add(keepFailure)
	} else {
		a.bytes += c.size(v)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.kept.Remove(key)
	c.kept.Add(key, a)
	for c.bytes += a.bytes; c.bytes > maxBytes; {
		c.kept.RemoveOldest()
	}
}
