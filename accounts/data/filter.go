package data

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"

	"github.com/teahouse-chat/teahouse/internal/db"
	"github.com/teahouse-chat/teahouse/internal/matrix"
)

const (
	// MaxFilterBytes bounds a filter.
	MaxFilterBytes = 64 << 10
	// maxCachedFilterBytes keeps the cache small whatever clients store.
	maxCachedFilterBytes = 4 << 10
)

// Filter says what a client wants of /sync. A nil list includes everything; an
// empty one nothing.
// spec: client-server#post_matrixclientv3useruseridfilter
type Filter struct {
	EventFields []string    `json:"event_fields"`
	EventFormat string      `json:"event_format"` // "client", "federation" or ""
	Presence    EventFilter `json:"presence"`
	AccountData EventFilter `json:"account_data"`
	Room        RoomFilter  `json:"room"`
}

// RoomFilter is the part of a Filter about rooms.
type RoomFilter struct {
	Rooms        []matrix.RoomID `json:"rooms"`
	NotRooms     []matrix.RoomID `json:"not_rooms"`
	IncludeLeave bool            `json:"include_leave"`
	Ephemeral    RoomEventFilter `json:"ephemeral"`
	State        RoomEventFilter `json:"state"`
	Timeline     RoomEventFilter `json:"timeline"`
	AccountData  RoomEventFilter `json:"account_data"`
}

// EventFilter picks events. Types may have "*" for any run of characters.
type EventFilter struct {
	Limit      *int64          `json:"limit"` // nil: the server's choice
	Types      []string        `json:"types"`
	NotTypes   []string        `json:"not_types"`
	Senders    []matrix.UserID `json:"senders"`
	NotSenders []matrix.UserID `json:"not_senders"`
}

// RoomEventFilter picks events of rooms.
type RoomEventFilter struct {
	EventFilter
	Rooms                     []matrix.RoomID `json:"rooms"`
	NotRooms                  []matrix.RoomID `json:"not_rooms"`
	ContainsURL               *bool           `json:"contains_url"`
	LazyLoadMembers           bool            `json:"lazy_load_members"`
	IncludeRedundantMembers   bool            `json:"include_redundant_members"`
	UnreadThreadNotifications bool            `json:"unread_thread_notifications"`
}

// ParseFilter reads a filter and checks every part that the server will use.
func ParseFilter(raw []byte) (*Filter, error) {
	var f Filter
	if err := json.Unmarshal(raw, &f); err != nil {
		if wrong, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
			return nil, matrix.BadJSON("%q of the filter has the wrong type", wrong.Field).Because(err)
		}
		return nil, matrix.NotJSON("The filter is not JSON").Because(err)
	}
	if trimmed := bytes.TrimLeft(raw, " \t\r\n"); trimmed[0] != '{' {
		return nil, matrix.BadJSON("The filter must be a JSON object")
	}
	return &f, f.check()
}

func (f *Filter) check() error {
	switch f.EventFormat {
	case "", "client", "federation":
	default:
		return matrix.BadJSON(`"event_format" must be "client" or "federation"`)
	}
	r := &f.Room
	for _, e := range []*EventFilter{
		&f.Presence, &f.AccountData, &r.Ephemeral.EventFilter, &r.State.EventFilter,
		&r.Timeline.EventFilter, &r.AccountData.EventFilter,
	} {
		if e.Limit != nil && *e.Limit < 0 {
			return matrix.BadJSON(`"limit" must not be negative`)
		}
		if err := sigils('@', "a user id", e.Senders, e.NotSenders); err != nil {
			return err
		}
	}
	return sigils('!', "a room id", r.Rooms, r.NotRooms,
		r.Ephemeral.Rooms, r.Ephemeral.NotRooms, r.State.Rooms, r.State.NotRooms,
		r.Timeline.Rooms, r.Timeline.NotRooms, r.AccountData.Rooms, r.AccountData.NotRooms)
}

// sigils tells whether all ids begin as their kind does. What follows need not
// be checked: an id that no one has matches nothing.
func sigils[T ~string](sigil byte, kind string, lists ...[]T) error {
	for _, list := range lists {
		for _, id := range list {
			if id == "" || id[0] != sigil {
				return matrix.BadJSON("The filter names something that is not %s", kind)
			}
		}
	}
	return nil
}

type filterKey struct {
	user matrix.UserID
	id   string
}

// AddFilter stores a filter and returns its id; the same content has the same
// id.
// spec: client-server#post_matrixclientv3useruseridfilter
func (d *Data) AddFilter(ctx context.Context, user matrix.UserID, raw json.RawMessage) (string, error) {
	if _, err := ParseFilter(raw); err != nil {
		return "", err
	}
	var compact bytes.Buffer
	if err := json.Compact(&compact, raw); err != nil {
		return "", matrix.NotJSON("The filter is not JSON").Because(err)
	}
	if compact.Len() > MaxFilterBytes {
		return "", matrix.TooLarge("A filter has at most %d bytes", MaxFilterBytes)
	}
	sum := sha256.Sum256(compact.Bytes())
	id := hex.EncodeToString(sum[:16])
	_, known, err := db.One(ctx, d.db, selectFilter, scanContent, user, id)
	if err != nil || known {
		return id, err
	}
	return id, d.db.Write(ctx, func(tx *db.Tx) error {
		return tx.Exec(insertFilter, user, id, compact.Bytes())
	})
}

// RawFilter returns a filter as it was stored; M_NOT_FOUND if there is none.
// spec: client-server#get_matrixclientv3useruseridfilterfilterid
func (d *Data) RawFilter(ctx context.Context, user matrix.UserID, id string) (json.RawMessage, error) {
	raw, found, err := db.One(ctx, d.db, selectFilter, scanContent, user, id)
	if err == nil && !found {
		err = matrix.NotFound("There is no such filter; create it again")
	}
	return raw, err
}

// Filter returns a stored filter, read for use. It is shared: do not change it.
func (d *Data) Filter(ctx context.Context, user matrix.UserID, id string) (*Filter, error) {
	key := filterKey{user, id}
	if f, ok := d.filters.get(key); ok {
		return f, nil
	}
	raw, err := d.RawFilter(ctx, user, id)
	if err != nil {
		return nil, err
	}
	f, err := ParseFilter(raw)
	if err != nil {
		return nil, err
	}
	if len(raw) <= maxCachedFilterBytes {
		d.filters.put(key, f, d.filters.now())
	}
	return f, nil
}
