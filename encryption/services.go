package encryption

import (
	"context"
	"encoding/json"

	"github.com/teahouse-chat/teahouse/internal/db"
	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms"
)

// What application services get of the devices of their users, as clients get it
// by /sync.

// DeviceNews reads a change on the stream: the local users whose devices got
// messages, those of whose devices keys were uploaded or given out, and the users
// whom a change of a device list concerns. It does not block.
func (e *Encryption) DeviceNews(change any) (inboxes, keys, lists []matrix.UserID) {
	switch c := change.(type) {
	case inboxChanged:
		return c.told, nil, nil
	case keysMoved:
		return nil, []matrix.UserID{c.user}, nil
	case DevicesChanged:
		if !c.Private {
			return nil, nil, append([]matrix.UserID{c.User}, c.Watchers...)
		}
	}
	return nil, nil, nil
}

// Receivers lists the local users whose devices have messages.
func (e *Encryption) Receivers(ctx context.Context) ([]matrix.UserID, error) {
	return db.All(ctx, e.DB, selectReceivers, scanUser)
}

// Messages returns the oldest messages for the devices of local users, each with
// the name of its device: at most limit, and if there are several at most size bytes.
// The op deletes them, in the write that puts them elsewhere.
func (e *Encryption) Messages(ctx context.Context, users []matrix.UserID, limit, size int) ([]json.RawMessage, func(*db.Tx) error, error) {
	newest := map[device]int64{}
	var events []json.RawMessage
	err := db.Each(ctx, e.DB, selectMessagesOf, func(s db.Scanner) error {
		var d device
		var m stored
		if err := s.Scan(&d.user, &d.id, &m.position, &m.event); err != nil || size < 0 {
			return err
		}
		if size -= len(m.event); size < 0 && len(events) > 0 {
			return nil
		}
		b := appendText([]byte(`{"to_user_id":`), d.user)
		b = appendText(append(b, `,"to_device_id":`...), d.id)
		events = append(events, append(append(b, ','), m.event[1:]...))
		newest[d] = m.position
		return nil
	}, users, limit)
	return events, func(tx *db.Tx) error {
		for d, position := range newest {
			n, err := tx.Changed(deleteMessages, d.user, d.id, position)
			if err != nil {
				return err
			}
			if n == 0 {
				continue // the device asked for them itself
			}
			if err := letIn(tx, d); err != nil {
				return err
			}
		}
		return nil
	}, err
}

// KeysOf counts the unclaimed one-time keys of local users' devices by algorithm,
// and lists the algorithms of their unused fallback keys. Devices that have no keys
// of their own are left out.
func (e *Encryption) KeysOf(ctx context.Context, users []matrix.UserID) (oneTime map[matrix.UserID]map[matrix.DeviceID]map[string]int, fallback map[matrix.UserID]map[matrix.DeviceID][]string, err error) {
	lists, err := e.listsOf(ctx, users)
	if err != nil {
		return nil, nil, err
	}
	oneTime = map[matrix.UserID]map[matrix.DeviceID]map[string]int{}
	fallback = map[matrix.UserID]map[matrix.DeviceID][]string{}
	for user, list := range lists {
		if len(list.devices) == 0 {
			continue
		}
		oneTime[user], fallback[user] = map[matrix.DeviceID]map[string]int{}, map[matrix.DeviceID][]string{}
		for id := range list.devices {
			n, err := e.countsOf(ctx, device{user, id})
			if err != nil {
				return nil, nil, err
			}
			oneTime[user][id], fallback[user][id] = n.oneTime, n.fallback
		}
	}
	return oneTime, fallback, nil
}

// ListChanges lists the users whose device lists changed above one position and up
// to another, oldest first and at most limit, and tells up to where that reaches.
func (e *Encryption) ListChanges(ctx context.Context, after, upTo int64, limit int) ([]matrix.UserID, int64, error) {
	var users []matrix.UserID
	last := upTo
	err := db.Each(ctx, e.DB, selectListChanges, func(s db.Scanner) error {
		var u matrix.UserID
		err := s.Scan(&u, &last)
		users = append(users, u)
		return err
	}, after, upTo, limit)
	if len(users) < limit {
		last = upTo
	}
	return users, last, err
}

// CompanyIn lists the users whose devices matter to somebody who is in a room.
func (e *Encryption) CompanyIn(ctx context.Context, r *rooms.Room) ([]matrix.UserID, error) {
	all := users{}
	err := e.members(ctx, r, r.View().State, all)
	return all.sorted(), err
}
