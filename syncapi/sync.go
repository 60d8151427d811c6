package syncapi

import (
	"context"
	"time"

	"github.com/teahouse-chat/teahouse/internal/filter"
	"github.com/teahouse-chat/teahouse/internal/httpx"
	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/syncapi/token"
)

const defaultTimeline = 10 // events of a room, where the filter has no limit

type syncQuery struct {
	Filter             string `query:"filter"`
	Since              string `query:"since"`
	FullState          bool   `query:"full_state"`
	SetPresence        string `query:"set_presence"`
	Timeout            int64  `query:"timeout"` // ms
	UseStateAfter      bool   `query:"use_state_after"`
	UnstableStateAfter bool   `query:"org.matrix.msc4222.use_state_after"`
}

// spec: client-server#get_matrixclientv3sync
func (s *Service) getSync(ctx context.Context, c *httpx.Caller, v *syncQuery) (*answer, error) {
	q, err := s.request(ctx, c, v)
	if err != nil {
		return nil, err
	}
	rec, w, err := s.notifier.enter(ctx, c.User, c.Device)
	if err != nil {
		return nil, err
	}
	defer s.notifier.leave(rec, w)
	defer s.presence.come(c.User, v.SetPresence)()

	from := s.from(q)
	if s.Encryption != nil && !q.initial {
		// What the token acknowledges goes at once, not when there is more to say.
		if _, _, err := s.Encryption.ToDevice(ctx, c.User, c.Device, q.since.Device, q.since.Device); err != nil {
			return nil, err
		}
	}
	if q.initial {
		s.lazy.forget(q.device)
	}
	var timer *time.Timer
	for {
		a, at, err := s.look(ctx, rec, q, from)
		if err != nil {
			return nil, err
		}
		if a != nil {
			s.notifier.settle(ctx, rec, c.Device)
			return a, nil
		}
		// Up to there is nothing for this client.
		from = at
		wait := s.waitFor(v.Timeout)
		if wait <= 0 {
			return s.nothing(ctx, q, rec, from)
		}
		if timer == nil {
			if s.Sessions != nil && !s.Sessions.Live(ctx, c.User, c.Device, c.Token) {
				return nil, matrix.UnknownToken(false)
			}
			timer = time.NewTimer(wait)
			defer timer.Stop()
		}
		select {
		case <-w.wake:
			if s.notifier.over(w) {
				return nil, matrix.UnknownToken(false)
			}
		case <-timer.C:
			return s.nothing(ctx, q, rec, from)
		case <-httpx.Draining(ctx):
			return s.nothing(ctx, q, rec, from)
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// waitFor is how long a request waits that asks for so many milliseconds.
func (s *Service) waitFor(ms int64) time.Duration {
	return time.Duration(min(max(ms, 0), s.MaxWait.Milliseconds())) * time.Millisecond
}

// request reads what the client asks for.
func (s *Service) request(ctx context.Context, c *httpx.Caller, v *syncQuery) (*syncRequest, error) {
	q := &syncRequest{device: deviceKey{c.User, c.Device}, full: v.FullState}
	switch v.SetPresence {
	case "", online, unavailable, offline:
	default:
		return nil, matrix.InvalidParam(`"set_presence" is "online", "unavailable" or "offline"`)
	}
	if v.Timeout < 0 {
		return nil, matrix.InvalidParam(`"timeout" must not be negative`)
	}
	switch { // answered by the name that it was asked for with
	case v.UseStateAfter:
		q.stateAfter = "state_after"
	case v.UnstableStateAfter:
		q.stateAfter = "org.matrix.msc4222.state_after"
	}
	var err error
	if q.filter, err = s.filters.get(ctx, c.User, v.Filter); err != nil {
		return nil, err
	}
	if q.window, err = s.windowOf(ctx, c.User, &q.filter.Room.Timeline); err != nil {
		return nil, err
	}
	q.initial = v.Since == ""
	if !q.initial {
		if q.since, err = token.ParseSync(v.Since); err != nil {
			return nil, matrix.InvalidParam("%q is not a token of /sync; leave since out to start afresh", v.Since).Because(err)
		}
	}
	return q, nil
}

// windowOf is how much of each timeline a filter asks for.
func (s *Service) windowOf(ctx context.Context, user matrix.UserID, f *filter.Events) (window, error) {
	w := window{limit: defaultTimeline, filter: f}
	if f.Limit != nil {
		w.limit = *f.Limit
	}
	w.limit = min(w.limit, s.MaxTimeline)
	var err error
	w.ignored, err = s.Data.Ignores(ctx, user)
	return w, err
}

// from is where the client stands. A token from the future, as there is after
// a backup was restored, is no token: the client starts afresh, and so becomes
// whole. What a token says of typing and presence counts for this run only.
func (s *Service) from(q *syncRequest) stand {
	now := s.notifier.stand()
	if q.since.Position > now.position {
		q.initial, q.since = true, token.Sync{}
	}
	if q.initial {
		return stand{}
	}
	from := stand{position: q.since.Position}
	if q.since.Epoch == s.epoch && q.since.Ephemeral <= now.ephemeral {
		from.ephemeral = q.since.Ephemeral
	}
	return from
}

// look answers if there is something to say; else it tells up to where there is
// nothing.
func (s *Service) look(ctx context.Context, rec *record, q *syncRequest, from stand) (*answer, stand, error) {
	d, err := s.deltaFor(ctx, rec, from, q.initial, q.filter.Room.IncludeLeave)
	if err != nil {
		return nil, from, err
	}
	always := q.initial || q.full
	if !always && !d.any() && q.since.Device >= q.since.Position {
		return nil, d.upTo, nil
	}
	a, err := s.answerFor(ctx, q, d)
	if err != nil {
		return nil, from, err
	}
	if a.any || always {
		return a, d.upTo, nil
	}
	a.release()
	return nil, d.upTo, nil
}

// any tells whether there is something to encode.
func (d *delta) any() bool {
	return d.data || d.presence || len(d.joined)+len(d.left)+len(d.invited)+len(d.knocked) > 0
}

// nothing is the answer of a request that had nothing to tell up to a stand.
func (s *Service) nothing(ctx context.Context, q *syncRequest, rec *record, at stand) (*answer, error) {
	return s.answerFor(ctx, q, &delta{user: rec.user, from: at, upTo: at})
}
