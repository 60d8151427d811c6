package accounts

import (
	"context"
	"encoding/json"
	"net/http"

	"github.com/teahouse-chat/teahouse/internal/httpx"
	"github.com/teahouse-chat/teahouse/internal/matrix"
)

// The stages that this server knows.
// spec: client-server#authentication-types
const (
	StageDummy             = "m.login.dummy"
	StagePassword          = "m.login.password"
	StageRegistrationToken = "m.login.registration_token"
	StageTerms             = "m.login.terms"
)

// stage is one step of user-interactive authentication. verify fails with a 401
// when the client may try again, and with another status when it may not.
type stage struct {
	verify func(ctx context.Context, c *httpx.Caller, auth json.RawMessage) (proof, error)
	params func() any // nil if the client needs to know nothing
}

func (a *Accounts) stages() map[string]stage {
	none := func() any { return nil }
	return map[string]stage{
		StageDummy:             {verifyDummy, none},
		StagePassword:          {a.verifyPassword, none},
		StageRegistrationToken: {a.verifyRegistrationToken, none},
		StageTerms:             {a.verifyTerms, a.termsParams},
	}
}

// registrationFlows are what /register asks of people.
func (a *Accounts) registrationFlows() []Flow {
	var f Flow
	if a.cfg.Registration == ModeToken {
		f = append(f, StageRegistrationToken)
	}
	if len(a.cfg.Terms) > 0 {
		f = append(f, StageTerms)
	}
	if len(f) == 0 {
		f = Flow{StageDummy}
	}
	return []Flow{f}
}

func verifyDummy(context.Context, *httpx.Caller, json.RawMessage) (proof, error) { return proof{}, nil }

type passwordAuth struct {
	userRef
	Password string `json:"password"`
}

// verifyPassword checks that the caller, and nobody else, knows the password.
// spec: client-server#password-based
func (a *Accounts) verifyPassword(ctx context.Context, c *httpx.Caller, auth json.RawMessage) (proof, error) {
	var in passwordAuth
	if err := json.Unmarshal(auth, &in); err != nil {
		return proof{}, matrix.BadJSON("auth must be an object with an identifier and a password").Because(err)
	}
	name, err := in.name()
	if err != nil {
		return proof{}, err
	}
	u, found, err := a.resolve(ctx, name)
	if err != nil {
		return proof{}, err
	}
	if !found || u.ID != c.User {
		return proof{}, matrix.Forbidden("Authenticate as %s, who makes the request", c.User)
	}
	if err := a.checkPassword(ctx, "uia "+string(u.ID), u, in.Password); err != nil {
		if matrix.HasCode(err, matrix.CodeForbidden) {
			return proof{}, matrix.NewError(http.StatusUnauthorized, matrix.CodeForbidden, "Wrong password")
		}
		return proof{}, err
	}
	return proof{}, nil
}

// verifyRegistrationToken checks that the token is good now; it is used up when
// the account is made.
// spec: client-server#token-authenticated-registration
func (a *Accounts) verifyRegistrationToken(ctx context.Context, c *httpx.Caller, auth json.RawMessage) (proof, error) {
	var in struct {
		Token string `json:"token"`
	}
	if err := json.Unmarshal(auth, &in); err != nil {
		return proof{}, matrix.BadJSON("auth must be an object with a token").Because(err)
	}
	valid, err := a.RegistrationTokenValid(ctx, in.Token)
	if err != nil {
		return proof{}, err
	}
	if !valid {
		return proof{}, matrix.NewError(http.StatusUnauthorized, matrix.CodeUnauthorized, "The registration token is not valid")
	}
	return proof{registrationToken: in.Token}, nil
}

// verifyTerms notes which versions the user has accepted.
// spec: client-server#terms-of-service-at-registration
func (a *Accounts) verifyTerms(context.Context, *httpx.Caller, json.RawMessage) (proof, error) {
	versions := make(map[string]string, len(a.cfg.Terms))
	for _, p := range a.cfg.Terms {
		versions[p.ID] = p.Version
	}
	accepted, err := json.Marshal(versions)
	return proof{terms: string(accepted)}, err
}

func (a *Accounts) termsParams() any {
	policies := make(map[string]any, len(a.cfg.Terms))
	for _, p := range a.cfg.Terms {
		policy := map[string]any{"version": p.Version}
		for language, d := range p.Documents {
			policy[language] = d
		}
		policies[p.ID] = policy
	}
	return map[string]any{"policies": policies}
}
