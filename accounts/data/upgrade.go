package data

import (
	"context"
	"encoding/json"
	"slices"

	"github.com/teahouse-chat/teahouse/internal/db"
	"github.com/teahouse-chat/teahouse/internal/matrix"
)

// CarryOver gives the room that another one was upgraded to the tags that the user
// has put on that one, unless it has some, and makes it a direct chat with whom
// that one was.
// spec: client-server#server-behaviour-19
func (d *Data) CarryOver(ctx context.Context, user matrix.UserID, from, to matrix.RoomID) error {
	return d.db.Write(ctx, func(tx *db.Tx) error {
		old, err := readTags(ctx, tx, user, from)
		if err != nil {
			return err
		}
		tags, err := readTags(ctx, tx, user, to)
		if err != nil {
			return err
		}
		if len(old) > 0 && len(tags) == 0 {
			content, err := json.Marshal(tagContent{Tags: old})
			if err != nil {
				return err
			}
			if err := Put(tx, user, to, TypeTag, content); err != nil {
				return err
			}
		}
		return carryDirect(ctx, tx, user, from, to)
	})
}

// carryDirect adds a room wherever another one stands in m.direct.
// spec: client-server#mdirect
func carryDirect(ctx context.Context, tx *db.Tx, user matrix.UserID, from, to matrix.RoomID) error {
	raw, found, err := db.One(ctx, tx, selectContent, scanContent, user, "", TypeDirect)
	if err != nil || !found {
		return err
	}
	var with map[string]json.RawMessage
	if json.Unmarshal(raw, &with) != nil {
		return nil // it is the clients' own
	}
	changed := false
	for other, list := range with {
		var chats []matrix.RoomID
		if json.Unmarshal(list, &chats) != nil || !slices.Contains(chats, from) || slices.Contains(chats, to) {
			continue
		}
		if with[other], err = json.Marshal(append(chats, to)); err != nil {
			return err
		}
		changed = true
	}
	if !changed {
		return nil
	}
	content, err := json.Marshal(with)
	if err != nil {
		return err
	}
	return Put(tx, user, "", TypeDirect, content)
}
