package kit

import (
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"
)

var (
	upsertRoom = basis.SQL(`
		INSERT INTO kit_rooms (room_id, joined, encrypted, direct, seen) VALUES ($1, 0, 0, NULL, $2)
		ON CONFLICT (room_id) DO NOTHING`)
	setJoined    = basis.SQL(`UPDATE kit_rooms SET joined = $2 WHERE room_id = $1`)
	setDirect    = basis.SQL(`UPDATE kit_rooms SET direct = $2 WHERE room_id = $1`)
	setEncrypted = basis.SQL(`UPDATE kit_rooms SET encrypted = 1 WHERE room_id = $1`)
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
		return s.membership(tx, ev, id.UserID(*ev.StateKey), content)
	case *event.EncryptionEventContent:
		if err := tx.Exec(upsertRoom, ev.RoomID, ev.Received.UnixMilli()); err != nil {
			return err
		}
		return tx.Exec(setEncrypted, ev.RoomID)
	}
	return nil
}

func (s *Service) membership(tx *Tx, ev *Event, user id.UserID, m *event.MemberEventContent) error {
	if user != s.cfg.User {
		return nil
	}
	if m.Membership == event.MembershipInvite {
		tx.Join(ev.RoomID, ev.Sender.Homeserver())
		if m.IsDirect {
			return tx.Exec(setDirect, ev.RoomID, ev.Sender)
		}
		return nil
	}
	return tx.Exec(setJoined, ev.RoomID, m.Membership == event.MembershipJoin)
}
