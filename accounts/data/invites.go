package data

import (
	"context"
	"encoding/json"

	"github.com/teahouse-chat/teahouse/internal/db"
	"github.com/teahouse-chat/teahouse/internal/matrix"
)

// TypeInvitePermission says whether a user wants to be invited.
const TypeInvitePermission = "m.invite_permission_config"

// BlocksInvites tells whether a user wants no invites to rooms, from anybody.
// spec: client-server#invite-permission
func (d *Data) BlocksInvites(ctx context.Context, user matrix.UserID) (bool, error) {
	content, found, err := db.One(ctx, d.db, selectContent, scanContent, user, "", TypeInvitePermission)
	if err != nil || !found {
		return false, err
	}
	var config struct {
		Action any `json:"default_action"`
	}
	// What is not understood blocks nothing.
	return json.Unmarshal(content, &config) == nil && config.Action == "block", nil
}
