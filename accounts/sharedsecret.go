package accounts

import (
	"context"
	"crypto/hmac"
	"crypto/sha1"
	"encoding/hex"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/teahouse-chat/teahouse/internal/httpx"
	"github.com/teahouse-chat/teahouse/internal/matrix"
)

const (
	nonceLifetime = time.Minute
	maxNonces     = 1000
)

// nonces are the numbers that a shared-secret registration is signed with. Each
// is good once.
type nonces struct {
	mu    sync.Mutex
	until map[string]time.Time
	order []string // oldest first
}

func newNonces() *nonces { return &nonces{until: make(map[string]time.Time)} }

func (n *nonces) add(nonce string, now time.Time) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for len(n.order) > 0 && (len(n.order) >= maxNonces || !now.Before(n.until[n.order[0]])) {
		delete(n.until, n.order[0])
		n.order = n.order[1:]
	}
	n.until[nonce] = now.Add(nonceLifetime)
	n.order = append(n.order, nonce)
}

func (n *nonces) use(nonce string, now time.Time) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	until, ok := n.until[nonce]
	if ok {
		n.until[nonce] = time.Time{} // stays in order, good for nothing
	}
	return ok && now.Before(until)
}

type nonceAnswer struct {
	Nonce string `json:"nonce"`
}

// registerNonce begins a registration by shared secret.
func (a *Accounts) registerNonce(context.Context, *httpx.Caller, *struct{}) (*nonceAnswer, error) {
	if a.cfg.SharedSecret == "" {
		return nil, noSharedSecret()
	}
	nonce := hex.EncodeToString(a.secrets.bytes(32))
	a.nonces.add(nonce, a.now())
	return &nonceAnswer{nonce}, nil
}

type sharedSecretRequest struct {
	Nonce        string `json:"nonce"`
	Username     string `json:"username"`
	Password     string `json:"password"`
	Admin        bool   `json:"admin"`
	UserType     string `json:"user_type"`
	DisplayName  string `json:"displayname"`
	MAC          string `json:"mac"`
	InhibitLogin bool   `json:"inhibit_login"`
}

// registerBySecret makes an account for who knows the shared secret, whatever
// the registration mode. It is the endpoint by which existing scripts and test
// suites make their users: HMAC-SHA1 over the fields, NUL between them.
func (a *Accounts) registerBySecret(ctx context.Context, c *httpx.Caller, q *sharedSecretRequest) (*credentials, error) {
	if a.cfg.SharedSecret == "" {
		return nil, noSharedSecret()
	}
	for name, value := range map[string]string{"nonce": q.Nonce, "username": q.Username, "password": q.Password, "mac": q.MAC} {
		if value == "" {
			return nil, matrix.BadJSON("%s is missing", name)
		}
	}
	if !a.nonces.use(q.Nonce, a.now()) {
		return nil, matrix.NewError(http.StatusBadRequest, matrix.CodeUnknown, "The nonce is unknown, used or too old; get another")
	}
	if !hmac.Equal([]byte(strings.ToLower(q.MAC)), []byte(q.sign(a.cfg.SharedSecret))) {
		return nil, matrix.Forbidden("The HMAC is wrong")
	}
	id, err := a.newUserID(q.Username)
	if err != nil {
		return nil, err
	}
	if err := a.available(ctx, id, ""); err != nil {
		return nil, err
	}
	if err := checkNewPassword(q.Password); err != nil {
		return nil, err
	}
	n := newUser{id: id, admin: q.Admin, displayName: q.DisplayName}
	if n.password, err = a.hasher.hash(ctx, q.Password); err != nil {
		return nil, err
	}
	if !q.InhibitLogin {
		if n.grant, err = a.newGrant(ctx, deviceRequest{}); err != nil {
			return nil, err
		}
	}
	return a.create(ctx, n)
}

func (q *sharedSecretRequest) sign(secret string) string {
	role := "notadmin"
	if q.Admin {
		role = "admin"
	}
	fields := []string{q.Nonce, q.Username, q.Password, role}
	if q.UserType != "" {
		fields = append(fields, q.UserType)
	}
	mac := hmac.New(sha1.New, []byte(secret))
	mac.Write([]byte(strings.Join(fields, "\x00")))
	return hex.EncodeToString(mac.Sum(nil))
}

func noSharedSecret() error {
	return matrix.NewError(http.StatusBadRequest, matrix.CodeUnknown, "Registration by shared secret is not enabled; set registration.shared_secret")
}
