package syncapi

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"sync"

	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms"
	"github.com/teahouse-chat/teahouse/rooms/event"
)

// maxFilter bounds a filter in bytes.
const maxFilter = 64 << 10

// filter says what a client wants of an answer. A nil list takes everything, an
// empty one nothing.
// spec: client-server#post_matrixclientv3useruseridfilter
type filter struct {
	Fields      []string    `json:"event_fields"`
	Format      string      `json:"event_format"`
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

	paths [][]string // of Fields; nil for all
}

// eventFilter picks events by type and sender.
type eventFilter struct {
	Limit      *int            `json:"limit"`
	Types      []string        `json:"types"`
	NotTypes   []string        `json:"not_types"`
	Senders    []matrix.UserID `json:"senders"`
	NotSenders []matrix.UserID `json:"not_senders"`
}

// roomChoice picks rooms.
type roomChoice struct {
	Rooms    []matrix.RoomID `json:"rooms"`
	NotRooms []matrix.RoomID `json:"not_rooms"`
}

// roomEventFilter picks events of rooms.
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

// parseFilter reads a filter; 400 says what is wrong with it.
func parseFilter(raw []byte) (*filter, error) {
	f := &filter{}
	if len(raw) > maxFilter {
		return nil, matrix.InvalidParam("A filter has at most %d bytes", maxFilter)
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
	for _, l := range []*int{f.Room.Timeline.Limit, f.Room.State.Limit, f.Room.Ephemeral.Limit, f.Room.AccountData.Limit, f.Presence.Limit, f.AccountData.Limit} {
		if l != nil && *l < 0 {
			return nil, matrix.InvalidParam(`"limit" must not be negative`)
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

// takes tells whether a room is picked.
func (c roomChoice) takesRoom(id matrix.RoomID) bool {
	return !slices.Contains(c.NotRooms, id) && (c.Rooms == nil || slices.Contains(c.Rooms, id))
}

// takes tells whether an event with this type and sender is picked.
func (f *eventFilter) takes(typ string, sender matrix.UserID) bool {
	return f.takesType(typ) && !slices.Contains(f.NotSenders, sender) && (f.Senders == nil || slices.Contains(f.Senders, sender))
}

func (f *eventFilter) takesType(typ string) bool {
	matches := func(pattern string) bool { return glob(pattern, typ) }
	return !slices.ContainsFunc(f.NotTypes, matches) && (f.Types == nil || slices.ContainsFunc(f.Types, matches))
}

// plain tells that no event is left out by type or sender.
func (f *eventFilter) plain() bool {
	return f.Types == nil && f.Senders == nil && len(f.NotTypes) == 0 && len(f.NotSenders) == 0
}

// takesEvent tells whether a room's event is picked, relations aside.
func (f *roomEventFilter) takesEvent(ev *event.Event) bool {
	if !f.plain() && !f.takes(ev.Type, ev.Sender) {
		return false
	}
	return f.ContainsURL == nil || *f.ContainsURL == hasURL(ev.Content)
}

// hasURL tells whether a content has a member "url" that is a text.
func hasURL(content []byte) bool {
	if !bytes.Contains(content, []byte(`"url"`)) {
		return false
	}
	var c struct {
		URL *string `json:"url"`
	}
	return json.Unmarshal(content, &c) == nil && c.URL != nil
}

// related tells whether events are picked by what relates to them.
func (f *roomEventFilter) related() bool { return f.RelatedBySenders != nil || f.RelatedByTypes != nil }

// pickRelated leaves the events that others relate to as the filter wants.
func (f *roomEventFilter) pickRelated(ctx context.Context, e *rooms.Engine, events []*rooms.Stored) ([]*rooms.Stored, error) {
	if !f.related() || len(events) == 0 {
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
		if (f.RelatedBySenders == nil || slices.Contains(f.RelatedBySenders, r.Sender)) &&
			(f.RelatedByTypes == nil || slices.Contains(f.RelatedByTypes, r.RelType)) {
			picked[r.Target] = true
		}
	}
	return slices.DeleteFunc(slices.Clone(events), func(ev *rooms.Stored) bool { return !picked[ev.ID] }), nil
}

// glob matches a pattern in which * stands for any text. Its cost is linear in
// the text for each piece of the pattern.
func glob(pattern, text string) bool {
	first, rest, star := strings.Cut(pattern, "*")
	if !star {
		return pattern == text
	}
	if !strings.HasPrefix(text, first) {
		return false
	}
	text = text[len(first):]
	for {
		piece, after, more := strings.Cut(rest, "*")
		if !more {
			return strings.HasSuffix(text, piece)
		}
		at := strings.Index(text, piece)
		if at < 0 {
			return false
		}
		text, rest = text[at+len(piece):], after
	}
}

// filterCache keeps parsed filters: those that are stored never change.
type filterCache struct {
	data AccountData
	mu   sync.Mutex
	kept map[filterKey]*filter
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
	return &filterCache{data: d, kept: map[filterKey]*filter{}}
}

var everything = &filter{}

// get returns the filter that a request names, by id or inline.
func (c *filterCache) get(ctx context.Context, user matrix.UserID, text string) (*filter, error) {
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
