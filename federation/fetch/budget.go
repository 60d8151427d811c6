package fetch

import (
	"context"
	"errors"
	"sync"
	"time"
)

// Limits bound what is fetched for one purpose. 0 is no limit.
type Limits struct {
	Requests int
	Events   int   // in answers, the malformed ones among them
	Bytes    int64 // of answers
	Time     time.Duration
}

// ErrBudget is the failure of a request for which the budget is not enough.
var ErrBudget = errors.New("fetch: the budget is used up")

type budgetKey struct{}

// budget is what is left of limits.
type budget struct {
	mu   sync.Mutex
	left Limits
	of   Limits
}

// WithBudget gives a context in which all that is fetched stays within limits
// together. When its time is over the context ends.
func WithBudget(ctx context.Context, l Limits) (context.Context, context.CancelFunc) {
	cancel := context.CancelFunc(func() {})
	if l.Time > 0 {
		ctx, cancel = context.WithTimeoutCause(ctx, l.Time, ErrBudget)
	}
	return context.WithValue(ctx, budgetKey{}, &budget{left: l, of: l}), cancel
}

// begin takes a request from the budget, and the bytes that its answer may have:
// at most, or what is left. The others go back by end.
func (b *budget) begin(most int64) (int64, error) {
	if b == nil {
		return most, nil
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.of.Requests > 0 && b.left.Requests == 0 || b.of.Bytes > 0 && b.left.Bytes == 0 || b.of.Events > 0 && b.left.Events == 0 {
		return 0, ErrBudget
	}
	b.left.Requests--
	if b.of.Bytes > 0 {
		most = min(most, b.left.Bytes)
		b.left.Bytes -= most
	}
	return most, nil
}

// end gives bytes back that were not used.
func (b *budget) end(unused int64) {
	if b == nil {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.left.Bytes += unused
}

// event takes an event from the budget and tells whether there was one left.
func (b *budget) event() bool {
	if b == nil || b.of.Events == 0 {
		return true
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.left.Events == 0 {
		return false
	}
	b.left.Events--
	return true
}

func budgetOf(ctx context.Context) *budget {
	b, _ := ctx.Value(budgetKey{}).(*budget)
	return b
}
