package appservices

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"
	"unicode"

	"github.com/teahouse-chat/teahouse/internal/matrix"
)

const (
	// maxAnswer bounds what is read of a service's answer.
	maxAnswer = 1 << 20
	// shownAnswer is how much of a bad answer is kept and shown.
	shownAnswer = 500
)

// badStatus is an answer that is no success.
type badStatus struct {
	status     int
	body       []byte
	retryAfter time.Duration // that the service asks for; 0 if it does not
}

func (e *badStatus) Error() string {
	return fmt.Sprintf("the service answered with %d: %s", e.status, e.shown())
}

// shown is the beginning of the answer in a form that can be stored and printed.
func (e *badStatus) shown() string {
	text := strings.ToValidUTF8(string(e.body[:min(len(e.body), shownAnswer)]), "?")
	return strings.TrimSpace(strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, text))
}

// refusal tells that the service itself, and not what stands before it, does not
// want this request, whatever it thinks of others.
func (e *badStatus) refusal() bool {
	switch e.status {
	case http.StatusUnauthorized, http.StatusForbidden, http.StatusNotFound, http.StatusMethodNotAllowed, http.StatusRequestTimeout,
		http.StatusTooManyRequests, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return false
	}
	return e.status >= 400
}

// unknownRoute tells that the service does not know the path: M_UNRECOGNIZED, or a
// 404 of something that knows nothing of Matrix.
func (e *badStatus) unknownRoute() bool {
	if e.status != http.StatusNotFound && e.status != http.StatusMethodNotAllowed {
		return false
	}
	var answer struct {
		Code matrix.Code `json:"errcode"`
	}
	return json.Unmarshal(e.body, &answer) != nil || answer.Code == "" || answer.Code == matrix.CodeUnrecognized
}

// The paths of the API at a service, and of those that are older than it.
const (
	apiPath    = "/_matrix/app/v1"
	legacyPath = ""
	oldThirds  = "/_matrix/app/unstable"
)

// ask sends a request to a service and decodes the answer into answer, unless that
// is nil. path begins behind the API's prefix. A service that does not know the
// path is asked under the one that was used before the API had versions.
// spec: application-service#legacy-routes
func (s *Services) ask(ctx context.Context, v *Service, method, path string, query url.Values, body []byte, answer any) error {
	err := s.askAt(ctx, v, method, apiPath+path, query, body, answer)
	bad, ok := errors.AsType[*badStatus](err)
	if !ok || !bad.unknownRoute() || path == "/ping" {
		return err
	}
	older := legacyPath
	if strings.HasPrefix(path, "/thirdparty/") {
		older = oldThirds
	}
	// Services of that age look for the token in the query.
	withToken := url.Values{"access_token": {v.HSToken}}
	for key, values := range query {
		withToken[key] = values
	}
	if older := s.askAt(ctx, v, method, older+path, withToken, body, answer); older == nil {
		return nil
	} else if worse, ok := errors.AsType[*badStatus](older); ok && !worse.unknownRoute() {
		return older
	}
	return err
}

// spec: application-service#authorisation
func (s *Services) askAt(ctx context.Context, v *Service, method, path string, query url.Values, body []byte, answer any) error {
	address := v.URL + path
	if len(query) > 0 {
		address += "?" + query.Encode()
	}
	r, err := http.NewRequestWithContext(ctx, method, address, bytes.NewReader(body))
	if err != nil {
		return err
	}
	r.Header.Set("Authorization", "Bearer "+v.HSToken)
	if body != nil {
		r.Header.Set("Content-Type", "application/json")
	}
	w, err := s.HTTP.Do(r)
	if err != nil {
		return withoutToken(err)
	}
	defer w.Body.Close()
	text, err := io.ReadAll(io.LimitReader(w.Body, maxAnswer+1))
	switch {
	case err != nil && w.StatusCode/100 == 2 && answer == nil:
		return nil // the status says it all
	case err != nil:
		return withoutToken(err)
	case w.StatusCode/100 != 2:
		return &badStatus{w.StatusCode, text, retryAfter(w.Header)}
	case answer == nil:
		return nil
	case len(text) > maxAnswer:
		return fmt.Errorf("the service answered with more than %d bytes", maxAnswer)
	}
	if err := json.Unmarshal(text, answer); err != nil {
		return fmt.Errorf("the service's answer is not the JSON that was asked for: %w", err)
	}
	return nil
}

// withoutToken keeps the URL, which may have a token in its query, out of an error.
func withoutToken(err error) error {
	if e, ok := errors.AsType[*url.Error](err); ok {
		return e.Err
	}
	return err
}

// maxRetryAfter bounds the rest that a service may ask for.
const maxRetryAfter = 10 * time.Minute

func retryAfter(h http.Header) time.Duration {
	d, err := time.ParseDuration(h.Get("Retry-After") + "s")
	if err != nil || d < 0 {
		return 0
	}
	return min(d, maxRetryAfter)
}
