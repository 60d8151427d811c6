package discovery

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"github.com/teahouse-chat/teahouse/internal/httpx"
	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms/event"
)

// Deps is what New needs.
type Deps struct {
	PublicURL          string  // where clients reach the server; "": no .well-known/matrix/client
	FederationName     string  // host and port where servers reach it; "": no .well-known/matrix/server
	Support            Support // zero: no .well-known/matrix/support
	DefaultRoomVersion string  // of new rooms
	PasswordChanges    bool    // users may change their password
	LoginTokens        bool    // POST /v1/login/get_token is served
	TURN               TURN    // zero: calls go without one
	Now                func() time.Time
}

// Discovery is the feature.
type Discovery struct {
	client       *wellKnownClient
	server       *wellKnownServer
	support      *Support
	capabilities capabilitiesAnswer
	turn         TURN
	now          func() time.Time
}

// New checks what is to be told and prepares the answers.
func New(d Deps) (*Discovery, error) {
	if _, ok := event.Lookup(d.DefaultRoomVersion); !ok {
		return nil, fmt.Errorf("discovery: the default room version %q is not one of those that are served", d.DefaultRoomVersion)
	}
	s := &Discovery{capabilities: capabilitiesAnswer{Capabilities: capabilitiesOf(d)}, turn: d.TURN, now: d.Now}
	if d.PublicURL != "" {
		u, err := url.Parse(d.PublicURL)
		if err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" {
			return nil, fmt.Errorf("discovery: the public URL %q is not an http or https URL", d.PublicURL)
		}
		s.client = &wellKnownClient{Homeserver: baseURL{URL: d.PublicURL}}
	}
	if d.FederationName != "" {
		if _, err := matrix.ParseServerName(d.FederationName); err != nil {
			return nil, fmt.Errorf("discovery: the federation name %q is not a host name with an optional port", d.FederationName)
		}
		s.server = &wellKnownServer{Server: d.FederationName}
	}
	if d.Support.Page != "" || len(d.Support.Contacts) > 0 {
		if err := d.Support.check(); err != nil {
			return nil, err
		}
		s.support = &d.Support
	}
	return s, nil
}

// Routes lists the client API.
func (s *Discovery) Routes() []httpx.Route {
	const v3 = "/_matrix/client/v3/"
	return append([]httpx.Route{
		httpx.JSON(http.MethodGet, "/_matrix/client/versions", s.getVersions, httpx.OptionalAuth, httpx.GuestsAllowed),
		httpx.JSON(http.MethodGet, v3+"capabilities", s.getCapabilities),
		httpx.JSON(http.MethodGet, v3+"voip/turnServer", s.getTURN),
		// Clients ask for these and go on without when they are told so.
		httpx.JSON(http.MethodGet, "/_matrix/client/v1/auth_metadata", notServed, httpx.NoAuth,
			httpx.Versions("unstable/org.matrix.msc2965")),
		httpx.JSON(http.MethodGet, "/_matrix/client/unstable/org.matrix.msc4143/rtc/transports", notServed, httpx.NoAuth),
	}, threepidRoutes()...)
}

type nothing struct{}

// spec: client-server#get_matrixclientv1auth_metadata
func notServed(context.Context, *httpx.Caller, *nothing) (*struct{}, error) {
	return nil, matrix.Unrecognized(http.StatusNotFound)
}
