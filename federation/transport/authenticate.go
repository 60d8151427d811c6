package transport

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/teahouse-chat/teahouse/federation/keys"
	"github.com/teahouse-chat/teahouse/internal/httpx"
	"github.com/teahouse-chat/teahouse/internal/matrix"
)

const (
	maxSignatures = 8                // of one request
	verifyTime    = 25 * time.Second // keys included
)

// Verifier checks signatures; it is a *keys.Ring.
type Verifier interface {
	Verify(ctx context.Context, checks []keys.Check) []error
}

// AuthOptions are what an Authenticator is made of.
type AuthOptions struct {
	Server matrix.ServerName // ourselves
	Keys   Verifier
	Policy *Policy
	Now    func() time.Time
	Seen   func(origin matrix.ServerName) // told of every server that proved to be there; nil: nobody is
}

// Authenticator finds out which server asks. It is safe for concurrent use.
type Authenticator struct{ o AuthOptions }

// NewAuthenticator makes an authenticator.
func NewAuthenticator(o AuthOptions) *Authenticator { return &Authenticator{o} }

// unauthorized is the 401 for a request that nobody signed, as far as we know.
func unauthorized(format string, args ...any) *matrix.Error {
	return matrix.NewError(http.StatusUnauthorized, matrix.CodeUnauthorized, format, args...)
}

// AuthenticateOrigin finds the server that signed a request, whose whole body is
// given. The error is a *matrix.Error.
// spec: server-server#request-authentication
func (a *Authenticator) AuthenticateOrigin(ctx context.Context, r *http.Request, body []byte) (matrix.ServerName, error) {
	headers, err := readHeaders(r.Header)
	if err != nil {
		return "", err
	}
	origin := headers[0].Origin
	l := line{
		Method: r.Method, URI: r.RequestURI, Origin: origin, Destination: headers[0].Destination,
		Signatures: map[string]map[string]string{string(origin): {}},
	}
	for _, h := range headers {
		if h.Origin != l.Origin || h.Destination != l.Destination {
			return "", unauthorized("The Authorization headers contradict each other")
		}
		l.Signatures[string(origin)][h.Key] = h.Signature
	}
	switch {
	case l.Destination != a.o.Server:
		return "", unauthorized("The request is not for this server")
	case origin == a.o.Server:
		return "", unauthorized("The request claims to come from this server itself")
	case !a.o.Policy.Allows(origin):
		return "", matrix.Forbidden("This server does not federate with %s", origin)
	}
	object, err := l.object(body)
	if err != nil {
		return "", matrix.NotJSON("The request body is not a JSON object").Because(err)
	}
	limited, cancel := context.WithTimeout(ctx, verifyTime)
	defer cancel()
	if err := a.o.Keys.Verify(limited, []keys.Check{{Server: origin, JSON: object, At: a.o.Now().UnixMilli()}})[0]; err != nil {
		return "", refusal(origin, err)
	}
	if a.o.Seen != nil {
		a.o.Seen(origin)
	}
	return origin, nil
}

func readHeaders(h http.Header) ([]Header, error) {
	var headers []Header
	for _, text := range h.Values("Authorization") {
		if !isXMatrix(text) {
			continue
		}
		one, err := ParseHeader(text)
		if err != nil {
			return nil, unauthorized("Authorization header: %v", err)
		}
		if headers = append(headers, one); len(headers) > maxSignatures {
			return nil, unauthorized("There are too many Authorization headers")
		}
	}
	if len(headers) == 0 {
		return nil, unauthorized("The request is not signed: there is no Authorization header of the scheme X-Matrix")
	}
	return headers, nil
}

// refusal tells a fault of the request from one of ours.
func refusal(origin matrix.ServerName, err error) error {
	var why *keys.Error
	switch {
	case errors.As(err, &why) && errors.Is(err, keys.ErrNoKey):
		return unauthorized("The keys of %s that signed the request cannot be had", origin).Because(err)
	case errors.As(err, &why):
		return unauthorized("The signature of %s does not count", origin).Because(err)
	}
	return matrix.Internal(err)
}

// Handler answers a request of a server. body was read and verified; r.Body is
// spent.
type Handler func(w http.ResponseWriter, r *http.Request, origin matrix.ServerName, body []byte) error

// Route makes a route, of the surface "federation", whose handler knows who
// asks. httpx.MaxBody bounds the body.
func (a *Authenticator) Route(method, path string, h Handler, opts ...httpx.Option) httpx.Route {
	return httpx.Raw(method, path, func(w http.ResponseWriter, r *http.Request, _ *httpx.Caller) error {
		// Whom the headers already disqualify may not make us read a large body.
		if _, err := readHeaders(r.Header); err != nil {
			return err
		}
		body, err := io.ReadAll(r.Body)
		if tooLarge, ok := errors.AsType[*http.MaxBytesError](err); ok {
			return matrix.TooLarge("The request body is larger than %d bytes", tooLarge.Limit)
		}
		if err != nil {
			return matrix.NotJSON("The request body ended early").Because(err)
		}
		origin, err := a.AuthenticateOrigin(r.Context(), r, body)
		if err != nil {
			return err
		}
		return h(w, r, origin, body)
	}, append([]httpx.Option{httpx.NoAuth}, opts...)...)
}

// JSON makes a route as httpx.JSON does, whose handler knows which server asks.
func JSON[Q, A any](a *Authenticator, method, path string, h func(ctx context.Context, origin matrix.ServerName, q *Q) (*A, error), opts ...httpx.Option) httpx.Route {
	bind := httpx.Bind[Q](path)
	return a.Route(method, path, func(w http.ResponseWriter, r *http.Request, origin matrix.ServerName, body []byte) error {
		q, err := bind(r, body)
		if err != nil {
			return err
		}
		answer, err := h(r.Context(), origin, q)
		if err != nil {
			return err
		}
		if answer == nil {
			return httpx.Write(w, nil)
		}
		return httpx.Write(w, answer)
	}, opts...)
}

// Answer writes JSON as the answer of a Handler.
func Answer(w http.ResponseWriter, v any) error {
	text, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("transport: encoding the answer: %w", err)
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(text) // a server that left is not our failure
	return nil
}

// VersionRoute tells which software this is.
// spec: server-server#get_matrixfederationv1version
func VersionRoute(name, version string) httpx.Route {
	type software struct {
		Name    string `json:"name"`
		Version string `json:"version"`
	}
	type answer struct {
		Server software `json:"server"`
	}
	return httpx.JSON(http.MethodGet, "/_matrix/federation/v1/version", func(context.Context, *httpx.Caller, *struct{}) (*answer, error) {
		return &answer{software{name, version}}, nil
	}, httpx.NoAuth)
}
