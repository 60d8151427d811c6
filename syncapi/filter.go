package syncapi

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"sync"

	"github.com/teahouse-chat/teahouse/internal/filter"
	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms"
)

// options say what a client wants of an answer: a Filter.
// spec: client-server#post_matrixclientv3useruseridfilter
type options struct {
	Fields      []string      `json:"event_fields"`
	Format      string        `json:"event_format"`
	Presence    filter.Events `json:"presence"`
	AccountData filter.Events `json:"account_data"`
	Room        roomOptions   `json:"room"`

	paths [][]string // of Fields; nil for all
}

type roomOptions struct {
	Rooms        []matrix.RoomID `json:"rooms"`
	NotRooms     []matrix.RoomID `json:"not_rooms"`
	IncludeLeave bool            `json:"include_leave"`
	Ephemeral    filter.Events   `json:"ephemeral"`
	State        filter.Events   `json:"state"`
	Timeline     filter.Events   `json:"timeline"`
	AccountData  filter.Events   `json:"account_data"`
}

// parseFilter reads a filter; 400 says what is wrong with it.
func parseFilter(raw []byte) (*options, error) {
	f := &options{}
	if len(raw) > filter.MaxBytes {
		return nil, matrix.InvalidParam("A filter has at most %d bytes", filter.MaxBytes)
	}
	if err := json.Unmarshal(raw, f); err != nil {
		if wrong, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
			return nil, matrix.BadJSON("%q of the filter has the wrong type", wrong.Field).Because(err)
		}
		return nil, matrix.NotJSON("The filter is not JSON").Because(err)
	}
	switch f.Format {
	case "", "client", "federation":
	default:
		return nil, matrix.InvalidParam(`"event_format" is "client" or "federation"`)
	}
	for _, e := range []*filter.Events{&f.Presence, &f.AccountData, &f.Room.Ephemeral, &f.Room.State, &f.Room.Timeline, &f.Room.AccountData} {
		if err := e.Check(); err != nil {
			return nil, err
		}
	}
	if f.Fields != nil {
		f.paths = [][]string{}
		for _, field := range f.Fields {
			f.paths = append(f.paths, splitPath(field))
		}
	}
	return f, nil
}

// splitPath parts a property path at its dots; a backslash takes the meaning
// from a dot or a backslash.
// spec: appendices#dot-separated-property-paths
func splitPath(path string) []string {
	var parts []string
	var part []byte
	for i := 0; i < len(path); i++ {
		switch c := path[i]; {
		case c == '\\' && i+1 < len(path) && (path[i+1] == '.' || path[i+1] == '\\'):
			i++
			part = append(part, path[i])
		case c == '.':
			parts = append(parts, string(part))
			part = part[:0]
		default:
			part = append(part, c)
		}
	}
	return append(parts, string(part))
}

// takesRoom tells whether anything of a room is wanted.
func (o *roomOptions) takesRoom(id matrix.RoomID) bool {
	return !slices.Contains(o.NotRooms, id) && (o.Rooms == nil || slices.Contains(o.Rooms, id))
}

// takesType tells whether events of a type are picked, whoever sent them.
func takesType(f *filter.Events, typ string) bool {
	types := filter.Events{Types: f.Types, NotTypes: f.NotTypes}
	return types.Takes(typ, "", nil)
}

func takesEvent(f *filter.Events, ev *rooms.Stored) bool {
	return f.Takes(ev.Type, ev.Sender, ev.Content)
}

// pickRelated leaves the events that others relate to as the filter wants.
func pickRelated(ctx context.Context, e *rooms.Engine, f *filter.Events, events []*rooms.Stored) ([]*rooms.Stored, error) {
	if !f.Related() || len(events) == 0 {
		return events, nil
	}
	ids := make([]matrix.EventID, len(events))
	for i, ev := range events {
		ids[i] = ev.ID
	}
	rows, err := e.Relations(ctx, ids)
	if err != nil {
		return nil, err
	}
	picked := map[matrix.EventID]bool{}
	for _, r := range rows {
		if f.TakesRelation(r.RelType, r.Sender) {
			picked[r.Target] = true
		}
	}
	return slices.DeleteFunc(slices.Clone(events), func(ev *rooms.Stored) bool { return !picked[ev.ID] }), nil
}

// filterCache keeps parsed filters: those that are stored never change.
type filterCache struct {
	data AccountData
	mu   sync.Mutex
	kept map[filterKey]*options
}

type filterKey struct {
	user matrix.UserID
	text string
}

const (
	filtersKept   = 4096
	filterKeptMax = 4 << 10 // bytes; longer ones are read every time
)

func newFilterCache(d AccountData) *filterCache {
	return &filterCache{data: d, kept: map[filterKey]*options{}}
}

var everything = &options{}

// get returns the filter that a request names, by id or inline.
func (c *filterCache) get(ctx context.Context, user matrix.UserID, text string) (*options, error) {
	if text == "" {
		return everything, nil
	}
	key := filterKey{user, text}
	c.mu.Lock()
	f := c.kept[key]
	c.mu.Unlock()
	if f != nil {
		return f, nil
	}
	raw := json.RawMessage(text)
	if text[0] != '{' {
		stored, err := c.data.Filter(ctx, user, text)
		if matrix.HasCode(err, matrix.CodeNotFound) {
			return nil, matrix.InvalidParam("There is no such filter; create it again")
		}
		if err != nil {
			return nil, err
		}
		raw = stored
	}
	f, err := parseFilter(raw)
	if err != nil || len(raw) > filterKeptMax {
		return f, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.kept) >= filtersKept {
		clear(c.kept)
	}
	c.kept[key] = f
	return f, nil
}
