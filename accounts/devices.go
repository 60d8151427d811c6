package accounts

import (
	"context"
	"encoding/json"
	"net/http"
	"slices"

	"github.com/teahouse-chat/teahouse/internal/db"
	"github.com/teahouse-chat/teahouse/internal/httpx"
	"github.com/teahouse-chat/teahouse/internal/matrix"
)

// Device is one of a user's devices. All members are always there, since some
// clients take no list of devices without; only one that a service made, and that was
// never used, has no time of its last use.
type Device struct {
	ID          matrix.DeviceID `json:"device_id"`
	DisplayName string          `json:"display_name"`
	LastSeenTS  int64           `json:"last_seen_ts,omitempty"`
	LastSeenIP  string          `json:"last_seen_ip"`
}

func scanDevice(s db.Scanner) (Device, error) {
	var d Device
	err := s.Scan(&d.ID, &d.DisplayName, &d.LastSeenTS, &d.LastSeenIP)
	return d, err
}

type devicesAnswer struct {
	Devices []Device `json:"devices"`
}

// devices lists the caller's devices.
// spec: client-server#get_matrixclientv3devices
func (a *Accounts) devices(ctx context.Context, c *httpx.Caller, q *struct{}) (*devicesAnswer, error) {
	u, err := a.owner(ctx, c)
	if err != nil {
		return nil, err
	}
	list, err := db.All(ctx, a.db, selectDevices, scanDevice, u.nid)
	if err != nil {
		return nil, err
	}
	for i := range list {
		a.refreshSeen(c.User, &list[i])
	}
	if list == nil {
		list = []Device{}
	}
	return &devicesAnswer{list}, nil
}

// refreshSeen fills in a last use that is not written yet.
func (a *Accounts) refreshSeen(user matrix.UserID, d *Device) {
	if s, ok := a.seen.of(user, d.ID); ok {
		d.LastSeenTS, d.LastSeenIP = s.ts, addrText(s.addr)
	}
}

type deviceQuery struct {
	DeviceID matrix.DeviceID `path:"deviceId"`
}

// device gives one of the caller's devices.
// spec: client-server#get_matrixclientv3devicesdeviceid
func (a *Accounts) device(ctx context.Context, c *httpx.Caller, q *deviceQuery) (*Device, error) {
	u, err := a.owner(ctx, c)
	if err != nil {
		return nil, err
	}
	d, found, err := db.One(ctx, a.db, selectDevice, scanDevice, u.nid, q.DeviceID)
	if err != nil {
		return nil, err
	}
	if !found {
		return nil, noSuchDevice()
	}
	a.refreshSeen(c.User, &d)
	return &d, nil
}

func noSuchDevice() error { return matrix.NotFound("You have no device with this id") }

type renameRequest struct {
	DeviceID    matrix.DeviceID `path:"deviceId"`
	DisplayName *string         `json:"display_name"`
}

// changed is an empty answer with a status.
type changed struct{ status int }

func (c *changed) HTTPStatus() int              { return c.status }
func (c *changed) MarshalJSON() ([]byte, error) { return []byte("{}"), nil }

// putDevice names a device; an application service may create one, too.
// spec: client-server#put_matrixclientv3devicesdeviceid
func (a *Accounts) putDevice(ctx context.Context, c *httpx.Caller, q *renameRequest) (*changed, error) {
	u, err := a.owner(ctx, c)
	if err != nil {
		return nil, err
	}
	var name string
	if q.DisplayName != nil {
		name = *q.DisplayName
	}
	if err := checkDisplayName(name); err != nil {
		return nil, err
	}
	if err := checkDeviceID(string(q.DeviceID)); err != nil {
		return nil, err
	}
	answer := &changed{}
	err = a.db.Write(ctx, func(tx *db.Tx) error {
		answer.status = http.StatusOK
		d, found, err := db.One(ctx, tx, selectDevice, scanDevice, u.nid, q.DeviceID)
		switch {
		case err != nil:
			return err
		case found && (q.DisplayName == nil || name == d.DisplayName):
			return nil
		case found:
			return a.rename(tx, c.User, u.nid, q.DeviceID, name)
		case c.Appservice == "":
			return noSuchDevice()
		}
		answer.status = http.StatusCreated
		return tx.Exec(insertDevice, u.nid, q.DeviceID, name, a.nowMS(), 0, "")
	})
	if err != nil {
		return nil, err
	}
	return answer, nil
}

func (a *Accounts) rename(tx *db.Tx, user matrix.UserID, userNID int64, id matrix.DeviceID, name string) error {
	if err := tx.Exec(renameDevice, name, userNID, id); err != nil || a.hooks.Renamed == nil {
		return err
	}
	return a.hooks.Renamed(tx, user, id)
}

type deleteDeviceRequest struct {
	DeviceID matrix.DeviceID `path:"deviceId"`
	Auth     json.RawMessage `json:"auth"`
	Body     json.RawMessage `body:"raw"`
}

// deleteDevice deletes one of the caller's devices.
// spec: client-server#delete_matrixclientv3devicesdeviceid
func (a *Accounts) deleteDevice(ctx context.Context, c *httpx.Caller, q *deleteDeviceRequest) (*struct{}, error) {
	return a.deleteDevices(ctx, c, "DELETE devices/"+string(q.DeviceID), q.Body, q.Auth, []matrix.DeviceID{q.DeviceID})
}

type deleteDevicesRequest struct {
	Devices *[]matrix.DeviceID `json:"devices"`
	Auth    json.RawMessage    `json:"auth"`
	Body    json.RawMessage    `body:"raw"`
}

// maxDeleted bounds the devices of one request.
const maxDeleted = 1000

// bulkDelete deletes several of the caller's devices.
// spec: client-server#post_matrixclientv3delete_devices
func (a *Accounts) bulkDelete(ctx context.Context, c *httpx.Caller, q *deleteDevicesRequest) (*struct{}, error) {
	if q.Devices == nil {
		return nil, matrix.MissingParam("devices is missing")
	}
	if len(*q.Devices) > maxDeleted {
		return nil, matrix.InvalidParam("At most %d devices can be deleted at once", maxDeleted)
	}
	return a.deleteDevices(ctx, c, "POST delete_devices", q.Body, q.Auth, *q.Devices)
}

func (a *Accounts) deleteDevices(ctx context.Context, c *httpx.Caller, endpoint string, body, auth json.RawMessage, ids []matrix.DeviceID) (*struct{}, error) {
	if c.Appservice == "" {
		if err := a.UIA.Require(ctx, c, UIARequest{endpoint, body}, auth, passwordFlow); err != nil {
			return nil, err
		}
	}
	u, err := a.owner(ctx, c)
	if err != nil {
		return nil, err
	}
	return nil, a.db.Write(ctx, func(tx *db.Tx) error {
		all, err := db.All(ctx, tx, selectDevices, scanDevice, u.nid)
		if err != nil {
			return err
		}
		var own []matrix.DeviceID // of those asked for
		for _, d := range all {
			if slices.Contains(ids, d.ID) {
				own = append(own, d.ID)
			}
		}
		return removeDevices(tx, c.User, u.nid, own)
	})
}
