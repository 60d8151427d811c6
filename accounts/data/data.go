package data

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"time"

	"github.com/teahouse-chat/teahouse/internal/db"
	"github.com/teahouse-chat/teahouse/internal/matrix"
)

// Limits of account data.
const (
	MaxContentBytes = 256 << 10 // emote packs and settings of real clients reach 100 KiB
	MaxTypeBytes    = 255
)

// Types of account data that the server reads or writes itself.
const (
	TypeFullyRead   = "m.fully_read"
	TypePushRules   = "m.push_rules"
	TypeTag         = "m.tag"
	TypeDirect      = "m.direct"
	TypeIgnoredList = "m.ignored_user_list"
)

// managed lists the types that clients may read but not write.
// spec: client-server#server-behaviour-13
var managed = map[string]bool{TypeFullyRead: true, TypePushRules: true}

// Deps is what New needs.
type Deps struct {
	DB         *db.DB
	ServerName matrix.ServerName
	Now        func() time.Time
	// Defaults gives the content of global account data, by type, that users
	// have who have none stored, such as the predefined push rules.
	Defaults map[string]func(user matrix.UserID) json.RawMessage
}

// Data is the feature.
type Data struct {
	db       *db.DB
	server   matrix.ServerName
	now      func() time.Time
	defaults map[string]func(matrix.UserID) json.RawMessage
	ignored  cache
}

// New makes the feature.
func New(deps Deps) (*Data, error) {
	d := &Data{
		db: deps.DB, server: deps.ServerName, now: deps.Now, defaults: deps.Defaults,
		ignored: newCache(),
	}
	deps.DB.Subscribe(d.forget)
	return d, nil
}

// Entry is one piece of account data.
type Entry struct {
	Room     matrix.RoomID // "" for the account's own
	Type     string
	Content  json.RawMessage // a JSON object
	Position int64           // of the stream; 0 for a default
}

// Changed is published on the stream with every change of account data.
type Changed struct {
	User     matrix.UserID
	Room     matrix.RoomID // "" for the account's own
	Type     string
	Content  json.RawMessage
	Position int64
}

// Erased is published when everything of a user was removed.
type Erased struct{ User matrix.UserID }

// forget drops ignore lists that a commit made stale. It runs before the writer
// is answered, so that the next /sync obeys the new list.
func (d *Data) forget(b db.Batch) {
	for _, c := range b.Changes {
		switch c := c.(type) {
		case Changed:
			if c.Room == "" && c.Type == TypeIgnoredList {
				d.ignored.drop(c.User)
			}
		case Erased:
			d.ignored.drop(c.User)
		}
	}
}

// Get returns the content of one piece of account data; M_NOT_FOUND if it was
// never set and has no default.
// spec: client-server#get_matrixclientv3useruseridaccount_datatype
func (d *Data) Get(ctx context.Context, user matrix.UserID, room matrix.RoomID, typ string) (json.RawMessage, error) {
	content, found, err := db.One(ctx, d.db, selectContent, scanContent, user, room, typ)
	if err != nil || found {
		return content, err
	}
	if def := d.defaults[typ]; def != nil && room == "" {
		return def(user), nil
	}
	return nil, matrix.NotFound("There is no account data of this type")
}

// Set stores account data as a client wants it: types that the server manages
// are refused.
// spec: client-server#put_matrixclientv3useruseridaccount_datatype
func (d *Data) Set(ctx context.Context, user matrix.UserID, room matrix.RoomID, typ string, content json.RawMessage) error {
	switch {
	case managed[typ]:
		return matrix.NewError(http.StatusMethodNotAllowed, matrix.CodeBadJSON, "%s is kept by the server; use its own endpoints", typ)
	case len(typ) > MaxTypeBytes:
		return matrix.InvalidParam("The type of account data has at most %d bytes", MaxTypeBytes)
	}
	var compact bytes.Buffer
	if err := json.Compact(&compact, content); err != nil {
		return matrix.NotJSON("The content is not JSON").Because(err)
	}
	if compact.Len() > MaxContentBytes {
		return errTooLarge
	}
	return d.db.Write(ctx, func(tx *db.Tx) error { return Put(tx, user, room, typ, compact.Bytes()) })
}

var errTooLarge = matrix.TooLarge("Account data has at most %d bytes", MaxContentBytes)

// Put stores account data of any type within a write of the caller: this is how
// other features keep what they show to clients as account data. The content is
// a JSON object and must not be changed afterwards.
func Put(tx *db.Tx, user matrix.UserID, room matrix.RoomID, typ string, content json.RawMessage) error {
	position := tx.Position()
	if err := tx.Exec(upsertContent, user, room, typ, []byte(content), position); err != nil {
		return err
	}
	tx.Publish(Changed{User: user, Room: room, Type: typ, Content: content, Position: position})
	return nil
}

// Erase removes everything that user has stored, for good. It may be repeated.
func (d *Data) Erase(ctx context.Context, user matrix.UserID) error {
	return d.db.Write(ctx, func(tx *db.Tx) error {
		tx.Publish(Erased{user})
		for _, s := range []*db.Stmt{eraseContent, eraseFilters, eraseOpenID} {
			if err := tx.Exec(s, user); err != nil {
				return err
			}
		}
		return nil
	})
}

// All returns what a client of user starts with: the account's own data, with
// the defaults, and then that of each room, ordered by room and type.
func (d *Data) All(ctx context.Context, q db.Querier, user matrix.UserID) ([]Entry, error) {
	stored, err := db.All(ctx, q, selectAll, scanEntry, user)
	if err != nil {
		return nil, err
	}
	has := make(map[string]bool)
	var entries []Entry
	for _, e := range stored {
		if e.Room == "" {
			has[e.Type] = true
		}
		if string(e.Content) != "{}" {
			entries = append(entries, e)
		}
	}
	var defaults []Entry
	for typ, content := range d.defaults {
		if !has[typ] {
			defaults = append(defaults, Entry{Type: typ, Content: content(user)})
		}
	}
	return append(defaults, entries...), nil
}

// Since returns what changed for user after the position after, up to and
// including upTo, ordered by position.
func (d *Data) Since(ctx context.Context, q db.Querier, user matrix.UserID, after, upTo int64) ([]Entry, error) {
	return db.All(ctx, q, selectSince, scanEntry, user, after, upTo)
}
