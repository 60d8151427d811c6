package accounts

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"slices"

	"github.com/teahouse-chat/teahouse/internal/httpx"
	"github.com/teahouse-chat/teahouse/internal/matrix"
)

// Challenge asks the client for the next stage. It is an error for the handler
// that needs the authentication, and an answer of its own shape, without an
// errcode unless a stage failed, for the client.
// spec: client-server#user-interactive-api-in-the-rest-api
type Challenge struct {
	session   string
	flows     []Flow
	completed []string
	params    map[string]any
	failure   *matrix.Error // of the stage that was tried, or nil
}

func (u *UIA) challenge(s *uiaSession, failure *matrix.Error) *Challenge {
	u.mu.Lock()
	defer u.mu.Unlock()
	c := &Challenge{session: s.id, flows: s.flows, completed: slices.Clone(s.completed), params: map[string]any{}, failure: failure}
	for _, f := range s.flows {
		for _, name := range f {
			if p := u.stages[name].params(); p != nil {
				c.params[name] = p
			}
		}
	}
	return c
}

func (c *Challenge) Error() string {
	if c.failure != nil {
		return "user-interactive authentication: " + c.failure.Error()
	}
	return "user-interactive authentication is needed"
}

// Unwrap gives what a route that does not answer challenges shows.
func (c *Challenge) Unwrap() error {
	e := c.failure
	if e == nil {
		e = matrix.NewError(http.StatusUnauthorized, matrix.CodeUnauthorized, "This request needs user-interactive authentication")
	}
	for name, value := range c.members() {
		e = e.With(name, value)
	}
	return e
}

// HTTPStatus is 401.
func (c *Challenge) HTTPStatus() int { return http.StatusUnauthorized }

// MarshalJSON gives the answer to the client.
func (c *Challenge) MarshalJSON() ([]byte, error) {
	m := c.members()
	if c.failure != nil {
		m["errcode"], m["error"] = c.failure.Code, c.failure.Text
	}
	return json.Marshal(m)
}

func (c *Challenge) members() map[string]any {
	flows := make([]map[string]any, len(c.flows))
	for i, f := range c.flows {
		flows[i] = map[string]any{"stages": f}
	}
	completed := c.completed
	if completed == nil {
		completed = []string{}
	}
	return map[string]any{"session": c.session, "flows": flows, "params": c.params, "completed": completed}
}

// Guarded makes a JSON route whose handler may return a *Challenge.
func Guarded[Q, A any](method, path string, h func(ctx context.Context, c *httpx.Caller, q *Q) (*A, error), opts ...httpx.Option) httpx.Route {
	return httpx.JSON(method, path, func(ctx context.Context, c *httpx.Caller, q *Q) (*guarded[A], error) {
		answer, err := h(ctx, c, q)
		var challenge *Challenge
		if errors.As(err, &challenge) {
			return &guarded[A]{challenge: challenge}, nil
		}
		return &guarded[A]{answer: answer}, err
	}, opts...)
}

// guarded is an answer or a challenge.
type guarded[A any] struct {
	answer    *A
	challenge *Challenge
}

func (g *guarded[A]) HTTPStatus() int {
	if g.challenge != nil {
		return http.StatusUnauthorized
	}
	return http.StatusOK
}

func (g *guarded[A]) MarshalJSON() ([]byte, error) {
	switch {
	case g.challenge != nil:
		return g.challenge.MarshalJSON()
	case g.answer == nil:
		return []byte("{}"), nil
	}
	return json.Marshal(g.answer)
}
