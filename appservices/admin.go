package appservices

import (
	"context"
	"net/http"
	"time"

	"github.com/teahouse-chat/teahouse/internal/httpx"
	"github.com/teahouse-chat/teahouse/internal/matrix"
)

// AdminRoutes are what operators manage services with, beside the command.
func (s *Services) AdminRoutes() []httpx.Route {
	const all = "/_teahouse/admin/v1/appservices"
	const one = all + "/{id}"
	return []httpx.Route{
		httpx.JSON(http.MethodGet, all, s.listStatus, httpx.AdminOnly),
		httpx.JSON(http.MethodPost, all, s.addOne, httpx.AdminOnly),
		httpx.JSON(http.MethodDelete, one, s.removeOne, httpx.AdminOnly, httpx.EmptyBodyOK),
		httpx.JSON(http.MethodPost, one+"/rotate", s.rotateOne, httpx.AdminOnly, httpx.EmptyBodyOK),
		httpx.JSON(http.MethodPost, one+"/pause", s.pauseOne, httpx.AdminOnly, httpx.EmptyBodyOK),
		httpx.JSON(http.MethodPost, one+"/resume", s.resumeOne, httpx.AdminOnly, httpx.EmptyBodyOK),
		httpx.JSON(http.MethodPost, one+"/retry", s.retryOne, httpx.AdminOnly, httpx.EmptyBodyOK),
		httpx.JSON(http.MethodGet, one+"/dead_letters", s.listLetters, httpx.AdminOnly),
		httpx.JSON(http.MethodPost, one+"/replay", s.replay, httpx.AdminOnly, httpx.EmptyBodyOK),
	}
}

type statusAnswer struct {
	Services []listedStatus `json:"appservices"`
}

// listedStatus has times in ms since 1970, 0 for none.
type listedStatus struct {
	ID          string        `json:"id"`
	URL         string        `json:"url,omitempty"`
	File        string        `json:"file,omitempty"`
	Sender      matrix.UserID `json:"sender"`
	Paused      bool          `json:"paused"`
	Failures    int           `json:"failures"`
	LastSuccess int64         `json:"last_success_ts"`
	NextTry     int64         `json:"next_try_ts"`
	Problem     string        `json:"problem,omitempty"`
	Waiting     int64         `json:"waiting_events"`
	Oldest      int64         `json:"oldest_waiting_ts"`
	DeadLetters int64         `json:"dead_letters"`
}

func (s *Services) listStatus(ctx context.Context, _ *httpx.Caller, _ *nothing) (*statusAnswer, error) {
	list, err := s.List(ctx)
	if err != nil {
		return nil, err
	}
	a := &statusAnswer{Services: make([]listedStatus, len(list))}
	for i, v := range list {
		a.Services[i] = listedStatus{
			v.ID, v.URL, v.File, v.Sender, v.Paused, v.Failures, ms(v.LastSuccess), ms(v.NextTry), v.Problem, v.Waiting,
			ms(v.Oldest), v.DeadLetters,
		}
	}
	return a, nil
}

type addRequest struct {
	// Registration is the text of a registration file; JSON is YAML, too.
	Registration string `json:"registration"`
}

type oneRequest struct {
	ID string `path:"id"`
}

type idAnswer struct {
	ID string `json:"id"`
}

func (s *Services) addOne(ctx context.Context, _ *httpx.Caller, q *addRequest) (*idAnswer, error) {
	r, err := s.Add(ctx, "registration", []byte(q.Registration))
	if err != nil {
		return nil, err
	}
	s.tellUnknown(r)
	return &idAnswer{r.ID}, nil
}

func (s *Services) removeOne(ctx context.Context, _ *httpx.Caller, q *oneRequest) (*nothing, error) {
	return nil, s.Remove(ctx, q.ID)
}

type textAnswer struct {
	Registration string `json:"registration"`
}

func (s *Services) rotateOne(ctx context.Context, _ *httpx.Caller, q *oneRequest) (*textAnswer, error) {
	text, err := s.Rotate(ctx, q.ID)
	if err != nil {
		return nil, err
	}
	return &textAnswer{string(text)}, nil
}

func (s *Services) pauseOne(ctx context.Context, _ *httpx.Caller, q *oneRequest) (*nothing, error) {
	return nil, s.Pause(ctx, q.ID, true)
}

func (s *Services) resumeOne(ctx context.Context, _ *httpx.Caller, q *oneRequest) (*nothing, error) {
	return nil, s.Pause(ctx, q.ID, false)
}

func (s *Services) retryOne(ctx context.Context, _ *httpx.Caller, q *oneRequest) (*nothing, error) {
	return nil, s.Retry(ctx, q.ID)
}

type lettersRequest struct {
	oneRequest
	After int64 `query:"from"`
	Limit int   `query:"limit"`
}

type lettersAnswer struct {
	Letters []DeadLetter `json:"dead_letters"`
	Next    int64        `json:"next_token,omitempty"`
}

// maxLetters bounds one answer.
const maxLetters = 100

func (s *Services) listLetters(ctx context.Context, _ *httpx.Caller, q *lettersRequest) (*lettersAnswer, error) {
	limit := q.Limit
	if limit <= 0 || limit > maxLetters {
		limit = maxLetters
	}
	list, err := s.DeadLetters(ctx, q.ID, q.After, limit)
	if err != nil {
		return nil, err
	}
	a := &lettersAnswer{Letters: append([]DeadLetter{}, list...)}
	if len(list) == limit {
		a.Next = list[limit-1].NID
	}
	return a, nil
}

type replayRequest struct {
	oneRequest
	Letter int64 `json:"dead_letter"` // 0: all
}

type replayAnswer struct {
	Replayed int `json:"replayed"`
}

func (s *Services) replay(ctx context.Context, _ *httpx.Caller, q *replayRequest) (*replayAnswer, error) {
	n, err := s.Replay(ctx, q.ID, q.Letter)
	if err != nil {
		return nil, err
	}
	return &replayAnswer{n}, nil
}

func ms(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}
