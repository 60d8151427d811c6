package discovery

import (
	"context"

	"github.com/teahouse-chat/teahouse/internal/httpx"
	"github.com/teahouse-chat/teahouse/rooms/event"
)

type capabilitiesAnswer struct {
	Capabilities map[string]any `json:"capabilities"`
}

type enabled struct {
	Enabled bool `json:"enabled"`
}

type roomVersions struct {
	Default   string            `json:"default"`
	Available map[string]string `json:"available"`
}

// spec: client-server#capabilities-negotiation
func capabilitiesOf(d Deps) map[string]any {
	versions := roomVersions{Default: d.DefaultRoomVersion, Available: make(map[string]string)}
	for _, v := range event.Versions() {
		versions.Available[v.ID] = "unstable"
		if v.Stable {
			versions.Available[v.ID] = "stable"
		}
	}
	return map[string]any{
		"m.room_versions":            versions,
		"m.change_password":          enabled{d.PasswordChanges},
		"m.get_login_token":          enabled{d.LoginTokens},
		"m.profile_fields":           enabled{true},
		"m.set_displayname":          enabled{true},
		"m.set_avatar_url":           enabled{true},
		"m.3pid_changes":             enabled{false},
		"m.forget_forced_upon_leave": enabled{false},
	}
}

// spec: client-server#get_matrixclientv3capabilities
func (s *Discovery) getCapabilities(context.Context, *httpx.Caller, *nothing) (*capabilitiesAnswer, error) {
	return &s.capabilities, nil
}
