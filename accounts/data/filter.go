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

// MaxFilterBytes bounds a filter.
const MaxFilterBytes = 64 << 10

// filter has the parts of a filter that mean something to the server, so that
// one which /sync could not read is refused when it is made.
// spec: client-server#post_matrixclientv3useruseridfilter
type filter struct {
	EventFields []string    `json:"event_fields"`
	EventFormat string      `json:"event_format"`
	Presence    eventFilter `json:"presence"`
	AccountData eventFilter `json:"account_data"`
	Room        struct {
		roomChoice
		IncludeLeave bool            `json:"include_leave"`
		Ephemeral    roomEventFilter `json:"ephemeral"`
		State        roomEventFilter `json:"state"`
		Timeline     roomEventFilter `json:"timeline"`
		AccountData  roomEventFilter `json:"account_data"`
	} `json:"room"`
}

type eventFilter struct {
	Limit      *int64          `json:"limit"`
	Types      []string        `json:"types"`
	NotTypes   []string        `json:"not_types"`
	Senders    []matrix.UserID `json:"senders"`
	NotSenders []matrix.UserID `json:"not_senders"`
}

type roomChoice struct {
	Rooms    []matrix.RoomID `json:"rooms"`
	NotRooms []matrix.RoomID `json:"not_rooms"`
}

type roomEventFilter struct {
	eventFilter
	roomChoice
	ContainsURL      *bool           `json:"contains_url"`
	LazyMembers      bool            `json:"lazy_load_members"`
	RedundantMembers bool            `json:"include_redundant_members"`
	UnreadThreads    bool            `json:"unread_thread_notifications"`
	RelatedBySenders []matrix.UserID `json:"related_by_senders"`
	RelatedByTypes   []string        `json:"related_by_rel_types"`
}

// checkFilter tells what is wrong with a filter.
func checkFilter(raw []byte) error {
	if !bytes.HasPrefix(raw, []byte("{")) {
		return matrix.BadJSON("The filter must be a JSON object")
	}
	var f filter
	if err := json.Unmarshal(raw, &f); err != nil {
		if wrong, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
			return matrix.BadJSON("%q of the filter has the wrong type", wrong.Field).Because(err)
		}
		return matrix.NotJSON("The filter is not JSON").Because(err)
	}
	return f.check()
}

func (f *filter) check() error {
	switch f.EventFormat {
	case "", "client", "federation":
	default:
		return matrix.BadJSON(`"event_format" must be "client" or "federation"`)
	}
	r := &f.Room
	for _, e := range []*eventFilter{
		&f.Presence, &f.AccountData, &r.Ephemeral.eventFilter, &r.State.eventFilter, &r.Timeline.eventFilter, &r.AccountData.eventFilter,
	} {
		if err := e.check(); err != nil {
			return err
		}
	}
	for _, c := range []*roomChoice{
		&r.roomChoice, &r.Ephemeral.roomChoice, &r.State.roomChoice, &r.Timeline.roomChoice, &r.AccountData.roomChoice,
	} {
		if err := sigils('!', "a room id", c.Rooms, c.NotRooms); err != nil {
			return err
		}
	}
	return nil
}

func (e *eventFilter) check() error {
	if e.Limit != nil && *e.Limit < 0 {
		return matrix.BadJSON(`"limit" must not be negative`)
	}
	return sigils('@', "a user id", e.Senders, e.NotSenders)
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

// AddFilter stores a filter and returns its id; the same content has the same
// id.
// spec: client-server#post_matrixclientv3useruseridfilter
func (d *Data) AddFilter(ctx context.Context, user matrix.UserID, raw json.RawMessage) (string, error) {
	var compact bytes.Buffer
	if err := json.Compact(&compact, raw); err != nil {
		return "", matrix.NotJSON("The filter is not JSON").Because(err)
	}
	if compact.Len() > MaxFilterBytes {
		return "", matrix.TooLarge("A filter has at most %d bytes", MaxFilterBytes)
	}
	if err := checkFilter(compact.Bytes()); err != nil {
		return "", err
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
