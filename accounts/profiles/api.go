package profiles

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"

	"github.com/teahouse-chat/teahouse/internal/httpx"
	"github.com/teahouse-chat/teahouse/internal/matrix"
)

const (
	pathProfile = "/_matrix/client/v3/profile/{userId}"
	pathField   = "/_matrix/client/v3/profile/{userId}/{keyName}"
	// unstable is where clients look that know the keyed fields from before
	// they were specified.
	unstable = "unstable/uk.tcpip.msc4133"
)

// Routes lists the client API. Profiles may be read by anyone, also without an
// account: clients show them for users whom they meet outside rooms.
func (p *Profiles) Routes() []httpx.Route {
	alias := httpx.Versions(unstable)
	reads, writes := httpx.Limit("profile_read"), httpx.Limit("profile")
	return []httpx.Route{
		httpx.JSON(http.MethodGet, pathProfile, p.getProfile, httpx.NoAuth, reads, alias),
		httpx.JSON(http.MethodGet, pathField, p.getField, httpx.NoAuth, reads, alias),
		httpx.JSON(http.MethodPut, pathField, p.putField, writes, httpx.GuestsAllowed, httpx.MaxBody(2*MaxProfileBytes), alias),
		httpx.JSON(http.MethodDelete, pathField, p.deleteField, writes, httpx.GuestsAllowed, alias),
	}
}

type profileRequest struct {
	User matrix.UserID `path:"userId"`
}

type fieldRequest struct {
	User matrix.UserID `path:"userId"`
	Key  string        `path:"keyName"`
}

type putRequest struct {
	User matrix.UserID   `path:"userId"`
	Key  string          `path:"keyName"`
	Body json.RawMessage `body:"raw"`
}

// spec: client-server#get_matrixclientv3profileuserid
func (p *Profiles) getProfile(ctx context.Context, _ *httpx.Caller, q *profileRequest) (*Fields, error) {
	fields, err := p.Lookup(ctx, q.User, "")
	return &fields, err
}

// spec: client-server#get_matrixclientv3profileuseridkeyname
func (p *Profiles) getField(ctx context.Context, _ *httpx.Caller, q *fieldRequest) (*Fields, error) {
	if err := CheckKey(q.Key); err != nil {
		return nil, err
	}
	fields, err := p.Lookup(ctx, q.User, q.Key)
	return &fields, err
}

// spec: client-server#put_matrixclientv3profileuseridkeyname
func (p *Profiles) putField(ctx context.Context, c *httpx.Caller, q *putRequest) (*struct{}, error) {
	if err := mayChange(c, q.User, q.Key); err != nil {
		return nil, err
	}
	if err := CheckKey(q.Key); err != nil {
		return nil, err
	}
	var body map[string]json.RawMessage
	if err := json.Unmarshal(q.Body, &body); err != nil {
		return nil, matrix.BadJSON("The body must be a JSON object").Because(err)
	}
	value, ok := body[q.Key]
	if !ok {
		return nil, matrix.MissingParam("The body must have the member %q", q.Key)
	}
	return nil, p.Set(ctx, q.User, q.Key, bytes.TrimSpace(value))
}

// spec: client-server#delete_matrixclientv3profileuseridkeyname
func (p *Profiles) deleteField(ctx context.Context, c *httpx.Caller, q *fieldRequest) (*struct{}, error) {
	if err := mayChange(c, q.User, q.Key); err != nil {
		return nil, err
	}
	return nil, p.Delete(ctx, q.User, q.Key)
}

// mayChange lets users change their own profile, guests only its display name.
// spec: client-server#guest-access
func mayChange(c *httpx.Caller, user matrix.UserID, key string) error {
	if c.User != user {
		return matrix.Forbidden("You can only change your own profile")
	}
	if c.Guest && key != KeyDisplayName {
		return matrix.NewError(http.StatusForbidden, matrix.CodeGuestAccessForbidden, "Guests can only change their display name")
	}
	return nil
}
