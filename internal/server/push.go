package server

import (
	"context"
	"encoding/json"
	"net/http"
	"time"

	"github.com/teahouse-chat/teahouse/accounts"
	"github.com/teahouse-chat/teahouse/accounts/data"
	"github.com/teahouse-chat/teahouse/internal/config"
	"github.com/teahouse-chat/teahouse/internal/db"
	"github.com/teahouse-chat/teahouse/internal/dialer"
	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/push"
	"github.com/teahouse-chat/teahouse/rooms"
	"github.com/teahouse-chat/teahouse/syncapi"
)

// newPush makes the feature; reading is completed once there is /sync.
func (s *Server) newPush(ctx context.Context, accountData *data.Data, read *reading) (*push.Push, error) {
	return push.New(ctx, push.Deps{
		DB: s.db, Rooms: s.rooms, Data: settings{accountData}, People: listeners{accountData}, Reading: read, Sessions: sessions{s.db},
		Gateways: s.gateways(), PlainHTTP: s.cfg.Federation.AllowPrivateAddresses, CountRooms: s.cfg.Push.Badge == config.BadgeRooms,
		Now: s.deps.Now, Log: s.deps.Log,
	})
}

// gatewayTimeout is how long a push gateway may take, gatewayAnswer how much it
// may say.
const (
	gatewayTimeout = 15 * time.Second
	gatewayAnswer  = 64 << 10
)

// gateways is the client that reaches push gateways: at no address that other
// servers may not have either.
func (s *Server) gateways() *http.Client {
	return s.outside.dialer.Client(dialer.ClientOptions{
		Timeout: gatewayTimeout, MaxBody: gatewayAnswer, HTTPSOnly: !s.cfg.Federation.AllowPrivateAddresses,
		TLS: s.outside.secure(&s.cfg.Federation),
	})
}

// settings lets push keep the account data that shows clients their rules.
type settings struct{ *data.Data }

func (settings) Put(tx *db.Tx, user matrix.UserID, typ string, content json.RawMessage) error {
	return data.Put(tx, user, "", typ, content)
}

// listeners tells push whom users do not want to hear.
type listeners struct{ data *data.Data }

func (l listeners) Ignored(ctx context.Context, users []matrix.UserID) (map[matrix.UserID]map[matrix.UserID]struct{}, error) {
	lists, err := l.data.IgnoredBy(ctx, users)
	all := make(map[matrix.UserID]map[matrix.UserID]struct{}, len(lists))
	for u, list := range lists {
		all[u] = list
	}
	return all, err
}

func (l listeners) Ignoring(ctx context.Context) ([]matrix.UserID, error) {
	return l.data.Ignoring(ctx)
}

func (l listeners) IgnoresOthers(change any) (matrix.UserID, bool) {
	switch c := change.(type) {
	case data.Changed:
		return c.User, c.Room == "" && c.Type == data.TypeIgnoredList
	case data.Erased:
		return c.User, true
	}
	return "", false
}

func (l listeners) BlocksInvites(ctx context.Context, user matrix.UserID) (bool, error) {
	return l.data.BlocksInvites(ctx, user)
}

// reading tells push what users have read. It is made before /sync, which needs
// push.
type reading struct{ sync *syncapi.Service }

func (r *reading) Unread(ctx context.Context, user matrix.UserID, in []rooms.RoomNID, upTo int64) (map[rooms.RoomNID]int64, error) {
	return r.sync.Unread(ctx, user, in, upTo)
}

func (r *reading) Standings(ctx context.Context, user matrix.UserID, in []rooms.RoomNID) (map[rooms.RoomNID]push.Standing, error) {
	read, err := r.sync.Standings(ctx, user, in)
	all := make(map[rooms.RoomNID]push.Standing, len(read))
	for nid, s := range read {
		all[nid] = s
	}
	return all, err
}

func (r *reading) Read(change any) (push.Receipt, bool) {
	c, ok := change.(syncapi.ReceiptChanged)
	if !ok || !r.sync.Rooms.Local(c.User) {
		return push.Receipt{}, false
	}
	all, thread := c.Receipt.Reads()
	return push.Receipt{User: c.User, Room: c.Room, All: all, Thread: thread, Position: c.EventPosition}, true
}

// sessions tells push which devices there are.
type sessions struct{ db *db.DB }

func (sessions) Ended(change any) (matrix.UserID, []matrix.DeviceID, bool) {
	c, ok := change.(accounts.SessionsEnded)
	return c.User, c.Devices, ok
}

func (s sessions) Devices(ctx context.Context, users []matrix.UserID) (map[matrix.UserID][]matrix.DeviceID, error) {
	named, err := deviceNames{}.Devices(ctx, s.db, users)
	all := make(map[matrix.UserID][]matrix.DeviceID, len(named))
	for u, devices := range named {
		for d := range devices {
			all[u] = append(all[u], d)
		}
	}
	return all, err
}

// verdicts gives /sync what the push rules say.
type verdicts struct{ *push.Push }

func (v verdicts) Judged(ctx context.Context, user matrix.UserID, in []rooms.RoomNID) (map[rooms.RoomNID]syncapi.Judged, error) {
	found, err := v.Push.Judged(ctx, user, in)
	all := make(map[rooms.RoomNID]syncapi.Judged, len(found))
	for nid, j := range found {
		all[nid] = j
	}
	return all, err
}
