package httpx

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"os"
	"reflect"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/teahouse-chat/teahouse/internal/matrix"
)

// bodyTimeout is how long a client may take to send the body of a JSON request.
const bodyTimeout = 30 * time.Second

// member is a field that is filled from a member of the body.
type member struct {
	name  string
	index []int
	kind  memberKind
}

type memberKind uint8

const (
	memberOther  memberKind = iota // decoded by encoding/json
	memberString                   // any string kind
	memberRaw                      // json.RawMessage, kept as it is
	memberMap                      // maps, however deep, with json.RawMessage in the end, or a pointer to such
)

func newMember(f reflect.StructField, name string, index []int) *member {
	m := &member{name: name, index: index}
	switch {
	case f.Type == rawMessage:
		m.kind = memberRaw
	case f.Type.Kind() == reflect.String && !decodesItself(f.Type):
		m.kind = memberString
	case rawMap(f.Type) || f.Type.Kind() == reflect.Pointer && rawMap(f.Type.Elem()):
		m.kind = memberMap
	}
	return m
}

func decodesItself(t reflect.Type) bool {
	p := reflect.PointerTo(t)
	return p.Implements(reflect.TypeFor[json.Unmarshaler]()) ||
		p.Implements(reflect.TypeFor[interface{ UnmarshalText([]byte) error }]())
}

// readBody reads at most limit bytes of body, and no slower than bodyTimeout.
func (x *exchange) readBody(r *http.Request, limit int64) ([]byte, error) {
	if r.ContentLength == 0 || r.Body == nil {
		return nil, nil
	}
	if r.ContentLength > limit {
		return nil, x.tooLarge(limit)
	}
	control := http.NewResponseController(x.ResponseWriter)
	deadline := control.SetReadDeadline(time.Now().Add(bodyTimeout)) == nil // the network's clock, not the domain's
	// A client that announces much and sends little gets little memory.
	buf := make([]byte, 0, min(max(r.ContentLength, 512)+1, 64<<10))
	for {
		n, err := r.Body.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		if int64(len(buf)) > limit {
			return nil, x.tooLarge(limit)
		}
		if err == io.EOF {
			break
		}
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return nil, matrix.NewError(http.StatusRequestTimeout, matrix.CodeUnknown, "The request body took too long")
		}
		if err != nil {
			return nil, matrix.NotJSON("The request body ended early").Because(err)
		}
		if len(buf) == cap(buf) {
			buf = append(buf, 0)[:len(buf)]
		}
	}
	if deadline {
		_ = control.SetReadDeadline(time.Time{})
	}
	return buf, nil
}

// tooLarge also gives the connection up: the rest of the body is not read.
func (x *exchange) tooLarge(limit int64) error {
	x.Header().Set("Connection", "close")
	return matrix.TooLarge("The request body is larger than %d bytes", limit)
}

// bindBody fills q from body, which must be one JSON object in UTF-8. Members
// are matched by their exact name; of duplicates the last counts.
func (b *binder) bindBody(body []byte, emptyOK bool, q reflect.Value) error {
	body = bytes.TrimLeft(body, " \t\r\n")
	if len(body) == 0 {
		if !emptyOK {
			return matrix.NotJSON("The request needs a JSON object as its body")
		}
		if b.raw != nil {
			q.FieldByIndex(b.raw).SetBytes([]byte("{}"))
		}
		return nil
	}
	if !utf8.Valid(body) {
		return matrix.NotJSON("The request body is not valid UTF-8")
	}
	if !json.Valid(body) {
		return matrix.NotJSON("The request body is not valid JSON")
	}
	if body[0] != '{' {
		return matrix.BadJSON("The request body must be a JSON object")
	}
	if b.raw != nil {
		q.FieldByIndex(b.raw).SetBytes(bytes.TrimRight(body, " \t\r\n"))
	}
	if len(b.body) == 0 {
		return nil
	}
	escapes := bytes.Contains(body, []byte(`\u0000`))
	return eachMember(body, func(name, value []byte) error {
		m := b.body[string(name)]
		if m == nil {
			return nil
		}
		dst := q.FieldByIndex(m.index)
		if err := m.set(dst, value); err != nil {
			return err
		}
		if escapes && hasNUL(dst) {
			return matrix.BadJSON("%q must not contain the character U+0000", m.name)
		}
		return nil
	})
}

func (m *member) set(dst reflect.Value, value []byte) error {
	switch {
	case m.kind == memberRaw:
		dst.SetBytes(value)
		return nil
	case m.kind == memberString && value[0] == '"' && bytes.IndexByte(value, '\\') < 0:
		dst.SetString(string(value[1 : len(value)-1]))
		return nil
	}
	dst.SetZero() // an earlier duplicate must not shine through
	if m.kind == memberMap && fillMap(dst, value) {
		return nil
	}
	err := json.Unmarshal(value, dst.Addr().Interface())
	if err == nil {
		return nil
	}
	if e, ok := errors.AsType[*matrix.Error](err); ok {
		return e
	}
	name := m.name
	if e, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		if e.Field != "" {
			name += "." + e.Field
		}
		return matrix.BadJSON("%q must be %s, not %s", name, describe(e.Type), article(e.Value)).Because(err)
	}
	return matrix.BadJSON("%q is not valid", name).Because(err)
}

// describe names a Go type in the words of JSON.
func describe(t reflect.Type) string {
	switch t.Kind() {
	case reflect.String:
		return "a string"
	case reflect.Bool:
		return "true or false"
	case reflect.Slice, reflect.Array:
		return "an array"
	case reflect.Struct, reflect.Map:
		return "an object"
	case reflect.Pointer:
		return describe(t.Elem())
	case reflect.Float32, reflect.Float64:
		return "a number"
	}
	return "an integer in range"
}

func article(value string) string {
	kind, _, _ := strings.Cut(value, " ")
	switch kind {
	case "array", "object":
		return "an " + kind
	case "bool":
		return "true or false"
	case "number":
		return value
	}
	return "a " + kind
}

// hasNUL looks for U+0000 in the strings under v. json.RawMessage and
// interface values keep or regain the escaped form and are safe to store.
func hasNUL(v reflect.Value) bool {
	switch v.Kind() {
	case reflect.String:
		return strings.IndexByte(v.String(), 0) >= 0
	case reflect.Pointer:
		return !v.IsNil() && hasNUL(v.Elem())
	case reflect.Struct:
		for _, f := range v.Fields() {
			if hasNUL(f) {
				return true
			}
		}
	case reflect.Slice, reflect.Array:
		if v.Type().Elem().Kind() == reflect.Uint8 {
			return false
		}
		for i := range v.Len() {
			if hasNUL(v.Index(i)) {
				return true
			}
		}
	case reflect.Map:
		for it := v.MapRange(); it.Next(); {
			if hasNUL(it.Key()) || hasNUL(it.Value()) {
				return true
			}
		}
	}
	return false
}
