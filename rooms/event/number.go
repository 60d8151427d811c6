package event

import "strconv"

// The range of integers in canonical JSON.
// spec: appendices#canonical-json
const (
	maxInteger     = 1<<53 - 1
	maxIntegerText = "9007199254740991"
)

// number checks the number that starts at i and returns where it ends.
//
// Where the room version enforces canonical JSON only integers within ±(2^53-1)
// pass. Older rooms hold floats and larger integers whose hashes were made over
// the text their sender wrote, so there a number keeps its text, except for the
// two forms that normaliseNumber rewrites.
func (c *checker) number(i int) (int, error) {
	end, integer := numberEnd(c.data, i)
	if end < 0 {
		return 0, errSyntax
	}
	text := c.data[i:end]
	if !c.strict {
		if _, changed := normaliseNumber(text); changed {
			c.canon = false
		}
		return end, nil
	}
	if !integer {
		return 0, &FormatError{What: "number " + clip(string(text)) + " is not an integer"}
	}
	digits := text
	if text[0] == '-' {
		if digits = text[1:]; digits[0] == '0' {
			return 0, &FormatError{What: "negative zero"}
		}
	}
	if n := len(digits); n > len(maxIntegerText) || n == len(maxIntegerText) && string(digits) > maxIntegerText {
		return 0, &FormatError{What: "integer " + clip(string(text)) + " is out of range"}
	}
	return end, nil
}

// numberEnd finds the end of the JSON number at i, or -1 if there is none, and
// whether it is written as an integer.
func numberEnd(d []byte, i int) (end int, integer bool) {
	digits := func() bool {
		start := i
		for i < len(d) && d[i] >= '0' && d[i] <= '9' {
			i++
		}
		return i > start
	}
	if i < len(d) && d[i] == '-' {
		i++
	}
	if i < len(d) && d[i] == '0' {
		if i++; i < len(d) && d[i] >= '0' && d[i] <= '9' {
			return -1, false
		}
	} else if !digits() {
		return -1, false
	}
	integer = true
	if i < len(d) && d[i] == '.' {
		i++
		if integer = false; !digits() {
			return -1, false
		}
	}
	if i < len(d) && (d[i] == 'e' || d[i] == 'E') {
		if i++; i < len(d) && (d[i] == '+' || d[i] == '-') {
			i++
		}
		if integer = false; !digits() {
			return -1, false
		}
	}
	return i, integer
}

// normaliseNumber gives the canonical form of a number in a room version that
// does not enforce canonical JSON: -0 is 0, and a whole mantissa with an exponent
// is written out if the value is in range (1e10 is 10000000000). Everything else
// keeps its text.
// spec: appendices#canonical-json
func normaliseNumber(text []byte) (value int64, changed bool) {
	if string(text) == "-0" {
		return 0, true
	}
	mantissa, i := int64(0), 0
	negative := text[0] == '-'
	if negative {
		i++
	}
	for ; i < len(text) && text[i] >= '0' && text[i] <= '9'; i++ {
		if mantissa = mantissa*10 + int64(text[i]-'0'); mantissa > maxInteger {
			return 0, false
		}
	}
	if i == len(text) || text[i] == '.' || text[i+1] == '-' {
		return 0, false
	}
	exponent, err := strconv.Atoi(string(text[i+1:]))
	if err != nil && mantissa != 0 {
		return 0, false
	}
	for ; exponent > 0 && mantissa != 0; exponent-- {
		if mantissa *= 10; mantissa > maxInteger {
			return 0, false
		}
	}
	if negative {
		mantissa = -mantissa
	}
	return mantissa, true
}
