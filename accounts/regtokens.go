package accounts

import (
	"context"
	"net/http"
	"strings"
	"time"

	"github.com/teahouse-chat/teahouse/internal/db"
	"github.com/teahouse-chat/teahouse/internal/httpx"
	"github.com/teahouse-chat/teahouse/internal/matrix"
)

// RegistrationToken lets people register where the mode is "token".
type RegistrationToken struct {
	Token   string
	Uses    int64     // how many accounts it may make, Unlimited for any number
	Used    int64     // how many it has made
	Expires time.Time // zero for never
}

// Unlimited is the Uses of a token without a limit.
const Unlimited = -1

const maxRegistrationToken = 64

func (t *RegistrationToken) valid(now time.Time) bool {
	return (t.Uses == Unlimited || t.Used < t.Uses) && (t.Expires.IsZero() || now.Before(t.Expires))
}

func scanRegToken(s db.Scanner) (RegistrationToken, error) {
	var t RegistrationToken
	var expires int64
	err := s.Scan(&t.Token, &t.Uses, &t.Used, &expires)
	if expires != 0 {
		t.Expires = time.UnixMilli(expires)
	}
	return t, err
}

// validTokenText checks the grammar of a registration token.
// spec: appendices#opaque-identifiers
func validTokenText(s string) bool {
	if s == "" || len(s) > maxRegistrationToken {
		return false
	}
	return strings.IndexFunc(s, func(r rune) bool {
		return !(r >= '0' && r <= '9' || r >= 'A' && r <= 'Z' || r >= 'a' && r <= 'z' || strings.ContainsRune("-._~", r))
	}) < 0
}

// CreateRegistrationToken stores a token and returns its text, which is drawn if
// it is empty.
func (a *Accounts) CreateRegistrationToken(ctx context.Context, t RegistrationToken) (string, error) {
	if t.Token == "" {
		t.Token = a.secrets.letters(24, "ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz23456789")
	}
	if !validTokenText(t.Token) {
		return "", matrix.InvalidParam("A registration token has 1 to %d of the characters A-Z, a-z, 0-9 and -._~", maxRegistrationToken)
	}
	if t.Uses < 1 && t.Uses != Unlimited {
		return "", matrix.InvalidParam("A registration token is good for at least one use")
	}
	var expires int64
	if !t.Expires.IsZero() {
		expires = t.Expires.UnixMilli()
	}
	err := a.db.Write(ctx, func(tx *db.Tx) error {
		if _, found, err := db.One(ctx, tx, selectRegToken, scanRegToken, t.Token); err != nil {
			return err
		} else if found {
			return matrix.InvalidParam("There is such a registration token already")
		}
		return tx.Exec(insertRegToken, t.Token, t.Uses, expires, a.nowMS())
	})
	return t.Token, err
}

// RegistrationTokens lists the tokens, the oldest first.
func (a *Accounts) RegistrationTokens(ctx context.Context) ([]RegistrationToken, error) {
	return db.All(ctx, a.db, listRegTokens, scanRegToken)
}

// DeleteRegistrationToken deletes a token; 404 if there is none.
func (a *Accounts) DeleteRegistrationToken(ctx context.Context, token string) error {
	if !validTokenText(token) {
		return matrix.NotFound("There is no such registration token")
	}
	return a.db.Write(ctx, func(tx *db.Tx) error {
		n, err := tx.Changed(deleteRegToken, token)
		if err == nil && n == 0 {
			err = matrix.NotFound("There is no such registration token")
		}
		return err
	})
}

// RegistrationTokenValid tells whether an account could be made with the token
// now.
func (a *Accounts) RegistrationTokenValid(ctx context.Context, token string) (bool, error) {
	if !validTokenText(token) {
		return false, nil
	}
	t, found, err := db.One(ctx, a.db, selectRegToken, scanRegToken, token)
	return found && t.valid(a.now()), err
}

// useRegistrationToken counts one use in the transaction that makes the account.
func (a *Accounts) useRegistrationToken(ctx context.Context, tx *db.Tx, token string) error {
	t, found, err := db.One(ctx, tx, selectRegToken, scanRegToken, token)
	if err != nil {
		return err
	}
	if !found || !t.valid(a.now()) {
		return matrix.NewError(http.StatusForbidden, matrix.CodeForbidden, "The registration token was used up or has expired")
	}
	return tx.Exec(useRegToken, token)
}

type validityRequest struct {
	Token string `query:"token"`
}

type validityAnswer struct {
	Valid bool `json:"valid"`
}

// tokenValidity tells a client whether a registration token is worth trying.
// spec: client-server#get_matrixclientv1registermloginregistration_tokenvalidity
func (a *Accounts) tokenValidity(ctx context.Context, c *httpx.Caller, q *validityRequest) (*validityAnswer, error) {
	if a.cfg.Registration == ModeClosed {
		return nil, registrationClosed()
	}
	if q.Token == "" {
		return nil, matrix.MissingParam("token is missing")
	}
	valid, err := a.RegistrationTokenValid(ctx, q.Token)
	if err != nil {
		return nil, err
	}
	return &validityAnswer{valid}, nil
}
