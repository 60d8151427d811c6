package encryption

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/teahouse-chat/teahouse/internal/matrix"
)

// How long, and how many at a time, other servers are asked.
const (
	defaultWait = 10 * time.Second
	maxWait     = 60 * time.Second
	askedAtOnce = 32
)

// failures say which servers could not be reached.
type failures map[matrix.ServerName]*matrix.Error

// asked asks every server for its part, all at the same time, and takes what
// comes within the timeout, one answer after the other.
func asked[Q, A any](ctx context.Context, e *Encryption, timeout int64, parts map[matrix.ServerName]Q, failed failures,
	ask func(context.Context, matrix.ServerName, Q) (A, error), take func(Q, A)) {
	if len(parts) == 0 {
		return
	}
	wait := defaultWait
	if timeout > 0 {
		wait = min(time.Duration(min(timeout, maxWait.Milliseconds()))*time.Millisecond, maxWait)
	}
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	var mu sync.Mutex
	var group errgroup.Group
	group.SetLimit(askedAtOnce)
	for server, part := range parts {
		if e.Remote == nil {
			failed[server] = unreachable(nil)
			continue
		}
		group.Go(func() error {
			got, err := ask(ctx, server, part)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				failed[server] = unreachable(err)
			} else {
				take(part, got)
			}
			return nil
		})
	}
	_ = group.Wait() // every error is a failure of its server
}

func unreachable(err error) *matrix.Error {
	if errors.Is(err, context.DeadlineExceeded) {
		return matrix.NewError(http.StatusGatewayTimeout, matrix.CodeConnectionTimeout, "The server did not answer in time")
	}
	return matrix.NewError(http.StatusBadGateway, matrix.CodeConnectionFailed, "The server cannot be reached")
}
