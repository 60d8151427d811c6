package server

import (
	"context"
	"encoding/json"
	"net/http"

	"github.com/teahouse-chat/teahouse/accounts"
	"github.com/teahouse-chat/teahouse/accounts/data"
	"github.com/teahouse-chat/teahouse/accounts/profiles"
	"github.com/teahouse-chat/teahouse/admin"
	"github.com/teahouse-chat/teahouse/internal/db"
	"github.com/teahouse-chat/teahouse/internal/httpx"
	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms"
	"github.com/teahouse-chat/teahouse/syncapi"
	"github.com/teahouse-chat/teahouse/syncapi/token"
)

// profileSource gives rooms and the directory the profiles of local users.
type profileSource struct{ people *profiles.Profiles }

func (p profileSource) Profiles(ctx context.Context, users []matrix.UserID) (map[matrix.UserID]rooms.Profile, error) {
	all, err := p.people.Get(ctx, users)
	found := make(map[matrix.UserID]rooms.Profile, len(all))
	for user, fields := range all {
		found[user] = rooms.Profile{DisplayName: fields.DisplayName(), AvatarURL: fields.AvatarURL()}
	}
	return found, err
}

func (p profileSource) Profile(ctx context.Context, user matrix.UserID) (rooms.Profile, error) {
	all, err := p.Profiles(ctx, []matrix.UserID{user})
	return all[user], err
}

// users answers what other features ask about accounts. It is made before the
// accounts, which need those features.
type users struct{ accounts *accounts.Accounts }

// Exists counts accounts that were deactivated, too: they are somebody's for
// ever, and what they did can be reported.
func (u *users) Exists(ctx context.Context, user matrix.UserID) (bool, error) {
	_, found, err := u.accounts.User(ctx, user)
	return found, err
}

// presentable knows who has a profile, be it an empty one.
type presentable struct{ *users }

func (p presentable) Exists(ctx context.Context, user matrix.UserID) (bool, error) {
	account, found, err := p.accounts.User(ctx, user)
	return found && !account.Deactivated, err
}

func (u *users) Sessions(ctx context.Context, user matrix.UserID) ([]admin.Session, error) {
	devices, err := u.accounts.Devices(ctx, user)
	if err != nil {
		return nil, err
	}
	sessions := make([]admin.Session, len(devices))
	for i, d := range devices {
		sessions[i] = admin.Session{Device: d.ID, Addr: d.LastSeenIP, LastSeen: d.LastSeenTS}
	}
	return sessions, nil
}

// Live tells open requests whether their session still stands. One that cannot
// be looked up does: it was authenticated a moment ago, and a client that is told
// otherwise may throw away what it has.
func (u *users) Live(ctx context.Context, user matrix.UserID, device matrix.DeviceID, token string) bool {
	alive, err := u.accounts.Alive(ctx, &httpx.Caller{User: user, Device: device, Token: token})
	return alive || err != nil
}

// reportable says what may be reported: events that the user, as a member, can
// see.
type reportable struct{ engine *rooms.Engine }

func (r reportable) MayReport(ctx context.Context, user matrix.UserID, room matrix.RoomID, id matrix.EventID) error {
	there, err := r.engine.Room(ctx, room)
	if err != nil || id == "" {
		return err
	}
	if !there.IsLocalMember(user) {
		return matrix.NotFound("There is no such event in a room that you are in")
	}
	st, err := r.engine.EventByID(ctx, there, id)
	if err != nil {
		return err
	}
	visible, err := r.engine.Visible(ctx, there, user, []*rooms.Stored{st})
	if err != nil {
		return err
	}
	if len(visible) == 0 {
		return matrix.NotFound("There is no such event in a room that you are in")
	}
	return nil
}

// inviteRules are what users say in their account data of who may invite them.
type inviteRules struct{ data *data.Data }

// Allows refuses invitations of users who want none.
// spec: client-server#minvite_permission_config
func (r inviteRules) Allows(ctx context.Context, user, _ matrix.UserID) error {
	blocked, err := r.data.BlocksInvites(ctx, user)
	if err == nil && blocked {
		return matrix.NewError(http.StatusForbidden, matrix.CodeInviteBlocked, "%s does not want to be invited to rooms", user)
	}
	return err
}

// syncData gives /sync the account data.
type syncData struct {
	db   *db.DB
	data *data.Data
}

func (s syncData) All(ctx context.Context, user matrix.UserID) ([]syncapi.Datum, error) {
	entries, err := s.data.All(ctx, s.db, user)
	return datums(entries), err
}

func (s syncData) Since(ctx context.Context, user matrix.UserID, after, upTo int64) ([]syncapi.Datum, error) {
	entries, err := s.data.Since(ctx, s.db, user, after, upTo)
	return datums(entries), err
}

func datums(entries []data.Entry) []syncapi.Datum {
	all := make([]syncapi.Datum, len(entries))
	for i, e := range entries {
		all[i] = syncapi.Datum(e)
	}
	return all
}

func (s syncData) Put(tx *db.Tx, user matrix.UserID, room matrix.RoomID, typ string, content json.RawMessage) error {
	return data.Put(tx, user, room, typ, content)
}

func (s syncData) Ignores(ctx context.Context, user matrix.UserID) (map[matrix.UserID]struct{}, error) {
	return s.data.Ignored(ctx, user)
}

func (s syncData) BlocksInvites(ctx context.Context, user matrix.UserID) (bool, error) {
	return s.data.BlocksInvites(ctx, user)
}

func (s syncData) Changed(change any) matrix.UserID {
	if c, ok := change.(data.Changed); ok {
		return c.User
	}
	return ""
}

func (s syncData) Filter(ctx context.Context, user matrix.UserID, id string) (json.RawMessage, error) {
	return s.data.RawFilter(ctx, user, id)
}

// deviceNames tells encryption which devices there are.
type deviceNames struct{}

var devicesOf = db.SQL(`SELECT u.user_id, d.device_id, d.display_name FROM users u JOIN devices d ON d.user_nid = u.user_nid
	WHERE u.user_id IN {texts $1}`)

func (deviceNames) Devices(ctx context.Context, q db.Querier, users []matrix.UserID) (map[matrix.UserID]map[matrix.DeviceID]string, error) {
	all := make(map[matrix.UserID]map[matrix.DeviceID]string, len(users))
	return all, db.Each(ctx, q, devicesOf, func(s db.Scanner) error {
		var user matrix.UserID
		var id matrix.DeviceID
		var name string
		err := s.Scan(&user, &id, &name)
		if all[user] == nil {
			all[user] = map[matrix.DeviceID]string{}
		}
		all[user][id] = name
		return err
	}, users)
}

// passwordUIA guards cross-signing keys by the user's password.
type passwordUIA struct{ accounts *accounts.Accounts }

func (p passwordUIA) Require(ctx context.Context, c *httpx.Caller, endpoint string, body, auth json.RawMessage) error {
	return p.accounts.UIA.Require(ctx, c, accounts.UIARequest{Endpoint: endpoint, Body: body}, auth, accounts.PasswordFlow())
}

func removedDevices(change any) (matrix.UserID, []matrix.DeviceID, bool) {
	c, ok := change.(accounts.SessionsEnded)
	return c.User, c.Devices, ok && c.Removed
}

func syncPosition(text string) (int64, error) {
	t, err := token.ParseSync(text)
	return t.Position, err
}
