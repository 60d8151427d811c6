package queries

import (
	"bytes"
	"context"
	"encoding/json"
	"net/url"
	"time"
	"unicode/utf8"

	"github.com/teahouse-chat/teahouse/federation/transport"
	"github.com/teahouse-chat/teahouse/internal/matrix"
)

const (
	profileKept  = time.Minute
	profileTime  = 10 * time.Second
	profileBytes = 128 << 10 // twice what a profile may have
)

func profileSize(p map[string]json.RawMessage) int {
	n := 0
	for key, value := range p {
		n += 64 + len(key) + len(value)
	}
	return n
}

// Profile asks a user's server for their profile; 404 M_NOT_FOUND if there is
// none. What it gives is shared: nobody may change it.
// spec: server-server#get_matrixfederationv1queryprofile
func (q *Queries) Profile(ctx context.Context, user matrix.UserID) (map[string]json.RawMessage, error) {
	return q.profiles.get(ctx, string(user), func(ctx context.Context) (map[string]json.RawMessage, error) {
		var told map[string]json.RawMessage
		if err := q.get(ctx, transport.Request{
			Destination: user.Server(), Path: "/_matrix/federation/v1/query/profile", Query: url.Values{"user_id": {string(user)}},
			Timeout: profileTime, MaxAnswer: profileBytes,
		}, &told); err != nil {
			return nil, err
		}
		return profile(told), nil
	})
}

// profile takes over what may be in a profile. The fields that clients show are
// texts or absent.
func profile(told map[string]json.RawMessage) map[string]json.RawMessage {
	fields := make(map[string]json.RawMessage, len(told))
	for key, value := range told {
		switch {
		case bytes.Equal(value, []byte("null")), len(key) > matrix.MaxIDBytes, !utf8.Valid(value):
		case value[0] != '"' && (key == "displayname" || key == "avatar_url" || key == "m.tz"):
		default:
			fields[key] = value
		}
	}
	return fields
}
