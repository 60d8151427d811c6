package httpx

import (
	"net/url"
	"strings"
	"unicode/utf8"

	"github.com/teahouse-chat/teahouse/internal/matrix"
)

// eachQuery walks a query string in order. Unlike url.ParseQuery it builds no
// map and refuses what is not text.
func eachQuery(query string, f func(name, value string) error) error {
	for query != "" {
		var pair string
		pair, query, _ = strings.Cut(query, "&")
		if pair == "" {
			continue
		}
		rawName, rawValue, _ := strings.Cut(pair, "=")
		name, err := unescapeQuery(rawName)
		if err != nil {
			return matrix.InvalidParam("a name in the query is not valid percent-encoded text")
		}
		value, err := unescapeQuery(rawValue)
		if err != nil {
			return matrix.InvalidParam("%q in the query is not valid percent-encoded text", name)
		}
		if err := f(name, value); err != nil {
			return err
		}
	}
	return nil
}

func unescapeQuery(s string) (string, error) {
	var err error
	if strings.ContainsAny(s, "%+") {
		if s, err = url.QueryUnescape(s); err != nil {
			return "", err
		}
	}
	if !isText(s) {
		return "", url.EscapeError(s)
	}
	return s, nil
}

// queryValue returns the first value of name in a query string; "" if there is
// none or the query is broken before it.
func queryValue(query, name string) string {
	if !strings.Contains(query, name) {
		return ""
	}
	found := ""
	_ = eachQuery(query, func(n, v string) error {
		if found == "" && n == name {
			found = v
		}
		return nil
	})
	return found
}

// isText tells whether s is UTF-8 without NUL.
func isText(s string) bool { return utf8.ValidString(s) && strings.IndexByte(s, 0) < 0 }
