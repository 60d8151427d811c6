package appservices

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"golang.org/x/sync/singleflight"

	"github.com/teahouse-chat/teahouse/internal/matrix"
)

const (
	// lookupTimeout is how long a client waits for a service to make what it asks for.
	lookupTimeout = 15 * time.Second
	// notThere is how long it is believed that something does not exist.
	notThere = time.Minute
	// notReached is how long a service is left alone that did not answer.
	notReached = 10 * time.Second
	// keptMisses bounds what is remembered not to exist.
	keptMisses = 10_000
)

// lookups ask services for users and aliases that are not there yet. They go beside
// the transactions, so that a service may well send events while it is asked.
type lookups struct {
	s      *Services
	flight singleflight.Group
	misses *lru.Cache[string, time.Time] // until when
}

func newLookups(s *Services) *lookups {
	misses, _ := lru.New[string, time.Time](keptMisses) // fails for a size of 0 only
	return &lookups{s: s, misses: misses}
}

// MakeUser asks the services that claim a local user without an account whether
// they make it, and tells whether one did.
// spec: application-service#get_matrixappv1usersuserid
func (s *Services) MakeUser(ctx context.Context, user matrix.UserID) (bool, error) {
	return s.lookups.any(ctx, s.current.Load().covering(user), "/users/"+url.PathEscape(string(user)))
}

// MakeAlias asks the services that claim a local alias which is free whether they
// make its room, and tells whether one did.
// spec: application-service#get_matrixappv1roomsroomalias
func (s *Services) MakeAlias(ctx context.Context, alias matrix.RoomAlias) (bool, error) {
	var claiming []*Service
	for _, v := range s.current.Load().services {
		if v.Aliases.Match(string(alias)) {
			claiming = append(claiming, v)
		}
	}
	return s.lookups.any(ctx, claiming, "/rooms/"+url.PathEscape(string(alias)))
}

// any asks one service after the other until one says yes.
func (l *lookups) any(ctx context.Context, of []*Service, path string) (bool, error) {
	for _, v := range of {
		if v.URL == "" {
			continue
		}
		if yes, err := l.ask(ctx, v, path); yes || err != nil {
			return yes, err
		}
	}
	return false, nil
}

// ask asks a service once, however many want to know.
func (l *lookups) ask(ctx context.Context, v *Service, path string) (bool, error) {
	key := v.ID + " " + path
	if until, ok := l.misses.Get(key); ok && l.s.Now().Before(until) {
		return false, nil
	}
	answer := l.flight.DoChan(key, func() (any, error) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), lookupTimeout)
		defer cancel()
		err := l.s.ask(ctx, v, http.MethodGet, path, nil, nil, nil)
		if err == nil {
			return true, nil
		}
		rest := notReached
		if bad, ok := errors.AsType[*badStatus](err); ok && bad.status == http.StatusNotFound {
			rest = notThere
		} else {
			l.s.Log.Warn("an application service could not be asked whether something exists", "service", v.ID, "error", err)
		}
		l.misses.Add(key, l.s.Now().Add(rest))
		return false, nil
	})
	select {
	case r := <-answer:
		return r.Val.(bool), r.Err
	case <-ctx.Done():
		return false, ctx.Err()
	}
}
