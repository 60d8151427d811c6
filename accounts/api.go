package accounts

import "github.com/teahouse-chat/teahouse/internal/httpx"

// The rate-limit classes of the routes here.
const (
	LimitLogin        = "login"
	LimitRegistration = "registration"
)

// Routes are the feature's part of the client surface.
func (a *Accounts) Routes() []httpx.Route {
	const v1, v3 = "/_matrix/client/v1/", "/_matrix/client/v3/"
	login, registration := httpx.Limit(LimitLogin), httpx.Limit(LimitRegistration)
	return []httpx.Route{
		httpx.JSON("POST", v3+"register", a.register, httpx.OptionalAuth, registration),
		httpx.JSON("GET", v3+"register/available", a.checkAvailable, httpx.NoAuth, registration),
		httpx.JSON("GET", v1+"register/m.login.registration_token/validity", a.tokenValidity, httpx.NoAuth, registration),

		httpx.JSON("GET", v3+"login", a.loginFlows, httpx.NoAuth),
		httpx.JSON("POST", v3+"login", a.login, httpx.OptionalAuth, login),
		httpx.JSON("POST", v1+"login/get_token", a.getLoginToken, httpx.EmptyBodyOK, login),
		httpx.JSON("POST", v3+"refresh", a.refresh, httpx.NoAuth, login),
		httpx.JSON("POST", v3+"logout", a.logout, httpx.EmptyBodyOK, httpx.GuestsAllowed),
		httpx.JSON("POST", v3+"logout/all", a.logoutAll, httpx.EmptyBodyOK, httpx.GuestsAllowed),

		httpx.JSON("GET", v3+"account/whoami", a.whoami, httpx.GuestsAllowed),
		httpx.JSON("POST", v3+"account/password", a.changePassword, login),
		httpx.JSON("POST", v3+"account/deactivate", a.deactivate, httpx.EmptyBodyOK, login),

		httpx.JSON("GET", v3+"devices", a.devices, httpx.GuestsAllowed),
		httpx.JSON("GET", v3+"devices/{deviceId}", a.device, httpx.GuestsAllowed),
		httpx.JSON("PUT", v3+"devices/{deviceId}", a.putDevice, httpx.GuestsAllowed),
		httpx.JSON("DELETE", v3+"devices/{deviceId}", a.deleteDevice, httpx.EmptyBodyOK),
		httpx.JSON("POST", v3+"delete_devices", a.bulkDelete),

		httpx.Raw("GET", v3+"auth/{stage}/fallback/web", a.fallbackPage, httpx.NoAuth),
		httpx.Raw("POST", v3+"auth/{stage}/fallback/web", a.fallbackSubmit, httpx.NoAuth, registration),
	}
}

// AdminRoutes are the feature's part of the admin surface.
func (a *Accounts) AdminRoutes() []httpx.Route {
	const register = "/_synapse/admin/v1/register"
	return []httpx.Route{
		httpx.JSON("GET", register, a.registerNonce, httpx.NoAuth),
		httpx.JSON("POST", register, a.registerBySecret, httpx.NoAuth, httpx.Limit(LimitRegistration)),
	}
}
