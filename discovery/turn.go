package discovery

import (
	"context"
	"crypto/hmac"
	"crypto/sha1"
	"encoding/base64"
	"fmt"
	"time"

	"github.com/teahouse-chat/teahouse/internal/httpx"
	"github.com/teahouse-chat/teahouse/internal/matrix"
)

// TURN is the server through which calls go whose ends cannot reach each other.
type TURN struct {
	URIs []string // none: there is no such server
	// SharedSecret is what credentials are made of that end after the Lifetime, as
	// coturn's use-auth-secret expects them; "": everybody has the same.
	SharedSecret       string
	Username, Password string
	Lifetime           time.Duration // after which clients ask again
}

// turnAnswer is what clients need for calls; without a TURN server it is empty. The
// schema asks for members that could not be filled then, but an empty list of
// URIs breaks calls in browsers.
type turnAnswer struct {
	Username string   `json:"username,omitempty"`
	Password string   `json:"password,omitempty"`
	URIs     []string `json:"uris,omitempty"`
	TTL      int64    `json:"ttl,omitempty"` // seconds
}

// spec: client-server#get_matrixclientv3voipturnserver
func (s *Discovery) getTURN(_ context.Context, c *httpx.Caller, _ *nothing) (*turnAnswer, error) {
	if len(s.turn.URIs) == 0 {
		return &turnAnswer{}, nil
	}
	a := &turnAnswer{Username: s.turn.Username, Password: s.turn.Password, URIs: s.turn.URIs, TTL: int64(s.turn.Lifetime / time.Second)}
	if s.turn.SharedSecret != "" {
		a.Username, a.Password = credentials(s.turn.SharedSecret, c.User, s.now().Add(s.turn.Lifetime))
	}
	return a, nil
}

// credentials are what a TURN server with the same secret takes from a user until
// some time. SHA-1 is what these servers compute; as a MAC it is not broken.
func credentials(secret string, user matrix.UserID, until time.Time) (username, password string) {
	username = fmt.Sprintf("%d:%s", until.Unix(), user)
	mac := hmac.New(sha1.New, []byte(secret))
	mac.Write([]byte(username))
	return username, base64.StdEncoding.EncodeToString(mac.Sum(nil))
}
