package accounts

import (
	"context"
	"net/http"
	"strings"

	"github.com/teahouse-chat/teahouse/internal/db"
	"github.com/teahouse-chat/teahouse/internal/httpx"
	"github.com/teahouse-chat/teahouse/internal/matrix"
)

// Appservice is what accounts needs to know of an application service.
type Appservice struct {
	ID     string
	Sender matrix.UserID // the user of its sender_localpart
	Exempt bool          // from rate limits
}

// Appservices are the registered application services.
type Appservices interface {
	// ByToken finds the service that an as_token belongs to.
	ByToken(token string) (Appservice, bool)
	// Covers tells whether the user is the service's sender or lies in one of
	// its user namespaces.
	Covers(id string, user matrix.UserID) bool
	// Exclusive finds the service that claims the user for itself alone.
	Exclusive(user matrix.UserID) (id string, ok bool)
}

// Provide makes the account of a service's own user, unless there is one.
func (a *Accounts) Provide(ctx context.Context, user matrix.UserID, service string) error {
	_, found, err := a.userByID(ctx, a.db, user)
	if err != nil || found {
		return err
	}
	_, err = a.create(ctx, newUser{id: user, appservice: service})
	if matrix.HasCode(err, matrix.CodeUserInUse) {
		return nil
	}
	return err
}

// noService answers a login or registration for application services only that
// comes without the token of one.
// spec: application-service#server-admin-style-permissions
func noService(c *httpx.Caller) error {
	if c.Token == "" {
		return matrix.MissingToken()
	}
	return matrix.UnknownToken(false)
}

const codeUnknownDevice matrix.Code = "M_UNKNOWN_DEVICE"

// claimedByOther tells whether a service other than id claims the user
// exclusively; id is "" for people.
func (a *Accounts) claimedByOther(id string, user matrix.UserID) bool {
	if a.appservices == nil {
		return false
	}
	owner, ok := a.appservices.Exclusive(user)
	return ok && owner != id
}

// assertIdentity makes the caller of a request with an as_token: the service's
// sender, or the user (and device) in its namespace that the query names. Limits are
// never for the sender.
// spec: application-service#identity-assertion
func (a *Accounts) assertIdentity(ctx context.Context, r *http.Request, service Appservice) (*httpx.Caller, error) {
	query := r.URL.Query()
	c := &httpx.Caller{User: service.Sender, Appservice: service.ID, Exempt: service.Exempt}
	if id := query.Get("user_id"); id != "" {
		user, err := matrix.ParseUserID(id)
		if err != nil {
			return nil, err
		}
		if user.Server() != a.server || !a.appservices.Covers(service.ID, user) {
			return nil, matrix.Forbidden("The application service may not act as this user")
		}
		c.User = user
	}
	c.Exempt = c.Exempt || c.User == service.Sender
	device := query.Get("device_id")
	if device == "" {
		device = query.Get("org.matrix.msc3202.device_id") // as sent before it was specified
	}
	if c.User == service.Sender && device == "" {
		return c, nil
	}
	if err := checkDeviceID(device); err != nil {
		return nil, err
	}
	u, found, err := a.userByID(ctx, a.db, c.User)
	switch {
	case err != nil:
		return nil, err
	case !found && device == "" && r.Method == http.MethodPost && strings.HasSuffix(r.URL.Path, "/register"):
		return c, nil // bridges make their users as these users
	case !found:
		return nil, matrix.Forbidden("The application service has not registered this user")
	case u.Deactivated:
		return nil, matrix.Forbidden("This user has been deactivated")
	case u.Locked:
		return nil, userLocked()
	}
	if device == "" {
		return c, nil
	}
	if _, found, err = db.One(ctx, a.db, selectDevice, scanDevice, u.nid, device); err != nil {
		return nil, err
	} else if !found {
		return nil, matrix.NewError(http.StatusBadRequest, codeUnknownDevice, "The user has no such device")
	}
	c.Device = matrix.DeviceID(device)
	return c, nil
}
