package encryption

import (
	"context"
	"encoding/json"
	"net/http"
	"strconv"

	"github.com/teahouse-chat/teahouse/internal/db"
	"github.com/teahouse-chat/teahouse/internal/httpx"
	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms/event"
)

// maxAuthData bounds what a backup says of itself.
const maxAuthData = 64 << 10

// backup is one version of a user's key backup. A deleted one is remembered, so
// that its number is not used again.
type backup struct {
	version   int64
	algorithm string
	authData  string
	etag      int64 // counts the writes
	keys      int64
	deleted   bool
}

func scanBackup(s db.Scanner) (b backup, err error) {
	err = s.Scan(&b.version, &b.algorithm, &b.authData, &b.etag, &b.keys, &b.deleted)
	return b, err
}

type backupAnswer struct {
	Algorithm string          `json:"algorithm"`
	AuthData  json.RawMessage `json:"auth_data"`
	Count     int64           `json:"count"`
	ETag      string          `json:"etag"`
	Version   string          `json:"version"`
}

func noBackup() *matrix.Error { return matrix.NotFound("There is no such key backup") }

// parseVersion reads a version; one that was never given out is 0.
func parseVersion(text string) int64 {
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 1 || strconv.FormatInt(n, 10) != text {
		return 0
	}
	return n
}

// findBackup returns a version of the user's backup that is not deleted.
func findBackup(ctx context.Context, q db.Querier, user matrix.UserID, version string) (backup, error) {
	b, found, err := db.One(ctx, q, selectBackup, scanBackup, user, parseVersion(version))
	if err == nil && (!found || b.deleted) {
		err = noBackup()
	}
	return b, err
}

type versionRequest struct {
	Algorithm string          `json:"algorithm"`
	AuthData  json.RawMessage `json:"auth_data"`
}

// check returns the canonical auth_data.
func (q *versionRequest) check() (string, error) {
	switch {
	case !plain(q.Algorithm, matrix.MaxIDBytes):
		return "", matrix.MissingParam("algorithm is missing, or too long")
	case len(q.AuthData) == 0 || q.AuthData[0] != '{':
		return "", matrix.MissingParam("auth_data, an object, is missing")
	case len(q.AuthData) > maxAuthData:
		return "", matrix.TooLarge("auth_data has at most %d bytes", maxAuthData)
	}
	data, err := event.Canonical(q.AuthData)
	if err != nil {
		return "", matrix.BadJSON("auth_data is not valid: %s", err).Because(err)
	}
	return string(data), nil
}

type versionAnswer struct {
	Version string `json:"version"`
}

// createBackup begins a new backup, which is the current one from then on.
// spec: client-server#post_matrixclientv3room_keysversion
func (e *Encryption) createBackup(ctx context.Context, c *httpx.Caller, q *versionRequest) (*versionAnswer, error) {
	data, err := q.check()
	if err != nil {
		return nil, err
	}
	var version int64
	err = e.DB.Write(ctx, func(tx *db.Tx) error {
		last, _, err := db.One(ctx, tx, lastVersion, scanInt, c.User)
		if err != nil {
			return err
		}
		version = last + 1
		return tx.Exec(insertBackup, c.User, version, q.Algorithm, data)
	})
	return &versionAnswer{strconv.FormatInt(version, 10)}, err
}

func (b *backup) answer() *backupAnswer {
	return &backupAnswer{b.algorithm, json.RawMessage(b.authData), b.keys, strconv.FormatInt(b.etag, 10), strconv.FormatInt(b.version, 10)}
}

// currentBackup describes the newest backup.
// spec: client-server#get_matrixclientv3room_keysversion
func (e *Encryption) currentBackup(ctx context.Context, c *httpx.Caller, q *struct{}) (*backupAnswer, error) {
	b, found, err := db.One(ctx, e.DB, latestBackup, scanBackup, c.User)
	if err == nil && !found {
		err = noBackup()
	}
	if err != nil {
		return nil, err
	}
	return b.answer(), nil
}

type versionQuery struct {
	Version string `path:"version"`
}

// getBackup describes a backup.
// spec: client-server#get_matrixclientv3room_keysversionversion
func (e *Encryption) getBackup(ctx context.Context, c *httpx.Caller, q *versionQuery) (*backupAnswer, error) {
	b, err := findBackup(ctx, e.DB, c.User, q.Version)
	if err != nil {
		return nil, err
	}
	return b.answer(), nil
}

type updateRequest struct {
	versionRequest
	Version     string  `path:"version"`
	BodyVersion *string `json:"version"`
}

// putBackup changes the auth_data of a backup, and nothing else.
// spec: client-server#put_matrixclientv3room_keysversionversion
func (e *Encryption) putBackup(ctx context.Context, c *httpx.Caller, q *updateRequest) (*struct{}, error) {
	data, err := q.check()
	if err != nil {
		return nil, err
	}
	if q.BodyVersion != nil && *q.BodyVersion != q.Version {
		return nil, matrix.InvalidParam("The version in the body is not the one in the path")
	}
	return nil, e.DB.Write(ctx, func(tx *db.Tx) error {
		b, err := findBackup(ctx, tx, c.User, q.Version)
		if err != nil {
			return err
		}
		if b.algorithm != q.Algorithm {
			return matrix.InvalidParam("The algorithm of a backup cannot be changed; it is %q", b.algorithm)
		}
		return tx.Exec(updateBackup, data, c.User, b.version)
	})
}

// deleteBackup deletes a backup with its keys.
// spec: client-server#delete_matrixclientv3room_keysversionversion
func (e *Encryption) deleteBackup(ctx context.Context, c *httpx.Caller, q *versionQuery) (*struct{}, error) {
	version := parseVersion(q.Version)
	return nil, e.DB.Write(ctx, func(tx *db.Tx) error {
		n, err := tx.Changed(dropBackup, c.User, version)
		if err != nil {
			return err
		}
		if n == 0 {
			return noBackup()
		}
		return tx.Exec(deleteBackupKeys, c.User, version)
	})
}

// writable finds the backup that keys may be put into: the current one.
func writable(ctx context.Context, q db.Querier, user matrix.UserID, version string) (backup, error) {
	current, found, err := db.One(ctx, q, latestBackup, scanBackup, user)
	if err != nil {
		return current, err
	}
	if !found {
		return current, noBackup()
	}
	if current.version != parseVersion(version) {
		return current, matrix.NewError(http.StatusForbidden, matrix.CodeWrongRoomKeysVersion, "This is not the current backup").
			With("current_version", strconv.FormatInt(current.version, 10))
	}
	return current, nil
}
