package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"

	"github.com/teahouse-chat/teahouse/encryption"
	"github.com/teahouse-chat/teahouse/federation/outbound"
	"github.com/teahouse-chat/teahouse/federation/transport"
	"github.com/teahouse-chat/teahouse/internal/db"
	"github.com/teahouse-chat/teahouse/internal/httpx"
	"github.com/teahouse-chat/teahouse/internal/matrix"
)

const userAPI = "/_matrix/federation/v1/user/"

// remoteKeys asks other servers for the keys of their users' devices.
type remoteKeys struct{ client *transport.Client }

// spec: server-server#post_matrixfederationv1userkeysquery
func (r remoteKeys) QueryKeys(ctx context.Context, server matrix.ServerName, users map[matrix.UserID][]matrix.DeviceID) (*encryption.Keys, error) {
	wanted := make(map[matrix.UserID][]matrix.DeviceID, len(users))
	for user, devices := range users {
		wanted[user] = append([]matrix.DeviceID{}, devices...) // all is an empty list, not null
	}
	keys := &encryption.Keys{}
	err := r.post(ctx, server, "keys/query", map[string]any{"device_keys": wanted}, keys)
	return keys, err
}

// spec: server-server#post_matrixfederationv1userkeysclaim
func (r remoteKeys) ClaimKeys(ctx context.Context, server matrix.ServerName, claims encryption.Claims) (encryption.Claimed, error) {
	var answer struct {
		Keys encryption.Claimed `json:"one_time_keys"`
	}
	err := r.post(ctx, server, "keys/claim", map[string]any{"one_time_keys": claims}, &answer)
	return answer.Keys, err
}

// spec: server-server#get_matrixfederationv1userdevicesuserid
func (r remoteKeys) UserDevices(ctx context.Context, server matrix.ServerName, user matrix.UserID) (*encryption.UserDevices, error) {
	text, err := r.client.Do(ctx, transport.Request{
		Destination: server, Method: http.MethodGet, Path: transport.Path(userAPI+"devices", string(user)),
	})
	if e, ok := errors.AsType[*transport.RemoteError](err); ok && e.Status < http.StatusInternalServerError && e.Status != http.StatusTooManyRequests {
		return nil, fmt.Errorf("%w: %w", encryption.ErrRefused, err)
	}
	if err != nil {
		return nil, err
	}
	list := &encryption.UserDevices{}
	if err := json.Unmarshal(text, list); err != nil {
		return nil, fmt.Errorf("%w: its answer is not what it should be: %w", encryption.ErrRefused, err)
	}
	return list, nil
}

func (r remoteKeys) post(ctx context.Context, server matrix.ServerName, path string, body, answer any) error {
	content, err := json.Marshal(body)
	if err != nil {
		return err
	}
	return r.client.JSON(ctx, transport.Request{
		Destination: server, Method: http.MethodPost, Path: userAPI + path, Content: content,
	}, answer)
}

// outbox keeps what encryption tells other servers.
type outbox struct{ queues *outbound.Queues }

func (o outbox) Store(tx *db.Tx, to []matrix.ServerName, eduType string, content json.RawMessage) error {
	return o.queues.Store(tx, to, outbound.EDU{Type: eduType, Content: content})
}

// devices connects encryption with other servers; it stays alone if there are
// none.
func (s *Server) devices(d *encryption.Deps) {
	if o := s.outside; o.outbound != nil {
		d.Remote, d.Outbox = remoteKeys{o.client}, outbox{o.outbound}
	}
}

// signed makes a route of a feature that does not know federation.
func (o *outside) signed(method, path string, h func(context.Context, *encryption.FederationRequest) (any, error)) httpx.Route {
	return o.auth.Route(method, path, func(w http.ResponseWriter, r *http.Request, origin matrix.ServerName, body []byte) error {
		answer, err := h(r.Context(), &encryption.FederationRequest{Origin: origin, Value: r.PathValue, Body: body})
		if err != nil {
			return err
		}
		return transport.Answer(w, answer)
	})
}
