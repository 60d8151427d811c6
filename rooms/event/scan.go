package event

import (
	"bytes"
	"cmp"
	"strings"
	"unicode/utf8"
)

// maxNesting bounds how deep arrays and objects may nest. Real events stay
// below ten; a deeper one can only be meant to exhaust a stack.
const maxNesting = 256

// checker walks untrusted JSON once. It refuses what canonical JSON cannot
// express and notices whether the bytes are in canonical form already, so that
// the common case needs no copy. It keeps no list of members: where keys are
// not in order, finding duplicates is left to canonicalise.
type checker struct {
	data   []byte
	strict bool // the number rules of canonical JSON are enforced
	canon  bool // all bytes so far are canonical
}

// check validates a whole JSON text and tells whether it is canonical.
func check(data []byte, strict bool) (canonical bool, err error) {
	c := checker{data: data, strict: strict, canon: true}
	i, err := c.value(c.space(0), 0)
	if err != nil {
		return false, err
	}
	if i = c.space(i); i != len(data) {
		return false, &FormatError{What: "data after the end of the JSON value"}
	}
	return c.canon, nil
}

func (c *checker) space(i int) int {
	for i < len(c.data) {
		switch c.data[i] {
		case ' ', '\t', '\n', '\r':
			c.canon = false
			i++
		default:
			return i
		}
	}
	return i
}

func (c *checker) value(i, depth int) (int, error) {
	if i >= len(c.data) {
		return 0, errEnd
	}
	switch b := c.data[i]; {
	case b == '"':
		return c.text(i)
	case b == '{' || b == '[':
		if depth == maxNesting {
			return 0, &FormatError{What: "JSON nested too deeply"}
		}
		if b == '{' {
			return c.object(i, depth+1)
		}
		return c.array(i, depth+1)
	case b == '-' || b >= '0' && b <= '9':
		return c.number(i)
	}
	for _, word := range [...]string{"true", "false", "null"} {
		if len(c.data)-i >= len(word) && string(c.data[i:i+len(word)]) == word {
			return i + len(word), nil
		}
	}
	return 0, errSyntax
}

var (
	errEnd    = &FormatError{What: "JSON ends too early"}
	errSyntax = &FormatError{What: "not valid JSON"}
)

func (c *checker) object(i, depth int) (int, error) {
	i = c.space(i + 1)
	if i < len(c.data) && c.data[i] == '}' {
		return i + 1, nil
	}
	var last []byte // the key before, as written
	for first := true; ; first = false {
		if i >= len(c.data) {
			return 0, errEnd
		}
		if c.data[i] != '"' {
			return 0, errSyntax
		}
		end, err := c.text(i)
		if err != nil {
			return 0, err
		}
		key := c.data[i+1 : end-1]
		if !first && c.canon {
			switch order := compareKeys(last, key); {
			case order == 0:
				return 0, duplicateKey(key)
			case order > 0:
				c.canon = false
			}
		}
		last = key
		if i = c.space(end); i >= len(c.data) {
			return 0, errEnd
		}
		if c.data[i] != ':' {
			return 0, errSyntax
		}
		if i, err = c.value(c.space(i+1), depth); err != nil {
			return 0, err
		}
		if i = c.space(i); i >= len(c.data) {
			return 0, errEnd
		}
		switch c.data[i] {
		case '}':
			return i + 1, nil
		case ',':
			i = c.space(i + 1)
		default:
			return 0, errSyntax
		}
	}
}

func (c *checker) array(i, depth int) (int, error) {
	i = c.space(i + 1)
	if i < len(c.data) && c.data[i] == ']' {
		return i + 1, nil
	}
	for {
		var err error
		if i, err = c.value(i, depth); err != nil {
			return 0, err
		}
		if i = c.space(i); i >= len(c.data) {
			return 0, errEnd
		}
		switch c.data[i] {
		case ']':
			return i + 1, nil
		case ',':
			i = c.space(i + 1)
		default:
			return 0, errSyntax
		}
	}
}

// plain marks the bytes that stand for themselves inside a JSON string.
var plain = func() (t [256]bool) {
	for b := 0x20; b < utf8.RuneSelf; b++ {
		t[b] = b != '"' && b != '\\'
	}
	return t
}()

// text checks the string that starts at i and returns where it ends.
func (c *checker) text(i int) (int, error) {
	d := c.data
	for i++; i < len(d); {
		b := d[i]
		switch {
		case plain[b]:
			i++
		case b == '"':
			return i + 1, nil
		case b == '\\':
			n, _, canonical := unescape(d[i:])
			if n == 0 {
				return 0, &FormatError{What: "bad escape or lone surrogate in a JSON string"}
			}
			c.canon = c.canon && canonical
			i += n
		case b < 0x20:
			return 0, &FormatError{What: "control character in a JSON string"}
		default:
			r, n := utf8.DecodeRune(d[i:])
			if r == utf8.RuneError && n == 1 {
				return 0, &FormatError{What: "invalid UTF-8"}
			}
			i += n
		}
	}
	return 0, errEnd
}

// unescape reads the escape that d starts with: its length (0: not a valid
// one), the character it stands for, and whether that is how canonical JSON
// writes the character.
func unescape(d []byte) (n int, r rune, canonical bool) {
	if len(d) < 2 {
		return 0, 0, false
	}
	switch d[1] {
	case '"', '\\':
		return 2, rune(d[1]), true
	case 'b':
		return 2, '\b', true
	case 't':
		return 2, '\t', true
	case 'n':
		return 2, '\n', true
	case 'f':
		return 2, '\f', true
	case 'r':
		return 2, '\r', true
	case '/':
		return 2, '/', false
	case 'u':
	default:
		return 0, 0, false
	}
	r, ok := hex4(d)
	if !ok || r >= 0xDC00 && r <= 0xDFFF {
		return 0, 0, false
	}
	if r >= 0xD800 && r < 0xDC00 {
		low, ok := hex4(d[6:])
		if !ok || low < 0xDC00 || low > 0xDFFF {
			return 0, 0, false
		}
		return 12, (r-0xD800)<<10 + (low - 0xDC00) + 0x10000, false
	}
	return 6, r, r < 0x20 && !hasShortEscape(r) && !bytes.ContainsAny(d[2:6], "ABCDEF")
}

func hasShortEscape(r rune) bool {
	return r == '\b' || r == '\t' || r == '\n' || r == '\f' || r == '\r'
}

// hex4 reads "\uXXXX" at the start of d.
func hex4(d []byte) (r rune, ok bool) {
	if len(d) < 6 || d[0] != '\\' || d[1] != 'u' {
		return 0, false
	}
	for _, b := range d[2:6] {
		switch {
		case b >= '0' && b <= '9':
			b -= '0'
		case b >= 'a' && b <= 'f':
			b -= 'a' - 10
		case b >= 'A' && b <= 'F':
			b -= 'A' - 10
		default:
			return 0, false
		}
		r = r<<4 | rune(b)
	}
	return r, true
}

// compareKeys orders the insides of two valid JSON strings by the code points
// they stand for, however they are escaped.
// spec: appendices#canonical-json
func compareKeys(a, b []byte) int {
	if bytes.IndexByte(a, '\\') < 0 && bytes.IndexByte(b, '\\') < 0 {
		return bytes.Compare(a, b) // UTF-8 sorts as its code points do
	}
	for len(a) > 0 && len(b) > 0 {
		ra, na := nextRune(a)
		rb, nb := nextRune(b)
		if ra != rb {
			return cmp.Compare(ra, rb)
		}
		a, b = a[na:], b[nb:]
	}
	return cmp.Compare(len(a), len(b))
}

// nextRune decodes the first character inside a valid JSON string.
func nextRune(s []byte) (rune, int) {
	if s[0] == '\\' {
		n, r, _ := unescape(s)
		return r, n
	}
	return utf8.DecodeRune(s)
}

func duplicateKey(key []byte) error {
	return &FormatError{What: "duplicate key " + clip(string(key))}
}

// clip quotes s for an error text, shortened.
func clip(s string) string {
	const most = 64
	if len(s) > most {
		s = s[:most] + "…"
	}
	return `"` + strings.ToValidUTF8(s, "\uFFFD") + `"`
}
