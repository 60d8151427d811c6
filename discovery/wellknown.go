package discovery

import (
	"context"
	"errors"
	"net/http"

	"github.com/teahouse-chat/teahouse/internal/httpx"
	"github.com/teahouse-chat/teahouse/internal/matrix"
)

// WellKnown lists what is asked of the domain that the server is named after.
// It serves whoever answers for that domain directly or through a proxy.
// spec: client-server#well-known-uris
func (s *Discovery) WellKnown() []httpx.Route {
	return []httpx.Route{
		httpx.JSON(http.MethodGet, "/.well-known/matrix/client", s.getClient, httpx.NoAuth),
		httpx.JSON(http.MethodGet, "/.well-known/matrix/server", s.getServer, httpx.NoAuth),
		httpx.JSON(http.MethodGet, "/.well-known/matrix/support", s.getSupport, httpx.NoAuth),
	}
}

type baseURL struct {
	URL string `json:"base_url"`
}

type wellKnownClient struct {
	Homeserver baseURL `json:"m.homeserver"`
}

type wellKnownServer struct {
	Server string `json:"m.server"`
}

// Support says whom to ask for help.
// spec: client-server#getwell-knownmatrixsupport
type Support struct {
	Contacts []Contact `json:"contacts,omitempty"`
	Page     string    `json:"support_page,omitempty"` // a URL
}

// Contact is a way to reach an administrator.
type Contact struct {
	MatrixID string `json:"matrix_id,omitempty"`
	Email    string `json:"email_address,omitempty"`
	Role     string `json:"role"` // "m.role.admin", "m.role.security" or a namespaced one
}

func (s *Support) check() error {
	for _, c := range s.Contacts {
		if c.Role == "" {
			return errors.New("discovery: a support contact needs a role, such as m.role.admin")
		}
		if c.MatrixID == "" && c.Email == "" {
			return errors.New("discovery: a support contact needs a Matrix id or an email address")
		}
		if c.MatrixID != "" {
			if _, err := matrix.ParseUserID(c.MatrixID); err != nil {
				return errors.New("discovery: support contact: " + matrix.AsError(err).Text)
			}
		}
	}
	return nil
}

// spec: client-server#getwell-knownmatrixclient
func (s *Discovery) getClient(context.Context, *httpx.Caller, *nothing) (*wellKnownClient, error) {
	if s.client == nil {
		return nil, matrix.NotFound("This server has no public URL")
	}
	return s.client, nil
}

// spec: server-server#getwell-knownmatrixserver
func (s *Discovery) getServer(context.Context, *httpx.Caller, *nothing) (*wellKnownServer, error) {
	if s.server == nil {
		return nil, matrix.NotFound("This server delegates nothing")
	}
	return s.server, nil
}

// spec: client-server#getwell-knownmatrixsupport
func (s *Discovery) getSupport(context.Context, *httpx.Caller, *nothing) (*Support, error) {
	if s.support == nil {
		return nil, matrix.NotFound("This server names no support contact")
	}
	return s.support, nil
}
