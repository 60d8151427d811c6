package media

import (
	"context"
	"net/http"

	"github.com/teahouse-chat/teahouse/internal/httpx"
)

// Routes lists the client API, of the surface "media".
func (m *Media) Routes() []httpx.Route {
	const v1, old = "/_matrix/client/v1/media/", "/_matrix/media/v3/"
	limit := httpx.Limit("media")
	// The edge counts bodies, too; that a file is too large is said before it does.
	size := httpx.MaxBody(m.Config.MaxUpload + 1)
	earlier := httpx.Versions("v1")
	routes := []httpx.Route{
		httpx.Raw(http.MethodPost, old+"upload", m.upload, limit, size, earlier),
		httpx.Raw(http.MethodPut, old+"upload/{serverName}/{mediaId}", m.fill, limit, size),
		httpx.JSON(http.MethodPost, "/_matrix/media/v1/create", m.create, limit, httpx.EmptyBodyOK),
		httpx.Raw(http.MethodGet, v1+"download/{serverName}/{mediaId}", m.download(false), limit, httpx.GuestsAllowed),
		httpx.Raw(http.MethodGet, v1+"download/{serverName}/{mediaId}/{fileName}", m.download(false), limit, httpx.GuestsAllowed),
		httpx.Raw(http.MethodGet, v1+"thumbnail/{serverName}/{mediaId}", m.thumbnail(false), limit, httpx.GuestsAllowed),
		httpx.JSON(http.MethodGet, v1+"config", m.config, limit, httpx.GuestsAllowed),
		httpx.JSON(http.MethodGet, v1+"preview_url", m.preview, limit),
		httpx.Raw(http.MethodPost, partsPath, m.part, limit, size),
		httpx.Raw(http.MethodPatch, partsPath+"/{id}", m.part, limit, size),
		httpx.Raw(http.MethodDelete, partsPath+"/{id}", m.part, limit),
		httpx.Raw(http.MethodGet, partsPath+"/{id}", m.part, limit),
	}
	if m.Config.Unauthenticated == Off {
		return routes
	}
	return append(routes,
		httpx.Raw(http.MethodGet, old+"download/{serverName}/{mediaId}", m.download(true), limit, httpx.OptionalAuth, httpx.GuestsAllowed, earlier),
		httpx.Raw(http.MethodGet, old+"download/{serverName}/{mediaId}/{fileName}", m.download(true), limit, httpx.OptionalAuth, httpx.GuestsAllowed, earlier),
		httpx.Raw(http.MethodGet, old+"thumbnail/{serverName}/{mediaId}", m.thumbnail(true), limit, httpx.OptionalAuth, httpx.GuestsAllowed, earlier),
		httpx.JSON(http.MethodGet, old+"preview_url", m.preview, limit, earlier),
		httpx.JSON(http.MethodGet, old+"config", m.config, limit, httpx.GuestsAllowed, earlier),
	)
}

type configAnswer struct {
	MaxUpload int64 `json:"m.upload.size"`
}

// config tells clients what may be uploaded.
// spec: client-server#get_matrixclientv1mediaconfig
func (m *Media) config(context.Context, *httpx.Caller, *struct{}) (*configAnswer, error) {
	return &configAnswer{m.Config.MaxUpload}, nil
}
