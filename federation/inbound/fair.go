package inbound

import (
	"context"
	"sync"

	"github.com/teahouse-chat/teahouse/internal/matrix"
)

// fair runs tasks on a bounded number of goroutines. The origins that have tasks
// waiting take turns, and none has more than its share running.
type fair struct {
	limit, share int

	mu      sync.Mutex
	ctx     context.Context // nil: nothing is run yet
	running map[matrix.ServerName]int
	total   int
	waiting map[matrix.ServerName][]func(context.Context)
	turns   []matrix.ServerName // who has tasks waiting, the next first
	tasks   sync.WaitGroup
}

func newFair(limit, share int) *fair {
	return &fair{
		limit: limit, share: share,
		running: map[matrix.ServerName]int{}, waiting: map[matrix.ServerName][]func(context.Context){},
	}
}

// start lets tasks run until ctx ends.
func (f *fair) start(ctx context.Context) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.ctx = ctx
	f.pump()
}

// wait returns when the context of start has ended and all tasks with it. What
// was waiting is not run any more.
func (f *fair) wait() {
	f.mu.Lock()
	f.ctx = nil
	f.mu.Unlock()
	f.tasks.Wait()
}

// add lets a task run on behalf of an origin, later if need be.
func (f *fair) add(origin matrix.ServerName, task func(context.Context)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.waiting[origin]) == 0 {
		f.turns = append(f.turns, origin)
	}
	f.waiting[origin] = append(f.waiting[origin], task)
	f.pump()
}

// pump begins what may begin. It is called with the lock held.
func (f *fair) pump() {
	for i := 0; f.ctx != nil && f.ctx.Err() == nil && f.total < f.limit && i < len(f.turns); {
		origin := f.turns[i]
		if f.running[origin] >= f.share {
			i++
			continue
		}
		task := f.waiting[origin][0]
		f.turns = append(f.turns[:i], f.turns[i+1:]...)
		if f.waiting[origin] = f.waiting[origin][1:]; len(f.waiting[origin]) > 0 {
			f.turns = append(f.turns, origin)
		} else {
			delete(f.waiting, origin)
		}
		f.running[origin]++
		f.total++
		ctx := f.ctx
		f.tasks.Go(func() {
			defer f.ended(origin)
			task(ctx)
		})
	}
}

func (f *fair) ended(origin matrix.ServerName) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.total--
	if f.running[origin]--; f.running[origin] == 0 {
		delete(f.running, origin)
	}
	f.pump()
}
