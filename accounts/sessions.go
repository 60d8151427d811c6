package accounts

import (
	"context"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"github.com/teahouse-chat/teahouse/internal/db"
	"github.com/teahouse-chat/teahouse/internal/httpx"
	"github.com/teahouse-chat/teahouse/internal/matrix"
)

const (
	deviceIDLetters     = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
	deviceIDLength      = 10
	maxDisplayNameBytes = 512
)

// deviceRequest is what a client says about the session it wants.
type deviceRequest struct {
	DeviceID     string `json:"device_id"`
	DisplayName  string `json:"initial_device_display_name"`
	RefreshToken bool   `json:"refresh_token"`
}

// grant is a session with its tokens in the clear: made before the write that
// stores it, since a write may run twice.
type grant struct {
	device         matrix.DeviceID
	displayName    string
	access         string
	refresh        string // "" if the client cannot refresh
	expires        int64
	refreshExpires int64
	lifetime       time.Duration // of the access token, 0 for ever
	nid            int64
	addr           netip.Addr
	ts             int64
}

// credentials is the part of an answer that hands out a session.
type credentials struct {
	UserID       matrix.UserID     `json:"user_id"`
	HomeServer   matrix.ServerName `json:"home_server,omitempty"` // deprecated, still read by tools
	AccessToken  string            `json:"access_token,omitempty"`
	DeviceID     matrix.DeviceID   `json:"device_id,omitempty"`
	RefreshToken string            `json:"refresh_token,omitempty"`
	ExpiresInMS  int64             `json:"expires_in_ms,omitempty"`
}

func (a *Accounts) newGrant(ctx context.Context, d deviceRequest) (*grant, error) {
	if d.DeviceID == "" {
		d.DeviceID = a.secrets.letters(deviceIDLength, deviceIDLetters)
	}
	if err := checkDeviceID(d.DeviceID); err != nil {
		return nil, err
	}
	if err := checkDisplayName(d.DisplayName); err != nil {
		return nil, err
	}
	g := &grant{
		device: matrix.DeviceID(d.DeviceID), displayName: d.DisplayName, nid: a.sessionNIDs.Next(),
		addr: httpx.RemoteAddr(ctx), ts: a.nowMS(), access: a.secrets.token(accessPrefix),
	}
	if d.RefreshToken {
		g.refresh = a.secrets.token(refreshPrefix)
		g.lifetime = a.cfg.AccessTokenLifetime
		g.expires = g.ts + g.lifetime.Milliseconds()
		g.refreshExpires = g.ts + a.cfg.RefreshTokenLifetime.Milliseconds()
	}
	return g, nil
}

func checkDeviceID(id string) error {
	if len(id) > matrix.MaxIDBytes || strings.IndexByte(id, 0) >= 0 {
		return matrix.InvalidParam("A device id has at most %d bytes and no NUL", matrix.MaxIDBytes)
	}
	return nil
}

func checkDisplayName(name string) error {
	if len(name) > maxDisplayNameBytes || strings.IndexByte(name, 0) >= 0 {
		return matrix.InvalidParam("The display name of a device has at most %d bytes and no NUL", maxDisplayNameBytes)
	}
	return nil
}

func (g *grant) answer(user matrix.UserID) *credentials {
	return &credentials{
		UserID: user, HomeServer: user.Server(), AccessToken: g.access, DeviceID: g.device,
		RefreshToken: g.refresh, ExpiresInMS: g.lifetime.Milliseconds(),
	}
}

// store makes the grant the one session of its device, which is made if it is
// not there.
// spec: client-server#relationship-between-access-tokens-and-devices
func (g *grant) store(tx *db.Tx, user matrix.UserID, userNID int64) error {
	ended, err := tx.Changed(deleteSessionsOfDevice, userNID, []matrix.DeviceID{g.device})
	if err != nil {
		return err
	}
	if ended > 0 {
		tx.Publish(SessionsEnded{User: user, Devices: []matrix.DeviceID{g.device}})
	}
	if err := tx.Exec(insertDevice, userNID, g.device, g.displayName, g.ts, g.ts, addrText(g.addr)); err != nil {
		return err
	}
	return g.insert(tx, userNID, 0)
}

func (g *grant) insert(tx *db.Tx, userNID, replaces int64) error {
	access := hashToken(g.access)
	var refreshHash any
	if g.refresh != "" {
		h := hashToken(g.refresh)
		refreshHash = h[:]
	}
	return tx.Exec(insertSession, g.nid, userNID, g.device, access[:], g.expires, refreshHash, g.refreshExpires, replaces)
}

type refreshRequest struct {
	RefreshToken *string `json:"refresh_token"`
}

type refreshAnswer struct {
	AccessToken  string `json:"access_token"`
	RefreshToken string `json:"refresh_token"`
	ExpiresInMS  int64  `json:"expires_in_ms"`
}

// refresh gives new tokens for a refresh token. The old ones stay good until
// the new ones are used, so that a client that misses the answer can ask again;
// then what it was given the first time is void.
// spec: client-server#post_matrixclientv3refresh
func (a *Accounts) refresh(ctx context.Context, c *httpx.Caller, q *refreshRequest) (*refreshAnswer, error) {
	if q.RefreshToken == nil {
		return nil, matrix.MissingParam("refresh_token is missing")
	}
	hash := hashToken(*q.RefreshToken)
	g, err := a.newGrant(ctx, deviceRequest{RefreshToken: true})
	if err != nil {
		return nil, err
	}
	err = a.db.Write(ctx, func(tx *db.Tx) error {
		old, found, err := db.One(ctx, tx, sessionByRefresh, scanSession, hash[:])
		switch {
		case err != nil:
			return err
		case !found || old.deactivated:
			return matrix.UnknownToken(false)
		case old.locked:
			return userLocked()
		case a.nowMS() >= old.refreshExpires:
			return matrix.UnknownToken(true)
		}
		if old.replaces != 0 {
			if err := confirmIn(tx, old); err != nil {
				return err
			}
		}
		if err := tx.Exec(deleteUnconfirmed, old.nid, old.userNID, old.device); err != nil {
			return err
		}
		g.device = old.device
		return g.insert(tx, old.userNID, old.nid)
	})
	if err != nil {
		return nil, err
	}
	return &refreshAnswer{AccessToken: g.access, RefreshToken: g.refresh, ExpiresInMS: g.lifetime.Milliseconds()}, nil
}

// confirm ends the tokens that a refreshed session replaces, on the first use
// of its own.
func (a *Accounts) confirm(ctx context.Context, s sessionRow) error {
	return a.db.Write(ctx, func(tx *db.Tx) error { return confirmIn(tx, s) })
}

func confirmIn(tx *db.Tx, s sessionRow) error {
	if err := tx.Exec(deleteSession, s.replaces); err != nil {
		return err
	}
	tx.Publish(tokensReplaced{s.user, s.device})
	return tx.Exec(sessionConfirmed, s.nid)
}

// removeDevices deletes devices with their sessions.
func removeDevices(tx *db.Tx, user matrix.UserID, userNID int64, devices []matrix.DeviceID) error {
	if len(devices) == 0 {
		return nil
	}
	if err := tx.Exec(deleteSessionsOfDevice, userNID, devices); err != nil {
		return err
	}
	if err := tx.Exec(deleteDevices, userNID, devices); err != nil {
		return err
	}
	tx.Publish(SessionsEnded{User: user, Devices: devices, Removed: true})
	return nil
}

// removeAllDevices deletes a user's devices but the one to keep, "" for none.
func removeAllDevices(ctx context.Context, tx *db.Tx, user matrix.UserID, userNID int64, keep matrix.DeviceID) error {
	all, err := db.All(ctx, tx, selectDevices, scanDevice, userNID)
	if err != nil {
		return err
	}
	var gone []matrix.DeviceID
	for _, d := range all {
		if d.ID != keep || keep == "" {
			gone = append(gone, d.ID)
		}
	}
	return removeDevices(tx, user, userNID, gone)
}

// logout ends the caller's session and deletes its device.
// spec: client-server#post_matrixclientv3logout
func (a *Accounts) logout(ctx context.Context, c *httpx.Caller, q *struct{}) (*struct{}, error) {
	u, err := a.owner(ctx, c)
	if err != nil {
		return nil, err
	}
	if c.Device == "" {
		return nil, matrix.NewError(http.StatusForbidden, matrix.CodeForbidden, "This token is an application service's; it has no session to end")
	}
	return nil, a.db.Write(ctx, func(tx *db.Tx) error {
		return removeDevices(tx, c.User, u.nid, []matrix.DeviceID{c.Device})
	})
}

// logoutAll ends all of the caller's sessions and deletes the devices.
// spec: client-server#post_matrixclientv3logoutall
func (a *Accounts) logoutAll(ctx context.Context, c *httpx.Caller, q *struct{}) (*struct{}, error) {
	u, err := a.owner(ctx, c)
	if err != nil {
		return nil, err
	}
	return nil, a.db.Write(ctx, func(tx *db.Tx) error {
		return removeAllDevices(ctx, tx, c.User, u.nid, "")
	})
}

// owner is the caller's account.
func (a *Accounts) owner(ctx context.Context, c *httpx.Caller) (User, error) {
	u, found, err := a.userByID(ctx, a.db, c.User)
	if err == nil && !found {
		err = matrix.Forbidden("%s has no account here", c.User)
	}
	return u, err
}
