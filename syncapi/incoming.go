package syncapi

import (
	"context"
	"encoding/json"
	"time"

	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms"
)

// What one EDU may bring; the rest of it is ignored.
const (
	maxReceipts = 5000
	maxPushes   = 1000
)

// ignore says why an EDU, or a part of it, has no effect. It is nobody's error
// here: other servers send what they like, and what was right when it was sent.
func (s *Service) ignore(typ string, origin matrix.ServerName, why string, args ...any) {
	s.Log.Debug("what another server sent is ignored: "+why, append([]any{"type", typ, "origin", origin}, args...)...)
}

// placeOf finds the room of an EDU; nil if the origin has nothing to say there.
func (s *Service) placeOf(ctx context.Context, typ string, origin matrix.ServerName, id string) (*rooms.Room, error) {
	room, err := matrix.ParseRoomID(id)
	if err != nil {
		s.ignore(typ, origin, "it names no room")
		return nil, nil
	}
	r, err := s.Rooms.Room(ctx, room)
	if matrix.HasCode(err, matrix.CodeNotFound) {
		s.ignore(typ, origin, "the room is not known", "room", room)
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if r.LocalMemberCount() == 0 || !r.HasServer(origin) {
		s.ignore(typ, origin, "it is about a room that we do not share", "room", room)
		return nil, nil
	}
	if s.Remote == nil {
		return r, nil
	}
	admitted, err := s.Remote.Admits(ctx, r, origin)
	if err != nil {
		return nil, err
	}
	if !admitted {
		s.ignore(typ, origin, "the room does not admit the server", "room", room)
		return nil, nil
	}
	return r, nil
}

// owns tells whether a text is the id of one of the origin's users.
func owns(origin matrix.ServerName, user string) bool {
	u, err := matrix.ParseUserID(user)
	return err == nil && u.Server() == origin
}

// HandleTyping takes m.typing of another server.
// spec: server-server#typing-notifications
func (s *Service) HandleTyping(ctx context.Context, origin matrix.ServerName, content json.RawMessage) error {
	var c typingContent
	if json.Unmarshal(content, &c) != nil || c.Typing == nil || !owns(origin, string(c.User)) {
		s.ignore(eduTyping, origin, "it is malformed, or about somebody else's user")
		return nil
	}
	r, err := s.placeOf(ctx, eduTyping, origin, string(c.Room))
	if r == nil || err != nil {
		return err
	}
	joined, err := s.Rooms.WhereJoined(ctx, []*rooms.Room{r}, []matrix.UserID{c.User})
	if err != nil {
		return err
	}
	if joined[c.User] == nil {
		s.ignore(eduTyping, origin, "the user is not in the room", "room", r.ID)
		return nil
	}
	d := time.Duration(0)
	if *c.Typing {
		d = typingRemote
	}
	s.typing.set(r.NID, c.User, d)
	return nil
}

// HandlePresence takes m.presence of another server.
// spec: server-server#presence
func (s *Service) HandlePresence(ctx context.Context, origin matrix.ServerName, content json.RawMessage) error {
	var c struct {
		Push []json.RawMessage `json:"push"`
	}
	if !s.Presence {
		return nil
	}
	if json.Unmarshal(content, &c) != nil {
		s.ignore(eduPresence, origin, "it is malformed")
		return nil
	}
	if len(c.Push) > maxPushes {
		s.ignore(eduPresence, origin, "it tells of too many users")
		c.Push = c.Push[:maxPushes]
	}
	var people []presencePush
	var users []matrix.UserID
	for _, raw := range c.Push {
		var p presencePush
		if json.Unmarshal(raw, &p) != nil || !owns(origin, string(p.User)) || !isPresence(p.State) || p.Status != nil && len(*p.Status) > maxStatus {
			s.ignore(eduPresence, origin, "it is malformed, or about somebody else's user")
			continue
		}
		people, users = append(people, p), append(users, p.User)
	}
	unmet, err := s.unmet(ctx, origin, s.presence.strange(users))
	if err != nil {
		return err
	}
	for _, p := range people {
		if unmet[p.User] {
			s.ignore(eduPresence, origin, "the user is in none of our rooms")
			continue
		}
		s.presence.hear(p)
	}
	return nil
}

// unmet tells who of a server's users is in no room with any of ours.
func (s *Service) unmet(ctx context.Context, origin matrix.ServerName, users []matrix.UserID) (map[matrix.UserID]bool, error) {
	if len(users) == 0 {
		return nil, nil
	}
	shared, err := s.Rooms.RoomsWith(ctx, origin)
	if err != nil {
		return nil, err
	}
	in := make(map[rooms.RoomNID]struct{}, len(shared))
	for _, nid := range shared {
		in[nid] = struct{}{}
	}
	met, err := s.among(ctx, in, users)
	if err != nil {
		return nil, err
	}
	unmet := map[matrix.UserID]bool{}
	for _, u := range users {
		unmet[u] = !met[u]
	}
	return unmet, nil
}

// HandleReceipts takes m.receipt of another server.
// spec: server-server#receipts
func (s *Service) HandleReceipts(ctx context.Context, origin matrix.ServerName, content json.RawMessage) error {
	var byRoom map[string]json.RawMessage
	if json.Unmarshal(content, &byRoom) != nil {
		s.ignore(eduReceipt, origin, "it is malformed")
		return nil
	}
	left := maxReceipts
	for id, raw := range byRoom {
		var types struct {
			Read map[string]json.RawMessage `json:"m.read"` // there are no others that may be told
		}
		if json.Unmarshal(raw, &types) != nil || len(types.Read) == 0 {
			s.ignore(eduReceipt, origin, "it is malformed, or has no public receipts")
			continue
		}
		if left -= len(types.Read); left < 0 {
			s.ignore(eduReceipt, origin, "it has too many receipts")
			return nil
		}
		r, err := s.placeOf(ctx, eduReceipt, origin, id)
		if err != nil {
			return err
		}
		if r == nil {
			continue
		}
		if err := s.takeReceipts(ctx, origin, r, s.parseReceipts(origin, r, types.Read)); err != nil {
			return err
		}
	}
	return nil
}

// parseReceipts reads the receipts of a room; those that are malformed are left
// out.
func (s *Service) parseReceipts(origin matrix.ServerName, r *rooms.Room, users map[string]json.RawMessage) []Receipt {
	list := make([]Receipt, 0, len(users))
	for user, raw := range users {
		var c remoteReceipt
		if json.Unmarshal(raw, &c) != nil || len(c.Events) == 0 || !owns(origin, user) {
			s.ignore(eduReceipt, origin, "it is malformed, or about somebody else's user")
			continue
		}
		id, err := matrix.ParseEventID(c.Events[0])
		if err != nil {
			s.ignore(eduReceipt, origin, "it names no event")
			continue
		}
		thread, err := parseThread(c.Data.Thread)
		if err != nil {
			s.ignore(eduReceipt, origin, "it names no thread")
			continue
		}
		ts, err := c.Data.Timestamp.Int64()
		if err != nil || ts < 0 {
			ts = s.Now().UnixMilli()
		}
		list = append(list, Receipt{Room: r.NID, User: matrix.UserID(user), Type: Read, Thread: thread, Event: id, Timestamp: ts})
	}
	return list
}

// takeReceipts takes those of a room's receipts whose users are in it. One for an
// event that is not there yet waits a little: EDUs overtake the events that come
// with them, or by another server.
func (s *Service) takeReceipts(ctx context.Context, origin matrix.ServerName, r *rooms.Room, list []Receipt) error {
	if len(list) == 0 {
		return nil
	}
	users, ids := make([]matrix.UserID, len(list)), make([]matrix.EventID, len(list))
	for i, c := range list {
		users[i], ids[i] = c.User, c.Event
	}
	joined, err := s.Rooms.WhereJoined(ctx, []*rooms.Room{r}, users)
	if err != nil {
		return err
	}
	events, err := s.Rooms.EventsByID(ctx, r, ids)
	if err != nil {
		return err
	}
	byID := make(map[matrix.EventID]*rooms.Stored, len(events))
	for _, ev := range events {
		byID[ev.ID] = ev
	}
	var ready []Receipt
	for _, c := range list {
		ev := byID[c.Event]
		switch {
		case joined[c.User] == nil:
			s.ignore(eduReceipt, origin, "the user is not in the room", "room", r.ID)
		case ev == nil || ev.Position == 0:
			s.foreign.wait(r, origin, c)
		default:
			err := s.checkThread(ctx, r, ev, c.Thread)
			if matrix.HasCode(err, matrix.CodeInvalidParam) {
				s.ignore(eduReceipt, origin, "the event is not in the thread", "room", r.ID)
				continue
			}
			if err != nil {
				return err
			}
			c.EventPosition = ev.Position
			ready = append(ready, c)
		}
	}
	return s.foreign.add(ctx, r, ready...)
}
