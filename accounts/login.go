package accounts

import (
	"context"
	"encoding/json"
	"net/http"
	"strings"

	"github.com/teahouse-chat/teahouse/internal/db"
	"github.com/teahouse-chat/teahouse/internal/httpx"
	"github.com/teahouse-chat/teahouse/internal/matrix"
)

// The ways to log in.
// spec: client-server#legacy-login
const (
	loginPassword   = "m.login.password"
	loginToken      = "m.login.token"
	loginAppservice = "m.login.application_service"
)

type loginFlow struct {
	Type          string `json:"type"`
	GetLoginToken bool   `json:"get_login_token,omitempty"`
}

type loginFlows struct {
	Flows []loginFlow `json:"flows"`
}

// loginFlows lists the ways to log in.
// spec: client-server#get_matrixclientv3login
func (a *Accounts) loginFlows(context.Context, *httpx.Caller, *struct{}) (*loginFlows, error) {
	return &loginFlows{[]loginFlow{
		{Type: loginPassword},
		{Type: loginToken, GetLoginToken: true},
		{Type: loginAppservice},
	}}, nil
}

type loginRequest struct {
	Type string `json:"type"`
	userRef
	Password string `json:"password"`
	Token    string `json:"token"`
	deviceRequest
}

// login gives a new session.
// spec: client-server#post_matrixclientv3login
func (a *Accounts) login(ctx context.Context, c *httpx.Caller, q *loginRequest) (*credentials, error) {
	switch q.Type {
	case "":
		return nil, matrix.MissingParam("type is missing")
	case loginPassword, loginToken, loginAppservice:
	default:
		return nil, matrix.NewError(http.StatusBadRequest, matrix.CodeUnknown, "Unknown login type; GET /login lists the known ones")
	}
	g, err := a.newGrant(ctx, q.deviceRequest)
	if err != nil {
		return nil, err
	}
	switch q.Type {
	case loginToken:
		return a.loginByToken(ctx, q.Token, g)
	case loginAppservice:
		return a.loginByService(ctx, c, q, g)
	}
	return a.loginByPassword(ctx, q, g)
}

func (a *Accounts) loginByPassword(ctx context.Context, q *loginRequest, g *grant) (*credentials, error) {
	name, err := q.name()
	if err != nil {
		return nil, err
	}
	u, _, err := a.resolve(ctx, name)
	if err != nil {
		return nil, err
	}
	if err := a.checkPassword(ctx, a.failureKey(name), u, q.Password); err != nil {
		return nil, err
	}
	return a.begin(ctx, u.ID, g)
}

// failureKey is under what a name's failures are counted: the same for all the
// spellings that lead to one account.
func (a *Accounts) failureKey(name string) string {
	if ids := a.userIDs(name); len(ids) > 0 {
		return strings.ToLower(string(ids[0]))
	}
	return strings.ToLower(name[:min(len(name), matrix.MaxIDBytes)])
}

// begin stores the session of a user who has proved to be one.
func (a *Accounts) begin(ctx context.Context, user matrix.UserID, g *grant) (*credentials, error) {
	err := a.db.Write(ctx, func(tx *db.Tx) error { return a.beginIn(ctx, tx, user, g) })
	if err != nil {
		return nil, err
	}
	return g.answer(user), nil
}

func (a *Accounts) beginIn(ctx context.Context, tx *db.Tx, user matrix.UserID, g *grant) error {
	u, found, err := a.userByID(ctx, tx, user)
	switch {
	case err != nil:
		return err
	case !found || u.Deactivated:
		return wrongPassword()
	case u.Locked:
		return userLocked()
	}
	return g.store(tx, u.ID, u.nid)
}

// loginByToken uses a login token up.
// spec: client-server#legacy-login
func (a *Accounts) loginByToken(ctx context.Context, token string, g *grant) (*credentials, error) {
	hash := hashToken(token)
	var user matrix.UserID
	err := a.db.Write(ctx, func(tx *db.Tx) error {
		t, found, err := db.One(ctx, tx, selectLoginToken, scanLoginToken, hash[:])
		if err != nil {
			return err
		}
		if !found || a.nowMS() >= t.expires {
			return matrix.Forbidden("The login token is not valid, or was used")
		}
		user = t.user
		if err := tx.Exec(deleteLoginToken, hash[:]); err != nil {
			return err
		}
		return a.beginIn(ctx, tx, user, g)
	})
	if err != nil {
		return nil, err
	}
	return g.answer(user), nil
}

// loginByService logs in a user of an application service.
// spec: client-server#appservice-login
func (a *Accounts) loginByService(ctx context.Context, c *httpx.Caller, q *loginRequest, g *grant) (*credentials, error) {
	if c.Appservice == "" {
		return nil, noService(c)
	}
	name, err := q.name()
	if err != nil {
		return nil, err
	}
	u, found, err := a.resolve(ctx, name)
	if err != nil {
		return nil, err
	}
	for _, id := range a.userIDs(name) {
		if !a.appservices.Covers(c.Appservice, id) {
			return nil, matrix.NewError(http.StatusForbidden, matrix.CodeExclusive, "The user is not in a namespace of the application service")
		}
	}
	if !found {
		return nil, matrix.Forbidden("The application service has not registered this user")
	}
	return a.begin(ctx, u.ID, g)
}

type loginTokenRow struct {
	expires int64
	user    matrix.UserID
}

func scanLoginToken(s db.Scanner) (loginTokenRow, error) {
	var r loginTokenRow
	err := s.Scan(&r.expires, &r.user)
	return r, err
}

type getTokenRequest struct {
	Auth json.RawMessage `json:"auth"`
	Body json.RawMessage `body:"raw"`
}

type getTokenAnswer struct {
	LoginToken  string `json:"login_token"`
	ExpiresInMS int64  `json:"expires_in_ms"`
}

// getLoginToken gives a token with which one more client can log in. The user
// has to confirm each one.
// spec: client-server#post_matrixclientv1loginget_token
func (a *Accounts) getLoginToken(ctx context.Context, c *httpx.Caller, q *getTokenRequest) (*getTokenAnswer, error) {
	if c.Appservice != "" {
		return nil, matrix.Forbidden("An application service logs in by itself")
	}
	if err := a.UIA.Require(ctx, c, UIARequest{"POST login/get_token", q.Body}, q.Auth, passwordFlow); err != nil {
		return nil, err
	}
	u, err := a.owner(ctx, c)
	if err != nil {
		return nil, err
	}
	token := a.secrets.token(loginPrefix)
	hash := hashToken(token)
	err = a.db.Write(ctx, func(tx *db.Tx) error {
		now := a.nowMS()
		if err := tx.Exec(pruneLoginTokens, now); err != nil {
			return err
		}
		return tx.Exec(insertLoginToken, hash[:], u.nid, now+a.cfg.LoginTokenLifetime.Milliseconds())
	})
	if err != nil {
		return nil, err
	}
	return &getTokenAnswer{token, a.cfg.LoginTokenLifetime.Milliseconds()}, nil
}
