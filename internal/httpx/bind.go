package httpx

import (
	"encoding"
	"encoding/json"
	"fmt"
	"net/http"
	"reflect"
	"strconv"
	"strings"

	"github.com/teahouse-chat/teahouse/internal/matrix"
)

// binder knows how to fill one request type. It is compiled once, when a route
// is made; a mistake in the type's tags is a panic at that time.
type binder struct {
	path  []field
	query []field
	body  map[string]*member
	raw   []int // index of the field that takes the whole body, nil if none
}

// field is a field that is filled from text.
type field struct {
	name  string
	index []int
	many  bool
	set   func(dst reflect.Value, s string) error
}

func compile(t reflect.Type, path string) *binder {
	if t.Kind() != reflect.Struct {
		panic(fmt.Sprintf("httpx: %s: the request type %s is not a struct", path, t))
	}
	b := &binder{body: make(map[string]*member)}
	b.add(t, nil, path)
	for _, name := range pathNames(path) {
		known := false
		for _, f := range b.path {
			known = known || f.name == name
		}
		if !known {
			panic(fmt.Sprintf("httpx: %s: %s has no field for {%s}", path, t, name))
		}
	}
	return b
}

func (b *binder) add(t reflect.Type, parent []int, path string) {
	for i := range t.NumField() {
		f := t.Field(i)
		index := append(append([]int(nil), parent...), i)
		if name, ok := f.Tag.Lookup("path"); ok {
			if !strings.Contains(path, "{"+name+"}") {
				panic(fmt.Sprintf("httpx: %s has no {%s} for field %s of %s", path, name, f.Name, t))
			}
			b.path = append(b.path, textField(f, name, index))
			continue
		}
		if name, ok := f.Tag.Lookup("query"); ok {
			b.query = append(b.query, textField(f, name, index))
			continue
		}
		if f.Tag.Get("body") == "raw" {
			if f.Type != rawMessage {
				panic(fmt.Sprintf("httpx: %s.%s: the raw body is a json.RawMessage", t, f.Name))
			}
			b.raw = index
			continue
		}
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		switch {
		case name == "-":
		case name == "" && f.Anonymous && f.Type.Kind() == reflect.Struct:
			b.add(f.Type, index, path)
		case name == "" || !f.IsExported():
			panic(fmt.Sprintf("httpx: %s: field %s of %s needs a path, query or json tag", path, f.Name, t))
		default:
			b.body[name] = newMember(f, name, index)
		}
	}
}

// Bind compiles a request type, as JSON takes it, for a Raw route of the path
// whose handler reads the body by itself.
func Bind[Q any](path string) func(r *http.Request, body []byte) (*Q, error) {
	b := compile(reflect.TypeFor[Q](), path)
	return func(r *http.Request, body []byte) (*Q, error) {
		q := new(Q)
		v := reflect.ValueOf(q).Elem()
		err := b.bindURL(r, v)
		if err == nil && b.takesBody(r) {
			err = b.bindBody(body, false, v)
		}
		return q, err
	}
}

// bind fills q from the path, the query and the body of r.
func (b *binder) bind(x *exchange, r *http.Request, rt *Route, q reflect.Value) error {
	if err := b.bindURL(r, q); err != nil || !b.takesBody(r) {
		return err
	}
	body, err := x.readBody(r, rt.maxBody)
	if err != nil {
		return err
	}
	return b.bindBody(body, rt.emptyBody, q)
}

func (b *binder) takesBody(r *http.Request) bool {
	return (len(b.body) > 0 || b.raw != nil) && r.Method != http.MethodGet && r.Method != http.MethodHead
}

func (b *binder) bindURL(r *http.Request, q reflect.Value) error {
	for i := range b.path {
		f := &b.path[i]
		if err := f.set(q.FieldByIndex(f.index), r.PathValue(f.name)); err != nil {
			return inPart("path", f.name, err)
		}
	}
	if len(b.query) > 0 && r.URL.RawQuery != "" {
		return b.bindQuery(r.URL.RawQuery, q)
	}
	return nil
}

// bindQuery fills q from a query string. Of several values for a scalar the
// first counts.
func (b *binder) bindQuery(query string, q reflect.Value) error {
	var seen uint64
	return eachQuery(query, func(name, value string) error {
		for i := range b.query {
			f := &b.query[i]
			if f.name != name || !f.many && i < 64 && seen&(1<<i) != 0 {
				continue
			}
			if i < 64 {
				seen |= 1 << i
			}
			if err := f.set(q.FieldByIndex(f.index), value); err != nil {
				return inPart("query", name, err)
			}
		}
		return nil
	})
}

func textField(f reflect.StructField, name string, index []int) field {
	t := f.Type
	fd := field{name: name, index: index}
	switch {
	case t.Kind() == reflect.Slice:
		set := textSetter(t.Elem())
		fd.many = true
		fd.set = func(dst reflect.Value, s string) error {
			v := reflect.New(t.Elem()).Elem()
			if err := set(v, s); err != nil {
				return err
			}
			dst.Set(reflect.Append(dst, v))
			return nil
		}
	case t.Kind() == reflect.Pointer:
		set := textSetter(t.Elem())
		fd.set = func(dst reflect.Value, s string) error {
			v := reflect.New(t.Elem())
			if err := set(v.Elem(), s); err != nil {
				return err
			}
			dst.Set(v)
			return nil
		}
	default:
		fd.set = textSetter(t)
	}
	return fd
}

// grammars maps the identifier types to their checks.
var grammars = map[reflect.Type]func(string) error{
	reflect.TypeFor[matrix.UserID]():     check(matrix.ParseUserID),
	reflect.TypeFor[matrix.RoomID]():     check(matrix.ParseRoomID),
	reflect.TypeFor[matrix.EventID]():    check(matrix.ParseEventID),
	reflect.TypeFor[matrix.RoomAlias]():  check(matrix.ParseRoomAlias),
	reflect.TypeFor[matrix.ServerName](): check(matrix.ParseServerName),
}

func check[T any](parse func(string) (T, error)) func(string) error {
	return func(s string) error { _, err := parse(s); return err }
}

func textSetter(t reflect.Type) func(reflect.Value, string) error {
	if grammar, ok := grammars[t]; ok {
		return func(dst reflect.Value, s string) error {
			if err := grammar(s); err != nil {
				return err
			}
			dst.SetString(s)
			return nil
		}
	}
	if reflect.PointerTo(t).Implements(reflect.TypeFor[encoding.TextUnmarshaler]()) {
		return func(dst reflect.Value, s string) error {
			return dst.Addr().Interface().(encoding.TextUnmarshaler).UnmarshalText([]byte(s))
		}
	}
	switch t.Kind() {
	case reflect.String:
		return func(dst reflect.Value, s string) error { dst.SetString(s); return nil }
	case reflect.Int, reflect.Int64, reflect.Int32:
		return func(dst reflect.Value, s string) error {
			n, err := strconv.ParseInt(s, 10, t.Bits())
			if err != nil {
				return errWant("an integer")
			}
			dst.SetInt(n)
			return nil
		}
	case reflect.Bool:
		return func(dst reflect.Value, s string) error {
			if s != "true" && s != "false" {
				return errWant("true or false")
			}
			dst.SetBool(s == "true")
			return nil
		}
	}
	panic(fmt.Sprintf("httpx: a %s cannot be filled from a path or a query", t))
}

// errWant says what a value should have been.
type errWant string

func (e errWant) Error() string { return "must be " + string(e) }

// inPart names the place of a bad value.
func inPart(part, name string, err error) error {
	if want, ok := err.(errWant); ok {
		return matrix.InvalidParam("%q in the %s %s", name, part, want.Error())
	}
	if e := matrix.AsError(err); e.Status < http.StatusInternalServerError {
		return matrix.NewError(e.Status, e.Code, "%q in the %s: %s", name, part, e.Text)
	}
	return matrix.InvalidParam("%q in the %s is not valid", name, part).Because(err)
}

// pathNames lists the wildcards of a ServeMux path.
func pathNames(path string) []string {
	var names []string
	for _, seg := range strings.Split(path, "/") {
		if strings.HasPrefix(seg, "{") && seg != "{$}" {
			names = append(names, strings.TrimSuffix(strings.Trim(seg, "{}"), "..."))
		}
	}
	return names
}

var rawMessage = reflect.TypeFor[json.RawMessage]()
