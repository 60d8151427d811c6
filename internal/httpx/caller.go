package httpx

import (
	"context"
	"net/http"
	"net/netip"

	"github.com/teahouse-chat/teahouse/internal/matrix"
)

// Caller is who asks. A handler always gets one; on a route without a token
// only Addr is set.
type Caller struct {
	User       matrix.UserID
	Device     matrix.DeviceID
	Token      string     // a hash that names the session, never the token itself
	Guest      bool       // registered as a guest
	Admin      bool       // may use the admin API
	Appservice string     // id of the application service that acts, or ""
	Exempt     bool       // from rate limits
	Addr       netip.Addr // of the client, behind trusted proxies; set by the edge
}

// Anonymous tells whether no user is behind the request.
func (c *Caller) Anonymous() bool { return c.User == "" }

// Authenticator finds out who holds an access token. It answers with a
// *matrix.Error, M_UNKNOWN_TOKEN as a rule, when nobody does. The caller it
// returns is copied and may be shared. RemoteAddr gives the client's address.
type Authenticator interface {
	Authenticate(ctx context.Context, r *http.Request, token string) (*Caller, error)
}
