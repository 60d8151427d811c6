package server

import (
	"context"
	"encoding/json"

	"github.com/teahouse-chat/teahouse/federation/acl"
	"github.com/teahouse-chat/teahouse/federation/inbound"
	"github.com/teahouse-chat/teahouse/federation/outbound"
	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms"
	"github.com/teahouse-chat/teahouse/syncapi"
)

// ephemeral takes typing, receipts and presence to other servers, and tells which
// of theirs count.
type ephemeral struct {
	queues *outbound.Queues
	engine *rooms.Engine
}

func (e ephemeral) Offer(to []matrix.ServerName, key string, keep bool, typ string, content json.RawMessage) {
	e.queues.Offer(to, key, keep, outbound.EDU{Type: typ, Content: content})
}

func (e ephemeral) Admits(ctx context.Context, r *rooms.Room, server matrix.ServerName) (bool, error) {
	return acl.Allows(ctx, e.engine, r, server)
}

// ephemeral is nil if there are no other servers.
func (s *Server) ephemeral() syncapi.Remote {
	if s.outside.outbound == nil {
		return nil
	}
	return ephemeral{s.outside.outbound, s.rooms}
}

// edus take what comes beside events. The features are made after what brings it.
func (s *Server) edus() map[string]inbound.EDUHandler {
	return map[string]inbound.EDUHandler{
		"m.typing": func(ctx context.Context, origin matrix.ServerName, content json.RawMessage) error {
			return s.sync.HandleTyping(ctx, origin, content)
		},
		"m.receipt": func(ctx context.Context, origin matrix.ServerName, content json.RawMessage) error {
			return s.sync.HandleReceipts(ctx, origin, content)
		},
		"m.presence": func(ctx context.Context, origin matrix.ServerName, content json.RawMessage) error {
			return s.sync.HandlePresence(ctx, origin, content)
		},
		"m.direct_to_device": func(ctx context.Context, origin matrix.ServerName, content json.RawMessage) error {
			return s.encryption.HandleToDevice(ctx, origin, content)
		},
		"m.device_list_update": func(ctx context.Context, origin matrix.ServerName, content json.RawMessage) error {
			return s.encryption.HandleDeviceList(ctx, origin, content)
		},
		"m.signing_key_update": func(ctx context.Context, origin matrix.ServerName, content json.RawMessage) error {
			return s.encryption.HandleSigningKeys(ctx, origin, content)
		},
	}
}
