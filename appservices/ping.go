package appservices

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"time"

	"github.com/teahouse-chat/teahouse/internal/httpx"
	"github.com/teahouse-chat/teahouse/internal/matrix"
)

// pingTimeout is how long a service may take to answer a ping.
const pingTimeout = 10 * time.Second

type pingRequest struct {
	ID  string  `path:"appserviceId"`
	Txn *string `json:"transaction_id"`
}

type pingAnswer struct {
	Duration int64 `json:"duration_ms"`
}

// ping tells a service whether the homeserver reaches it. If it does, what waits for
// the service is sent at once.
// spec: client-server#post_matrixclientv1appserviceappserviceidping
func (s *Services) ping(ctx context.Context, c *httpx.Caller, q *pingRequest) (*pingAnswer, error) {
	v := s.current.Load().byID[q.ID]
	switch {
	case c.Appservice == "":
		return nil, matrix.Forbidden("Only an application service can be pinged, with its as_token")
	case c.Appservice != q.ID || v == nil:
		return nil, matrix.Forbidden("The token belongs to another application service")
	case v.URL == "":
		return nil, matrix.NewError(http.StatusBadRequest, matrix.CodeURLNotSet, "The registration of the application service has no url")
	}
	took, err := s.reach(ctx, v, q.Txn)
	if err != nil {
		return nil, err
	}
	s.Hurry(v.ID)
	return &pingAnswer{took.Milliseconds()}, nil
}

// reach sends a service a ping.
// spec: application-service#post_matrixappv1ping
func (s *Services) reach(ctx context.Context, v *Service, txn *string) (time.Duration, error) {
	body, err := json.Marshal(struct {
		Txn *string `json:"transaction_id,omitempty"`
	}{txn})
	if err != nil {
		return 0, err
	}
	ctx, cancel := context.WithTimeout(ctx, pingTimeout)
	defer cancel()
	began := s.Now()
	err = s.ask(ctx, v, http.MethodPost, "/ping", nil, body, nil)
	took := s.Now().Sub(began)
	if bad, ok := errors.AsType[*badStatus](err); ok {
		text := bad.body[:min(len(bad.body), shownAnswer)]
		return took, matrix.NewError(http.StatusBadGateway, matrix.CodeBadStatus, "The application service answered with status %d", bad.status).
			With("status", bad.status).With("body", string(text)).Because(err)
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return took, matrix.NewError(http.StatusGatewayTimeout, matrix.CodeConnectionTimeout, "The application service did not answer in time").Because(err)
	}
	if err != nil {
		return took, matrix.NewError(http.StatusBadGateway, matrix.CodeConnectionFailed, "The application service cannot be reached at the url of its registration").Because(err)
	}
	return took, nil
}
