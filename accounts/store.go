package accounts

import (
	"context"

	"github.com/teahouse-chat/teahouse/internal/db"
	"github.com/teahouse-chat/teahouse/internal/matrix"
)

// Times are milliseconds since the epoch, 0 for never.
//
// users.departing is 1 from deactivation until the rooms are left and the hooks
// are done, so that a crash in between is made up for.
//
// sessions.replaces names the session whose refresh token made this one, until
// one of the new tokens is used.
var _ = db.Schema("accounts", `
CREATE TABLE users (
	user_nid    INTEGER PRIMARY KEY,
	user_id     TEXT NOT NULL UNIQUE,
	password    TEXT NOT NULL,
	created_ts  INTEGER NOT NULL,
	guest       {bool} NOT NULL,
	admin       {bool} NOT NULL,
	locked      {bool} NOT NULL,
	deactivated {bool} NOT NULL,
	erased      {bool} NOT NULL,
	departing   {bool} NOT NULL,
	appservice  TEXT NOT NULL,
	terms       TEXT NOT NULL
);
CREATE INDEX users_departing ON users (departing) WHERE departing = 1;
CREATE TABLE devices (
	user_nid     INTEGER NOT NULL,
	device_id    TEXT NOT NULL,
	display_name TEXT NOT NULL,
	created_ts   INTEGER NOT NULL,
	last_seen_ts INTEGER NOT NULL,
	last_seen_ip TEXT NOT NULL,
	PRIMARY KEY (user_nid, device_id)
);
CREATE TABLE sessions (
	session_nid     INTEGER PRIMARY KEY,
	user_nid        INTEGER NOT NULL,
	device_id       TEXT NOT NULL,
	access_hash     {blob} NOT NULL UNIQUE,
	expires_ts      INTEGER NOT NULL,
	refresh_hash    {blob} UNIQUE,
	refresh_expires INTEGER NOT NULL,
	replaces        INTEGER NOT NULL
);
CREATE INDEX sessions_device ON sessions (user_nid, device_id);
CREATE TABLE login_tokens (
	token_hash {blob} PRIMARY KEY,
	user_nid   INTEGER NOT NULL,
	expires_ts INTEGER NOT NULL
);
CREATE INDEX login_tokens_user ON login_tokens (user_nid);
CREATE TABLE registration_tokens (
	token        TEXT PRIMARY KEY,
	uses_allowed INTEGER NOT NULL,
	used         INTEGER NOT NULL,
	expires_ts   INTEGER NOT NULL,
	created_ts   INTEGER NOT NULL
);
`)

// Users.
var (
	insertUser = db.SQL(`INSERT INTO users
		(user_nid, user_id, password, created_ts, guest, admin, locked, deactivated, erased, departing, appservice, terms)
		VALUES ($1, $2, $3, $4, $5, $6, 0, 0, 0, 0, $7, $8)`)
	selectUser = db.SQL(`SELECT ` + userColumns + ` FROM users WHERE user_id = $1`)
	listUsers  = db.SQL(`SELECT ` + userColumns + ` FROM users WHERE user_id > $1 ORDER BY user_id LIMIT $2`)
	departing  = db.SQL(`SELECT ` + userColumns + ` FROM users WHERE departing = 1`)
	erasedOf   = db.SQL(`SELECT user_id FROM users WHERE erased = 1 AND user_id IN {texts $1}`)

	updatePassword = db.SQL(`UPDATE users SET password = $1 WHERE user_nid = $2`)
	upgradeHash    = db.SQL(`UPDATE users SET password = $1 WHERE user_nid = $2 AND password = $3`)
	updateLocked   = db.SQL(`UPDATE users SET locked = $1 WHERE user_nid = $2`)
	updateAdmin    = db.SQL(`UPDATE users SET admin = $1 WHERE user_nid = $2`)
	updateDeparted = db.SQL(`UPDATE users SET departing = 0 WHERE user_nid = $1`)
	deactivateUser = db.SQL(`UPDATE users SET deactivated = 1, departing = 1, password = '', admin = 0,
		erased = CASE WHEN $1 = 1 THEN 1 ELSE erased END WHERE user_nid = $2`)
)

const userColumns = `user_nid, user_id, password, created_ts, guest, admin, locked, deactivated, erased, appservice`

// Devices.
var (
	insertDevice = db.SQL(`INSERT INTO devices (user_nid, device_id, display_name, created_ts, last_seen_ts, last_seen_ip)
		VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (user_nid, device_id) DO NOTHING`)
	selectDevice = db.SQL(`SELECT device_id, display_name, last_seen_ts, last_seen_ip FROM devices
		WHERE user_nid = $1 AND device_id = $2`)
	selectDevices = db.SQL(`SELECT device_id, display_name, last_seen_ts, last_seen_ip FROM devices
		WHERE user_nid = $1 ORDER BY device_id`)
	renameDevice  = db.SQL(`UPDATE devices SET display_name = $1 WHERE user_nid = $2 AND device_id = $3`)
	touchDevice   = db.SQL(`UPDATE devices SET last_seen_ts = $1, last_seen_ip = $2 WHERE user_nid = $3 AND device_id = $4`)
	deleteDevices = db.SQL(`DELETE FROM devices WHERE user_nid = $1 AND device_id IN {texts $2}`)
)

// Sessions.
var (
	insertSession = db.SQL(`INSERT INTO sessions
		(session_nid, user_nid, device_id, access_hash, expires_ts, refresh_hash, refresh_expires, replaces)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8)`)
	sessionByAccess = db.SQL(`SELECT s.session_nid, s.user_nid, s.device_id, s.expires_ts, s.refresh_expires, s.replaces,
		u.user_id, u.guest, u.admin, u.locked, u.deactivated
		FROM sessions s JOIN users u ON u.user_nid = s.user_nid WHERE s.access_hash = $1`)
	sessionByRefresh = db.SQL(`SELECT s.session_nid, s.user_nid, s.device_id, s.expires_ts, s.refresh_expires, s.replaces,
		u.user_id, u.guest, u.admin, u.locked, u.deactivated
		FROM sessions s JOIN users u ON u.user_nid = s.user_nid WHERE s.refresh_hash = $1`)
	sessionConfirmed       = db.SQL(`UPDATE sessions SET replaces = 0 WHERE session_nid = $1`)
	deleteSession          = db.SQL(`DELETE FROM sessions WHERE session_nid = $1`)
	deleteUnconfirmed      = db.SQL(`DELETE FROM sessions WHERE replaces = $1 AND user_nid = $2 AND device_id = $3`)
	deleteSessionsOfDevice = db.SQL(`DELETE FROM sessions WHERE user_nid = $1 AND device_id IN {texts $2}`)
)

// Tokens that are used once or a few times.
var (
	insertLoginToken  = db.SQL(`INSERT INTO login_tokens (token_hash, user_nid, expires_ts) VALUES ($1, $2, $3)`)
	selectLoginToken  = db.SQL(`SELECT t.expires_ts, u.user_id FROM login_tokens t JOIN users u ON u.user_nid = t.user_nid WHERE t.token_hash = $1`)
	deleteLoginToken  = db.SQL(`DELETE FROM login_tokens WHERE token_hash = $1`)
	pruneLoginTokens  = db.SQL(`DELETE FROM login_tokens WHERE expires_ts <= $1`)
	revokeLoginTokens = db.SQL(`DELETE FROM login_tokens WHERE user_nid = $1`)
	insertRegToken    = db.SQL(`INSERT INTO registration_tokens (token, uses_allowed, used, expires_ts, created_ts) VALUES ($1, $2, 0, $3, $4)`)
	selectRegToken    = db.SQL(`SELECT token, uses_allowed, used, expires_ts FROM registration_tokens WHERE token = $1`)
	listRegTokens     = db.SQL(`SELECT token, uses_allowed, used, expires_ts FROM registration_tokens ORDER BY created_ts, token`)
	deleteRegToken    = db.SQL(`DELETE FROM registration_tokens WHERE token = $1`)
	useRegToken       = db.SQL(`UPDATE registration_tokens SET used = used + 1 WHERE token = $1`)
)

// User is an account as it is stored.
type User struct {
	ID          matrix.UserID
	CreatedTS   int64 // milliseconds since the epoch
	Guest       bool
	Admin       bool
	Locked      bool
	Deactivated bool
	Erased      bool
	Appservice  string // id of the application service that registered it, or ""

	nid      int64
	password string // encoded hash, "" for none
}

func scanUser(s db.Scanner) (User, error) {
	var u User
	err := s.Scan(&u.nid, &u.ID, &u.password, &u.CreatedTS, &u.Guest, &u.Admin, &u.Locked, &u.Deactivated, &u.Erased, &u.Appservice)
	return u, err
}

// sessionRow is a session with what is needed of its user.
type sessionRow struct {
	nid, userNID, expires, refreshExpires, replaces int64
	device                                          matrix.DeviceID
	user                                            matrix.UserID
	guest, admin, locked, deactivated               bool
}

func scanSession(s db.Scanner) (sessionRow, error) {
	var r sessionRow
	err := s.Scan(&r.nid, &r.userNID, &r.device, &r.expires, &r.refreshExpires, &r.replaces,
		&r.user, &r.guest, &r.admin, &r.locked, &r.deactivated)
	return r, err
}

func (a *Accounts) userByID(ctx context.Context, q db.Querier, id matrix.UserID) (User, bool, error) {
	return db.One(ctx, q, selectUser, scanUser, id)
}
