package event

import (
	"slices"
	"strconv"
	"sync"
	"unicode/utf8"
)

// Canonical returns the canonical JSON of any JSON value. What canonical JSON
// cannot express is a *FormatError: duplicate keys, floats, exponents, -0,
// integers beyond ±(2^53-1), invalid UTF-8, lone surrogates. If raw is
// canonical already, it is returned itself.
// spec: appendices#canonical-json
func Canonical(raw []byte) ([]byte, error) { return canonicalise(raw, true) }

// WellFormed tells what keeps a JSON value from being passed on to clients, as some
// of them could not read the whole that it is part of: invalid UTF-8, lone
// surrogates, too deep nesting. Numbers may have any form.
func WellFormed(raw []byte) error {
	_, err := check(raw, false)
	return err
}

// canonicalise is Canonical with or without the number rules.
func canonicalise(raw []byte, strict bool) ([]byte, error) {
	done, err := check(raw, strict)
	if err != nil || done {
		return raw, err
	}
	w := writers.Get().(*writer)
	defer w.free()
	w.src = raw
	if _, err := w.index(0); err != nil {
		return nil, err
	}
	out := make([]byte, 0, len(raw))
	out, _, _ = w.value(out, 0, 0)
	return out, nil
}

// writer puts checked JSON into canonical form in two linear walks: index notes
// the members of every object in document order, value writes them sorted. It
// recurses no deeper than maxNesting, which check has enforced.
type writer struct {
	src     []byte
	open    []member // members of the objects that index is inside of
	members []member // of finished objects; each object's lie together
	objects []object // in document order
}

type member struct {
	key, value int // where they start in src
	keyEnd     int
	ordinal    int // of the first object at or after value
}

type object struct {
	first, count int // its members
	end          int // in src
	next         int // ordinal of the first object after it
}

var writers = sync.Pool{New: func() any { return new(writer) }}

// free gives w back to the pool, unless one huge document made it huge.
func (w *writer) free() {
	if cap(w.members) > 4096 {
		return
	}
	w.src, w.open, w.members, w.objects = nil, w.open[:0], w.members[:0], w.objects[:0]
	writers.Put(w)
}

// index notes the objects within the value at i and returns its end.
func (w *writer) index(i int) (int, error) {
	d := w.src
	i = skipSpace(d, i)
	switch d[i] {
	case '{':
		return w.indexObject(i)
	case '[':
		if i = skipSpace(d, i+1); d[i] == ']' {
			return i + 1, nil
		}
		for {
			var err error
			if i, err = w.index(i); err != nil {
				return 0, err
			}
			if i = skipSpace(d, i); d[i] == ']' {
				return i + 1, nil
			}
			i++
		}
	}
	return scalarEnd(d, i), nil
}

func (w *writer) indexObject(i int) (int, error) {
	d, ordinal, base := w.src, len(w.objects), len(w.open)
	w.objects = append(w.objects, object{})
	i = skipSpace(d, i+1)
	for d[i] != '}' {
		if d[i] == ',' {
			i = skipSpace(d, i+1)
		}
		m := member{key: i, keyEnd: textEnd(d, i)}
		m.value = skipSpace(d, skipSpace(d, m.keyEnd)+1)
		m.ordinal = len(w.objects)
		w.open = append(w.open, m)
		var err error
		if i, err = w.index(m.value); err != nil {
			return 0, err
		}
		i = skipSpace(d, i)
	}
	first := len(w.members)
	w.members = append(w.members, w.open[base:]...)
	w.open = w.open[:base]
	own := w.members[first:]
	order := func(a, b member) int { return compareKeys(w.keyOf(a), w.keyOf(b)) }
	if !slices.IsSortedFunc(own, order) {
		slices.SortFunc(own, order)
	}
	for n := 1; n < len(own); n++ {
		if order(own[n-1], own[n]) == 0 {
			return 0, duplicateKey(w.keyOf(own[n]))
		}
	}
	w.objects[ordinal] = object{first, len(own), i + 1, len(w.objects)}
	return i + 1, nil
}

func (w *writer) keyOf(m member) []byte { return w.src[m.key+1 : m.keyEnd-1] }

// value writes the value at i, whose first object has the given ordinal, and
// returns where it ends and the ordinal after it.
func (w *writer) value(dst []byte, i, ordinal int) ([]byte, int, int) {
	d := w.src
	i = skipSpace(d, i)
	switch d[i] {
	case '{':
		o := w.objects[ordinal]
		dst = append(dst, '{')
		for n, m := range w.members[o.first : o.first+o.count] {
			if n > 0 {
				dst = append(dst, ',')
			}
			dst = append(appendText(dst, d[m.key:m.keyEnd]), ':')
			dst, _, _ = w.value(dst, m.value, m.ordinal)
		}
		return append(dst, '}'), o.end, o.next
	case '[':
		dst = append(dst, '[')
		i = skipSpace(d, i+1)
		for d[i] != ']' {
			if d[i] == ',' {
				dst = append(dst, ',')
				i++
			}
			dst, i, ordinal = w.value(dst, i, ordinal)
			i = skipSpace(d, i)
		}
		return append(dst, ']'), i + 1, ordinal
	}
	end := scalarEnd(d, i)
	switch b := d[i]; {
	case b == '"':
		dst = appendText(dst, d[i:end])
	case b == '-' || b >= '0' && b <= '9':
		if n, changed := normaliseNumber(d[i:end]); changed {
			dst = strconv.AppendInt(dst, n, 10)
		} else {
			dst = append(dst, d[i:end]...)
		}
	default:
		dst = append(dst, d[i:end]...)
	}
	return dst, end, ordinal
}

// appendText writes a checked JSON string, quotes included, with its escapes
// made minimal.
func appendText(dst, text []byte) []byte {
	for i := 0; i < len(text); {
		if text[i] != '\\' {
			dst = append(dst, text[i])
			i++
			continue
		}
		n, r, canonical := unescape(text[i:])
		if canonical {
			dst = append(dst, text[i:i+n]...)
		} else {
			dst = appendRune(dst, r)
		}
		i += n
	}
	return dst
}

// appendString writes s as a canonical JSON string. Invalid UTF-8 is copied, for
// the check of the finished text to find.
func appendString(dst []byte, s string) []byte {
	dst = append(dst, '"')
	for i := range len(s) {
		if b := s[i]; plain[b] || b >= utf8.RuneSelf {
			dst = append(dst, b)
		} else {
			dst = appendRune(dst, rune(b))
		}
	}
	return append(dst, '"')
}

// appendRune writes one character as canonical JSON does inside a string.
func appendRune(dst []byte, r rune) []byte {
	const hex = "0123456789abcdef"
	switch {
	case r == '"' || r == '\\':
		return append(dst, '\\', byte(r))
	case r >= 0x20:
		return utf8.AppendRune(dst, r)
	case hasShortEscape(r):
		return append(dst, '\\', "btn.fr"[r-'\b'])
	}
	return append(dst, '\\', 'u', '0', '0', hex[r>>4], hex[r&15])
}
