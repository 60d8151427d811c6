package transport

import (
	"context"
	"net/http"

	"github.com/teahouse-chat/teahouse/federation/keys"
	"github.com/teahouse-chat/teahouse/internal/matrix"
)

// ServerKeys asks a server for its own keys; with QueryKeys it makes the client
// a keys.Fetcher.
// spec: server-server#get_matrixkeyv2server
func (c *Client) ServerKeys(ctx context.Context, server matrix.ServerName) ([]byte, error) {
	return c.Do(ctx, Request{
		Destination: server, Method: http.MethodGet, Path: "/_matrix/key/v2/server", Unsigned: true, MaxAnswer: keys.MaxAnswer,
	})
}

// QueryKeys asks a notary.
// spec: server-server#post_matrixkeyv2query
func (c *Client) QueryKeys(ctx context.Context, notary matrix.ServerName, query []byte) ([]byte, error) {
	return c.Do(ctx, Request{
		Destination: notary, Method: http.MethodPost, Path: "/_matrix/key/v2/query", Content: query, Unsigned: true,
	})
}

var _ keys.Fetcher = (*Client)(nil)
