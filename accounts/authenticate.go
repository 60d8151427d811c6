package accounts

import (
	"context"
	"net/http"
	"strings"

	"github.com/teahouse-chat/teahouse/internal/db"
	"github.com/teahouse-chat/teahouse/internal/httpx"
	"github.com/teahouse-chat/teahouse/internal/matrix"
)

// Authenticate finds the caller behind an access token; it makes *Accounts an
// httpx.Authenticator. A session that was used lately costs no read.
// spec: client-server#using-access-tokens
func (a *Accounts) Authenticate(ctx context.Context, r *http.Request, token string) (*httpx.Caller, error) {
	if a.appservices != nil {
		if service, ok := a.appservices.ByToken(token); ok {
			return a.assertIdentity(ctx, r, service)
		}
	}
	endpoint := postEndpoint(r)
	if endpoint == "login" || endpoint == "register" {
		// Only a service's token means something here. A client that logs in
		// anew may well still send the token that it has lost.
		return &httpx.Caller{Token: hashToken(token).String()}, nil
	}
	s, err := a.session(ctx, hashToken(token))
	if err != nil {
		return nil, err
	}
	now := a.nowMS()
	if s.expires != 0 && now >= s.expires {
		// spec: client-server#refreshing-access-tokens
		return nil, matrix.UnknownToken(true)
	}
	// spec: client-server#account-locking
	if s.locked && endpoint != "logout" && endpoint != "logout/all" {
		return nil, userLocked()
	}
	a.seen.note(s, now, httpx.RemoteAddr(ctx))
	return &s.caller, nil
}

// session returns the session of a token from the cache or the database.
func (a *Accounts) session(ctx context.Context, h tokenHash) (*session, error) {
	for {
		s, generation := a.cache.get(h)
		if s != nil {
			return s, nil
		}
		row, found, err := db.One(ctx, a.db, sessionByAccess, scanSession, h[:])
		if err != nil {
			return nil, err
		}
		if !found || row.deactivated {
			return nil, matrix.UnknownToken(false)
		}
		if row.replaces != 0 {
			if err := a.confirm(ctx, row); err != nil {
				return nil, err
			}
			continue
		}
		s = &session{
			caller: httpx.Caller{
				User: row.user, Device: row.device, Token: h.String(), Guest: row.guest, Admin: row.admin,
			},
			userNID: row.userNID, expires: row.expires, locked: row.locked,
		}
		if a.cache.offer(h, s, generation) {
			return s, nil
		}
	}
}

// Alive tells whether a caller's session still is one. A long poll asks once it
// is registered where OnLogout ends it: the session may have ended after the
// request was authenticated and before that. It reads nothing while it is.
func (a *Accounts) Alive(ctx context.Context, c *httpx.Caller) (bool, error) {
	if c.Token == "" { // an application service's
		return true, nil
	}
	h, err := parseTokenHash(c.Token)
	if err != nil {
		return false, err
	}
	s, err := a.session(ctx, h)
	if matrix.HasCode(err, matrix.CodeUnknownToken) {
		return false, nil
	}
	return err == nil && !s.locked, err
}

// postEndpoint is the path of a POST request to the client API after the
// version, "" for any other request.
func postEndpoint(r *http.Request) string {
	rest, ok := strings.CutPrefix(r.URL.Path, "/_matrix/client/")
	if !ok || r.Method != http.MethodPost {
		return ""
	}
	_, endpoint, _ := strings.Cut(rest, "/")
	return endpoint
}

// userLocked tells a client to keep what it has until the account is unlocked.
func userLocked() *matrix.Error {
	return matrix.NewError(http.StatusUnauthorized, matrix.CodeUserLocked,
		"This account has been locked; ask the server's administrators").With("soft_logout", true)
}
