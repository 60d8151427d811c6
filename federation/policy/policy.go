// Package policy asks rooms' policy servers to sign events. What the signatures
// mean is decided in package rooms.
package policy

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/teahouse-chat/teahouse/federation/transport"
	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms"
	"github.com/teahouse-chat/teahouse/rooms/event"
)

const (
	// wait is how long a policy server may think: somebody waits for their message
	// to be sent.
	wait      = 10 * time.Second
	maxAnswer = 64 << 10
	keyID     = "ed25519:policy_server"
)

// Asker asks other servers; it is a *transport.Client.
type Asker interface {
	JSON(ctx context.Context, r transport.Request, answer any) error
}

// Servers are the policy servers of all rooms.
type Servers struct{ Asker Asker }

var _ rooms.PolicySigner = Servers{}

// Sign returns the policy server's signature on an event. What the server says
// when it refuses is passed on as it is.
// spec: server-server#post_matrixpolicyv1sign
func (s Servers) Sign(ctx context.Context, server matrix.ServerName, ev *event.Event) (string, error) {
	var answer map[matrix.ServerName]map[string]string
	err := s.Asker.JSON(ctx, transport.Request{
		Destination: server, Method: http.MethodPost, Path: "/_matrix/policy/v1/sign", Content: ev.JSON,
		Timeout: wait, MaxAnswer: maxAnswer,
	}, &answer)
	if refused, ok := errors.AsType[*transport.RemoteError](err); ok && refused.Code != "" && refused.Status < 500 {
		return "", matrix.NewError(refused.Status, refused.Code, "%s", refused.Text).Because(refused)
	}
	if err != nil {
		return "", matrix.NewError(http.StatusBadGateway, matrix.CodeUnknown, "The room's policy server %s cannot be reached, and events need its signature; try again later", server).Because(err)
	}
	signature := answer[server][keyID]
	if signature == "" {
		return "", matrix.NewError(http.StatusBadGateway, matrix.CodeUnknown, "The room's policy server %s did not sign the event", server)
	}
	return signature, nil
}
