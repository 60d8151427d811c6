package encryption

import (
	"context"
	"encoding/json"
	"strconv"
	"strings"

	"github.com/teahouse-chat/teahouse/internal/db"
	"github.com/teahouse-chat/teahouse/internal/httpx"
	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms/event"
)

// Dehydrated devices receive keys while none of the user's devices is logged in:
// MSC3814, in the form that clients use. A user has one at most. It has no
// session; its private part is stored encrypted.

const (
	maxDeviceData = 256 << 10
	maxName       = 512
)

// allDevices are the users' devices, dehydrated ones among them.
func (e *Encryption) allDevices(ctx context.Context, q db.Querier, users []matrix.UserID) (map[matrix.UserID]map[matrix.DeviceID]string, error) {
	all, err := e.Devices.Devices(ctx, q, users)
	if err != nil {
		return nil, err
	}
	return all, db.Each(ctx, q, selectDehydrated, func(s db.Scanner) error {
		d, err := scanDehydrated(s)
		if all[d.user] == nil {
			all[d.user] = map[matrix.DeviceID]string{}
		}
		all[d.user][d.id] = d.name
		return err
	}, users)
}

type dehydrated struct {
	device
	data, name string
}

func scanDehydrated(s db.Scanner) (d dehydrated, err error) {
	err = s.Scan(&d.user, &d.id, &d.data, &d.name)
	return d, err
}

func dehydratedOf(ctx context.Context, q db.Querier, user matrix.UserID) (dehydrated, bool, error) {
	return db.One(ctx, q, selectDehydrated, scanDehydrated, []matrix.UserID{user})
}

func noDehydrated() error { return matrix.NotFound("You have no such dehydrated device") }

type dehydrateRequest struct {
	uploadRequest
	DeviceID    matrix.DeviceID `json:"device_id"`
	DeviceData  json.RawMessage `json:"device_data"`
	DisplayName string          `json:"initial_device_display_name"`
}

type dehydratedAnswer struct {
	DeviceID   matrix.DeviceID `json:"device_id"`
	DeviceData json.RawMessage `json:"device_data,omitempty"`
}

// dehydrate puts a dehydrated device in the place of the one before.
func (e *Encryption) dehydrate(ctx context.Context, c *httpx.Caller, q *dehydrateRequest) (*dehydratedAnswer, error) {
	d := device{c.User, q.DeviceID}
	switch {
	case !plain(string(d.id), matrix.MaxIDBytes):
		return nil, matrix.InvalidParam("device_id has 1 to %d bytes and no NUL", matrix.MaxIDBytes)
	case absent(q.DeviceKeys):
		return nil, matrix.MissingParam("device_keys is missing")
	case len(q.DeviceData) == 0 || q.DeviceData[0] != '{':
		return nil, matrix.MissingParam("device_data, an object, is missing")
	case len(q.DeviceData) > maxDeviceData:
		return nil, matrix.TooLarge("device_data has at most %d bytes", maxDeviceData)
	case len(q.DisplayName) > maxName || strings.IndexByte(q.DisplayName, 0) >= 0:
		return nil, matrix.InvalidParam("The name of a device has at most %d bytes and no NUL", maxName)
	}
	data, err := event.Canonical(q.DeviceData)
	if err != nil {
		return nil, matrix.BadJSON("device_data is not valid: %s", err).Because(err)
	}
	u, err := checkUpload(d, &q.uploadRequest)
	if err != nil {
		return nil, err
	}
	err = e.change(ctx, c.User, true, func(tx *db.Tx) ([]matrix.DeviceID, error) {
		if taken, err := e.exists(ctx, tx, d); err != nil {
			return nil, err
		} else if taken {
			return nil, matrix.InvalidParam("You have a device with this id")
		}
		old, found, err := dehydratedOf(ctx, tx, c.User)
		if err != nil {
			return nil, err
		}
		changed := []matrix.DeviceID{d.id}
		if found && old.id != d.id {
			evicted, err := e.evict(ctx, tx, old.device)
			if err != nil {
				return nil, err
			}
			changed = append(changed, evicted...)
		}
		if err := tx.Exec(upsertDehydrated, c.User, d.id, string(data), q.DisplayName); err != nil {
			return nil, err
		}
		_, err = e.store(ctx, tx, u)
		return changed, err
	})
	return &dehydratedAnswer{DeviceID: d.id}, err
}

// evict removes what is kept of a device, and returns what others have to look at
// anew.
func (e *Encryption) evict(ctx context.Context, tx *db.Tx, d device) ([]matrix.DeviceID, error) {
	tx.Publish(keysMoved(d))
	tx.Publish(inboxChanged{devices: []device{d}})
	return e.remove(ctx, tx, d.user, []matrix.DeviceID{d.id})
}

func (e *Encryption) getDehydrated(ctx context.Context, c *httpx.Caller, q *struct{}) (*dehydratedAnswer, error) {
	d, found, err := dehydratedOf(ctx, e.DB, c.User)
	if err != nil {
		return nil, err
	}
	if !found {
		return nil, noDehydrated()
	}
	return &dehydratedAnswer{d.id, json.RawMessage(d.data)}, nil
}

func (e *Encryption) deleteDehydrated(ctx context.Context, c *httpx.Caller, q *struct{}) (*dehydratedAnswer, error) {
	var d dehydrated
	err := e.change(ctx, c.User, true, func(tx *db.Tx) ([]matrix.DeviceID, error) {
		var found bool
		var err error
		if d, found, err = dehydratedOf(ctx, tx, c.User); err != nil {
			return nil, err
		}
		if !found {
			return nil, noDehydrated()
		}
		changed, err := e.evict(ctx, tx, d.device)
		if err != nil {
			return nil, err
		}
		return changed, tx.Exec(deleteDehydrated, c.User)
	})
	if err != nil {
		return nil, err
	}
	return &dehydratedAnswer{DeviceID: d.id}, nil
}

type eventsRequest struct {
	DeviceID  matrix.DeviceID `path:"deviceId"`
	NextBatch string          `json:"next_batch"`
}

type eventsAnswer struct {
	Events    []json.RawMessage `json:"events"`
	NextBatch string            `json:"next_batch"`
}

// dehydratedEvents gives the messages to a dehydrated device, from the first or
// from where the last answer ended. They stay until the device goes, since
// another client may have to read them again.
func (e *Encryption) dehydratedEvents(ctx context.Context, c *httpx.Caller, q *eventsRequest) (*eventsAnswer, error) {
	d, found, err := dehydratedOf(ctx, e.DB, c.User)
	if err != nil {
		return nil, err
	}
	if !found || d.id != q.DeviceID {
		return nil, noDehydrated()
	}
	var after int64
	if q.NextBatch != "" {
		if after, err = strconv.ParseInt(q.NextBatch, 10, 64); err != nil || after < 0 {
			return nil, matrix.InvalidParam("next_batch is not from an answer of this endpoint")
		}
	}
	events, reach, err := e.messages(ctx, d.device, after, e.DB.Position())
	if err != nil {
		return nil, err
	}
	if events == nil {
		events = []json.RawMessage{}
	}
	return &eventsAnswer{events, strconv.FormatInt(max(reach, after), 10)}, nil
}
