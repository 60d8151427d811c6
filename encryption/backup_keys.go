package encryption

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"strconv"

	"github.com/teahouse-chat/teahouse/internal/db"
	"github.com/teahouse-chat/teahouse/internal/httpx"
	"github.com/teahouse-chat/teahouse/internal/matrix"
)

const (
	maxSessionBytes = 64 << 10 // of the encrypted part of one key
	maxBackupKeys   = 10_000   // of one request
	backupPageKeys  = 500      // read at a time
)

// backupKey is one session's key in a backup.
type backupKey struct {
	FirstIndex *int64          `json:"first_message_index"`
	Forwarded  *int64          `json:"forwarded_count"`
	Verified   *bool           `json:"is_verified"`
	Session    json.RawMessage `json:"session_data"`
}

type backupRoom struct {
	Sessions map[string]backupKey `json:"sessions"`
}

// session names a key in a backup.
type session struct {
	room matrix.RoomID
	id   string
}

// metadata is what decides which of two keys of a session is kept.
type metadata struct {
	first, forwarded int64
	verified         bool
}

// better tells whether a key takes the place of the one that is there.
// spec: client-server#backup-algorithm-mmegolm_backupv1curve25519-aes-sha2
func (m metadata) better(old metadata) bool {
	switch {
	case m.verified != old.verified:
		return m.verified
	case m.first != old.first:
		return m.first < old.first
	}
	return m.forwarded < old.forwarded
}

type putKeysRequest struct {
	Version string                        `query:"version"`
	Rooms   *map[matrix.RoomID]backupRoom `json:"rooms"`
}

type putRoomRequest struct {
	Version  string                `query:"version"`
	Room     matrix.RoomID         `path:"roomId"`
	Sessions *map[string]backupKey `json:"sessions"`
}

type putSessionRequest struct {
	Version string        `query:"version"`
	Room    matrix.RoomID `path:"roomId"`
	Session string        `path:"sessionId"`
	backupKey
}

type backupUpdate struct {
	ETag  string `json:"etag"`
	Count int64  `json:"count"`
}

// spec: client-server#put_matrixclientv3room_keyskeys
func (e *Encryption) putKeys(ctx context.Context, c *httpx.Caller, q *putKeysRequest) (*backupUpdate, error) {
	if q.Rooms == nil {
		return nil, matrix.MissingParam("rooms is missing")
	}
	all := map[session]backupKey{}
	for room, r := range *q.Rooms {
		if _, err := matrix.ParseRoomID(string(room)); err != nil {
			return nil, err
		}
		for id, k := range r.Sessions {
			all[session{room, id}] = k
		}
	}
	return e.backUp(ctx, c.User, q.Version, all)
}

// spec: client-server#put_matrixclientv3room_keyskeysroomid
func (e *Encryption) putRoomKeys(ctx context.Context, c *httpx.Caller, q *putRoomRequest) (*backupUpdate, error) {
	if q.Sessions == nil {
		return nil, matrix.MissingParam("sessions is missing")
	}
	all := map[session]backupKey{}
	for id, k := range *q.Sessions {
		all[session{q.Room, id}] = k
	}
	return e.backUp(ctx, c.User, q.Version, all)
}

// spec: client-server#put_matrixclientv3room_keyskeysroomidsessionid
func (e *Encryption) putSessionKey(ctx context.Context, c *httpx.Caller, q *putSessionRequest) (*backupUpdate, error) {
	return e.backUp(ctx, c.User, q.Version, map[session]backupKey{{q.Room, q.Session}: q.backupKey})
}

// check checks a key and makes its encrypted part compact.
func (k *backupKey) check(id string) error {
	switch {
	case !plain(id, matrix.MaxIDBytes):
		return matrix.InvalidParam("A session id has 1 to %d bytes and no NUL", matrix.MaxIDBytes)
	case k.FirstIndex == nil || k.Forwarded == nil || k.Verified == nil || len(k.Session) == 0:
		return matrix.MissingParam("A key needs first_message_index, forwarded_count, is_verified and session_data")
	case *k.FirstIndex < 0 || *k.Forwarded < 0:
		return matrix.InvalidParam("first_message_index and forwarded_count must not be negative")
	case k.Session[0] != '{':
		return matrix.BadJSON("session_data must be an object")
	case len(k.Session) > maxSessionBytes:
		return matrix.TooLarge("session_data has at most %d bytes", maxSessionBytes)
	}
	var compact bytes.Buffer
	if err := json.Compact(&compact, k.Session); err != nil {
		return matrix.BadJSON("session_data is not valid").Because(err)
	}
	k.Session = compact.Bytes()
	return nil
}

func (k *backupKey) metadata() metadata { return metadata{*k.FirstIndex, *k.Forwarded, *k.Verified} }

// backUp puts keys into the current backup, where they are better than those
// that are there.
func (e *Encryption) backUp(ctx context.Context, user matrix.UserID, version string, all map[session]backupKey) (*backupUpdate, error) {
	if version == "" {
		return nil, matrix.MissingParam("version is missing")
	}
	if len(all) > maxBackupKeys {
		return nil, matrix.InvalidParam("At most %d keys can be put at once", maxBackupKeys)
	}
	var rooms []matrix.RoomID
	var ids []string
	seen := map[matrix.RoomID]bool{}
	for s, k := range all {
		if err := k.check(s.id); err != nil {
			return nil, err
		}
		all[s] = k
		ids = append(ids, s.id)
		if !seen[s.room] {
			seen[s.room] = true
			rooms = append(rooms, s.room)
		}
	}
	answer := &backupUpdate{}
	return answer, e.DB.Write(ctx, func(tx *db.Tx) error {
		b, err := writable(ctx, tx, user, version)
		if err != nil {
			return err
		}
		there := map[session]metadata{}
		err = db.Each(ctx, tx, selectMetadata, func(row db.Scanner) error {
			var s session
			var m metadata
			err := row.Scan(&s.room, &s.id, &m.first, &m.forwarded, &m.verified)
			there[s] = m
			return err
		}, user, b.version, rooms, ids)
		if err != nil {
			return err
		}
		var added int64
		for s, k := range all {
			old, found := there[s]
			if found && !k.metadata().better(old) {
				continue
			}
			if !found {
				added++
			}
			if err := tx.Exec(upsertBackupKey, user, b.version, s.room, s.id, *k.FirstIndex, *k.Forwarded, *k.Verified, []byte(k.Session)); err != nil {
				return err
			}
		}
		return answer.touch(ctx, tx, user, b.version, added)
	})
}

// touch moves a backup's etag and count.
func (a *backupUpdate) touch(ctx context.Context, tx *db.Tx, user matrix.UserID, version, added int64) error {
	_, _, err := db.One(ctx, tx, touchBackup, func(s db.Scanner) (etag int64, err error) {
		err = s.Scan(&etag, &a.Count)
		a.ETag = strconv.FormatInt(etag, 10)
		return etag, err
	}, added, user, version)
	return err
}

type keysQuery struct {
	Version string `query:"version"`
}

type roomKeysQuery struct {
	Version string        `query:"version"`
	Room    matrix.RoomID `path:"roomId"`
}

type sessionKeysQuery struct {
	Version string        `query:"version"`
	Room    matrix.RoomID `path:"roomId"`
	Session string        `path:"sessionId"`
}

// spec: client-server#delete_matrixclientv3room_keyskeys
func (e *Encryption) deleteKeys(ctx context.Context, c *httpx.Caller, q *keysQuery) (*backupUpdate, error) {
	return e.unback(ctx, c.User, q.Version, deleteBackupKeys)
}

// spec: client-server#delete_matrixclientv3room_keyskeysroomid
func (e *Encryption) deleteRoomKeys(ctx context.Context, c *httpx.Caller, q *roomKeysQuery) (*backupUpdate, error) {
	return e.unback(ctx, c.User, q.Version, deleteBackupRoom, q.Room)
}

// spec: client-server#delete_matrixclientv3room_keyskeysroomidsessionid
func (e *Encryption) deleteSessionKey(ctx context.Context, c *httpx.Caller, q *sessionKeysQuery) (*backupUpdate, error) {
	return e.unback(ctx, c.User, q.Version, deleteBackupSession, q.Room, q.Session)
}

// unback deletes keys of a backup by a statement.
func (e *Encryption) unback(ctx context.Context, user matrix.UserID, version string, s *db.Stmt, args ...any) (*backupUpdate, error) {
	answer := &backupUpdate{}
	return answer, e.DB.Write(ctx, func(tx *db.Tx) error {
		b, err := findBackup(ctx, tx, user, version)
		if err != nil {
			return err
		}
		n, err := tx.Changed(s, append([]any{user, b.version}, args...)...)
		if err != nil {
			return err
		}
		return answer.touch(ctx, tx, user, b.version, -n)
	})
}

// storedKey is a key with its place.
type storedKey struct {
	session
	metadata
	text []byte
}

func scanStoredKey(s db.Scanner) (k storedKey, err error) {
	err = s.Scan(&k.room, &k.id, &k.first, &k.forwarded, &k.verified, &k.text)
	return k, err
}

func (k *storedKey) append(b []byte) []byte {
	b = strconv.AppendInt(append(b, `{"first_message_index":`...), k.first, 10)
	b = strconv.AppendInt(append(b, `,"forwarded_count":`...), k.forwarded, 10)
	b = strconv.AppendBool(append(b, `,"is_verified":`...), k.verified)
	b = append(append(b, `,"session_data":`...), k.text...)
	return append(b, '}')
}

// spec: client-server#get_matrixclientv3room_keyskeysroomidsessionid
func (e *Encryption) getSessionKey(ctx context.Context, c *httpx.Caller, q *sessionKeysQuery) (*httpx.RawJSON, error) {
	b, err := findBackup(ctx, e.DB, c.User, q.Version)
	if err != nil {
		return nil, err
	}
	k, found, err := db.One(ctx, e.DB, backupSession, scanStoredKey, c.User, b.version, q.Room, q.Session)
	if err == nil && !found {
		err = matrix.NotFound("The backup has no key of this session")
	}
	if err != nil {
		return nil, err
	}
	answer := httpx.RawJSON(k.append(nil))
	return &answer, nil
}

// storedKeys writes keys of a backup page by page, since there may be very many.
type storedKeys struct {
	next func(after session) ([]storedKey, error)
	list []storedKey   // the first page
	room matrix.RoomID // the only one, or "" for all with their names
}

// spec: client-server#get_matrixclientv3room_keyskeysroomid
func (e *Encryption) getRoomKeys(ctx context.Context, c *httpx.Caller, q *roomKeysQuery) (*storedKeys, error) {
	b, err := findBackup(ctx, e.DB, c.User, q.Version)
	if err != nil {
		return nil, err
	}
	return firstPage(&storedKeys{room: q.Room, next: func(after session) ([]storedKey, error) {
		return db.All(ctx, e.DB, backupRoomPage, scanStoredKey, c.User, b.version, q.Room, after.id, backupPageKeys)
	}})
}

// spec: client-server#get_matrixclientv3room_keyskeys
func (e *Encryption) getKeys(ctx context.Context, c *httpx.Caller, q *keysQuery) (*storedKeys, error) {
	b, err := findBackup(ctx, e.DB, c.User, q.Version)
	if err != nil {
		return nil, err
	}
	return firstPage(&storedKeys{next: func(after session) ([]storedKey, error) {
		return db.All(ctx, e.DB, backupPage, scanStoredKey, c.User, b.version, after.room, after.id, backupPageKeys)
	}})
}

// firstPage reads a page while an error can still be answered.
func firstPage(a *storedKeys) (*storedKeys, error) {
	var err error
	a.list, err = a.next(session{})
	return a, err
}

// WriteTo writes the answer.
func (a *storedKeys) WriteTo(w io.Writer) (int64, error) {
	var total int64
	var room matrix.RoomID
	b := []byte(`{"rooms":{`)
	if a.room != "" {
		room, b = a.room, []byte(`{"sessions":{`)
	}
	first := true
	for list := a.list; len(list) > 0; {
		for i := range list {
			k := &list[i]
			switch {
			case k.room != room:
				if room != "" {
					b = append(b, `}},`...)
				}
				room = k.room
				b = append(appendText(b, room), `:{"sessions":{`...)
			case !first:
				b = append(b, ',')
			}
			first = false
			b = append(appendText(b, k.id), ':')
			b = k.append(b)
		}
		n, err := w.Write(b)
		if total += int64(n); err != nil {
			return total, err
		}
		b = b[:0]
		last := list[len(list)-1].session
		if len(list) < backupPageKeys {
			break
		}
		if list, err = a.next(last); err != nil {
			return total, err
		}
	}
	if room != "" {
		b = append(b, `}}`...)
	}
	if a.room == "" {
		b = append(b, `}}`...)
	}
	n, err := w.Write(b)
	return total + int64(n), err
}
