package kit

import (
	"context"
	"encoding/json"
	"net/http"

	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"
)

var (
	upsertRoom = basis.SQL(`
		INSERT INTO kit_rooms (room_id, joined, encrypted, direct, seen) VALUES ($1, 0, 0, NULL, $2)
		ON CONFLICT (room_id) DO NOTHING`)
	setJoined     = basis.SQL(`UPDATE kit_rooms SET joined = $2 WHERE room_id = $1`)
	selectJoining = basis.SQL(`SELECT subject FROM kit_outbox WHERE state = 0 AND lane = $1 AND kind = 'join'`)
	setEncrypted  = basis.SQL(`UPDATE kit_rooms SET encrypted = 1 WHERE room_id = $1`)
)

// follow keeps account of the rooms that the service's user is in, and accepts
// invitations.
func (s *Service) follow(tx *Tx, ev *Event) error {
	switch content := ev.Content.Parsed.(type) {
	case *event.MemberEventContent:
		if ev.StateKey == nil {
			return nil
		}
		if err := tx.Exec(upsertRoom, ev.RoomID, ev.Received.UnixMilli()); err != nil {
			return err
		}
		if user := id.UserID(*ev.StateKey); user != s.cfg.User {
			return s.others(tx, ev.RoomID, user, content.Membership)
		}
		if content.Membership == event.MembershipInvite {
			tx.put(row{room: ev.RoomID, kind: kindJoin, subject: string(ev.Sender), content: []string{ev.Sender.Homeserver()}})
			return nil
		}
		if err := tx.Exec(setJoined, ev.RoomID, content.Membership == event.MembershipJoin); err != nil {
			return err
		}
		return s.gone(tx, ev.RoomID, content.Membership)
	case *event.EncryptionEventContent:
		if err := tx.Exec(upsertRoom, ev.RoomID, ev.Received.UnixMilli()); err != nil {
			return err
		}
		if err := tx.Exec(setEncrypted, ev.RoomID); err != nil {
			return err
		}
		return s.forewarn(tx, ev.RoomID)
	}
	return nil
}

// OnLeft has f called when the service's user is not in a room any more, whether it
// left or was made to.
func (s *Service) OnLeft(f func(tx *Tx, room id.RoomID) error) { s.left = append(s.left, f) }

func (s *Service) gone(tx *Tx, room id.RoomID, m event.Membership) error {
	if m != event.MembershipLeave && m != event.MembershipBan {
		return nil
	}
	for _, f := range s.left {
		if err := f(tx, room); err != nil {
			return err
		}
	}
	return nil
}

// others heeds that somebody else came or went: a third ends a direct chat, and when
// the others have gone the service goes, too.
func (s *Service) others(tx *Tx, room id.RoomID, user id.UserID, m event.Membership) error {
	with, direct, err := One(tx.ctx, tx, isAnyonesDirect, scanText, room)
	if err != nil {
		return err
	}
	gone := m == event.MembershipLeave || m == event.MembershipBan
	switch {
	case direct && with == string(user) && gone:
		tx.Leave(room)
		return tx.Exec(endDirect, room)
	case direct && with != string(user) && !gone:
		if s.cfg.Prefix != "" && len(s.listed) > 0 {
			tx.Say(room, s.text(tx.Language(id.UserID(with)), "kit.crowded", s.cfg.Prefix))
		}
		return tx.Exec(setCrowded, room)
	case direct:
		return nil
	case gone:
		tx.put(row{room: room, kind: kindDeserted})
		return nil
	}
	// The service may be just joining, and count the members without this one.
	inviter, joining, err := One(tx.ctx, tx, selectJoining, scanText, room)
	if err != nil || !joining || inviter == string(user) {
		return err
	}
	return tx.Exec(setCrowded, room)
}

// leaveDeserted leaves a room that everybody else has left, unless the service made it:
// then it waits there for others.
func (s *Service) leaveDeserted(ctx context.Context, v item) (result, error) {
	var members struct {
		Joined map[id.UserID]json.RawMessage `json:"joined"`
	}
	err := s.get(ctx, &members, "rooms", v.room, "joined_members")
	if isStatus(err, http.StatusForbidden) { // it is not in the room itself
		return result{}, nil
	}
	if _, in := members.Joined[s.cfg.User]; err != nil || !in || len(members.Joined) > 1 {
		return result{}, err
	}
	create, err := s.client.FullStateEvent(ctx, v.room, event.StateCreate, "")
	if err != nil || create.Sender == s.cfg.User {
		return result{}, err
	}
	return s.post(ctx, struct{}{}, "rooms", v.room, "leave")
}
