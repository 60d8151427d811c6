package filter

import (
	"bytes"
	"encoding/json"
	"errors"
	"slices"
	"strings"

	"github.com/teahouse-chat/teahouse/internal/matrix"
)

// MaxBytes bounds a filter.
const MaxBytes = 64 << 10

// Events picks events of rooms. The zero value picks all.
// spec: client-server#filtering
type Events struct {
	Limit            *int            `json:"limit"`
	Types            []string        `json:"types"`
	NotTypes         []string        `json:"not_types"`
	Senders          []matrix.UserID `json:"senders"`
	NotSenders       []matrix.UserID `json:"not_senders"`
	Rooms            []matrix.RoomID `json:"rooms"`
	NotRooms         []matrix.RoomID `json:"not_rooms"`
	ContainsURL      *bool           `json:"contains_url"`
	LazyMembers      bool            `json:"lazy_load_members"`
	RedundantMembers bool            `json:"include_redundant_members"`
	UnreadThreads    bool            `json:"unread_thread_notifications"`
	RelatedBySenders []matrix.UserID `json:"related_by_senders"`
	RelatedByTypes   []string        `json:"related_by_rel_types"`
}

// Parse reads a filter; an empty text picks everything. 400 says what is wrong.
func Parse(text string) (*Events, error) {
	f := &Events{}
	if text == "" {
		return f, nil
	}
	if len(text) > MaxBytes {
		return nil, matrix.InvalidParam("A filter has at most %d bytes", MaxBytes)
	}
	if err := json.Unmarshal([]byte(text), f); err != nil {
		if wrong, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
			return nil, matrix.BadJSON("%q of the filter has the wrong type", wrong.Field).Because(err)
		}
		return nil, matrix.NotJSON("The filter is not JSON").Because(err)
	}
	if err := f.Check(); err != nil {
		return nil, err
	}
	return f, nil
}

// maxPatterns bounds the patterns that every event is matched against.
const maxPatterns = 1000

// Check tells what is wrong with the values of a filter.
func (f *Events) Check() error {
	if f.Limit != nil && *f.Limit < 0 {
		return matrix.InvalidParam(`"limit" of the filter must not be negative`)
	}
	if len(f.Types)+len(f.NotTypes) > maxPatterns {
		return matrix.InvalidParam(`"types" and "not_types" of the filter have more than %d patterns`, maxPatterns)
	}
	return nil
}

// TakesRoom tells whether events of a room are picked at all.
func (f *Events) TakesRoom(id matrix.RoomID) bool {
	return !slices.Contains(f.NotRooms, id) && (f.Rooms == nil || slices.Contains(f.Rooms, id))
}

// Takes tells whether an event is picked, its room and relations aside.
func (f *Events) Takes(typ string, sender matrix.UserID, content []byte) bool {
	if slices.Contains(f.NotSenders, sender) || f.Senders != nil && !slices.Contains(f.Senders, sender) {
		return false
	}
	if f.Types != nil || f.NotTypes != nil {
		matches := func(pattern string) bool { return glob(pattern, typ) }
		if slices.ContainsFunc(f.NotTypes, matches) || f.Types != nil && !slices.ContainsFunc(f.Types, matches) {
			return false
		}
	}
	return f.ContainsURL == nil || *f.ContainsURL == hasURL(content)
}

// Related tells whether events are picked by what relates to them.
// spec: client-server#filtering-by-reaction-or-relation
func (f *Events) Related() bool { return f.RelatedBySenders != nil || f.RelatedByTypes != nil }

// TakesRelation tells whether an event is picked because another one, of the
// sender and the relation type, relates to it.
func (f *Events) TakesRelation(relType string, sender matrix.UserID) bool {
	return (f.RelatedBySenders == nil || slices.Contains(f.RelatedBySenders, sender)) &&
		(f.RelatedByTypes == nil || slices.Contains(f.RelatedByTypes, relType))
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

// glob matches a pattern in which * stands for any text.
func glob(pattern, text string) bool {
	first, rest, star := strings.Cut(pattern, "*")
	if !star {
		return pattern == text
	}
	text, ok := strings.CutPrefix(text, first)
	if !ok {
		return false
	}
	for {
		rest = strings.TrimLeft(rest, "*")
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
