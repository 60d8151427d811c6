package feed

import (
	"bytes"
	"mime"
	"regexp"
	"strings"
	"unicode/utf8"

	"golang.org/x/net/html/charset"
	"golang.org/x/text/encoding"
	"golang.org/x/text/encoding/unicode"
)

var (
	declaration = regexp.MustCompile(`^\s*<\?xml[^>]*\?>`)
	declared    = regexp.MustCompile(`encoding\s*=\s*["']([A-Za-z0-9._:-]+)["']`)
)

// utf8Text decodes a document by, in this order, its byte order mark, its own XML
// declaration, the charset of its content type, and, if it is no UTF-8, windows-1252
// as browsers do. The result has no declaration, so that nobody decodes it again,
// and no characters that XML forbids.
func utf8Text(text []byte, contentType string) []byte {
	if e := encodingOf(text, contentType); e != nil {
		if decoded, err := e.NewDecoder().Bytes(text); err == nil {
			text = decoded
		}
	}
	text = bytes.TrimPrefix(text, []byte("\ufeff"))
	text = declaration.ReplaceAll(text, nil)
	return bytes.Map(func(r rune) rune {
		if r < ' ' && r != '\t' && r != '\n' && r != '\r' || r == 0xfffe || r == 0xffff {
			return -1
		}
		return r
	}, bytes.ToValidUTF8(text, []byte("\ufffd")))
}

// encodingOf is nil for UTF-8.
func encodingOf(text []byte, contentType string) encoding.Encoding {
	switch {
	case bytes.HasPrefix(text, []byte("\xef\xbb\xbf")):
		return nil
	case bytes.HasPrefix(text, []byte("\xfe\xff")), bytes.HasPrefix(text, []byte("\x00<\x00?")):
		return unicode.UTF16(unicode.BigEndian, unicode.UseBOM)
	case bytes.HasPrefix(text, []byte("\xff\xfe")), bytes.HasPrefix(text, []byte("<\x00?\x00")):
		return unicode.UTF16(unicode.LittleEndian, unicode.UseBOM)
	}
	label := ""
	if d := declaration.Find(text[:min(len(text), 1024)]); d != nil {
		if m := declared.FindSubmatch(d); m != nil {
			label = string(m[1])
		}
	}
	if label == "" {
		if _, params, err := mime.ParseMediaType(contentType); err == nil {
			label = params["charset"]
		}
	}
	// A declaration that was copied from elsewhere is wrong where the text is UTF-8
	// all the same; no other encoding looks like it by chance.
	if label == "" || strings.HasPrefix(strings.ToLower(label), "utf-16") || utf8.Valid(text) && !ascii(text) {
		label = "utf-8"
	}
	e, name := charset.Lookup(label)
	if e == nil || name == "utf-8" {
		if utf8.Valid(text) {
			return nil
		}
		e, _ = charset.Lookup("windows-1252")
	}
	return e
}

func ascii(text []byte) bool {
	for _, b := range text {
		if b >= utf8.RuneSelf {
			return false
		}
	}
	return true
}
