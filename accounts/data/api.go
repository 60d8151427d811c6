package data

import (
	"context"
	"encoding/json"
	"net/http"

	"github.com/teahouse-chat/teahouse/internal/httpx"
	"github.com/teahouse-chat/teahouse/internal/matrix"
)

const (
	pathUser       = "/_matrix/client/v3/user/{userId}/"
	pathGlobal     = pathUser + "account_data/{type}"
	pathRoom       = pathUser + "rooms/{roomId}/account_data/{type}"
	pathTags       = pathUser + "rooms/{roomId}/tags"
	pathTag        = pathUser + "rooms/{roomId}/tags/{tag}"
	pathFilters    = pathUser + "filter"
	pathFilter     = pathUser + "filter/{filterId}"
	pathOpenID     = pathUser + "openid/request_token"
	maxFilterBody  = 4 * MaxFilterBytes // spaces are taken out before it is measured
	maxContentBody = 4 * MaxContentBytes
)

// Routes lists the client API. Guests may use filters, as they may sync.
func (d *Data) Routes() []httpx.Route {
	writes := httpx.Limit("send") // what is written is kept, as events are
	return []httpx.Route{
		httpx.JSON(http.MethodGet, pathGlobal, d.getGlobal),
		httpx.JSON(http.MethodPut, pathGlobal, d.putGlobal, writes, httpx.MaxBody(maxContentBody)),
		httpx.JSON(http.MethodGet, pathRoom, d.getRoom),
		httpx.JSON(http.MethodPut, pathRoom, d.putRoom, writes, httpx.MaxBody(maxContentBody)),
		httpx.JSON(http.MethodGet, pathTags, d.getTags),
		httpx.JSON(http.MethodPut, pathTag, d.putTag, writes),
		httpx.JSON(http.MethodDelete, pathTag, d.deleteTag),
		httpx.JSON(http.MethodPost, pathFilters, d.postFilter, writes, httpx.GuestsAllowed, httpx.MaxBody(maxFilterBody)),
		httpx.JSON(http.MethodGet, pathFilter, d.getFilter, httpx.GuestsAllowed),
		httpx.JSON(http.MethodPost, pathOpenID, d.postOpenID, httpx.EmptyBodyOK, httpx.Limit("openid")),
	}
}

// Everything here belongs to the user in the path.
func own(c *httpx.Caller, user matrix.UserID) error {
	if c.User != user {
		return matrix.Forbidden("You can only read and change your own data")
	}
	return nil
}

type globalRequest struct {
	User matrix.UserID `path:"userId"`
	Type string        `path:"type"`
}

func (d *Data) getGlobal(ctx context.Context, c *httpx.Caller, q *globalRequest) (*httpx.RawJSON, error) {
	return d.get(ctx, c, q.User, "", q.Type)
}

type putGlobalRequest struct {
	User matrix.UserID   `path:"userId"`
	Type string          `path:"type"`
	Body json.RawMessage `body:"raw"`
}

func (d *Data) putGlobal(ctx context.Context, c *httpx.Caller, q *putGlobalRequest) (*struct{}, error) {
	if err := own(c, q.User); err != nil {
		return nil, err
	}
	return nil, d.Set(ctx, q.User, "", q.Type, q.Body)
}

type roomRequest struct {
	User matrix.UserID `path:"userId"`
	Room matrix.RoomID `path:"roomId"`
	Type string        `path:"type"`
}

func (d *Data) getRoom(ctx context.Context, c *httpx.Caller, q *roomRequest) (*httpx.RawJSON, error) {
	return d.get(ctx, c, q.User, q.Room, q.Type)
}

func (d *Data) get(ctx context.Context, c *httpx.Caller, user matrix.UserID, room matrix.RoomID, typ string) (*httpx.RawJSON, error) {
	if err := own(c, user); err != nil {
		return nil, err
	}
	content, err := d.Get(ctx, user, room, typ)
	return (*httpx.RawJSON)(&content), err
}

type putRoomRequest struct {
	User matrix.UserID   `path:"userId"`
	Room matrix.RoomID   `path:"roomId"`
	Type string          `path:"type"`
	Body json.RawMessage `body:"raw"`
}

// The room need not be one that the user is in: clients keep notes about rooms
// that were left.
func (d *Data) putRoom(ctx context.Context, c *httpx.Caller, q *putRoomRequest) (*struct{}, error) {
	if err := own(c, q.User); err != nil {
		return nil, err
	}
	return nil, d.Set(ctx, q.User, q.Room, q.Type, q.Body)
}

type tagsRequest struct {
	User matrix.UserID `path:"userId"`
	Room matrix.RoomID `path:"roomId"`
}

func (d *Data) getTags(ctx context.Context, c *httpx.Caller, q *tagsRequest) (*tagContent, error) {
	if err := own(c, q.User); err != nil {
		return nil, err
	}
	tags, err := d.RoomTags(ctx, q.User, q.Room)
	return &tagContent{Tags: tags}, err
}

type putTagRequest struct {
	User matrix.UserID   `path:"userId"`
	Room matrix.RoomID   `path:"roomId"`
	Tag  string          `path:"tag"`
	Body json.RawMessage `body:"raw"`
}

func (d *Data) putTag(ctx context.Context, c *httpx.Caller, q *putTagRequest) (*struct{}, error) {
	if err := own(c, q.User); err != nil {
		return nil, err
	}
	return nil, d.SetTag(ctx, q.User, q.Room, q.Tag, q.Body)
}

type tagRequest struct {
	User matrix.UserID `path:"userId"`
	Room matrix.RoomID `path:"roomId"`
	Tag  string        `path:"tag"`
}

func (d *Data) deleteTag(ctx context.Context, c *httpx.Caller, q *tagRequest) (*struct{}, error) {
	if err := own(c, q.User); err != nil {
		return nil, err
	}
	return nil, d.DeleteTag(ctx, q.User, q.Room, q.Tag)
}

type postFilterRequest struct {
	User matrix.UserID   `path:"userId"`
	Body json.RawMessage `body:"raw"`
}

type filterCreated struct {
	ID string `json:"filter_id"`
}

func (d *Data) postFilter(ctx context.Context, c *httpx.Caller, q *postFilterRequest) (*filterCreated, error) {
	if err := own(c, q.User); err != nil {
		return nil, err
	}
	id, err := d.AddFilter(ctx, q.User, q.Body)
	return &filterCreated{ID: id}, err
}

type filterRequest struct {
	User matrix.UserID `path:"userId"`
	ID   string        `path:"filterId"`
}

func (d *Data) getFilter(ctx context.Context, c *httpx.Caller, q *filterRequest) (*httpx.RawJSON, error) {
	if err := own(c, q.User); err != nil {
		return nil, err
	}
	raw, err := d.RawFilter(ctx, q.User, q.ID)
	return (*httpx.RawJSON)(&raw), err
}

type openIDRequest struct {
	User matrix.UserID   `path:"userId"`
	Body json.RawMessage `body:"raw"` // reserved
}

type openIDToken struct {
	AccessToken string            `json:"access_token"`
	TokenType   string            `json:"token_type"`
	ServerName  matrix.ServerName `json:"matrix_server_name"`
	ExpiresIn   int64             `json:"expires_in"` // seconds
}

// spec: client-server#post_matrixclientv3useruseridopenidrequest_token
func (d *Data) postOpenID(ctx context.Context, c *httpx.Caller, q *openIDRequest) (*openIDToken, error) {
	if err := own(c, q.User); err != nil {
		return nil, err
	}
	token, lifetime, err := d.IssueOpenID(ctx, q.User)
	return &openIDToken{
		AccessToken: token, TokenType: "Bearer", ServerName: d.server, ExpiresIn: int64(lifetime.Seconds()),
	}, err
}
