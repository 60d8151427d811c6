package appservices

import (
	"context"
	"sync"
	"time"
)

// watchEvery is how often it is looked whether a file, or what another process
// registered, has changed.
const watchEvery = time.Second

// Start makes the accounts of the services' own users. It is called once
// everything is connected, before anything is served.
func (s *Services) Start(ctx context.Context) error { return s.provide(ctx) }

// Run delivers events, and takes up changes of what is registered, until ctx ends.
func (s *Services) Run(ctx context.Context) {
	var work sync.WaitGroup
	defer work.Wait()
	s.mu.Lock()
	s.couriers, s.background = map[int64]*courier{}, ctx
	s.mu.Unlock()
	defer s.dismiss()
	follower := newFollower(s)
	work.Go(func() { follower.run(ctx) })
	work.Go(func() { s.watcher.run(ctx) })
	s.registering.Lock()
	err := s.load(ctx) // which employs couriers
	s.registering.Unlock()
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	for {
		if err != nil && ctx.Err() == nil {
			s.Log.Error("the registrations of application services could not be read; trying again", "error", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			err = s.Reload(ctx)
		}
	}
}

// dismiss waits for the couriers, whose context has ended.
func (s *Services) dismiss() {
	s.mu.Lock()
	couriers := s.couriers
	s.couriers = nil
	s.mu.Unlock()
	for _, c := range couriers {
		<-c.done
	}
}
