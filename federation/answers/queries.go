package answers

import (
	"context"
	"encoding/json"

	"github.com/teahouse-chat/teahouse/internal/httpx"
	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms"
)

type directoryRequest struct {
	Alias matrix.RoomAlias `query:"room_alias"`
}

type directoryAnswer struct {
	RoomID  matrix.RoomID       `json:"room_id"`
	Servers []matrix.ServerName `json:"servers"`
}

// queryDirectory resolves an alias of this server.
// spec: server-server#get_matrixfederationv1querydirectory
func (a *Answers) queryDirectory(ctx context.Context, _ matrix.ServerName, q *directoryRequest) (*directoryAnswer, error) {
	if q.Alias == "" {
		return nil, matrix.MissingParam("room_alias is missing")
	}
	room, servers, err := a.Directory.Local(ctx, q.Alias)
	return &directoryAnswer{room, servers}, err
}

type profileRequest struct {
	User  matrix.UserID `query:"user_id"`
	Field string        `query:"field"`
}

// queryProfile gives what anybody may read of a local user's profile.
// spec: server-server#get_matrixfederationv1queryprofile
func (a *Answers) queryProfile(ctx context.Context, _ matrix.ServerName, q *profileRequest) (*map[string]json.RawMessage, error) {
	switch {
	case q.User == "":
		return nil, matrix.MissingParam("user_id is missing")
	case !a.Engine.Local(q.User):
		return nil, matrix.NotFound("%s is not a user of this server", q.User)
	}
	fields, err := a.Profiles.Profile(ctx, q.User, q.Field)
	return &fields, err
}

type publicRequest struct {
	Limit       *int   `query:"limit"`
	Since       string `query:"since"`
	AllNetworks bool   `query:"include_all_networks"`
	Network     string `query:"third_party_instance_id"`
}

// getPublicRooms lists the published rooms. They are public: neither membership
// nor a server ACL hides them.
// spec: server-server#get_matrixfederationv1publicrooms
func (a *Answers) getPublicRooms(ctx context.Context, origin matrix.ServerName, q *publicRequest) (*rooms.ListingPage, error) {
	return a.postPublicRooms(ctx, origin, &rooms.ListingQuery{Limit: q.Limit, Since: q.Since, AllNetworks: q.AllNetworks, Network: q.Network})
}

// postPublicRooms lists those that a filter picks.
// spec: server-server#post_matrixfederationv1publicrooms
func (a *Answers) postPublicRooms(ctx context.Context, _ matrix.ServerName, q *rooms.ListingQuery) (*rooms.ListingPage, error) {
	return a.Directory.Published(ctx, *q)
}

type userInfoRequest struct {
	Token string `query:"access_token"`
}

type userInfoAnswer struct {
	User matrix.UserID `json:"sub"`
}

// userInfo tells a third party who gave it an OpenID token.
// spec: server-server#get_matrixfederationv1openiduserinfo
func (a *Answers) userInfo(ctx context.Context, _ *httpx.Caller, q *userInfoRequest) (*userInfoAnswer, error) {
	if q.Token == "" {
		return nil, matrix.NewError(401, matrix.CodeMissingToken, "access_token is missing")
	}
	user, ok, err := a.OpenID.RedeemOpenID(ctx, q.Token)
	if err != nil {
		return nil, err
	}
	if !ok {
		return nil, matrix.UnknownToken(false)
	}
	return &userInfoAnswer{user}, nil
}
