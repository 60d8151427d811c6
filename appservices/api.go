package appservices

import "github.com/teahouse-chat/teahouse/internal/httpx"

// Routes are the feature's part of the client surface.
func (s *Services) Routes() []httpx.Route {
	const v1, v3 = "/_matrix/client/v1/", "/_matrix/client/v3/"
	return []httpx.Route{
		httpx.JSON("POST", v1+"appservice/{appserviceId}/ping", s.ping, httpx.Versions("unstable/fi.mau.msc2659")),
		httpx.JSON("PUT", v3+"directory/list/appservice/{networkId}/{roomId}", s.publish),

		httpx.JSON("GET", v3+"thirdparty/protocols", s.getProtocols),
		httpx.JSON("GET", v3+"thirdparty/protocol/{protocol}", s.getProtocol),
		httpx.JSON("GET", v3+"thirdparty/location", s.getLocation),
		httpx.JSON("GET", v3+"thirdparty/user", s.getUser),
		s.thirdPartyRoute("location"),
		s.thirdPartyRoute("user"),
	}
}
