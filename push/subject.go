package push

import (
	"bytes"
	"encoding/json"
	"strings"
	"unicode"

	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms/event"
)

// RoomInfo is what rules ask about a room, as it was when the event came.
type RoomInfo struct {
	Members int                   // joined
	Allowed func(key string) bool // the sender has the power for a notification such as "room"
}

// maxFound bounds how many properties an event remembers the values of: users
// may ask for ever other ones.
const maxFound = 64

// subject is an event that rules are held against, taken apart only as far as
// they ask. It remembers what it was asked, as many users ask the same.
type subject struct {
	event *event.Event
	room  RoomInfo
	found map[string]json.RawMessage // by key; nil: absent
	met   []verdict                  // by condition.memo

	body           string
	folded         string
	hasBody, taken bool

	mentions      map[matrix.UserID]struct{}
	mentionsTaken bool
}

// verdict is the memory of a condition.
type verdict uint8

const (
	unknown verdict = iota
	met
	unmet
)

func subjectOf(e *event.Event, room RoomInfo) *subject {
	return &subject{event: e, room: room, met: make([]verdict, memos+1)}
}

// text returns the string at a path; false if there is none.
func (s *subject) text(c *condition) (string, bool) {
	switch c.key {
	case "type":
		return s.event.Type, true
	case "sender":
		return string(s.event.Sender), true
	case "room_id":
		return string(s.event.RoomID), true
	case "event_id":
		return string(s.event.ID), true
	case "state_key":
		return s.event.StateKey(), s.event.IsState()
	}
	return stringOf(s.raw(c))
}

func stringOf(raw json.RawMessage) (string, bool) {
	if len(raw) == 0 || raw[0] != '"' {
		return "", false
	}
	if bytes.IndexByte(raw, '\\') < 0 {
		return string(raw[1 : len(raw)-1]), true
	}
	var text string
	return text, json.Unmarshal(raw, &text) == nil
}

// raw returns the value at a path in the content, nil if there is none.
func (s *subject) raw(c *condition) json.RawMessage {
	if len(c.path) == 0 {
		return nil
	}
	value, ok := s.found[c.key]
	if ok {
		return value
	}
	value = json.RawMessage(s.event.Content)
	for _, name := range c.path {
		value = event.Member(value, name)
	}
	if s.found == nil {
		s.found = make(map[string]json.RawMessage)
	}
	if len(s.found) < maxFound {
		s.found[c.key] = value
	}
	return value
}

// takeBody reads the body, and tells whether there is one.
func (s *subject) takeBody() bool {
	if !s.taken {
		s.taken = true
		if s.body, s.hasBody = stringOf(event.Member(s.event.Content, "body")); s.hasBody {
			s.folded = fold(s.body)
		}
	}
	return s.hasBody
}

// bodyHas tells whether a folded text, which may have no wildcards, stands in the
// body with a boundary of words at either end.
// spec: client-server#conditions-1
func (s *subject) bodyHas(text string) bool {
	if text == "" {
		return true // the empty part at the start
	}
	for from := 0; ; {
		i := strings.Index(s.folded[from:], text)
		if i < 0 {
			return false
		}
		start := from + i
		end := start + len(text)
		if boundary(s.folded, start) && boundary(s.folded, end) {
			return true
		}
		from = start + 1
	}
}

// boundary tells whether a place in a text is an end of it, or beside a byte
// that belongs to no word.
func boundary(text string, at int) bool {
	return at == 0 || at == len(text) || !inWord(text[at-1]) || !inWord(text[at])
}

func inWord(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_'
}

// fold makes texts equal that differ in the case of letters only.
func fold(text string) string {
	return strings.Map(func(r rune) rune { return unicode.ToLower(unicode.ToUpper(r)) }, text)
}

// mentioned are the users in m.mentions.
// spec: client-server#user-and-room-mentions
func (s *subject) mentioned() map[matrix.UserID]struct{} {
	if s.mentionsTaken {
		return s.mentions
	}
	s.mentionsTaken = true
	var items []json.RawMessage
	raw := s.raw(&mentionsKey)
	if len(raw) == 0 || json.Unmarshal(raw, &items) != nil {
		return nil
	}
	for _, item := range items {
		if u, ok := stringOf(item); ok {
			if s.mentions == nil {
				s.mentions = make(map[matrix.UserID]struct{})
			}
			s.mentions[matrix.UserID(u)] = struct{}{}
		}
	}
	return s.mentions
}

var mentionsKey = condition{key: keyMentions, path: contentPath(keyMentions)}

// contentPath is the path of a property below content; nil if it leads elsewhere.
func contentPath(key string) []string {
	path := splitPath(key)
	if len(path) < 2 || path[0] != "content" {
		return nil
	}
	return path[1:]
}

// splitPath parts a path at its dots; "\." and "\\" stand for the characters.
// spec: appendices#dot-separated-property-paths
func splitPath(key string) []string {
	if strings.IndexByte(key, '\\') < 0 {
		return strings.Split(key, ".")
	}
	var path []string
	var part []byte
	for i := 0; i < len(key); i++ {
		switch c := key[i]; {
		case c == '\\' && i+1 < len(key) && (key[i+1] == '.' || key[i+1] == '\\'):
			i++
			part = append(part, key[i])
		case c == '.':
			path = append(path, string(part))
			part = part[:0]
		default:
			part = append(part, c)
		}
	}
	return append(path, string(part))
}
