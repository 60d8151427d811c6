package syncapi

import (
	"context"
	"encoding/json"

	"github.com/teahouse-chat/teahouse/internal/db"
	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms"
)

// Services are the application services. They hear here of what is in memory only;
// of receipts they read on the stream.
type Services interface {
	// Typed tells that others type in a room than before. It must not block.
	Typed(room rooms.RoomNID)
	// Met tells that a user's presence changed, and where they are joined. It must not
	// block.
	Met(user matrix.UserID, in []rooms.RoomNID)
}

func (s *Service) changedTyping(nid rooms.RoomNID) {
	if s.Services != nil {
		s.Services.Typed(nid)
	}
}

func (s *Service) changedPresence(users []matrix.UserID, where map[matrix.UserID][]rooms.RoomNID) {
	if s.Services == nil {
		return
	}
	for _, u := range users {
		s.Services.Met(u, where[u])
	}
}

// Typing renders who types in a room now, with the room's id.
// spec: application-service#pushing-ephemeral-data
func (s *Service) Typing(r *rooms.Room) json.RawMessage {
	users, _ := s.typing.in(r.NID, -1)
	there := make([]matrix.UserID, 0, len(users))
	for _, u := range users {
		if !s.Rooms.Local(u) || r.IsLocalMember(u) {
			there = append(there, u)
		}
	}
	b := append([]byte(nil), `{"type":"m.typing","room_id":`...)
	b = append(appendText(b, r.ID), `,"content":{"user_ids":`...)
	return append(appendTexts(b, there), `}}`...)
}

// Presences renders who is there.
func (s *Service) Presences(users []matrix.UserID) []json.RawMessage {
	events := make([]json.RawMessage, len(users))
	for i, u := range users {
		events[i] = s.presence.one(u).event()
	}
	return events
}

// ReceiptMoved reads a change on the stream: the room of a receipt that moved. It
// does not block.
func (s *Service) ReceiptMoved(change any) (room rooms.RoomNID, moved bool) {
	c, ok := change.(ReceiptChanged)
	return c.Room, ok
}

// Receipts renders the receipts, of all rooms, that moved above one position and up
// to another, with the rooms' ids, and leaves out those that are not to be shown. It
// looks at no more than limit, and tells up to where that reaches.
func (s *Service) Receipts(ctx context.Context, after, upTo int64, limit int,
	shown func(r *rooms.Room, user matrix.UserID, private bool) (bool, error)) (events []json.RawMessage, reached int64, err error) {
	list, err := db.All(ctx, s.DB, receiptsAfter, scanReceipt, after, upTo, limit)
	if err != nil {
		return nil, after, err
	}
	if reached = upTo; len(list) == limit {
		reached = list[limit-1].Position
	}
	inRoom := map[rooms.RoomNID][]Receipt{}
	var order []*rooms.Room
	for _, c := range list {
		r, err := s.Rooms.RoomByNID(ctx, c.Room)
		if matrix.HasCode(err, matrix.CodeUnsupportedRoomVersion) {
			continue
		}
		if err != nil {
			return nil, after, err
		}
		ok, err := shown(r, c.User, c.Type == ReadPrivate)
		if err != nil {
			return nil, after, err
		}
		if !ok {
			continue
		}
		if inRoom[c.Room] == nil {
			order = append(order, r)
		}
		inRoom[c.Room] = append(inRoom[c.Room], c)
	}
	for _, r := range order {
		for _, ev := range renderReceipts(inRoom[r.NID]) {
			b := appendText([]byte(`{"room_id":`), r.ID)
			events = append(events, append(append(b, ','), ev[1:]...))
		}
	}
	return events, reached, nil
}
