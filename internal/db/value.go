package db

import (
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/teahouse-chat/teahouse/internal/matrix"
)

// plain reduces an argument to one of nil, int64, float64, string, []byte,
// []int64 and []string, so that both engines bind the same.
func plain(arg any) (any, error) {
	switch v := arg.(type) {
	case nil, int64, float64:
		return v, nil
	case int:
		return int64(v), nil
	case string:
		return v, checkText(v)
	case []byte:
		if v == nil {
			return nil, nil
		}
		return v, nil
	case bool:
		if v {
			return int64(1), nil
		}
		return int64(0), nil
	case []int64:
		if v == nil {
			return []int64{}, nil // an empty list, not NULL
		}
		return v, nil
	case []string:
		if v == nil {
			return []string{}, nil
		}
		return v, checkTexts(v)
	}
	return plainKind(reflect.ValueOf(arg))
}

// plainKind is plain for types based on the basic ones, such as matrix.UserID.
func plainKind(v reflect.Value) (any, error) {
	switch v.Kind() {
	case reflect.String:
		s := v.String()
		return s, checkText(s)
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return v.Int(), nil
	case reflect.Uint8, reflect.Uint16, reflect.Uint32:
		return int64(v.Uint()), nil
	case reflect.Bool:
		return plain(v.Bool())
	case reflect.Float32, reflect.Float64:
		return v.Float(), nil
	case reflect.Pointer:
		if v.IsNil() {
			return nil, nil
		}
		return plain(v.Elem().Interface())
	case reflect.Slice:
		return plainSlice(v)
	}
	return nil, fmt.Errorf("a %s can't be an argument", v.Type())
}

func plainSlice(v reflect.Value) (any, error) {
	switch v.Type().Elem().Kind() {
	case reflect.Uint8:
		return plain(v.Bytes())
	case reflect.Int, reflect.Int32, reflect.Int64:
		ints := make([]int64, v.Len())
		for i := range ints {
			ints[i] = v.Index(i).Int()
		}
		return ints, nil
	case reflect.String:
		texts := make([]string, v.Len())
		for i := range texts {
			texts[i] = v.Index(i).String()
		}
		return texts, checkTexts(texts)
	}
	return nil, fmt.Errorf("a %s can't be an argument", v.Type())
}

// checkText refuses what PostgreSQL can't store as text, on SQLite as well.
func checkText(s string) error {
	if strings.IndexByte(s, 0) >= 0 {
		return matrix.InvalidParam("Text may not contain the character U+0000")
	}
	if !utf8.ValidString(s) {
		return matrix.InvalidParam("Text must be valid UTF-8")
	}
	return nil
}

func checkTexts(texts []string) error {
	for _, s := range texts {
		if err := checkText(s); err != nil {
			return err
		}
	}
	return nil
}

// bindable is plain for all arguments of a statement.
func bindable(s *Stmt, args []any, bind func(v any)) error {
	if want := s.parameters(); want != len(args) {
		return s.fail(fmt.Errorf("it has %d parameters, but %d arguments were given", want, len(args)))
	}
	for i, arg := range args {
		v, err := plain(arg)
		if err != nil {
			return s.fail(fmt.Errorf("argument %d: %w", i+1, err))
		}
		bind(v)
	}
	return nil
}

// jsonInts and jsonTexts write a list for SQLite's json_each.
func jsonInts(ints []int64) string {
	b := make([]byte, 0, 2+12*len(ints))
	b = append(b, '[')
	for i, n := range ints {
		if i > 0 {
			b = append(b, ',')
		}
		b = strconv.AppendInt(b, n, 10)
	}
	return string(append(b, ']'))
}

func jsonTexts(texts []string) string {
	const hex = "0123456789abcdef"
	b := make([]byte, 0, 2+40*len(texts))
	b = append(b, '[')
	for i, s := range texts {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, '"')
		for j := range len(s) {
			switch c := s[j]; {
			case c == '"' || c == '\\':
				b = append(b, '\\', c)
			case c < ' ':
				b = append(b, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
			default:
				b = append(b, c)
			}
		}
		b = append(b, '"')
	}
	return string(append(b, ']'))
}

// assign stores a column, one of nil, int64, float64, string, []byte and bool,
// in what dest points to. A []byte is given away, not copied.
func assign(dest, src any) error {
	switch d := dest.(type) {
	case *int64:
		if v, ok := src.(int64); ok {
			*d = v
			return nil
		}
	case *string:
		if v, ok := src.(string); ok {
			*d = v
			return nil
		}
	case *[]byte:
		switch v := src.(type) {
		case []byte:
			*d = v
			return nil
		case nil:
			*d = nil
			return nil
		}
	}
	d := reflect.ValueOf(dest)
	if d.Kind() != reflect.Pointer || d.IsNil() {
		return fmt.Errorf("can't scan into %T: not a pointer", dest)
	}
	return assignKind(d.Elem(), src)
}

func assignKind(d reflect.Value, src any) error {
	if d.Kind() == reflect.Pointer {
		if src == nil {
			d.SetZero()
			return nil
		}
		p := reflect.New(d.Type().Elem())
		if err := assignKind(p.Elem(), src); err != nil {
			return err
		}
		d.Set(p)
		return nil
	}
	switch v := src.(type) {
	case nil:
		if d.Kind() == reflect.Slice {
			d.SetZero()
			return nil
		}
		return fmt.Errorf("NULL can't be scanned into a %s; use a pointer to it", d.Type())
	case bool:
		if v {
			return assignInt(d, 1)
		}
		return assignInt(d, 0)
	case int64:
		return assignInt(d, v)
	case float64:
		if d.CanFloat() {
			d.SetFloat(v)
			return nil
		}
	case string:
		switch {
		case d.Kind() == reflect.String:
			d.SetString(v)
			return nil
		case isBytes(d):
			d.SetBytes([]byte(v))
			return nil
		}
	case []byte:
		switch {
		case isBytes(d):
			d.SetBytes(v)
			return nil
		case d.Kind() == reflect.String:
			d.SetString(string(v))
			return nil
		}
	}
	return fmt.Errorf("a %T can't be scanned into a %s", src, d.Type())
}

func assignInt(d reflect.Value, v int64) error {
	switch {
	case d.CanInt():
		if d.OverflowInt(v) {
			return fmt.Errorf("%d is too large for a %s", v, d.Type())
		}
		d.SetInt(v)
	case d.CanUint():
		if v < 0 || d.OverflowUint(uint64(v)) {
			return fmt.Errorf("%d doesn't fit a %s", v, d.Type())
		}
		d.SetUint(uint64(v))
	case d.Kind() == reflect.Bool:
		d.SetBool(v != 0)
	case d.CanFloat():
		d.SetFloat(float64(v))
	default:
		return fmt.Errorf("an integer can't be scanned into a %s", d.Type())
	}
	return nil
}

func isBytes(d reflect.Value) bool {
	return d.Kind() == reflect.Slice && d.Type().Elem().Kind() == reflect.Uint8
}
