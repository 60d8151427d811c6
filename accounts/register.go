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

type registerRequest struct {
	Kind         string  `query:"kind"`
	Type         string  `json:"type"`
	Username     *string `json:"username"`
	Password     *string `json:"password"`
	InhibitLogin bool    `json:"inhibit_login"`
	deviceRequest
	Auth json.RawMessage `json:"auth"`
}

// register makes an account.
// spec: client-server#post_matrixclientv3register
func (a *Accounts) register(ctx context.Context, c *httpx.Caller, q *registerRequest) (*credentials, error) {
	switch q.Kind {
	case "", "user":
	case "guest":
		return a.registerGuest(ctx, q)
	default:
		return nil, matrix.InvalidParam("kind must be user or guest")
	}
	if q.Type == loginAppservice {
		return a.registerByService(ctx, c, q)
	}
	if a.cfg.Registration == ModeClosed {
		return nil, registrationClosed()
	}
	n, err := a.newPerson(ctx, q)
	if err != nil {
		return nil, err
	}
	p, err := a.UIA.require(ctx, &httpx.Caller{}, a.registration(q), q.Auth, a.registrationFlows())
	if err != nil {
		return nil, err
	}
	n.proof = p
	if n.password, err = a.hasher.hash(ctx, *q.Password); err != nil {
		return nil, err
	}
	return a.create(ctx, n)
}

// registration is what the authentication is for: the name alone, since clients
// vary the rest. A session that a client began to learn the flows, before its
// user had chosen a name, is good for any.
func (a *Accounts) registration(q *registerRequest) UIARequest {
	r := UIARequest{Endpoint: "POST register"}
	if q.Username != nil && !a.UIA.begun(r, q.Auth) {
		r.Body, _ = json.Marshal(map[string]string{"username": *q.Username}) // a string always can be
	}
	return r
}

// newPerson checks all that can be checked before the authentication.
func (a *Accounts) newPerson(ctx context.Context, q *registerRequest) (newUser, error) {
	n := newUser{id: a.generatedID()}
	if q.Username != nil && *q.Username != "" {
		var err error
		if n.id, err = a.newUserID(*q.Username); err != nil {
			return n, err
		}
		if err := a.available(ctx, n.id, ""); err != nil {
			return n, err
		}
	}
	if q.Password == nil && !absent(q.Auth) {
		return n, matrix.MissingParam("password is missing")
	}
	if q.Password != nil {
		if err := checkNewPassword(*q.Password); err != nil {
			return n, err
		}
	}
	return n, a.addGrant(ctx, &n, q)
}

// addGrant adds the session that registration begins, unless it is not wanted.
func (a *Accounts) addGrant(ctx context.Context, n *newUser, q *registerRequest) (err error) {
	if !q.InhibitLogin {
		n.grant, err = a.newGrant(ctx, q.deviceRequest)
	}
	return err
}

// registerGuest makes an account that can do little. What the client asks for
// is ignored but for the name of its device.
// spec: client-server#guest-access
func (a *Accounts) registerGuest(ctx context.Context, q *registerRequest) (*credentials, error) {
	if !a.cfg.Guests {
		return nil, matrix.Forbidden("Guests are not allowed on this server")
	}
	g, err := a.newGrant(ctx, deviceRequest{DisplayName: q.DisplayName})
	if err != nil {
		return nil, err
	}
	id := matrix.NewUserID(a.secrets.number(), a.server)
	return a.create(ctx, newUser{id: id, guest: true, grant: g})
}

// registerByService makes an account in an application service's namespace.
// spec: application-service#server-admin-style-permissions
func (a *Accounts) registerByService(ctx context.Context, c *httpx.Caller, q *registerRequest) (*credentials, error) {
	if c.Appservice == "" {
		return nil, noService(c)
	}
	if q.Username == nil || *q.Username == "" {
		return nil, matrix.MissingParam("username is missing")
	}
	if !matrix.ValidNewLocalpart(*q.Username) {
		return nil, invalidUsername("A user name has only the characters a-z, 0-9 and ._=-/+")
	}
	n := newUser{id: matrix.NewUserID(*q.Username, a.server), appservice: c.Appservice}
	if len(n.id) > matrix.MaxIDBytes {
		return nil, invalidUsername("The user name is too long")
	}
	if !a.appservices.Covers(c.Appservice, n.id) {
		return nil, exclusive()
	}
	if err := a.available(ctx, n.id, c.Appservice); err != nil {
		return nil, err
	}
	if err := a.addGrant(ctx, &n, q); err != nil {
		return nil, err
	}
	return a.create(ctx, n)
}

// newUser is an account to be made.
type newUser struct {
	id          matrix.UserID
	password    string // encoded hash, "" for none
	displayName string
	guest       bool
	admin       bool
	appservice  string
	proof       proof
	grant       *grant // nil: no session
}

// create stores the account, with its first session if it has one.
func (a *Accounts) create(ctx context.Context, n newUser) (*credentials, error) {
	nid := a.userNIDs.Next()
	ctx = context.WithoutCancel(ctx) // an account that is made gets all that belongs to it
	err := a.db.Write(ctx, func(tx *db.Tx) error {
		if _, taken, err := a.userByID(ctx, tx, n.id); err != nil {
			return err
		} else if taken {
			return userInUse()
		}
		if t := n.proof.registrationToken; t != "" {
			if err := a.useRegistrationToken(ctx, tx, t); err != nil {
				return err
			}
		}
		if err := tx.Exec(insertUser, nid, n.id, n.password, a.nowMS(), n.guest, n.admin, n.appservice, n.proof.terms); err != nil {
			return err
		}
		if n.grant == nil {
			return nil
		}
		return n.grant.store(tx, n.id, nid)
	})
	if db.IsUnique(err) {
		err = userInUse().Because(err)
	}
	if err != nil {
		return nil, err
	}
	if a.hooks.Registered != nil && !n.guest {
		if err := a.hooks.Registered(ctx, n.id, n.displayName); err != nil {
			a.log.Error("The account was made, but not everything that belongs to it", "user", n.id, "error", err)
		}
	}
	if n.grant == nil {
		return &credentials{UserID: n.id, HomeServer: a.server}, nil
	}
	return n.grant.answer(n.id), nil
}

type availableRequest struct {
	Username string `query:"username"`
}

type availableAnswer struct {
	Available bool `json:"available"`
}

// checkAvailable tells whether a name can be registered. While nobody can
// register it tells nothing.
// spec: client-server#get_matrixclientv3registeravailable
func (a *Accounts) checkAvailable(ctx context.Context, c *httpx.Caller, q *availableRequest) (*availableAnswer, error) {
	if a.cfg.Registration == ModeClosed {
		return nil, registrationClosed()
	}
	if q.Username == "" {
		return nil, matrix.MissingParam("username is missing")
	}
	id, err := a.newUserID(q.Username)
	if err != nil {
		return nil, err
	}
	if err := a.available(ctx, id, ""); err != nil {
		return nil, err
	}
	return &availableAnswer{true}, nil
}

// available refuses an id that is taken, or claimed by a service other than the
// one that asks.
func (a *Accounts) available(ctx context.Context, id matrix.UserID, service string) error {
	if a.claimedByOther(service, id) {
		return exclusive()
	}
	_, taken, err := a.userByID(ctx, a.db, id)
	if taken {
		return userInUse()
	}
	return err
}

// newUserID makes the id that a person gets for the name asked for. Capitals
// become small letters. Names of digits are the guests', and names that begin
// with an underscore are by custom those of application services.
// spec: client-server#user-identifiers
func (a *Accounts) newUserID(name string) (matrix.UserID, error) {
	local := strings.Map(func(r rune) rune {
		if r >= 'A' && r <= 'Z' {
			return r + 'a' - 'A'
		}
		return r
	}, name)
	id := matrix.NewUserID(local, a.server)
	switch {
	case !matrix.ValidNewLocalpart(local):
		return "", invalidUsername("A user name has only the characters a-z, 0-9 and ._=-/+")
	case len(id) > matrix.MaxIDBytes:
		return "", invalidUsername("The user name is too long")
	case local[0] == '_':
		return "", invalidUsername("A user name does not begin with _")
	case strings.Trim(local, "0123456789") == "":
		return "", invalidUsername("Names of nothing but digits are reserved for guests")
	}
	return id, nil
}

func (a *Accounts) generatedID() matrix.UserID {
	return matrix.NewUserID("u"+a.secrets.letters(14, "abcdefghijklmnopqrstuvwxyz234567"), a.server)
}

func invalidUsername(text string) *matrix.Error {
	return matrix.NewError(http.StatusBadRequest, matrix.CodeInvalidUsername, "%s", text)
}

func userInUse() *matrix.Error {
	return matrix.NewError(http.StatusBadRequest, matrix.CodeUserInUse, "This user name is taken; choose another")
}

func exclusive() *matrix.Error {
	return matrix.NewError(http.StatusBadRequest, matrix.CodeExclusive, "This user name belongs to an application service")
}

func registrationClosed() *matrix.Error {
	return matrix.Forbidden("Registration is closed on this server")
}
