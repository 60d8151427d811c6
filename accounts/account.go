package accounts

import (
	"context"
	"encoding/json"

	"github.com/teahouse-chat/teahouse/internal/db"
	"github.com/teahouse-chat/teahouse/internal/httpx"
	"github.com/teahouse-chat/teahouse/internal/matrix"
)

type whoamiAnswer struct {
	UserID   matrix.UserID   `json:"user_id"`
	DeviceID matrix.DeviceID `json:"device_id,omitempty"`
	IsGuest  bool            `json:"is_guest"`
}

// whoami tells whom a token belongs to.
// spec: client-server#get_matrixclientv3accountwhoami
func (a *Accounts) whoami(_ context.Context, c *httpx.Caller, _ *struct{}) (*whoamiAnswer, error) {
	return &whoamiAnswer{c.User, c.Device, c.Guest}, nil
}

type passwordRequest struct {
	NewPassword   *string         `json:"new_password"`
	LogoutDevices *bool           `json:"logout_devices"`
	Auth          json.RawMessage `json:"auth"`
	Body          json.RawMessage `body:"raw"`
}

// changePassword sets the caller's password. The caller's own session stays.
// spec: client-server#post_matrixclientv3accountpassword
func (a *Accounts) changePassword(ctx context.Context, c *httpx.Caller, q *passwordRequest) (*struct{}, error) {
	if q.NewPassword == nil {
		return nil, matrix.MissingParam("new_password is missing")
	}
	if err := checkNewPassword(*q.NewPassword); err != nil {
		return nil, err
	}
	if err := a.UIA.Require(ctx, c, UIARequest{"POST account/password", q.Body}, q.Auth, passwordFlow); err != nil {
		return nil, err
	}
	logout := q.LogoutDevices == nil || *q.LogoutDevices
	return nil, a.setPassword(ctx, c.User, *q.NewPassword, logout, c.Device)
}

// setPassword stores a password, and with logout deletes the devices but the one
// to keep.
func (a *Accounts) setPassword(ctx context.Context, user matrix.UserID, password string, logout bool, keep matrix.DeviceID) error {
	encoded, err := a.hasher.hash(ctx, password)
	if err != nil {
		return err
	}
	return a.change(ctx, user, func(tx *db.Tx, u User) error {
		if u.Deactivated {
			return matrix.Forbidden("%s has been deactivated", user)
		}
		if err := tx.Exec(updatePassword, encoded, u.nid); err != nil {
			return err
		}
		if err := tx.Exec(revokeLoginTokens, u.nid); err != nil {
			return err
		}
		if !logout {
			return nil
		}
		return removeAllDevices(ctx, tx, user, u.nid, keep)
	})
}

// change runs op on an account in a write; 404 if there is none.
func (a *Accounts) change(ctx context.Context, user matrix.UserID, op func(tx *db.Tx, u User) error) error {
	return a.db.Write(ctx, func(tx *db.Tx) error {
		u, found, err := a.userByID(ctx, tx, user)
		if err != nil {
			return err
		}
		if !found {
			return matrix.NotFound("There is no account %s on this server", user)
		}
		return op(tx, u)
	})
}

type deactivateRequest struct {
	Erase bool            `json:"erase"`
	Auth  json.RawMessage `json:"auth"`
	Body  json.RawMessage `body:"raw"`
}

type deactivateAnswer struct {
	Unbound string `json:"id_server_unbind_result"`
}

// deactivate ends the caller's account. There are no third-party identifiers
// here, so that all of them count as unbound.
// spec: client-server#post_matrixclientv3accountdeactivate
func (a *Accounts) deactivate(ctx context.Context, c *httpx.Caller, q *deactivateRequest) (*deactivateAnswer, error) {
	if c.Appservice == "" {
		if err := a.UIA.Require(ctx, c, UIARequest{"POST account/deactivate", q.Body}, q.Auth, passwordFlow); err != nil {
			return nil, err
		}
	}
	if err := a.Deactivate(ctx, c.User, q.Erase); err != nil {
		return nil, err
	}
	return &deactivateAnswer{"success"}, nil
}

// Deactivate ends an account for good: no password, no session, no room. With
// erase its events are to be served redacted, and its data is removed.
func (a *Accounts) Deactivate(ctx context.Context, user matrix.UserID, erase bool) error {
	var leaving User
	ctx = context.WithoutCancel(ctx) // what is begun is finished, whether the client waits or not
	err := a.change(ctx, user, func(tx *db.Tx, u User) error {
		leaving = u
		if err := tx.Exec(deactivateUser, erase, u.nid); err != nil {
			return err
		}
		if err := tx.Exec(revokeLoginTokens, u.nid); err != nil {
			return err
		}
		tx.Publish(AccountChanged{User: user, Locked: u.Locked, Deactivated: true})
		return removeAllDevices(ctx, tx, user, u.nid, "")
	})
	if err != nil {
		return err
	}
	leaving.Erased = leaving.Erased || erase
	if err := a.depart(ctx, leaving); err != nil {
		a.log.Error("The account is deactivated, but has not left everything; it is tried again", "user", user, "error", err)
	}
	return nil
}

// depart makes a deactivated user leave the rooms and the other features.
func (a *Accounts) depart(ctx context.Context, u User) error {
	if a.rooms != nil {
		if err := a.rooms.LeaveAll(ctx, u.ID); err != nil {
			return err
		}
	}
	if a.hooks.Deactivated != nil {
		if err := a.hooks.Deactivated(ctx, u.ID, u.Erased); err != nil {
			return err
		}
	}
	return a.db.Write(ctx, func(tx *db.Tx) error { return tx.Exec(updateDeparted, u.nid) })
}

// resumeDepartures finishes the deactivations that failed or were cut short.
func (a *Accounts) resumeDepartures(ctx context.Context) error {
	unfinished, err := db.All(ctx, a.db, departing, scanUser)
	if err != nil {
		return err
	}
	for _, u := range unfinished {
		if err := a.depart(ctx, u); err != nil {
			return err
		}
	}
	return nil
}
