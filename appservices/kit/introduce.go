package kit

import (
	"context"
	"errors"
	"time"

	"maunium.net/go/mautrix"
)

// introduce makes the service's user where the homeserver does not, gives it its
// name, and tells the homeserver that the service is there, which may have given up
// for a while. It tries until that is done.
func (s *Service) introduce(ctx context.Context) {
	rest := firstRest
	for ctx.Err() == nil {
		err := s.greet(ctx)
		if err == nil || ctx.Err() != nil {
			return
		}
		s.log.Warn("the homeserver cannot be greeted; trying again", "homeserver", s.cfg.Homeserver, "in", rest, "error", err)
		if !s.Sleep(ctx, rest) {
			return
		}
		rest = min(2*rest, longestRest)
	}
}

// Sleep waits, for work that is Busy otherwise; false if ctx ended first.
func (s *Service) Sleep(ctx context.Context, d time.Duration) bool {
	return s.sleepUntil(ctx, d, nil)
}

// sleepUntil is Sleep that something else may end before the time.
func (s *Service) sleepUntil(ctx context.Context, d time.Duration, woken <-chan struct{}) bool {
	alarm, stop := s.clock.Timer(d)
	defer stop()
	s.busy.Add(-1)
	defer s.busy.Add(1)
	select {
	case <-alarm:
	case <-woken:
	case <-ctx.Done():
		return false
	}
	return true
}

func (s *Service) greet(ctx context.Context) error {
	ctx = context.WithValue(ctx, mautrix.MaxAttemptsContextKey, 1)
	// spec: application-service#server-admin-style-permissions
	_, _, err := s.client.Register(ctx, &mautrix.ReqRegister[any]{
		Type: mautrix.AuthTypeAppservice, Username: s.cfg.User.Localpart(), InhibitLogin: true,
	})
	if err != nil && !errors.Is(err, mautrix.MUserInUse) && !errors.Is(err, mautrix.MExclusive) {
		return err
	}
	if s.cfg.DisplayName != "" {
		if err := s.client.SetDisplayName(ctx, s.cfg.DisplayName); err != nil {
			return err
		}
	}
	// Homeservers before v1.7 have no ping, and one that cannot reach the service
	// tells its operator by itself.
	// spec: application-service#pinging
	if _, err := s.client.AppservicePing(ctx, s.cfg.ID, ""); err != nil {
		s.log.Warn("the homeserver does not reach the service; look at the url of its registration", "error", err)
	} else {
		s.log.Info("the service runs; the homeserver reaches it", "user", s.cfg.User)
	}
	return nil
}
