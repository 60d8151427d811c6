package accounts

import (
	"context"
	"strings"

	"github.com/teahouse-chat/teahouse/internal/db"
	"github.com/teahouse-chat/teahouse/internal/matrix"
)

// userRef names a user in one of the ways that clients do.
// spec: client-server#identifier-types
type userRef struct {
	Identifier *identifier `json:"identifier"`
	User       string      `json:"user"` // deprecated in favour of identifier
	Address    string      `json:"address"`
}

type identifier struct {
	Type    string `json:"type"`
	User    string `json:"user"`
	Medium  string `json:"medium"`
	Address string `json:"address"`
}

// name returns the user id or localpart, "" for a third-party identifier: none
// is known here, and an unknown one is answered like a wrong password.
func (r *userRef) name() (string, error) {
	switch {
	case r.Identifier == nil && r.User != "":
		return r.User, nil
	case r.Identifier == nil && r.Address != "":
		return "", nil
	case r.Identifier == nil:
		return "", matrix.MissingParam("identifier is missing")
	}
	switch r.Identifier.Type {
	case "m.id.user":
		if r.Identifier.User == "" {
			return "", matrix.MissingParam("identifier.user is missing")
		}
		return r.Identifier.User, nil
	case "m.id.thirdparty", "m.id.phone":
		return "", nil
	case "":
		if r.Identifier.Address != "" { // the specification's own example has no type
			return "", nil
		}
		return "", matrix.MissingParam("identifier.type is missing")
	}
	return "", matrix.InvalidParam("Identifiers of type %q are not supported; use m.id.user", r.Identifier.Type)
}

// userIDs lists the ids that a name may stand for, the likeliest first. User
// ids compare exactly, and historical ones have capitals; people type capitals
// where there are none.
func (a *Accounts) userIDs(name string) []matrix.UserID {
	if !strings.HasPrefix(name, "@") {
		name = "@" + name + ":" + string(a.server)
	}
	id, err := matrix.ParseUserID(name)
	if err != nil || id.Server() != a.server {
		return nil
	}
	if lower := matrix.NewUserID(strings.ToLower(id.Localpart()), a.server); lower != id {
		return []matrix.UserID{id, lower}
	}
	return []matrix.UserID{id}
}

// resolve finds the local account that a name stands for.
func (a *Accounts) resolve(ctx context.Context, name string) (User, bool, error) {
	for _, id := range a.userIDs(name) {
		u, found, err := a.userByID(ctx, a.db, id)
		if found || err != nil {
			return u, found, err
		}
	}
	return User{}, false, nil
}

// wrongPassword is the one answer to every failed login.
func wrongPassword() error { return matrix.Forbidden("Invalid username or password") }

// checkPassword checks a password against an account, which may be the zero
// User: then it fails just the same. key names the account in the failure limit.
func (a *Accounts) checkPassword(ctx context.Context, key string, u User, password string) error {
	if err := a.failures.attempt(key, a.now()); err != nil {
		return err
	}
	ok, stale, err := a.hasher.verify(ctx, u.password, password)
	if err != nil {
		return err
	}
	if !ok {
		return wrongPassword()
	}
	a.failures.forgive(key)
	if stale {
		a.rehash(ctx, u, password)
	}
	return nil
}

// rehash replaces a hash that has other parameters than the configuration. It
// can fail: the next login does it again.
func (a *Accounts) rehash(ctx context.Context, u User, password string) {
	encoded, err := a.hasher.hash(ctx, password)
	if err == nil {
		err = a.db.Write(ctx, func(tx *db.Tx) error { return tx.Exec(upgradeHash, encoded, u.nid, u.password) })
	}
	if err != nil {
		a.log.Warn("Cannot renew a password hash", "user", u.ID, "error", err)
	}
}
