package push

import (
	"encoding/json"
	"strings"

	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms/event"
)

// fields gives the properties of an event by their paths. Content is taken
// apart only as far as paths lead into it.
type fields struct {
	event   *event.Event
	content map[string]json.RawMessage
	found   []property // in content, so far
}

type property struct {
	key   string
	value json.RawMessage // nil: absent
}

func fieldsOf(e *event.Event) *fields {
	f := &fields{event: e, found: make([]property, 0, 8)}
	if json.Unmarshal(e.Content, &f.content) != nil {
		f.content = nil
	}
	return f
}

// text returns the string at a path; false if there is none.
func (f *fields) text(key string) (string, bool) {
	switch key {
	case "type":
		return f.event.Type, true
	case "sender":
		return string(f.event.Sender), true
	case "room_id":
		return string(f.event.RoomID), true
	case "event_id":
		return string(f.event.ID), true
	case "state_key":
		return f.event.StateKey(), f.event.IsState()
	}
	raw := f.raw(key)
	if len(raw) == 0 || raw[0] != '"' {
		return "", false
	}
	var s string
	return s, json.Unmarshal(raw, &s) == nil
}

// raw returns the value at a path in the content, nil if there is none. Several
// rules ask for the same few paths, and evaluations come in twos and threes.
func (f *fields) raw(key string) json.RawMessage {
	for i := range f.found {
		if f.found[i].key == key {
			return f.found[i].value
		}
	}
	value := f.descend(key)
	f.found = append(f.found, property{key, value})
	return value
}

func (f *fields) descend(key string) json.RawMessage {
	path, ok := knownPaths[key]
	if !ok {
		path = splitPath(key)
	}
	if len(path) < 2 || path[0] != "content" {
		return nil
	}
	value := f.content[path[1]]
	for _, name := range path[2:] {
		var object map[string]json.RawMessage
		if len(value) == 0 || value[0] != '{' || json.Unmarshal(value, &object) != nil {
			return nil
		}
		value = object[name]
	}
	return value
}

// knownPaths are the paths of the predefined rules.
var knownPaths = pathsOf(&predefined)

func pathsOf(rules *Ruleset) map[string][]string {
	paths := make(map[string][]string)
	for _, list := range [][]Rule{rules.Override, rules.Underride} {
		for _, r := range list {
			for _, c := range r.Conditions {
				paths[c.Key] = splitPath(c.Key)
			}
		}
	}
	return paths
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

// mentioned lists the users in m.mentions.
// spec: client-server#user-and-room-mentions
func (f *fields) mentioned() []matrix.UserID {
	raw := f.raw(keyMentions)
	var items []json.RawMessage
	if len(raw) == 0 || json.Unmarshal(raw, &items) != nil {
		return nil
	}
	var users []matrix.UserID
	for _, item := range items {
		var u string
		if item[0] == '"' && json.Unmarshal(item, &u) == nil {
			users = append(users, matrix.UserID(u))
		}
	}
	return users
}
