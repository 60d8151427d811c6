package accounts

import (
	"context"

	"github.com/teahouse-chat/teahouse/internal/db"
	"github.com/teahouse-chat/teahouse/internal/matrix"
)

// NewAccount is what AddUser makes.
type NewAccount struct {
	Name        string // localpart
	Password    string // "" for an account that cannot log in by password
	DisplayName string
	Admin       bool
}

// AddUser makes an account, whatever the registration mode.
func (a *Accounts) AddUser(ctx context.Context, n NewAccount) (matrix.UserID, error) {
	id, err := a.newUserID(n.Name)
	if err != nil {
		return "", err
	}
	u := newUser{id: id, admin: n.Admin, displayName: n.DisplayName}
	if n.Password != "" {
		if err := checkNewPassword(n.Password); err != nil {
			return "", err
		}
		if u.password, err = a.hasher.hash(ctx, n.Password); err != nil {
			return "", err
		}
	}
	_, err = a.create(ctx, u)
	return id, err
}

// SetPassword sets a password and, with logout, ends all of the user's sessions.
func (a *Accounts) SetPassword(ctx context.Context, user matrix.UserID, password string, logout bool) error {
	if err := checkNewPassword(password); err != nil {
		return err
	}
	return a.setPassword(ctx, user, password, logout, "")
}

// SetAdmin makes the user an administrator, or no longer one.
func (a *Accounts) SetAdmin(ctx context.Context, user matrix.UserID, admin bool) error {
	return a.change(ctx, user, func(tx *db.Tx, u User) error {
		tx.Publish(AccountChanged{User: user, Locked: u.Locked, Deactivated: u.Deactivated})
		return tx.Exec(updateAdmin, admin, u.nid)
	})
}

// SetLocked locks an account, or unlocks it. Its sessions stay, of no use while
// it is locked.
// spec: client-server#account-locking
func (a *Accounts) SetLocked(ctx context.Context, user matrix.UserID, locked bool) error {
	return a.change(ctx, user, func(tx *db.Tx, u User) error {
		tx.Publish(AccountChanged{User: user, Locked: locked, Deactivated: u.Deactivated})
		return tx.Exec(updateLocked, locked, u.nid)
	})
}

// User gives an account.
func (a *Accounts) User(ctx context.Context, id matrix.UserID) (User, bool, error) {
	return a.userByID(ctx, a.db, id)
}

// Users lists up to limit accounts whose ids come after the given one.
func (a *Accounts) Users(ctx context.Context, after matrix.UserID, limit int) ([]User, error) {
	return db.All(ctx, a.db, listUsers, scanUser, after, limit)
}

// Devices lists a user's devices.
func (a *Accounts) Devices(ctx context.Context, user matrix.UserID) ([]Device, error) {
	u, found, err := a.userByID(ctx, a.db, user)
	if err != nil || !found {
		return nil, err
	}
	return db.All(ctx, a.db, selectDevices, scanDevice, u.nid)
}

// Erased finds those of the users who asked for their content to be erased.
// spec: client-server#post_matrixclientv3accountdeactivate
func (a *Accounts) Erased(ctx context.Context, users []matrix.UserID) (map[matrix.UserID]bool, error) {
	ids, err := db.All(ctx, a.db, erasedOf, func(s db.Scanner) (id matrix.UserID, err error) {
		err = s.Scan(&id)
		return id, err
	}, users)
	erased := make(map[matrix.UserID]bool, len(ids))
	for _, id := range ids {
		erased[id] = true
	}
	return erased, err
}
