package syncapi

import (
	"context"
	"encoding/json"

	"github.com/teahouse-chat/teahouse/internal/httpx"
	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms"
	"github.com/teahouse-chat/teahouse/rooms/state"
)

type initialSyncRequest struct {
	Limit    *int `query:"limit"`
	Archived bool `query:"archived"`
}

type initialSyncAnswer struct {
	End         string            `json:"end"`
	Rooms       []*roomInfo       `json:"rooms"`
	Presence    []json.RawMessage `json:"presence"`
	AccountData []json.RawMessage `json:"account_data"`
}

// getInitialSync is what clients began with before /sync.
// spec: client-server#get_matrixclientv3initialsync
func (s *Service) getInitialSync(ctx context.Context, c *httpx.Caller, q *initialSyncRequest) (*initialSyncAnswer, error) {
	rec, w, err := s.notifier.enter(ctx, c.User, c.Device)
	if err != nil {
		return nil, err
	}
	defer s.notifier.leave(rec, w)
	d, err := s.deltaFor(ctx, rec, stand{}, true, q.Archived)
	if err != nil {
		return nil, err
	}
	data, err := s.Data.All(ctx, c.User)
	if err != nil {
		return nil, err
	}
	a := &initialSyncAnswer{
		End: s.listenFrom(d.upTo.position), Rooms: []*roomInfo{},
		Presence: []json.RawMessage{}, AccountData: []json.RawMessage{},
	}
	for _, e := range data {
		if e.Room == "" {
			a.AccountData = append(a.AccountData, typedEvent(e.Type, e.Content))
		}
	}
	people, err := s.presenceFor(ctx, &syncRequest{filter: everything}, d)
	if err != nil {
		return nil, err
	}
	a.Presence = append(a.Presence, people...)
	for _, rd := range d.joined {
		info, err := s.roomInfo(ctx, c, &reader{rd.Membership, rd.room, rd.view, d.upTo.position}, s.pageSize(q.Limit), data)
		if err != nil {
			return nil, err
		}
		a.Rooms = append(a.Rooms, info)
	}
	for _, rd := range d.left {
		// Whoever was never in the room has nothing to see of it.
		p, err := s.read(ctx, rd.RoomID, c.User)
		if matrix.HasCode(err, matrix.CodeForbidden) {
			continue
		}
		if err != nil {
			return nil, err
		}
		info, err := s.roomInfo(ctx, c, p, s.pageSize(q.Limit), data)
		if err != nil {
			return nil, err
		}
		a.Rooms = append(a.Rooms, info)
	}
	ignored, err := s.Data.Ignores(ctx, c.User)
	if err != nil {
		return nil, err
	}
	invited, err := s.wanted(ctx, c.User, ignored, d.invited)
	if err != nil {
		return nil, err
	}
	for _, rd := range invited {
		info, err := s.inviteInfo(ctx, c, &rd)
		if err != nil {
			return nil, err
		}
		a.Rooms = append(a.Rooms, info)
	}
	return a, nil
}

func (s *Service) inviteInfo(ctx context.Context, c *httpx.Caller, rd *roomDelta) (*roomInfo, error) {
	events, err := s.Rooms.Events(ctx, []state.EventNID{rd.Event})
	if err != nil {
		return nil, err
	}
	rendered, err := s.Rooms.Render(ctx, rd.room, rooms.Viewer{User: c.User, Device: c.Device}, events, rooms.Format{})
	if err != nil {
		return nil, err
	}
	return &roomInfo{
		Room: rd.RoomID, Membership: rd.Membership.Membership, Invite: rendered[0],
		AccountData: []json.RawMessage{}, Presence: []json.RawMessage{},
	}, nil
}
