package httpx

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
)

// rawMap tells whether a type is a map by strings of json.RawMessage or of such
// maps.
func rawMap(t reflect.Type) bool {
	return t.Kind() == reflect.Map && t.Key().Kind() == reflect.String && !decodesItself(t) && !decodesItself(t.Key()) &&
		(t.Elem() == rawMessage || rawMap(t.Elem()))
}

var errNoObject = errors.New("not an object")

// fillMap fills a zero rawMap, or a pointer to one, from valid JSON, as
// encoding/json would, which looks at every byte several times more. It gives up
// where it finds something else than objects.
func fillMap(dst reflect.Value, value []byte) bool {
	if dst.Kind() == reflect.Pointer {
		made := reflect.New(dst.Type().Elem())
		if !fillMap(made.Elem(), value) {
			return false
		}
		dst.Set(made)
		return true
	}
	if value[0] != '{' {
		return false
	}
	t := dst.Type()
	filled := reflect.MakeMap(t)
	err := eachMember(value, func(name, value []byte) error {
		key, elem := reflect.New(t.Key()).Elem(), reflect.New(t.Elem()).Elem()
		key.SetString(string(name))
		if t.Elem() == rawMessage {
			elem.SetBytes(value)
		} else if !fillMap(elem, value) {
			return errNoObject
		}
		filled.SetMapIndex(key, elem)
		return nil
	})
	if err != nil {
		return false
	}
	dst.Set(filled)
	return true
}

// eachMember walks the members of an object that is known to be valid JSON.
func eachMember(obj []byte, f func(name, value []byte) error) error {
	i := space(obj, 1)
	for obj[i] != '}' {
		end := skipValue(obj, i)
		name := obj[i+1 : end-1]
		if bytes.IndexByte(name, '\\') >= 0 {
			var s string
			if err := json.Unmarshal(obj[i:end], &s); err != nil {
				return fmt.Errorf("a member's name: %w", err)
			}
			name = []byte(s)
		}
		i = space(obj, space(obj, end)+1) // over the colon
		end = skipValue(obj, i)
		if err := f(name, obj[i:end:end]); err != nil {
			return err
		}
		i = space(obj, end)
		if obj[i] == ',' {
			i = space(obj, i+1)
		}
	}
	return nil
}

func space(b []byte, i int) int {
	for b[i] == ' ' || b[i] == '\t' || b[i] == '\n' || b[i] == '\r' {
		i++
	}
	return i
}

// skipValue returns the end of the JSON value that starts at i.
func skipValue(b []byte, i int) int {
	depth := 0
	for {
		switch b[i] {
		case '"':
			i = skipText(b, i)
		case '{', '[':
			depth++
			i++
		case '}', ']':
			depth--
			i++
		case ',', ':', ' ', '\t', '\n', '\r':
			i++
			continue
		default: // number, true, false, null
			for i < len(b) && bytes.IndexByte([]byte(",]} \t\r\n"), b[i]) < 0 {
				i++
			}
		}
		if depth == 0 {
			return i
		}
	}
}

// skipText returns the end of the JSON string that starts at i. Most are long and
// have no escapes, which IndexByte sees many bytes at a time.
func skipText(b []byte, i int) int {
	i++
	quote := i + bytes.IndexByte(b[i:], '"')
	for {
		escape := bytes.IndexByte(b[i:quote], '\\')
		if escape < 0 {
			return quote + 1
		}
		i += escape + 2
		if i > quote { // it was escaped
			quote = i + bytes.IndexByte(b[i:], '"')
		}
	}
}
