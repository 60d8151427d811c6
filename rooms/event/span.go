package event

import "unsafe"

// The functions of this file walk JSON that check has accepted (or that our own
// store returned); they verify nothing.

// span is a range of bytes of an event's JSON. The zero span means "absent".
type span struct{ start, end uint32 }

func (s span) of(json []byte) []byte { return json[s.start:s.end] }

func (s span) present() bool { return s.end != 0 }

func skipSpace(d []byte, i int) int {
	for i < len(d) && (d[i] == ' ' || d[i] == '\n' || d[i] == '\t' || d[i] == '\r') {
		i++
	}
	return i
}

// textEnd finds the end of the string that starts at i.
func textEnd(d []byte, i int) int {
	for i++; d[i] != '"'; i++ {
		if d[i] == '\\' {
			i++
		}
	}
	return i + 1
}

// scalarEnd finds the end of the string, number or word that starts at i.
func scalarEnd(d []byte, i int) int {
	if d[i] == '"' {
		return textEnd(d, i)
	}
	for i < len(d) && d[i] > ' ' && d[i] != ',' && d[i] != ']' && d[i] != '}' {
		i++
	}
	return i
}

// valueEnd finds the end of any value without whitespace that starts at i.
func valueEnd(d []byte, i int) int {
	if d[i] != '{' && d[i] != '[' {
		return scalarEnd(d, i)
	}
	for depth := 0; ; i++ {
		switch d[i] {
		case '"':
			i = textEnd(d, i) - 1
		case '{', '[':
			depth++
		case '}', ']':
			if depth--; depth == 0 {
				return i + 1
			}
		}
	}
}

// members walks the members of a canonical object in order.
type members struct {
	data []byte
	next int // where the next member starts

	start, end int    // of the current member, key included
	key        []byte // as written, without quotes
	value      []byte
}

// membersOf starts at the object that data begins with.
func membersOf(data []byte) members { return members{data: data, next: 1} }

// more steps to the next member.
func (m *members) more() bool {
	d, i := m.data, m.next
	if d[i] == ',' {
		i++
	}
	if d[i] == '}' {
		return false
	}
	keyEnd := textEnd(d, i)
	m.start, m.end = i, valueEnd(d, keyEnd+1)
	m.key, m.value, m.next = d[i+1:keyEnd-1], d[keyEnd+1:m.end], m.end
	return true
}

// Member finds the value of a member of a JSON object that is part of an event's
// text; nil if it is absent, or obj is none.
func Member(obj []byte, key string) []byte {
	return find(obj, key)
}

// find returns the value of a member of a canonical object, nil if there is none
// or obj is not an object.
func find(obj []byte, key string) []byte {
	if len(obj) == 0 || obj[0] != '{' {
		return nil
	}
	for m := membersOf(obj); m.more(); {
		if keyText(m.key) == key {
			return m.value
		}
	}
	return nil
}

// textOf decodes a canonical JSON value if it is a string. The result shares the
// bytes of value unless it holds escapes.
func textOf(value []byte) (string, bool) {
	if len(value) < 2 || value[0] != '"' {
		return "", false
	}
	return keyText(value[1 : len(value)-1]), true
}

// keyText decodes the inside of a JSON string.
func keyText(inside []byte) string {
	for i := range inside {
		if inside[i] == '\\' {
			return unescaped(inside)
		}
	}
	return unsafe.String(unsafe.SliceData(inside), len(inside))
}

func unescaped(inside []byte) string {
	out := make([]rune, 0, len(inside))
	for len(inside) > 0 {
		r, n := nextRune(inside)
		out = append(out, r)
		inside = inside[n:]
	}
	return string(out)
}

// appendMember writes a member as it stands, with the comma it needs after
// another member of the object that dst ends with.
func appendMember(dst, member []byte) []byte {
	if dst[len(dst)-1] != '{' {
		dst = append(dst, ',')
	}
	return append(dst, member...)
}
