package transport

import (
	"errors"
	"fmt"
	"strings"

	"github.com/teahouse-chat/teahouse/internal/matrix"
)

const (
	scheme    = "X-Matrix"
	maxHeader = 4096
	maxParams = 32
)

// Header is an Authorization header of the scheme X-Matrix.
type Header struct {
	Origin, Destination matrix.ServerName
	Key                 string // "ed25519:" and a version
	Signature           string // unpadded base64
}

// String writes the header as old servers understand it: nothing of it needs a
// backslash.
// spec: server-server#request-authentication
func (h Header) String() string {
	return fmt.Sprintf(`%s origin="%s",destination="%s",key="%s",sig="%s"`, scheme, h.Origin, h.Destination, h.Key, h.Signature)
}

// isXMatrix tells whether a header is of the scheme, well-formed or not.
func isXMatrix(text string) bool {
	return len(text) >= len(scheme) && strings.EqualFold(text[:len(scheme)], scheme) &&
		(len(text) == len(scheme) || text[len(scheme)] == ' ' || text[len(scheme)] == '\t')
}

// ParseHeader reads an Authorization header of the scheme X-Matrix. All four
// parameters must be there, once.
// spec: server-server#request-authentication
func ParseHeader(text string) (Header, error) {
	if len(text) > maxHeader {
		return Header{}, errors.New("the header is too long")
	}
	if !isXMatrix(text) {
		return Header{}, errors.New("the scheme is not X-Matrix")
	}
	params, err := parseParams(text[len(scheme):])
	if err != nil {
		return Header{}, err
	}
	h := Header{
		Origin: matrix.ServerName(params["origin"]), Destination: matrix.ServerName(params["destination"]),
		Key: params["key"], Signature: params["sig"],
	}
	for _, name := range []string{"origin", "destination", "key", "sig"} {
		if params[name] == "" {
			return Header{}, fmt.Errorf("the parameter %q is missing", name)
		}
	}
	for _, s := range []matrix.ServerName{h.Origin, h.Destination} {
		if _, err := matrix.ParseServerName(string(s)); err != nil {
			return Header{}, errors.New("origin and destination must be server names")
		}
	}
	if !isKeyID(h.Key) || !isBase64(h.Signature) {
		return Header{}, errors.New("the key or the signature is malformed")
	}
	return h, nil
}

func isKeyID(s string) bool {
	version, ok := strings.CutPrefix(s, "ed25519:")
	return ok && version != "" && !strings.ContainsFunc(version, func(r rune) bool { return !isAlnum(r) && r != '_' })
}

func isBase64(s string) bool {
	return !strings.ContainsFunc(strings.TrimRight(s, "="), func(r rune) bool { return !isAlnum(r) && r != '+' && r != '/' })
}

func isAlnum(r rune) bool {
	return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9'
}

var errGrammar = errors.New("the header is malformed")

// parseParams reads comma-separated name=value pairs. Names come in lower case;
// unknown ones are kept, double ones refused. Between commas there may be nothing.
func parseParams(s string) (map[string]string, error) {
	params := map[string]string{}
	for {
		s = skipBlank(s)
		if s == "" {
			return params, nil
		}
		if s[0] == ',' {
			s = s[1:]
			continue
		}
		name, rest := cutToken(s, isTokenChar)
		rest = skipBlank(rest)
		if name == "" || rest == "" || rest[0] != '=' {
			return nil, errGrammar
		}
		value, rest, err := parseValue(skipBlank(rest[1:]))
		if err != nil {
			return nil, err
		}
		name = strings.ToLower(name)
		if _, double := params[name]; double || len(params) == maxParams {
			return nil, errGrammar
		}
		params[name] = value
		s = skipBlank(rest)
		if s != "" && s[0] != ',' {
			return nil, errGrammar
		}
	}
}

// parseValue reads a token, with the colons that old servers leave in it, or a
// quoted string.
func parseValue(s string) (value, rest string, err error) {
	if s == "" || s[0] != '"' {
		value, rest = cutToken(s, func(c byte) bool { return isTokenChar(c) || c == ':' })
		if value == "" {
			return "", "", errGrammar
		}
		return value, rest, nil
	}
	var b strings.Builder
	for i := 1; i < len(s); i++ {
		switch c := s[i]; {
		case c == '"':
			return b.String(), s[i+1:], nil
		case c == '\\' && i+1 < len(s):
			i++
			c = s[i]
			fallthrough
		default:
			if c < ' ' && c != '\t' || c == 0x7f {
				return "", "", errGrammar
			}
			b.WriteByte(c)
		}
	}
	return "", "", errGrammar
}

func skipBlank(s string) string { return strings.TrimLeft(s, " \t") }

func cutToken(s string, ok func(byte) bool) (token, rest string) {
	i := 0
	for i < len(s) && ok(s[i]) {
		i++
	}
	return s[:i], s[i:]
}

func isTokenChar(c byte) bool {
	return isAlnum(rune(c)) || strings.IndexByte("!#$%&'*+-.^_`|~", c) >= 0
}
