package media

import (
	"errors"
	"sync"
	"time"

	"github.com/teahouse-chat/teahouse/internal/matrix"
)

const (
	failureTime = time.Minute
	maxFailures = 10_000
)

// failures remembers for a moment what could not be had, so that a room full of
// clients does not make us ask a thousand times.
type failures struct {
	now func() time.Time
	mu  sync.Mutex
	of  map[Ref]failure
}

type failure struct {
	err   error
	until time.Time
}

func newFailures(now func() time.Time) *failures {
	return &failures{now: now, of: map[Ref]failure{}}
}

func (f *failures) get(ref Ref) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	one, ok := f.of[ref]
	if !ok {
		return nil
	}
	if !f.now().Before(one.until) {
		delete(f.of, ref)
		return nil
	}
	return one.err
}

// put remembers a failure, unless the file may come at any moment or the fault is
// ours. When there are too many, all are forgotten.
func (f *failures) put(ref Ref, err error) {
	var told *matrix.Error
	if !errors.As(err, &told) || errors.Is(err, errNotFound) || told.Code == matrix.CodeNotYetUploaded || told.Code == matrix.CodeResourceLimitExceeded {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.of) >= maxFailures {
		clear(f.of)
	}
	f.of[ref] = failure{err, f.now().Add(failureTime)}
}
