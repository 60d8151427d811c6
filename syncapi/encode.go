package syncapi

import (
	"encoding/json"
	"strconv"
	"unicode/utf8"
)

// appendText appends a JSON string.
func appendText[T ~string](dst []byte, text T) []byte {
	for i := range len(text) {
		if c := text[i]; c < 0x20 || c == '"' || c == '\\' || c >= utf8.RuneSelf {
			q, err := json.Marshal(string(text))
			if err != nil { // a string always marshals
				return append(dst, `""`...)
			}
			return append(dst, q...)
		}
	}
	dst = append(dst, '"')
	dst = append(dst, text...)
	return append(dst, '"')
}

// appendName appends the name of an object's member and the colon, behind a
// comma unless it is the object's first.
func appendName[T ~string](dst []byte, name T) []byte {
	dst = appendComma(dst)
	dst = appendText(dst, name)
	return append(dst, ':')
}

// appendComma appends a comma unless an object or array was just begun.
func appendComma(dst []byte) []byte {
	if c := dst[len(dst)-1]; c == '{' || c == '[' {
		return dst
	}
	return append(dst, ',')
}

// appendList appends an array of what is encoded already.
func appendList(dst []byte, list []json.RawMessage) []byte {
	dst = append(dst, '[')
	for i, v := range list {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(dst, v...)
	}
	return append(dst, ']')
}

// appendEvents appends the object {"events": list}.
func appendEvents(dst []byte, list []json.RawMessage) []byte {
	dst = append(dst, `{"events":`...)
	return append(appendList(dst, list), '}')
}

// appendTally appends a pair of unread counts.
func appendTally(dst []byte, t tally) []byte {
	dst = append(dst, `{"notification_count":`...)
	dst = strconv.AppendInt(dst, t.notifications, 10)
	dst = append(dst, `,"highlight_count":`...)
	dst = strconv.AppendInt(dst, t.highlights, 10)
	return append(dst, '}')
}

// typed renders an event that has a type and a content only.
func typedEvent(typ string, content []byte) json.RawMessage {
	b := append(make([]byte, 0, len(typ)+len(content)+24), `{"type":`...)
	b = appendText(b, typ)
	b = append(b, `,"content":`...)
	b = append(b, content...)
	return append(b, '}')
}

// prune leaves only the paths of a JSON object that are asked for.
// spec: client-server#post_matrixclientv3useruseridfilter
func prune(raw json.RawMessage, paths [][]string) (json.RawMessage, error) {
	var object map[string]json.RawMessage
	if err := json.Unmarshal(raw, &object); err != nil {
		return nil, err
	}
	kept := map[string]json.RawMessage{}
	deeper := map[string][][]string{}
	for _, path := range paths {
		value, ok := object[path[0]]
		switch {
		case !ok:
		case len(path) == 1:
			kept[path[0]] = value
		case value[0] == '{':
			deeper[path[0]] = append(deeper[path[0]], path[1:])
		}
	}
	for name, paths := range deeper {
		if _, whole := kept[name]; whole {
			continue
		}
		value, err := prune(object[name], paths)
		if err != nil {
			return nil, err
		}
		if string(value) != "{}" {
			kept[name] = value
		}
	}
	return json.Marshal(kept)
}

// appendTexts appends an array of strings.
func appendTexts[T ~string](dst []byte, list []T) []byte {
	dst = append(dst, '[')
	for _, text := range list {
		dst = appendComma(dst)
		dst = appendText(dst, text)
	}
	return append(dst, ']')
}
