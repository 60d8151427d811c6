package event

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// spec: appendices#canonical-json
func TestCanonicalVectors(t *testing.T) {
	for in, want := range map[string]string{
		`{}`:                                  `{}`,
		"{\n \"one\": 1,\n \"two\": \"Two\"}": `{"one":1,"two":"Two"}`,
		`{"b":"2","a":"1"}`:                   `{"a":"1","b":"2"}`,
		`{"auth":{"success":true,"mxid":"@john.doe:example.com","profile":{"display_name":"John Doe","three_pids":[{"medium":"email","address":"john.doe@example.org"},{"medium":"msisdn","address":"123456789"}]}}}`: `{"auth":{"mxid":"@john.doe:example.com","profile":{"display_name":"John Doe","three_pids":[{"address":"john.doe@example.org","medium":"email"},{"address":"123456789","medium":"msisdn"}]},"success":true}}`,
		`{"a":"日本語"}`:       `{"a":"日本語"}`,
		`{"本":2,"日":1}`:     `{"日":1,"本":2}`,
		`{"a":"\u65E5"}`:    `{"a":"日"}`,
		`{"a":null}`:        `{"a":null}`,
		`{"a":-0,"b":1e10}`: `{"a":0,"b":10000000000}`, // older room versions only
		`[[],[{"b":{"d":1,"c":[{"f":1,"e":2}]},"a":[]}]]`:           `[[],[{"a":[],"b":{"c":[{"e":2,"f":1}],"d":1}}]]`,
		`" \/\u0041\u00e9\ud83d\ude00\u0000\u001F\u000a\u007f\"\\"`: "\" /Aé😀\\u0000\\u001f\\n\u007f\\\"\\\\\"",
		// By code point: U+FF5E before U+1F600, though UTF-16 would have it after.
		"{\"\U0001F600\":1,\"\uFF5E\":2}": "{\"\uFF5E\":2,\"\U0001F600\":1}",
		// A control character sorts by what it is, not by its backslash.
		`{"A":1,"\u0001":2,"\"":3," ":4}`: `{"\u0001":2," ":4,"\"":3,"A":1}`,
		` 9007199254740991 `:              `9007199254740991`,
		`-9007199254740991`:               `-9007199254740991`,
		`{"a":1,"a\u0000":2,"":3}`:        `{"":3,"a":1,"a\u0000":2}`,
	} {
		got, err := canonicalise([]byte(in), false)
		if err != nil || string(got) != want {
			t.Errorf("%s gives %s (%v), want %s", in, got, err, want)
		}
		if done, err := check([]byte(want), false); err != nil || !done {
			t.Errorf("%s is not seen as canonical (%v)", want, err)
		}
	}
}

func TestCanonicalRefuses(t *testing.T) {
	deep := func(n int) string { return strings.Repeat("[", n) + strings.Repeat("]", n) }
	both := []string{
		``, ` `, `{`, `}`, `[1,]`, `{"a":1,}`, `{a:1}`, `{"a"}`, `{"a":}`, `{"a" 1}`, `[1 2]`, `tru`, `nul`, `truex`, `1 2`, `"`, `"\`, `{"a"`, `{"a":`, `{"a":1`, `{"a":1,`, `[1`, `[1,`, `[1}`, `{"a":1]`,
		`{"a":1,"a":2}`, `{"b":1,"a":1,"b":1}`, `{"a":1,"\u0061":2}`, `{"x":[{"b":1,"a":1,"b":2}]}`, `{"x":{"a":1,"a":1}}`,
		`{"b":0,"a":{"é":1,"\u00e9":2}}`,
		"\"\xff\"", "\"\xc0\x80\"", "\"\xed\xa0\x80\"", "{\"\xff\":1}", `"\ud800"`, `"\udc00"`, `"\ud800\ud800"`, `"\ud800A"`, `"\ud83dx"`,
		"\"\n\"", "\"\x00\"", `"\x"`, `"\u12"`, `"\u12g4"`, `'a'`, "\ufeff{}",
		`01`, `-`, `+1`, `.5`, `1.`, `1e`, `1e+`, `-01`, `0x1`, `NaN`, `Infinity`, `--1`,
		deep(maxNesting + 1), strings.Repeat(`{"a":`, 100_000), strings.Repeat(`[`, 1_000_000),
	}
	strict := []string{
		`-0`, `1.0`, `1e2`, `1E2`, `0.5`, `-0.0`, `9007199254740992`, `-9007199254740992`, `10000000000000000`, `[123456789012345678901234567890]`,
	}
	var format *FormatError
	for _, in := range append(both, strict...) {
		if got, err := Canonical([]byte(in)); !errors.As(err, &format) {
			t.Errorf("Canonical took %.60q as %.60s (%v)", in, got, err)
		}
	}
	for _, in := range both {
		if got, err := canonicalise([]byte(in), false); !errors.As(err, &format) {
			t.Errorf("lax canonicalise took %.60q as %.60s (%v)", in, got, err)
		}
	}
	if _, err := Canonical([]byte(deep(maxNesting))); err != nil {
		t.Errorf("nesting of %d refused: %v", maxNesting, err)
	}
}

// Old rooms keep the text of numbers, since their hashes cover it.
func TestOldRoomNumbers(t *testing.T) {
	for in, want := range map[string]string{
		`-0`: `0`, `1e10`: `10000000000`, `1E+2`: `100`, `-5e3`: `-5000`, `0e99999999999999999999`: `0`, `-0e5`: `0`,
		`0.5`: `0.5`, `-0.0`: `-0.0`, `1e16`: `1e16`, `1e-5`: `1e-5`, `1.50`: `1.50`, `10000000000.0`: `10000000000.0`,
		`123456789012345678901234567890`: `123456789012345678901234567890`, `1e99999999999999999999`: `1e99999999999999999999`,
		`9007199254740991e0`: `9007199254740991`, `9007199254740992e0`: `9007199254740992e0`, `1e+16`: `1e+16`,
	} {
		got, err := canonicalise([]byte(in), false)
		if err != nil || string(got) != want {
			t.Errorf("%s gives %s (%v), want %s", in, got, err, want)
		}
	}
}

func TestCanonicalCopiesOnlyWhenItMust(t *testing.T) {
	raw := []byte(`{"a":[1,{"b":"\n"}],"c":{}}`)
	got, err := Canonical(raw)
	if err != nil || &got[0] != &raw[0] {
		t.Errorf("canonical bytes were copied (%v)", err)
	}
}

// A wide or deeply nested disorder must cost linear time; quadratic work on this
// would take minutes.
func TestCanonicalIsLinear(t *testing.T) {
	var b bytes.Buffer
	b.WriteString(strings.Repeat(`{"b":0,"a":`, maxNesting-2))
	b.WriteString("{")
	for i := range 200_000 {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, `"%d":{}`, 1_000_000-i)
	}
	b.WriteString(strings.Repeat("}", maxNesting-1))
	got, err := Canonical(b.Bytes())
	if err != nil || len(got) != b.Len() {
		t.Fatalf("%d bytes became %d: %v", b.Len(), len(got), err)
	}
}

// anyJSON draws JSON values with awkward keys and strings.
func anyJSON() *rapid.Generator[any] {
	text := rapid.OneOf(
		rapid.String(),
		rapid.SampledFrom([]string{"", "a", "b", "\x00", "\x1f", "\"", "\\", "/", "\u007f", "\u2028", "<&>", "é", "\uFF5E", "\U0001F600", "\uFFFD"}),
	)
	scalar := rapid.OneOf(
		rapid.Map(text, func(s string) any { return s }),
		rapid.Map(rapid.Int64Range(-maxInteger, maxInteger), func(n int64) any { return n }),
		rapid.SampledFrom([]any{nil, true, false, 0, -1}),
	)
	var value func(depth int) *rapid.Generator[any]
	value = func(depth int) *rapid.Generator[any] {
		if depth == 0 {
			return scalar
		}
		inner := rapid.Deferred(func() *rapid.Generator[any] { return value(depth - 1) })
		return rapid.OneOf(scalar,
			rapid.Map(rapid.SliceOfN(inner, 0, 4), func(l []any) any { return l }),
			rapid.Map(rapid.MapOfN(text, inner, 0, 5), func(m map[string]any) any { return m }))
	}
	return value(3)
}

// encode writes JSON in a random disorder of members, whitespace and escapes.
func encode(t *rapid.T, dst []byte, v any) []byte {
	space := func() { dst = append(dst, rapid.SampledFrom([]string{"", "", "", " ", "\n\t"}).Draw(t, "space")...) }
	space()
	switch v := v.(type) {
	case map[string]any:
		dst = append(dst, '{')
		keys := rapid.Permutation(slices.Sorted(maps.Keys(v))).Draw(t, "order")
		for n, k := range keys {
			if n > 0 {
				dst = append(dst, ',')
			}
			dst = encode(t, dst, k)
			dst = append(dst, ':')
			dst = encode(t, dst, v[k])
		}
		dst = append(dst, '}')
	case []any:
		dst = append(dst, '[')
		for n, m := range v {
			if n > 0 {
				dst = append(dst, ',')
			}
			dst = encode(t, dst, m)
		}
		dst = append(dst, ']')
	default:
		plain, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		if s, ok := v.(string); ok && rapid.Bool().Draw(t, "ascii") {
			plain = []byte(asciiJSON(s))
		}
		dst = append(dst, plain...)
	}
	space()
	return dst
}

// asciiJSON escapes everything, as some clients do.
func asciiJSON(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range s {
		if r >= 0x10000 {
			r -= 0x10000
			fmt.Fprintf(&b, `\u%04x\u%04X`, 0xD800+r>>10, 0xDC00+r&0x3FF)
		} else {
			fmt.Fprintf(&b, `\u%04X`, r)
		}
	}
	b.WriteByte('"')
	return b.String()
}

func TestCanonicalAgainstEncodingJSON(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		v := anyJSON().Draw(t, "value")
		raw := encode(t, nil, v)
		got, err := Canonical(raw)
		if err != nil {
			t.Fatalf("%s: %v", raw, err)
		}
		// encoding/json sorts keys by bytes of UTF-8 too; it differs in three escapes.
		var b bytes.Buffer
		enc := json.NewEncoder(&b)
		enc.SetEscapeHTML(false)
		if err := enc.Encode(v); err != nil {
			t.Fatal(err)
		}
		want := strings.NewReplacer(`\\`, `\\`, `\u2028`, "\u2028", `\u2029`, "\u2029").Replace(strings.TrimSpace(b.String()))
		if string(got) != want {
			t.Fatalf("%s\n gives %s\n want  %s", raw, got, want)
		}
		again, err := Canonical(got)
		if err != nil || &again[0] != &got[0] {
			t.Fatalf("not idempotent: %s, %v", again, err)
		}
	})
}

func TestAppendStringAgainstCanonical(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := rapid.String().Draw(t, "s")
		want, err := Canonical([]byte(asciiJSON(s)))
		got := appendString(nil, s)
		if err != nil || string(got) != string(want) {
			t.Fatalf("%q gives %s, want %s (%v)", s, got, want, err)
		}
		if back, ok := textOf(got); !ok || back != s {
			t.Fatalf("%s reads back as %q", got, back)
		}
	})
}
