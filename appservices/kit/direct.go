package kit

import (
	"context"
	"encoding/json"
	"net/http"
	"slices"
	"strings"

	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"github.com/teahouse-chat/teahouse/internal/db"
)

// A direct chat is a room of the service's user and one other. It stops being one
// for good when a third comes, and is never one again.
var (
	isDirect        = basis.SQL(`SELECT room_id FROM kit_rooms WHERE room_id = $1 AND direct = $2`)
	isAnyonesDirect = basis.SQL(`SELECT direct FROM kit_rooms WHERE room_id = $1 AND direct IS NOT NULL`)
	findDirect      = basis.SQL(`
		SELECT room_id FROM kit_rooms WHERE direct = $1 AND joined = 1 AND (encrypted = 0 OR made = 1)
		ORDER BY encrypted, seen DESC, room_id LIMIT 1`)
	setDirect     = basis.SQL(`UPDATE kit_rooms SET direct = $2 WHERE room_id = $1 AND crowded = 0`)
	setMade       = basis.SQL(`UPDATE kit_rooms SET direct = $2, joined = 1, made = 1 WHERE room_id = $1`)
	setCrowded    = basis.SQL(`UPDATE kit_rooms SET direct = NULL, crowded = 1 WHERE room_id = $1`)
	endDirect     = basis.SQL(`UPDATE kit_rooms SET direct = NULL WHERE room_id = $1`)
	setForewarned = basis.SQL(`UPDATE kit_users SET forewarned = 1 WHERE user_id = $1 AND forewarned = 0`)
	setTold       = basis.SQL(`UPDATE kit_rooms SET told = 1 WHERE room_id = $1 AND told = 0`)
	oldRooms      = basis.SQL(`SELECT room_id FROM kit_rooms WHERE seen < $1 AND room_id IN {texts $2}`)
)

func scanRoom(r db.Scanner) (v id.RoomID, err error) {
	err = r.Scan(&v)
	return v, err
}

// direct tells whether a room is a direct chat of the service with a user.
func (tx *Tx) direct(room id.RoomID, user id.UserID) (bool, error) {
	_, found, err := One(tx.ctx, tx, isDirect, scanRoom, room, user)
	return found, err
}

// IsDirect tells whether an event was sent in a direct chat of its sender with the
// service, where private things may be said.
func (tx *Tx) IsDirect(ev *Event) bool {
	direct, err := tx.direct(ev.RoomID, ev.Sender)
	tx.fail(err)
	return direct
}

// Direct sends a message to a user in a direct chat, which is made if there is none
// that the service can read.
func (tx *Tx) Direct(user id.UserID, content *event.MessageEventContent) Ref {
	room, found, err := One(tx.ctx, tx, findDirect, scanRoom, user)
	tx.fail(err)
	if found {
		return tx.Send(room, event.EventMessage, content)
	}
	return tx.put(row{lane: string(user), kind: kindDirect, typ: event.EventMessage.Type, subject: string(user), content: content})
}

// sendDirect sends a row of Direct.
func (s *Service) sendDirect(ctx context.Context, v item) (result, error) {
	room, err := s.directRoom(ctx, v)
	if err != nil {
		return result{}, err
	}
	r, err := s.put(ctx, v.content, "rooms", room, "send", v.typ, s.txnID(v))
	r.room = room
	return r, err
}

// marker is what the create event of a direct chat has, by which it is found again
// when the answer to its creation was lost.
const marker = "org.teahouse.kit.direct"

// directRoom finds or makes the direct chat with the user of a row. Making a room has
// no transaction id: before it is tried again, it is looked whether it succeeded.
func (s *Service) directRoom(ctx context.Context, v item) (id.RoomID, error) {
	user := id.UserID(v.subject)
	room, found, err := db.One(ctx, s.db, findDirect, scanRoom, user)
	if found || err != nil {
		return room, err
	}
	if v.attempts > 0 {
		if room, err = s.made(ctx, v); err != nil {
			return "", err
		}
	}
	if room == "" {
		// From now on the row says that it was tried.
		err := s.db.Write(ctx, func(tx *db.Tx) error { return tx.Exec(postponeRow, v.nid, s.now(), "") })
		if err != nil {
			return "", err
		}
		if room, err = s.createDirect(ctx, v, user); err != nil {
			return "", err
		}
	}
	return room, s.db.Write(ctx, func(tx *db.Tx) error {
		if err := tx.Exec(upsertRoom, room, s.now()); err != nil {
			return err
		}
		return tx.Exec(setMade, room, user)
	})
}

func (s *Service) createDirect(ctx context.Context, v item, user id.UserID) (id.RoomID, error) {
	var answer mautrix.RespCreateRoom
	_, err := s.client.MakeFullRequest(ctx, mautrix.FullRequest{
		Method: http.MethodPost, URL: s.client.BuildURL(clientPath([]any{"createRoom"})), MaxAttempts: 1, ResponseJSON: &answer,
		RequestJSON: map[string]any{
			"preset": "trusted_private_chat", "is_direct": true, "invite": []id.UserID{user},
			"creation_content": map[string]any{marker: s.txnID(v)},
		},
	})
	if err == nil && !proper(string(answer.RoomID), '!') {
		err = errNoEvent
	}
	return answer.RoomID, err
}

// made looks for a room that was made for a row, among those that are new since.
func (s *Service) made(ctx context.Context, v item) (id.RoomID, error) {
	joined, err := s.joinedRooms(ctx)
	if err != nil {
		return "", err
	}
	old, err := db.All(ctx, s.db, oldRooms, scanRoom, v.created, joined)
	if err != nil {
		return "", err
	}
	known := map[id.RoomID]bool{}
	for _, room := range old {
		known[room] = true
	}
	for _, room := range joined {
		if known[id.RoomID(room)] {
			continue
		}
		var create map[string]json.RawMessage
		err := s.get(ctx, &create, "rooms", room, "state", event.StateCreate.Type, "")
		if err != nil {
			return "", err
		}
		if string(create[marker]) == `"`+s.txnID(v)+`"` {
			return id.RoomID(room), nil
		}
	}
	return "", nil
}

func (s *Service) joinedRooms(ctx context.Context) ([]string, error) {
	var answer struct {
		Rooms []string `json:"joined_rooms"`
	}
	err := s.get(ctx, &answer, "joined_rooms")
	return slices.DeleteFunc(answer.Rooms, func(room string) bool { return !proper(room, '!') }), err
}

// get asks for something, once.
func (s *Service) get(ctx context.Context, answer any, path ...any) error {
	_, err := s.client.MakeFullRequest(ctx, mautrix.FullRequest{
		Method: http.MethodGet, URL: s.client.BuildURL(clientPath(path)), ResponseJSON: answer, MaxAttempts: 1,
	})
	return err
}

// look finds out about a room that was joined: whether it is a direct chat with who
// invited the service, and whether it is encrypted.
func (s *Service) look(ctx context.Context, v item) (r result, err error) {
	var members struct {
		Joined map[id.UserID]json.RawMessage `json:"joined"`
	}
	if err := s.get(ctx, &members, "rooms", v.room, "joined_members"); err != nil {
		return r, err
	}
	_, with := members.Joined[id.UserID(v.subject)]
	r.alone = len(members.Joined) == 2 && with && v.subject != string(s.cfg.User)
	var encryption map[string]any
	err = s.get(ctx, &encryption, "rooms", v.room, "state", event.StateEncryption.Type, "")
	if r.encrypted = err == nil; isStatus(err, http.StatusNotFound) {
		err = nil
	}
	return r, err
}

// learn stores what look found out.
func (s *Service) learn(tx *Tx, v item, r result) error {
	if err := tx.Exec(upsertRoom, v.room, s.now()); err != nil {
		return err
	}
	user := id.UserID(v.subject)
	if r.alone {
		if err := tx.Exec(setDirect, v.room, user); err != nil {
			return err
		}
	}
	if !r.encrypted {
		return nil
	}
	if err := tx.Exec(setEncrypted, v.room); err != nil {
		return err
	}
	return s.forewarn(tx, v.room)
}

// forewarn says in an encrypted room, once, that the service cannot read there; in a
// direct chat with a link to one that is not encrypted.
func (s *Service) forewarn(tx *Tx, room id.RoomID) error {
	user, direct, err := One(tx.ctx, tx, isAnyonesDirect, scanText, room)
	if err != nil {
		return err
	}
	if !direct {
		n, err := tx.Changed(setTold, room)
		if n > 0 {
			tx.Say(room, s.text(fallback, "kit.encrypted", s.cfg.User.URI().MatrixToURL()))
		}
		return err
	}
	if err := tx.Exec(upsertUser, user); err != nil {
		return err
	}
	n, err := tx.Changed(setForewarned, user)
	if n > 0 {
		text := s.text(tx.Language(id.UserID(user)), "kit.encrypted")
		tx.put(row{lane: user, room: room, kind: kindForewarn, typ: event.EventMessage.Type, subject: user, content: text})
	}
	return err
}

// sendForewarning makes the plain direct chat and names it in the encrypted one.
func (s *Service) sendForewarning(ctx context.Context, v item) (result, error) {
	plain, err := s.directRoom(ctx, v)
	if err != nil {
		return result{}, err
	}
	var text string
	if err := json.Unmarshal(v.content, &text); err != nil {
		return result{}, err
	}
	link := plain.URI(s.cfg.User.Homeserver()).MatrixToURL()
	content, err := marshal(Text(strings.ReplaceAll(text, "%s", link)))
	if err != nil {
		return result{}, err
	}
	return s.put(ctx, content, "rooms", v.room, "send", v.typ, s.txnID(v))
}
